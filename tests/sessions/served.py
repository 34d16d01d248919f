"""The application that real worker processes serve. A request says by its path what it does, step by step::

/do/set:name=Ada/pause:here/show
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path

from flask import Flask, Response, session

from flask_stateful import Stateful
from flask_stateful.sessions import records
from tests.sessions.support import PATIENCE, Pause


def create_app(store: str, **config: t.Any) -> Flask:
    """Return an application for the tests.

    :param store: a URL; that of a database is the application's own as well.
    :param config: further settings.
    """
    # However slow the machine is, no test outlasts a tombstone.
    records.TOMBSTONE_TTL = PATIENCE * 10  # type: ignore[misc]
    app = Flask(__name__)
    app.config.update(SECRET_KEY="a secret of 32 characters at least", STATEFUL_NAMESPACE="tests")
    app.config.update({"STATEFUL_STORE_TIMEOUT": PATIENCE, **config})
    is_database = "sql+" in store or "mariadb+" in store
    state = Stateful(app, store="db", db=store) if is_database else Stateful(app, store=store)

    @app.get("/pids")
    def pids() -> dict[str, int]:
        return {"worker": os.getpid(), "parent": os.getppid()}

    @app.get("/do/<path:path>")
    def do(path: str) -> Response:
        with contextlib.ExitStack() as stack:
            steps = Steps(state, stack)
            for step in path.split("/"):
                name, _, argument = step.partition(":")
                getattr(steps, name)(argument)
            return app.json.response(steps.results)

    @app.get("/stream/<name>")
    def stream(name: str) -> Response:
        """Take the lock, give it back, and then stream a body whose second half waits."""
        with state.sessions.lock():
            session["streams"] = session.get("streams", 0) + 1

        def body() -> t.Iterator[str]:
            yield "first"
            Pause.here(Path(os.environ["PIPES"], name))
            yield "second"

        return Response(body())

    return app


class Steps:
    """What a request can do, each by its name."""

    def __init__(self, state: Stateful, stack: contextlib.ExitStack) -> None:
        self._sessions = state.sessions
        self._stack = stack
        self.results: list[t.Any] = []

    def show(self, _: str) -> None:
        self.results.append(dict(session))

    def user(self, _: str) -> None:
        self.results.append(self._sessions.user_id)

    def read(self, key: str) -> None:
        self.results.append(session.get(key))

    def set(self, item: str) -> None:
        key, _, value = item.partition("=")
        session[key] = value

    def count(self, key: str) -> None:
        session[key] = session.get(key, 0) + 1

    def append(self, item: str) -> None:
        key, _, value = item.partition("=")
        session.setdefault(key, []).append(value)

    def lock(self, _: str) -> None:
        """Take the lock and hold it until the last step."""
        self._stack.enter_context(self._sessions.lock())

    def login(self, user_id: str) -> None:
        self._sessions.login(user_id)

    def logout(self, _: str) -> None:
        self._sessions.logout()

    def rotate(self, _: str) -> None:
        self._sessions.rotate()

    def destroy(self, _: str) -> None:
        self._sessions.destroy()

    def clear(self, _: str) -> None:
        session.clear()

    def pause(self, name: str) -> None:
        Pause.here(Path(os.environ["PIPES"], name))

    def fail(self, _: str) -> None:
        raise RuntimeError("as the test wants")
