"""Connections of psycopg's that do not wait for ever for a server which has stopped without closing them."""

from __future__ import annotations

import typing as t
from collections.abc import Generator

import psycopg

from ... import clock

if t.TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

#: Seconds more than the server has, which bounds the statement itself.
_MARGIN: t.Final = 0.2


class _LateError(Exception):
    """No answer came in time."""


class BoundedConnection(psycopg.Connection[t.Any]):
    """A connection that is closed when a statement takes too long."""

    #: Seconds.
    bound: float | None = None

    def wait(self, gen: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Wait for the end of an exchange with the server."""
        if self.bound is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_until(gen, clock.monotonic() + self.bound), *args, **kwargs)
        except _LateError:
            self.close()
            raise psycopg.OperationalError("the server did not answer in time") from None


def _until(exchange: Generator[t.Any, t.Any, t.Any], deadline: float) -> Generator[t.Any, t.Any, t.Any]:
    """Pass on what psycopg wants to wait for, and what it is told of that: nothing now and then."""
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            if not ready and clock.monotonic() > deadline:
                raise _LateError
            wanted = exchange.send(ready)
    except StopIteration as end:
        return end.value


def connect_bounded(timeout: float, *args: t.Any, **kwargs: t.Any) -> DBAPIConnection:
    """Connect as :func:`psycopg.connect` does.

    :param timeout: seconds that the server has for a statement.
    """
    connection = BoundedConnection.connect(*args, **kwargs)
    connection.bound = timeout + _MARGIN
    return t.cast("DBAPIConnection", connection)
