"""Databases of the tests' servers, as a test finds them."""

from __future__ import annotations

import sqlalchemy

from flask_stateful.stores.sql.tables import VALUES, create_tables


def emptied(url: str) -> str:
    """Return the URL of a database in which our table of values is there, and empty."""
    engine = sqlalchemy.create_engine(url)
    create_tables(engine, [VALUES])
    with engine.begin() as connection:
        connection.execute(VALUES.delete())
    engine.dispose()
    return url
