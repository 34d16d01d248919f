"""The benchmarks run, count exactly what a request asks of its store, and judge rightly; no time is looked at."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import typing as t
from pathlib import Path
from xml.etree import ElementTree

import pytest
import redis

from benchmarks import (
    atomic,
    browser,
    cache,
    cache_memory,
    cache_near,
    cache_outage,
    cache_pages,
    cache_stampede,
    chart,
    codec,
    cookies,
    exact,
    gunicorn,
    sessions,
    sql_store,
)
from benchmarks.apps import CONTENDERS, PAYLOAD, Place
from benchmarks.cache_crowd import CALLERS, PROCESSES, Contender, meet
from benchmarks.cache_peers import PEERS, Calls, Peer, record, text
from benchmarks.counts import RoundTrips, count, counted_statements, renewals
from benchmarks.harness import Cell, Timings, measure
from benchmarks.load import load
from benchmarks.report import Gate, Panel, Table
from flask_stateful.serialization import dumps, loads, loads_items
from tests.services import Redis, Valkey

A, B, BASE = Cell("a", "read"), Cell("b", "read"), Cell("none", "read")

#: The peers warn of what they will drop.
peers = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def place(tmp_path: Path) -> t.Iterator[Place]:
    """A place without servers."""
    place = Place(tmp_path)
    with place.opened:
        yield place


@pytest.fixture
def place_with_servers(tmp_path: Path, redis_server: Redis, valkey: Valkey) -> t.Iterator[Place]:
    """A place with servers."""
    place = Place(tmp_path, redis_server.url, valkey.url)
    with place.opened:
        yield place


def counted(name: str, place: Place) -> dict[str, dict[str, int]]:
    """Return what one request of each kind asks of its store."""
    return {operation: dict(counted.events) for operation, counted in count(CONTENDERS[name], place).items()}


def test_store_calls(place: Place) -> None:
    """A request that leaves its session alone calls no store, one that reads calls it once, one that writes twice."""
    assert counted("memory", place) == {
        "new": {"add": 1},
        "untouched": {},
        "read": {"get": 1},
        "write": {"get": 1, "swap": 1},
    }


def test_sqlite_statements(place: Place) -> None:
    """On SQLite reading is one statement, and only a write commits."""
    assert counted("sqlite", place) == {
        "new": {"statements": 1, "commits": 1},
        "untouched": {},
        "read": {"statements": 1},
        "write": {"statements": 2, "commits": 1},
    }


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_round_trips(name: str, place_with_servers: Place) -> None:
    """Reading a session is one round trip, making one is one, changing one is two, and leaving it alone is none."""
    trips = counted(name, place_with_servers)
    assert {operation: events.get("round trips", 0) for operation, events in trips.items()} == {
        "new": 1,
        "untouched": 0,
        "read": 1,
        "write": 2,
    }


@pytest.mark.parametrize("name", [contender.name for contender in CONTENDERS.values() if contender.ours])
def test_untouched_sends_no_header(name: str, place_with_servers: Place) -> None:
    """An answer that has nothing to do with the session has neither Set-Cookie nor Vary."""
    headers = {operation: counted.headers for operation, counted in count(CONTENDERS[name], place_with_servers).items()}
    assert headers == {
        "new": {"Set-Cookie", "Vary"},
        "untouched": set(),
        "read": {"Vary"},
        "write": {"Vary"},
    }


@peers
def test_peers_are_counted_alike(place_with_servers: Place) -> None:
    """The same counters see what Flask-Session does: two round trips even for a page without a session."""
    pytest.importorskip("flask_session")
    trips = counted("fs-redis", place_with_servers)
    assert [trips[operation] for operation in ("untouched", "read", "write")] == [{"round trips": 2}] * 3


def test_renewals() -> None:
    """While one idle timeout passes, a session that is read all the time is written ten times."""
    assert renewals(100) == {"get": 100, "swap": 10}


def test_commands_that_travel_together(redis_server: Redis) -> None:
    """A pipeline is one round trip, as is a command in many parts, and each that waits for its answer is another."""
    with RoundTrips(redis_server.url) as proxy, contextlib.closing(redis.Redis.from_url(proxy.url)) as client:
        client.ping()
        proxy.events.clear()
        client.pipeline(transaction=False).get("a").get("b").execute()
        assert proxy.events["round trips"] == 1
        client.get("a")
        client.get("b")
        client.set("a", b"x" * 5_000_000)  # arrives in parts
        assert proxy.events["round trips"] == 4


def test_transactions_commit_once(tmp_path: Path) -> None:
    """Writes inside a transaction are one commit, writes by themselves one each, and reads none."""
    with (
        counted_statements() as events,
        contextlib.closing(sqlite3.connect(tmp_path / "file", isolation_level=None)) as connection,
    ):
        for statement in (
            *("CREATE TABLE a (b)", "INSERT INTO a VALUES (1)", "SELECT * FROM a"),
            *("BEGIN", "UPDATE a SET b = 2", "DELETE FROM a", "COMMIT"),
            *("BEGIN", "SELECT * FROM a", "COMMIT"),
            *("BEGIN", "INSERT INTO a VALUES (2)", "ROLLBACK"),
        ):
            connection.execute(statement)
    assert events == {"statements": 6, "commits": 2}


@peers
def test_sessions_part(place_with_servers: Place) -> None:
    """A run of one round measures every contender that is installed and keeps every gate that is a count."""
    rounds: list[None] = []
    part = sessions.run(place_with_servers, rounds=1, tick=lambda: rounds.append(None))
    installed = [contender.title for contender in CONTENDERS.values() if contender.installed]
    assert len(rounds) == 1
    assert [row[0] for row in part.tables[0].rows] == installed
    assert [gate.what for gate in part.gates if not gate.unit and not gate.passed] == []
    assert {gate.code for gate in part.gates} >= {"S1", "S4", "S5", "S6"}


def test_atomic_part(tmp_path: Path) -> None:
    """A run of one round changes the row in each way, loses no change, and judges both forms of a block."""
    part = atomic.run(tmp_path, rounds=1, tick=lambda: None)
    assert [gate.code for gate in part.gates] == ["S10", "S10"]
    assert len(part.tables[0].rows[0]) == 3


def test_browser_part() -> None:
    """A run of one round measures each page and message, and says nothing in the log."""
    part = browser.run(rounds=1, tick=lambda: None)
    assert {gate.code for gate in part.gates} == {"B1", "B2", "B3", "B4"}
    assert len(part.tables[0].rows) == 6


def test_codec_part() -> None:
    """Both ways to change one key of a large session come to the same session."""
    data = dumps(codec.LARGE)
    assert codec.read_one(data) == PAYLOAD["user_id"]
    assert loads(codec.write_one(data)) == loads(codec.write_all(data)) == codec.LARGE | {"user_id": "4712"}
    assert list(loads_items(codec.write_one(data))) == list(codec.LARGE)
    assert len(codec.run(rounds=1, tick=lambda: None).gates) == 2


def test_cookies_part() -> None:
    """Both cookies give back the value, are of about the same size, and are judged by one gate."""
    for make, read in cookies.contenders().values():
        assert read(make(cookies.VALUE)) == cookies.VALUE
        assert 190 < len(make(cookies.VALUE)) < 230
    assert [gate.code for gate in cookies.run(rounds=1, tick=lambda: None).gates] == ["K1"]


@peers
def test_cache_part(place_with_servers: Place) -> None:
    """A run of one round measures every cache that is installed, and compares ours with each."""
    part = cache.run(place_with_servers, rounds=1, tick=lambda: None)
    assert [row[0] for row in part.tables[0].rows] == [peer.title for peer in PEERS.values() if peer.installed]
    against = "time against functools.lru_cache (one object for all), function: text"
    assert f"sqlite, function: text: {against}" in {gate.what for gate in part.gates}


@pytest.mark.parametrize("broken", [{"text": text, "record": record}, {"get": lambda key: None}])
def test_broken_cache(broken: dict[str, t.Any], place: Place) -> None:
    """What does not keep its values is not measured."""
    with pytest.raises(RuntimeError, match="does not keep its value"):
        cache.working(Peer("broken", "broken", lambda place: Calls(broken)), place)


@peers
def test_pages_part(place_with_servers: Place) -> None:
    """A run of one round asks every application for its page, and counts what a server is asked."""
    part = cache_pages.run(place_with_servers, rounds=1, tick=lambda: None)
    assert [row[0] for row in part.tables[0].rows] == [page.title for page in cache_pages.pages().values()]
    assert {gate.code for gate in part.gates} == {"C4", "C6"}


@pytest.mark.parametrize("server", ["redis_server", "valkey"])
def test_cached_round_trips(server: str, request: pytest.FixtureRequest) -> None:
    """A value, several, a function's result and a page are one round trip each, when the process holds nothing."""
    trips = cache_pages.round_trips(request.getfixturevalue(server).url)
    assert [trips[operation] for operation in ("get", "get_many of 10", "memoize", "view")] == [1, 1, 1, 1]


