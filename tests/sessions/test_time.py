"""How long a session lasts, by whose clock, and what removes it when it is over (H25 to H28, H30; R8, R9)."""

from __future__ import annotations

import os
import threading
import time as system_time
import typing as t
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from flask import Flask, session

from flask_stateful import Stateful, signals
from flask_stateful.sessions.record import TOMBSTONE
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore
from flask_stateful.testing import FakeClock, FaultyStore

from .conftest import MakeApp, MakeVisitor
from .support import PATIENCE, Visitor, session_cookies, stored_key, together

DAY = 24 * 3600


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """One store after the other that follows the package's clock, as Redis does not."""
    kept = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "s.sqlite3", timeout=PATIENCE)
    yield kept
    kept.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a store with each of them."""
    if "store" in metafunc.fixturenames:
        metafunc.parametrize("store", ["memory", "sqlite"], indirect=True)


def listen(signal: t.Any, told: list[dict[str, t.Any]]) -> t.Any:
    """Note what a signal says, while a block lasts."""
    return signal.connected_to(lambda _, **details: told.append(details))


# H25, H28: idle and absolute


def test_r08_idle_timeout_is_kept_by_the_server(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """R8, H28: whatever the browser does with its cookie, a session that was not used for so long is over."""
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1800, PERMANENT_SESSION_LIFETIME=10 * DAY)
    ada = make_visitor(app)
    ada.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", True)))
    kept = make_visitor(app, cookies_of=ada)
    clock.advance(1799.9)
    assert ada.ask(lambda: dict(session)) == {"name": "Ada", "_permanent": True}
    clock.advance(1799.9)
    assert kept.ask(lambda: session["name"]) == "Ada"
    clock.advance(1800)
    for visitor in (ada, kept):
        assert visitor.ask(lambda: dict(session)) == {}


def test_r08_every_kind_of_use_renews(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store, state: Stateful
) -> None:
    """R8: reading, writing, rotating and looking at who it is are use; a request that does not look is none."""
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100)
    ada = make_visitor(app)
    ada.visit(lambda: session.update(name="Ada"))
    uses: list[Callable[[], object]] = [
        lambda: session.get("missing"),
        lambda: session.update(more=1),
        lambda: state.sessions.rotate(),
        lambda: state.user_id,
        lambda: state.sessions.current,
        lambda: state.sessions.login("ada"),
    ]
    for use in uses:
        clock.advance(90)
        ada.visit(use)
    assert ada.ask(lambda: session["name"]) == "Ada"
    for _ in range(2):
        clock.advance(50)
        ada.visit(lambda: "not looked at")
    assert ada.ask(lambda: dict(session)) == {}


def test_h28_failed_use_does_not_renew(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """H28: a response of 5xx saves nothing, the renewal included."""
    ada = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100))
    ada.visit(lambda: session.update(name="Ada"))
    clock.advance(60)
    ada.visit(lambda: session["name"] / 0)
    clock.advance(40)
    assert ada.ask(lambda: dict(session)) == {}


@pytest.mark.parametrize(
    ("idle", "lifetime", "used_until"),
    [(100, 1000, 990), (1000, 300, 270), (1000, 1000, 990), (50, 60, 45)],
    ids=["idle first", "absolute first", "both", "nearly both"],
)
def test_r09_absolute_lifetime_ends_whatever_is_used(
    clock: FakeClock,
    make_app: MakeApp,
    make_visitor: MakeVisitor,
    store: Store,
    state: Stateful,
    idle: int,
    lifetime: int,
    used_until: int,
) -> None:
    """R9, H28: neither use nor rotation keeps a session beyond its lifetime, and nothing ends it before."""
    ada = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=idle, STATEFUL_SESSION_LIFETIME=lifetime))
    ada.visit(lambda: session.update(name="Ada"))
    for second in range(45, used_until + 1, 45):
        clock.advance(45)
        assert ada.ask(lambda: (session["name"], state.sessions.rotate())) == ("Ada", None), second
    left = lifetime - used_until // 45 * 45
    assert 0 < left <= 55
    clock.advance(min(left, idle) - 1)
    assert ada.ask(lambda: session["name"]) == "Ada"
    clock.advance(max(left - idle, 0) + 1)
    assert ada.ask(lambda: dict(session)) == {}


def test_r09_login_begins_a_new_lifetime(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store, state: Stateful
) -> None:
    """R9: a login, unlike a rotation, begins the absolute lifetime anew."""
    ada = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000, STATEFUL_SESSION_LIFETIME=100))
    ada.visit(lambda: session.update(name="Ada"))
    clock.advance(90)
    ada.visit(lambda: state.sessions.login("ada"))
    clock.advance(90)
    assert ada.ask(lambda: (state.user_id, session["name"])) == ("ada", "Ada")
    clock.advance(10)
    assert ada.ask(lambda: state.user_id) is None


def test_r09_lifetime_is_fixed_when_the_session_begins(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """R9: an application that starts again with a longer lifetime does not prolong the sessions that there are."""
    short = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000, STATEFUL_SESSION_LIFETIME=100))
    short.visit(lambda: session.update(name="Ada"))
    longer = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000, STATEFUL_SESSION_LIFETIME=10_000)
    ada = make_visitor(longer, cookies_of=short)
    clock.advance(50)
    ada.visit(lambda: session.update(more=1))
    clock.advance(50)
    assert ada.ask(lambda: dict(session)) == {}


def test_shorter_idle_timeout_holds_at_once(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """R8: an application that starts again with a shorter idle timeout applies it to the sessions that there are."""
    before = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000))
    before.visit(lambda: session.update(name="Ada"))
    ada = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100), cookies_of=before)
    clock.advance(100)
    assert ada.ask(lambda: dict(session)) == {}


@pytest.mark.parametrize(
    "work",
    [lambda _: session.update(late=1), lambda _: None, lambda state: state.sessions.rotate()],
    ids=["writes", "reads", "rotates"],
)
@pytest.mark.parametrize("limit", ["idle", "absolute"])
def test_h25_session_that_ends_in_mid_request_is_not_revived(
    clock: FakeClock,
    make_app: MakeApp,
    make_visitor: MakeVisitor,
    store: Store,
    state: Stateful,
    work: Callable[[Stateful], object],
    limit: str,
) -> None:
    """H25, H28: a request that began in time and ends too late saves nothing, sends no cookie, and revives nothing."""
    times = {"IDLE_TIMEOUT": 100, "LIFETIME": 1000} if limit == "idle" else {"IDLE_TIMEOUT": 1000, "LIFETIME": 100}
    app = make_app(store, **{f"STATEFUL_SESSION_{name}": value for name, value in times.items()})
    ada = make_visitor(app)
    ada.visit(lambda: session.update(name="Ada"))
    clock.advance(99)
    late = ada.start(lambda pause: (session["name"], pause(), work(state)))
    clock.advance(2)
    response = late.finish()
    assert response.status_code == 200
    assert all("Max-Age=0" in header for header in session_cookies(response))
    assert ada.ask(lambda: dict(session)) == {}


def test_h28_absolute_limit_in_mid_request_ends_the_session_for_good(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """H28: where the store is late to forget, the request that outlasts the lifetime ends the session and says so."""
    ada = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000, STATEFUL_SESSION_LIFETIME=100))
    ada.visit(lambda: session.update(name="Ada"))
    key = stored_key(ada)
    clock.advance(99)
    late = ada.start(lambda pause: (session["name"], pause(), session.update(late=1)))
    store.touch(key, None)
    clock.advance(2)
    ended: list[dict[str, t.Any]] = []
    with listen(signals.session_destroyed, ended):
        response = late.finish()
    assert [details["reason"] for details in ended] == ["expired"]
    assert "Max-Age=0" in session_cookies(response)[0]
    assert store.get(key) == TOMBSTONE


def test_h25_expiry_is_reported_once(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, state: Stateful
) -> None:
    """H25: a session that is found to be over is reported once; if its store forgot it first, as an unknown id."""
    store = MemoryStore()
    ada = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100))
    ada.visit(lambda: session.update(name="Ada"))
    key = stored_key(ada)
    record = store.get(key)
    assert record
    clock.advance(100)
    store.set(key, record, 1000)
    ended: list[dict[str, t.Any]] = []
    unknown: list[dict[str, t.Any]] = []
    with listen(signals.session_destroyed, ended), listen(signals.session_id_invalid, unknown):
        assert ada.ask(lambda: dict(session)) == {}
        assert [details["reason"] for details in ended] == ["expired"]
        assert store.get(key) is None
        ada.ask(lambda: dict(session))
    assert len(ended) == 1
    assert unknown[-1] == {"reason": "unknown"}


def test_expired_record_that_the_store_still_serves_is_refused(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store, state: Stateful
) -> None:
    """R8: the header's own times count, whatever the store's ttl says: a lazy store serves no session that is over."""
    ada = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100))
    ada.visit(lambda: (session.update(name="Ada"), state.sessions.login("ada")))
    key = stored_key(ada)
    store.touch(key, None)
    clock.advance(100)
    assert ada.ask(lambda: (state.user_id, dict(session))) == (None, {})


# H26: clocks that differ


@pytest.mark.parametrize("ahead", [300, -300, 30, -30])
def test_h26_hosts_whose_clocks_differ_share_sessions(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, ahead: int
) -> None:
    """H26: between hosts whose clocks are five minutes apart nobody is logged out, and no session lives for ever."""
    store = MemoryStore()
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1800, STATEFUL_SESSION_LIFETIME=7200)
    began = clock.now()
    ada = make_visitor(app)
    ada.visit(lambda: session.update(visits=0))

    def on_other_host(view: Callable[[], t.Any]) -> t.Any:
        clock.set(clock.now() + ahead)
        try:
            return ada.ask(view)
        finally:
            clock.set(clock.now() - ahead)

    def count() -> int:
        session["visits"] += 1
        return t.cast("int", session["visits"])

    visits = 0
    while clock.now() < began + 7200 - 1000:
        for place in (ada.ask, on_other_host):
            visits += 1
            assert place(count) == visits
            clock.advance(400)
    clock.advance(1800 + 2 * abs(ahead))
    assert ada.ask(lambda: dict(session)) == {}
    assert on_other_host(lambda: dict(session)) == {}


def test_h26_clock_that_is_put_back_makes_no_session_immortal(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor
) -> None:
    """H26: a session of a time that turned out to be in the future ends with the store's ttl, which is relative."""
    store = MemoryStore()
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000, STATEFUL_SESSION_LIFETIME=2000)
    ada = make_visitor(app)
    now = clock.now()
    clock.set(now + 500)
    ada.visit(lambda: session.update(name="Ada"))
    clock.set(now)
    assert ada.ask(lambda: session["name"]) == "Ada"
    clock.advance(2500)
    assert ada.ask(lambda: dict(session)) == {}


