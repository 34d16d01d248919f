"""Payments that are kept once each, with everything that belongs to them, whatever races or is killed."""

from __future__ import annotations

import threading
import typing as t

import pytest
from flask import session

from .conftest import MakeSite, Note, Site

WORKERS, EACH = 4, 25

#: The row that counts; no sequence gets there.
COUNTER = 1_000_000


def payments(make_site: MakeSite, server: str) -> tuple[Site, list[str]]:
    """Return a shop that counts payments in a row, in the session, and after the commit."""
    site = make_site("sessionmaker", server, store="db")
    sent: list[str] = []
    with site.app.app_context():
        site.state.database.tune_sqlite(site.state.database.engines()["default"])
        site.run(lambda db: (db.add(Note(id=COUNTER, n=0)), db.commit()))

    @site.app.post("/pay")
    @site.state.atomic(retry=3, isolation=None if server == "sqlite" else "SERIALIZABLE")
    def pay() -> str:
        db = site.state.database.session
        row = db.get_one(Note, COUNTER)
        row.n += 1
        session["paid"] = session.get("paid", 0) + 1
        db.add(Note(text="payment"))
        site.state.on_commit(lambda: sent.append("mail"))
        return "paid"

    @site.app.get("/paid")
    def paid() -> dict[str, int]:
        return {"paid": session["paid"]}

    @site.app.get("/begin")
    def begin() -> str:
        session["paid"] = 0
        return ""

    return site, sent


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mariadb"])
def test_every_payment_is_kept_once(make_site: MakeSite, server: str) -> None:
    """Of 4 x 25 payments on one session and one row, each is answered 200 and counted once, everywhere."""
    site, sent = payments(make_site, server)
    client = site.app.test_client()
    client.get("/begin")
    cookie = t.cast("t.Any", client.get_cookie("session")).value
    statuses: list[int] = []

    def work() -> None:
        own = site.app.test_client()
        own.set_cookie("session", cookie)
        for _ in range(EACH):
            statuses.append(own.post("/pay").status_code)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = WORKERS * EACH
    assert statuses == [200] * total
    assert client.get("/paid").json == {"paid": total}
    with site.app.app_context():
        assert site.run(lambda db: db.get_one(Note, COUNTER).n) == total
    assert site.count() == total + 1
    assert sent == ["mail"] * total