def test_memory_part() -> None:
    """A run with small caches fills them, and the hit ratio, which is exact, is kept."""
    part = cache_memory.run(rounds=1, sizes=(10, 100), tick=lambda: None)
    assert [gate.passed for gate in part.gates if gate.unit == "%"] == [True]
    assert cache_memory.hit_ratio({}.get, lambda key: None) == 0


@pytest.mark.parametrize("name", ["sqlite", "redis"])
def test_stampede(name: str, place_with_servers: Place) -> None:
    """A crowd computes a value once when it is cold, and once when it has expired."""
    seen = meet(cache_stampede.CONTENDERS[name], place_with_servers, times=1, seconds=0.1)
    found = cache_stampede.figures(seen, 1, 0.1)
    assert (found["cold"], found["expired"]) == (1, 1)


def test_stampede_without_a_cache(place: Place) -> None:
    """Where nothing is cached, everybody computes, waits for that, and is counted."""
    seen = meet(Contender("none", lambda place, compute: compute), place, times=1, seconds=0.1)
    found = cache_stampede.figures(seen, 1, 0.1)
    assert (found["cold"], found["expired"], found["waited"]) == (PROCESSES * CALLERS,) * 3


def test_stampede_that_fails(place: Place) -> None:
    """What goes wrong in a process of the crowd ends the run with its error."""
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        meet(Contender("broken", lambda place, compute: lambda number: 1 / 0), place, times=1, seconds=0.1)


