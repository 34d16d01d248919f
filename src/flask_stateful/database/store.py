"""The store in an application's own database: what ``store="db"`` names, and where rows of users are kept."""

from __future__ import annotations

import typing as t

from flask import current_app, has_app_context

from ..stores.sql import SQLStore
from .adapter import DEFAULT
from .turns import give_way

if t.TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import Engine

    from .database import Database


def store_in(database: Database, app: Flask, timeout: float) -> SQLStore:
    """Return a store in the default bind of an application's database.

    The engine is looked for at first use, since the extension that has it may be set up after us. The table is made
    by the store itself only in debug and testing.

    :param timeout: seconds that a call may take.
    """

    def engine() -> Engine:
        if has_app_context() and current_app == app:
            return database.engines()[DEFAULT]
        with app.app_context():
            return database.engines()[DEFAULT]

    def may_create() -> bool:
        return app.debug or app.testing

    return SQLStore(
        engine, timeout=timeout, create_table=may_create, give_way=lambda writes: give_way(engine(), writes=writes)
    )
