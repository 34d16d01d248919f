"""Databases of the tests' servers, as a test finds them."""

from __future__ import annotations

import functools

import sqlalchemy
from sqlalchemy.pool import NullPool

from flask_stateful.stores.sql.tables import VALUES, create_tables


@functools.lru_cache(maxsize=8)
def _with_table(url: str) -> sqlalchemy.Engine:
    """Return an engine whose database has our table. It keeps no connection, which a forked process would end."""
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    create_tables(engine, [VALUES])
    return engine


def emptied(url: str) -> str:
    """Return the URL of a database in which our table of values is there, and empty."""
    with _with_table(url).begin() as connection:
        connection.execute(VALUES.delete())
    return url
