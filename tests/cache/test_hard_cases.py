"""Hard cases for a cache; more of them are in the tests of races, processes, views, keys and measured defects."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask, Response, make_response, request, send_file

from flask_stateful import Stateful
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock
from tests.services import Launch, Redis, Valkey

from .conftest import PATIENCE, MakeApp
from .players import ROOT
from .test_functions import Counted, memoized
from .test_races import Gate, ask, two_apps
from .test_views import Pages, is_hit

DAY = 86_400


@pytest.fixture
def pages() -> Pages:
    """An application with one cached page."""
    return Pages()


# Who computes


def test_after_a_tag_invalidation_one_computes(make_app: MakeApp, open_again: Callable[[], Store]) -> None:
    """Threads of two applications that ask after a tag was invalidated: one computes, and all wait for its value."""
    apps = two_apps(make_app, open_again)
    for app, state in apps:
        assert ask(app, state, lambda: "old", tags=["tag"], stale=60) == "old"
    with apps[0][0].app_context():
        apps[0][1].cache.invalidate_tags("tag")
    gate = Gate()
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(ask, app, state, gate, tags=["tag"], stale=60) for app, state in apps * 8]
        gate.wait()
        gate.open.set()
        assert {future.result(PATIENCE) for future in futures} == {1}
    assert gate.calls == 1


def test_hung_computation_holds_nobody_for_longer_than_a_lease(app: Flask, state: Stateful, clock: FakeClock) -> None:
    """A computation that hangs makes others wait ten seconds; then they compute for themselves."""
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(ask, app, state, gate)
        gate.wait()
        began = clock.monotonic()
        assert ask(app, state, lambda: "own") == "own"
        assert clock.monotonic() - began == pytest.approx(10, abs=1)
        gate.open.set()
        assert hung.result(PATIENCE) == 1


@pytest.mark.usefixtures("app")
def test_refresh_that_fails_leaves_the_old_value(state: Stateful) -> None:
    """refresh() of a function that raises: the caller gets the error, and others the old result as before."""
    counted = Counted()
    function = memoized(state, counted)
    assert function(1) == {"call": 1}
    counted.result = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        function.refresh(1)
    assert function(1) == {"call": 1}


# Stores in trouble


@pytest.mark.parametrize("kind", [Redis, Valkey])
@pytest.mark.parametrize("trouble", ["CONFIG SET maxmemory 1", "CONFIG SET min-replicas-to-write 1"])
def test_server_that_takes_nothing_more(
    make_app: MakeApp, state: Stateful, launch: Launch, clock: FakeClock, kind: type[Redis], trouble: str
) -> None:
    """W2: a server that is full, or refuses to write, is a miss that is counted; nobody waits."""
    server = launch(kind)
    store = open_store(server.url, timeout=PATIENCE)
    with make_app(state, store).app_context():
        function = memoized(state, Counted())
        assert server.ask(trouble).startswith(b"+OK")
        began = clock.monotonic()
        assert [function(1), function(1)] == [{"call": 1}, {"call": 2}]
        assert state.cache.stats["store_errors"] > 0
        assert clock.monotonic() == began
    store.close()


def test_value_that_is_too_large_is_returned(make_app: MakeApp, state: Stateful) -> None:
    """A value longer than the store takes is returned, not stored, counted, and keeps nobody waiting."""
    with FakeClock() as clock, make_app(state, MemoryStore(max_value_bytes=1000)).app_context():
        function = memoized(state, Counted("x" * 2000))
        began = clock.monotonic()
        assert function(1) == function(1) == "x" * 2000
        assert state.cache.stats["too_large"] == 2
        assert clock.monotonic() == began


# Clocks


@pytest.mark.parametrize("jump", [3600, -3600])
def test_wall_clock_that_jumps_changes_no_ttl(state: Stateful, make_app: MakeApp, jump: int) -> None:
    """An hour forward or back on the wall clock ends nothing that memory holds, and prolongs nothing there."""
    with FakeClock() as clock, make_app(state, MemoryStore()).app_context():
        function = memoized(state, Counted(), ttl=60)
        assert function(1) == function(1) == {"call": 1}
        clock.set(clock.now() + jump)
        clock.advance(58)
        assert function(1) == {"call": 1}
        clock.advance(3)
        assert state.cache.runtime.storage.recall(function.cache_key(1), "function()") is None


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("ttl", [30.5, 60, timedelta(days=60), 31 * DAY, 200 * 365 * DAY, None])
def test_any_positive_ttl_works(state: Stateful, ttl: t.Any) -> None:
    """Fractions, timedeltas, more than thirty days, beyond the year 2106, and for ever: one meaning on every store."""
    with FakeClock() as clock:
        state.cache.set("key", "value", ttl=ttl)
        clock.advance(0.25)
        assert state.cache.get("key") == "value"
        if ttl is not None and not state.cache.runtime.storage.store.remote:
            clock.advance(ttl)
            assert state.cache.get("key") is None


# What lies in the store


@pytest.mark.usefixtures("app")
def test_damage_of_any_kind_is_no_error(state: Stateful, store: Store) -> None:
    """However an entry is cut, or which byte of it has changed, nothing is raised; what was cut is a miss."""
    function = memoized(state, Counted({"list": [1.5, None, "text"], "tuple": (1, b"x")}))
    function(1)
    key = function.cache_key(1)
    whole = store.get(key)
    assert whole is not None
    layer = state.cache.runtime.storage.layer
    for length in range(len(whole)):
        store.set(key, whole[:length])
        layer.changed([key])
        assert function(1) == function(1) == {"list": [1.5, None, "text"], "tuple": (1, b"x")}
    for place in range(len(whole)):
        store.set(key, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        layer.changed([key])
        function(1)


@pytest.mark.usefixtures("app")
def test_entry_of_another_version_is_a_miss(state: Stateful, store: Store) -> None:
    """What another release of ours has written in a format of its own is computed anew, and neither side fails."""
    function = memoized(state, Counted())
    function(1)
    key = function.cache_key(1)
    entry = store.get(key)
    assert entry is not None
    for other in (b"\x02" + entry[1:], entry[:1] + b"z" + entry[2:]):
        store.set(key, other)
        state.cache.runtime.storage.layer.changed([key])
        before = function(1)["call"]
        assert function(1) == {"call": before}
        assert store.get(key) != other


def test_applications_share_no_keys(make_app: MakeApp, open_again: Callable[[], Store]) -> None:
    """Two applications on one store, each with a namespace: neither sees nor clears what is the other's."""
    states = {name: Stateful() for name in ("one", "two")}
    apps = {name: make_app(state, open_again(), STATEFUL_NAMESPACE=name) for name, state in states.items()}
    for name, app in apps.items():
        with app.app_context():
            assert states[name].cache.get_or_set("key", lambda name=name: name) == name
    with apps["one"].app_context():
        states["one"].cache.clear()
        states["one"].cache.delete("key")
    with apps["two"].app_context():
        assert states["two"].cache.get("key") == "two"