def test_seen_elsewhere(place: Place) -> None:
    """A process that holds a value in memory sees each that another writes."""
    seen = cache_near.seen_after(place, "seen.sqlite3", 3)
    assert seen is not None
    assert len(seen) == 3


def test_outage_part(redis_server: Redis) -> None:
    """With a server that is gone, and one that hangs, requests are answered; somebody waits for the one that hangs."""
    part = cache_outage.run(rounds=1, tick=lambda: None)
    hung = [gate.value for gate in part.gates if "hung" in gate.what and not gate.unit]
    assert len(part.tables) == 2
    assert all(waited >= 1 for waited in hung)


def test_broken_contender(place: Place) -> None:
    """An application that answers with an error is not measured."""
    broken = CONTENDERS["memory"].build(place)
    broken.view_functions["read"] = lambda: ("broken", 500)
    with pytest.raises(RuntimeError, match="500"):
        sessions.Visitor(broken).get("/read")


def test_served_under_load(place: Place) -> None:
    """Two workers of gunicorn answer every request of the load generator in Python."""
    with gunicorn.served(CONTENDERS["cookie"], place) as url:
        per_second, failed = load(f"{url}/untouched", ["visited=yes"], 0.2, 4)
    assert per_second > 0
    assert failed == 0


def test_turns_rotate() -> None:
    """Every round runs every block once and begins one block later than the round before."""
    turns: list[Cell] = []
    blocks = {cell: lambda cell=cell: turns.append(cell) or 1.0 for cell in (A, B, BASE)}
    measure(blocks, 4)
    assert turns == [A, B, BASE, B, BASE, A, BASE, A, B, A, B, BASE]


def test_ratios_stay_within_rounds() -> None:
    """Ratios are taken within a round, and their median is what counts: a slow round changes nothing."""
    timings = Timings([{A: 15, B: 30, BASE: 10}, {A: 150, B: 300, BASE: 100}, {A: 15, B: 30, BASE: 10}])
    assert timings.ratio(A, B) == 0.5
    assert timings.added_ratio(A, B, BASE) == 0.25
    assert (timings.median(A), timings.quiet(A), timings.added(A, BASE)) == (15, 15, 5)


def test_verdicts() -> None:
    """A gate is kept at its limit, and missed beyond it, in either direction."""
    most, least = Gate("X", "", 1.05, 1.05), Gate("X", "", 0.9, 0.9, at_least=True)
    assert most.passed
    assert least.passed
    assert not Gate("X", "", 1.06, 1.05).passed
    assert not Gate("X", "", 0.89, 0.9, at_least=True).passed


def test_table_is_markdown() -> None:
    """A table is printed as Markdown with a title, a head and a line for each row."""
    lines = str(Table("Title", ("", "µs"), [("one", "1"), ("two", "22")])).splitlines()
    assert lines == ["## Title", "", "|     | µs |", "| --- | -- |", "| one | 1  |", "| two | 22 |"]


def test_chart_is_drawn() -> None:
    """The chart is XML with a bar for each figure, whatever a label holds."""
    drawn = ElementTree.fromstring(
        chart.draw([Panel("a < b", ("read", "write"), [("one & two", (1, 2)), ("x", (3, 0))])])
    )
    bars = [rect for rect in drawn.iter("{http://www.w3.org/2000/svg}rect") if rect.get("height") == "10"]
    assert [round(float(bar.get("width", ""))) for bar in bars] == [163, 327, 490, 1]


def test_sql_store_is_compared_on_each_database(postgres: object, mariadb: object, tmp_path: Path) -> None:
    """A read by the store and one through SQLAlchemy Core are timed on three databases, with a gate for each."""
    part = sql_store.run(tmp_path, rounds=1, tick=lambda: None)
    names = ["SQLite", "PostgreSQL", "MariaDB"]
    assert [row[0] for row in part.tables[0].rows] == names
    assert [(gate.code, gate.limit, gate.what.partition(":")[0]) for gate in part.gates] == [
        ("S9", 1.3, name) for name in names
    ]


def test_exact_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Following, hits and commits are measured, and a short race on SQLite has no stale read and no error."""
    monkeypatch.setattr(exact, "LEVELS", {"SQLite": exact.LEVELS["SQLite"]})
    monkeypatch.setattr(exact, "_databases", lambda stack: {"SQLite": sqlite_in(stack)})
    part = exact.run(rounds=1, seconds=0.3, tick=lambda: None)
    assert {gate.code for gate in part.gates} == {"D1", "D2", "D3", "D4", "D5", "D6"}
    assert [gate.what for gate in part.gates if gate.code in ("D3", "D4", "D5") and not gate.passed] == []
    assert [row[1] for row in part.tables[-1].rows] == ["exact", "delete after commit"]


def sqlite_in(stack: contextlib.ExitStack) -> str:
    return f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/hit.sqlite3"
