"""A process of its own that writes declared state: ``python writer.py STORE FIELD ROUNDS``."""

from __future__ import annotations

import sys

from flask import Flask

from flask_stateful import AppState, Stateful, UserState


class WrittenUser(UserState):
    """What is known of a user."""

    first: int = 0
    second: int = 0


class WrittenApp(AppState):
    """What is known of the application."""

    first: int = 0
    second: int = 0


def in_store(url: str) -> dict[str, str]:
    """Return the arguments of ``Stateful`` for durable state in a store, or in a database of the application's."""
    return {"store": url} if url.startswith("sqlite") else {"store": "memory://", "db": url}


def make_app(store: str) -> Flask:
    """Return an application whose declared state lies in a store, or in its database."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="x" * 32, STATEFUL_STORE_TIMEOUT=30)
    Stateful(app, declared=[WrittenUser, WrittenApp], **in_store(store))
    return app


def main(store: str, name: str, rounds: int) -> None:
    """Count up one field of a user and of the application, each time in an access of its own."""
    with make_app(store).app_context():
        print("ready", flush=True)
        sys.stdin.readline()
        for count in range(1, rounds + 1):
            setattr(WrittenUser.of(7), name, count)
            setattr(WrittenApp(), name, count)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