# Processes that fork

FORK = """
    import os, signal, sys, threading
    from flask import Flask
    from flask_stateful import Stateful

    app = Flask("shop")
    app.config.update(SECRET_KEY="a key for tests, long enough", STATEFUL_STORE_TIMEOUT=30)
    app.config["STATEFUL_STORE"] = {"default": "memory://", "cache": sys.argv[1]}
    state = Stateful(app)
    held, done = threading.Barrier(2), threading.Event()
    with app.app_context():
        cache = state.cache
        cache.set("key", "old")
        assert cache.get("key") == cache.get("key") == "old"
        engine, storage = cache.runtime.engine, cache.runtime.storage

    def hold():
        with engine._flights._lock, storage.layer.memory._lock, storage._owed_keys._lock, storage._owed_tags._lock:
            held.wait()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    with app.app_context():
        if child == 0:
            signal.alarm(60)  # should it hang, nobody else would end it
            assert cache.get("key") == "old"
            assert cache.get_or_set("other", lambda: "by the child") == "by the child"
            cache.set("key", "new")
            cache.invalidate_tags("tag")
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        done.set()
        thread.join()
        assert status == 0
        assert cache.get("key") == "new"
        assert cache.get_or_set("other", lambda: "by the parent") == "by the child"
"""


@pytest.mark.parametrize("where", ["sqlite", "redis"])
def test_fork_while_threads_hold_locks(request: pytest.FixtureRequest, tmp_path: Path, where: str) -> None:
    """A child that is forked while threads of its parent hold every lock goes on; both see what the other changes."""
    if where == "sqlite":
        url = f"sqlite:///{tmp_path / 'cache.sqlite3'}"
    else:
        server: Redis = request.getfixturevalue("launch")(Redis)
        url = server.url
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORK), url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_cache_that_serves_nothing_stale_starts_no_thread(make_app: MakeApp, state: Stateful) -> None:
    """Isolation: using the cache leaves no thread behind, unless something is refreshed outside of requests."""
    before = threading.enumerate()
    with make_app(state, MemoryStore()).app_context():
        memoized(state, Counted())(1)
        state.cache.clear()
    assert threading.enumerate() == before