# H27: lengths of time

LIFETIMES: list[t.Any] = [
    timedelta(seconds=0.5),
    timedelta(seconds=1),
    90,
    timedelta(days=31),
    timedelta(days=31, microseconds=1),
    timedelta(days=3650),
    timedelta.max,
]


@pytest.mark.parametrize("lifetime", LIFETIMES, ids=str)
def test_h27_every_lifetime_works(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, lifetime: t.Any, state: Stateful
) -> None:
    """H27: from half a second to for ever, a permanent session lives, and its cookie's date is a date."""
    ada = make_visitor(make_app("memory://", PERMANENT_SESSION_LIFETIME=lifetime))
    response = ada.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", True)))
    assert response.status_code == 200
    [header] = session_cookies(response)
    expires = parsedate_to_datetime(header.split("Expires=")[1].split(";")[0])
    now = datetime.fromtimestamp(clock.now(), UTC)
    assert now - timedelta(seconds=1) <= expires <= now + timedelta(days=36526)
    clock.advance(0.4)
    assert ada.ask(lambda: (session["name"], state.sessions.current is not None)) == ("Ada", True)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"])
@pytest.mark.parametrize(
    "moment", [datetime(2024, 3, 31, 0, 59, 59, tzinfo=UTC), datetime(2024, 10, 27, 0, 30, tzinfo=UTC)]
)
def test_h27_daylight_saving_changes_nothing(
    clock: FakeClock,
    make_app: MakeApp,
    make_visitor: MakeVisitor,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
    moment: datetime,
) -> None:
    """H27: wherever the server is, and while its clocks are put forward or back, an hour is an hour."""
    monkeypatch.setitem(os.environ, "TZ", zone)
    system_time.tzset()
    try:
        clock.set(moment)
        ada = make_visitor(make_app("memory://", PERMANENT_SESSION_LIFETIME=3600))
        response = ada.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", True)))
        [header] = session_cookies(response)
        expires = parsedate_to_datetime(header.split("Expires=")[1].split(";")[0])
        assert expires == (moment + timedelta(hours=1)).replace(microsecond=0)
        clock.advance(3599)
        assert ada.ask(lambda: session["name"]) == "Ada"
        clock.advance(3600)
        assert ada.ask(lambda: dict(session)) == {}
    finally:
        monkeypatch.undo()
        system_time.tzset()


