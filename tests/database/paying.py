"""A shop that is paid, for a real server: one row, one session and a file count the payments."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from flask import Flask, request, session

from flask_stateful import Stateful

from .conftest import Note

#: The row that counts; no sequence gets there.
COUNTER = 1_000_000


def create_app(url: str, mails: str) -> Flask:
    """Return the shop.

    :param url: of a database that has all tables, and the row that counts.
    :param mails: the path of a file that gets a line for each payment.
    """
    app = Flask(__name__)
    app.config.update(SECRET_KEY="dev", STATEFUL_STORE_TIMEOUT=30)
    state = Stateful(app, db=url, store="db")

    def send() -> None:
        with Path(mails).open("a") as file:
            file.write("mail\n")

    @app.get("/begin")
    def begin() -> str:
        session["paid"] = 0
        return "begun"

    @app.post("/pay")
    @state.atomic(retry=3, isolation="SERIALIZABLE")
    def pay() -> str:
        db = state.database.session
        db.get(Note, COUNTER).n += 1
        session["paid"] += 1
        db.add(Note(text=request.form["id"]))
        state.on_commit(send)
        return "paid"

    @app.get("/paid")
    def paid() -> dict[str, object]:
        db = state.database.session
        ids = list(db.scalars(sa.select(Note.text).where(Note.id != COUNTER)))
        return {"ids": ids, "counter": db.get(Note, COUNTER).n, "session": session["paid"]}

    return app
