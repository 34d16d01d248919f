"""Payments that are kept once each, with everything that belongs to them, whatever races or is killed."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import session
from sqlalchemy.orm import Session

from flask_stateful.stores.sql import METADATA
from tests.demo.visitor import Shop, Visitor
from tests.services import Launch

from .conftest import Base, MakeSite, Note, Site
from .paying import COUNTER

WORKERS, EACH = 4, 25

#: After so many payments a worker is killed.
_KILL_EVERY = 12


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
        row = db.get(Note, COUNTER)
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
        assert site.run(lambda db: db.get(Note, COUNTER).n) == total
    assert site.count() == total + 1
    assert sent == ["mail"] * total


class Served(Shop):
    """gunicorn with the shop of :mod:`tests.database.paying`, in :data:`WORKERS` processes."""

    def arguments(self) -> list[str]:
        serving = ["--chdir", str(Path(__file__).parents[2]), "--bind", f"127.0.0.1:{self.port}"]
        return [*serving, "--workers", str(WORKERS), "--no-control-socket"]

    @property
    def mails(self) -> int:
        """How many payments were told of."""
        path = self.folder / "mails"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def answers(self) -> bool:
        assert self.process is not None
        is_ours = f"Listening at: {self.url} ({self.process.pid})" in self.log
        return is_ours and Visitor(self.port).get("/begin").status == 200


@pytest.fixture
def served(launch: Launch, new_database: Callable[[str], sa.URL]) -> Served:
    """The shop, served, on PostgreSQL."""
    url = new_database("postgres")
    engine = sa.create_engine(url)
    for metadata in (Base.metadata, METADATA):
        metadata.create_all(engine)
    with Session(engine) as db:
        db.add(Note(id=COUNTER, n=0))
        db.commit()
    engine.dispose()
    address = url.render_as_string(hide_password=False)
    return launch(Served, f"tests.database.paying:create_app({address!r}, '{{folder}}/mails')")


class Paid(t.NamedTuple):
    """What became of payments."""

    #: The ids of those that were answered 200.
    answered: list[str]
    #: Those that were answered otherwise.
    refused: list[str]
    #: Those that got no answer.
    cut: list[str]
    #: The browser that has paid.
    browser: Visitor

    def found(self) -> dict[str, t.Any]:
        """Return what was kept."""
        return t.cast("dict[str, t.Any]", json.loads(self.browser.get("/paid").text))


def pay(shop: Served, *, after_each: Callable[[int], None]) -> Paid:
    """Pay from several tabs of one browser at a time.

    :param after_each: called with how many payments have ended.
    """
    browser = Visitor(shop.port)
    browser.get("/begin")
    paid = Paid([], [], [], browser)
    ended = itertools.count(1)

    def work(number: int) -> None:
        tab = browser.twin()
        for n in range(EACH):
            payment = f"{number}-{n}"
            try:
                status = tab.post("/pay", id=payment).status
            except (OSError, http.client.HTTPException):
                paid.cut.append(payment)
            else:
                (paid.answered if status == 200 else paid.refused).append(payment)
            after_each(next(ended))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return paid


def test_four_processes_keep_every_payment_once(served: Served) -> None:
    """Of 4 x 25 payments each is answered 200 and counted once: in rows, row, session and what follows the commit."""
    paid = pay(served, after_each=lambda ended: None)
    total = WORKERS * EACH
    found = paid.found()
    assert len(paid.answered) == total, served.log
    assert sorted(found["ids"]) == sorted(paid.answered)
    assert (found["counter"], found["session"], served.mails) == (total, total, total)


def test_killed_workers_keep_payments_whole(served: Served) -> None:
    """While workers are killed, each answered payment has its row, and rows, counter and session agree."""
    killed: list[int] = []

    def after_each(ended: int) -> None:
        if ended % _KILL_EVERY == 0:
            killed.extend(served.kill_worker())

    paid = pay(served, after_each=after_each)
    found = paid.found()
    assert len(killed) >= 3
    assert set(paid.answered) <= set(found["ids"])
    assert not set(paid.refused) & set(found["ids"])
    assert len(found["ids"]) - len(paid.answered) <= len(paid.cut)
    assert len(found["ids"]) == len(set(found["ids"])) == found["counter"] == found["session"]
    assert served.mails <= len(found["ids"])