# Pages


def test_forgotten_page_is_forgotten_in_all_its_variants(pages: Pages) -> None:
    """S2: forget() leaves no variant of a page behind, also where the answer's own Vary tells them apart."""

    def view() -> Response:
        response = make_response(f"{request.headers.get('Accept-Language')} {pages.made}")
        response.vary.add("Accept-Language")
        return response

    client = pages.page(view)

    def visit(lang: str) -> str:
        return client.get("/page", headers={"Accept-Language": lang}).text

    assert [visit(lang) for lang in ("de", "en", "de", "en")] == ["de 1", "en 2", "de 1", "en 2"]
    with pages.app.test_request_context("/page", headers={"Accept-Language": "de"}):
        pages.cached.forget()
    assert [visit(lang) for lang in ("de", "en", "de", "en")] == ["de 3", "en 4", "de 3", "en 4"]


def test_where_an_application_is_mounted_tells_pages_apart(pages: Pages) -> None:
    """SCRIPT_NAME is part of the key: two mounts of one application have pages of their own."""
    client = pages.page(lambda: request.root_path)
    for _ in range(2):
        for root in ("/one", "/two"):
            assert client.get("/page", environ_overrides={"SCRIPT_NAME": root}).text == root
    assert pages.made == 2


def test_part_of_a_page_is_not_stored(pages: Pages) -> None:
    """A request for a range passes by: its answer is not the page."""
    client = pages.page(lambda: make_response("body").make_conditional(request, accept_ranges=True, complete_length=4))
    client.get("/page", headers={"Range": "bytes=0-1"})
    assert client.get("/page").text == "body"
    client.get("/page", headers={"Range": "bytes=0-1"})
    assert client.get("/page").text == "body"


def test_options_are_not_the_page(pages: Pages) -> None:
    """OPTIONS is answered by Flask, before and after the page is stored."""
    client = pages.page(lambda: "body")
    for _ in range(2):
        assert client.options("/page").text == ""
        assert client.get("/page").text == "body"
    assert pages.made == 1


def test_visitors_cannot_pass_by_the_cache(pages: Pages) -> None:
    """What a request's own Cache-Control says makes nobody compute: that would be a cheap way to keep us busy."""
    client = pages.page(lambda: str(pages.made))
    client.get("/page")
    for control in ("no-cache", "no-store", "max-age=0"):
        assert is_hit(client.get("/page", headers={"Cache-Control": control, "Pragma": "no-cache"}))


def test_file_is_not_stored(pages: Pages) -> None:
    """send_file() passes through: neither the file nor a part of it is stored."""
    client = pages.page(lambda: send_file(io.BytesIO(b"file"), mimetype="text/plain"))
    for _ in range(2):
        response = client.get("/page")
        assert (response.text, is_hit(response)) == ("file", False)
        response.close()