def test_h27_times_are_aware(clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, state: Stateful) -> None:
    """H27: what is told about a session's times names the instant, in UTC."""
    clock.set(1_700_000_000.5)
    ada = make_visitor(make_app("memory://", STATEFUL_SESSION_IDLE_TIMEOUT=100, STATEFUL_SESSION_LIFETIME=150))
    ada.visit(lambda: session.update(name="Ada"))
    clock.advance(90)
    ada.visit(lambda: session["name"])
    info = ada.ask(lambda: state.sessions.current)
    began = datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert (info.created_at, info.last_seen_at) == (began, began + timedelta(seconds=90))
    assert info.expires_at == began + timedelta(seconds=150)
    assert all(moment.tzinfo is UTC for moment in (info.created_at, info.last_seen_at, info.expires_at))


# H30: cleaning up


def test_h30_cleaning_up_disturbs_nobody(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """H30: while thousands of expired sessions are removed, visitors read and write, and lose nothing."""
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100)
    for number in range(3000):
        store.set(f"tests:session:gone{number}", b"x" * 500, 100)
    clock.advance(3600)
    visitors = [make_visitor(app) for _ in range(3)]
    for visitor in visitors:
        visitor.visit(lambda: session.update(n=0))
    removed: list[int] = []
    begun, done = threading.Event(), threading.Event()

    def clean_up() -> None:
        begun.set()
        removed.append(store.purge_expired())
        done.set()

    def use(visitor: Visitor) -> int:
        begun.wait(PATIENCE)
        count = 0
        while not done.is_set() or count < 5:
            assert visitor.visit(lambda: session.update(n=session["n"] + 1)).status_code == 200
            count += 1
        return count

    counts = together(clean_up, *(lambda visitor=visitor: use(visitor) for visitor in visitors))[1:]
    assert removed[0] <= 3000
    assert [visitor.ask(lambda: session["n"]) for visitor in visitors] == counts
    store.purge_expired()
    assert len(list(store.scan("tests:session:"))) == 3


def test_h30_cleaning_up_leaves_what_lives(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """H30: `flask state purge` removes sessions that are over, an hour later at the latest, and no others."""
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100)
    over, alive = make_visitor(app), make_visitor(app)
    over.visit(lambda: session.update(name="over"))
    clock.advance(3600)
    alive.visit(lambda: session.update(name="alive"))
    result = app.test_cli_runner().invoke(args=["state", "purge"])
    # A write may have been quicker.
    assert result.output.splitlines()[0] in ("default: removed 1", "default: removed 0")
    assert list(store.scan("tests:")) == [stored_key(alive)]
    assert alive.ask(lambda: session["name"]) == "alive"


def test_renewal_is_bounded(clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """N2: of a hundred readings in one idle timeout, at most ten write."""
    store = FaultyStore(MemoryStore())
    app: Flask = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000)
    ada = make_visitor(app)
    ada.visit(lambda: session.update(name="Ada"))
    store.reset()
    for _ in range(100):
        clock.advance(10)
        assert ada.ask(lambda: session["name"]) == "Ada"
    assert store.calls["get"] == 100
    assert store.calls["swap"] == 10
    assert set(store.calls) == {"get", "swap"}
