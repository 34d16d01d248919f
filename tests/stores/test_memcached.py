"""What is particular to the store in Memcached, on real servers that are well."""

from __future__ import annotations

import contextlib
import math
import re
import socket
import struct
import subprocess
import sys
import typing as t
from collections.abc import Callable, Iterator
from datetime import timedelta

import pymemcache.serde
import pytest
from flask import Flask, session
from hypothesis import example, given
from hypothesis import strategies as st
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from flask_stateful import Stateful, clock
from flask_stateful.errors import ConfigError, StateConflict, StoreError, StoreUnavailable, ValueTooLarge
from flask_stateful.stores import open_store
from flask_stateful.stores.memcached import MemcachedStore
from flask_stateful.stores.memcached.entry import OVERHEAD, Entry, encode_key
from flask_stateful.stores.memcached.server import Server, change
from flask_stateful.testing import FakeClock
from tests.services import Launch, Memcached, free_port
from tests.stores.proxy import Proxy
from tests.stores.redis_topologies import eventually

#: Seconds; no test here is about being late.
PATIENT = 30

DAY = 86400

FOR_EVER, NOT_A_NUMBER = struct.pack(">d", math.inf), struct.pack(">d", math.nan)

#: Of a server that takes items of 512 KiB.
SMALL = ["-I", "512k"]


@pytest.fixture
def server(memcached: Memcached) -> Memcached:
    """Return the shared server, empty."""
    memcached.flush()
    return memcached


@pytest.fixture
def store(server: Memcached) -> Iterator[MemcachedStore]:
    """Return a store on it."""
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)) as store:
        yield store


@pytest.fixture
def watched(server: Memcached) -> Iterator[tuple[Proxy, MemcachedStore]]:
    """Return a store, and what stands between it and the server; the server has been asked for its limit."""
    with Proxy(server.port) as proxy:
        url = f"memcached://127.0.0.1:{proxy.port}"
        with contextlib.closing(MemcachedStore.from_url(url, timeout=PATIENT)) as store:
            store.set("a", b"1")
            proxy.reset()
            yield proxy, store


def seconds_left(server: Memcached, key: str) -> int:
    """Return how long the server itself will keep a key; -1 is for ever."""
    answer = server.ask(f"mg {key} t")
    assert answer.startswith(b"HD t"), answer
    return int(answer[4:])


# Keys


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_keys_are_legal_and_told_apart(one: str, other: str) -> None:
    """Any text becomes a key that the server takes, and two texts never the same one."""
    try:
        encoded = encode_key(one), encode_key(other)
    except UnicodeEncodeError:  # no key of ours
        return
    assert (encoded[0] == encoded[1]) == (one == other)
    for key in encoded:
        assert 1 <= len(key) <= 250
        assert all(33 <= byte <= 126 for byte in key)


@given(st.text(alphabet="%20 :a", min_size=1, max_size=6), st.text(alphabet="%20 :a", min_size=1, max_size=6))
@example("a%20", "a ")
@example("%25", "%")
def test_encoded_look_alikes_are_told_apart(one: str, other: str) -> None:
    """A key that looks like another one encoded, or hashed, is not that one."""
    assert (encode_key(one) == encode_key(other)) == (one == other)


def test_only_long_keys_are_hashed() -> None:
    """What fits is kept readable; what does not fit after encoding is hashed whole, and nothing else looks like it."""
    assert encode_key("shop:session:ab/c") == b"shop:session:ab/c"
    assert encode_key("a b%") == b"a%20b%25"
    assert encode_key("k" * 250) == b"k" * 250
    assert encode_key("k" * 251).startswith(b"%:")
    assert encode_key(" " * 83) == b"%20" * 83
    assert encode_key(" " * 84).startswith(b"%:")
    hashed = encode_key("k" * 251).decode()
    assert encode_key(hashed) != hashed.encode()


# Time


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (5e-324, 1),
        (0.001, 2),
        (0.5, 2),
        (1, 2),
        (1.001, 3),
        (60, 61),
        (30 * DAY - 1, 30 * DAY),
        (30 * DAY, "time"),
        (31 * DAY, "time"),
        (10 * 365 * DAY, "time"),
        (12 * 365 * DAY, 0),
        (2**63, 0),
        (1e300, 0),
        (None, 0),
    ],
)
def test_server_ttl(ttl: float | None, expected: int | str) -> None:
    """The server never drops a value early, nor keeps one for ever whose end it can be told."""
    with FakeClock(1_800_000_000) as fake:
        found = Entry.make(b"", ttl).server_ttl()
        assert found == (fake.now() + t.cast("float", ttl) + 1 if expected == "time" else expected)


def test_server_knows_what_a_ttl_means(server: Memcached, store: MemcachedStore) -> None:
    """The 30-day rule, seen from the server: a long ttl is neither taken for a date in 1970 nor for a shorter span."""
    for days in (1, 29, 30, 31, 365, 3650):
        store.set("a", b"1", timedelta(days=days))
        assert abs(seconds_left(server, "a") - days * DAY) <= 3
    for for_ever in (None, 2**40, math.inf):
        store.set("a", b"1", for_ever)
        assert seconds_left(server, "a") == -1
    assert store.touch("a", timedelta(days=40))
    assert abs(seconds_left(server, "a") - 40 * DAY) <= 3


def test_fraction_of_a_second_is_exact(server: Memcached, store: MemcachedStore) -> None:
    """A value is gone from the instant its ttl has passed; the server, which counts whole seconds, has it still."""
    with FakeClock() as fake:
        store.set("a", b"1", 0.5)
        fake.advance(0.499)
        assert store.get("a") == b"1"
        fake.advance(0.001)
        assert store.get("a") is None
    assert server.ask("get a").startswith(b"VALUE a 0 10\r\n")


def test_server_removes_what_has_expired(server: Memcached, store: MemcachedStore) -> None:
    """In real time the store gives a value out until its ttl is over, and the server drops it soon after."""
    written = clock.monotonic()
    store.set("a", b"1", 1.2)
    eventually(lambda: store.get("a") is None)
    assert clock.monotonic() - written >= 1.2
    eventually(lambda: server.ask("get a") == b"END\r\n")


def test_counter_keeps_its_exact_ttl(store: MemcachedStore) -> None:
    """Counting leaves the ttl as it is, to the fraction."""
    with FakeClock() as fake:
        store.incr("a", 1, 10.25)
        fake.advance(10)
        assert store.incr("a", 1, 1000) == 2
        fake.advance(0.249)
        assert store.get("a") == b"2"
        fake.advance(0.001)
        assert store.get("a") is None


# Values


@pytest.mark.parametrize(
    "foreign", [b"x", b"12345678", b"\x02" + FOR_EVER + b"value", b"\x01" + bytes(8) + b"value", b"\x01" + NOT_A_NUMBER]
)
def test_foreign_value_is_no_value(server: Memcached, store: MemcachedStore, foreign: bytes) -> None:
    """What another program wrote is not given out, and gives way to what is written."""
    with contextlib.closing(Client(server.address)) as client:
        for key in "abcd":
            client.set(key, foreign, noreply=False)
    assert store.get("a") is None
    assert store.get_many(["a", "b"]) == {}
    assert not store.swap("a", foreign, b"1")
    assert not store.touch("a", 60)
    assert store.add("b", b"1")
    assert store.incr("c") == 1
    store.set("d", b"1")
    assert store.get_many("abcd") == {"b": b"1", "c": b"1", "d": b"1"}


@pytest.mark.parametrize(("limit", "options"), [(2**19, SMALL), (2**20, []), (2**21, ["-I", "2m"])])
def test_limit_is_the_servers(launch: Launch, limit: int, options: list[str]) -> None:
    """What a server takes is asked for; the longest value fits, with the longest key, and one byte more does not."""
    server = launch(Memcached, *options)
    expected = limit - OVERHEAD
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)) as store:
        for key in ("a", "k" * 250, " " * 1024):
            store.set(key, b"x" * expected)
            assert store.get(key) == b"x" * expected
            for write in (store.set, store.add, lambda key, value: store.swap(key, b"x" * expected, value)):
                with pytest.raises(ValueTooLarge, match=f"exceeds the {expected:,} .* raise its -I"):
                    write(key, b"x" * (expected + 1))
            with pytest.raises(ValueTooLarge):
                store.set_many({"other": b"1", key: b"x" * (expected + 1)})
            assert store.get_many([key, "other"]) == {key: b"x" * expected}
        assert store.max_value_bytes == expected


def test_limit_is_asked_once(server: Memcached) -> None:
    """The first write asks the server for its limit, and no other does; reading never asks."""
    with Proxy(server.port) as proxy:
        store = MemcachedStore.from_url(f"memcached://127.0.0.1:{proxy.port}", timeout=PATIENT)
        store.get("a")
        assert (proxy.trips, proxy.said.count(b"stats settings")) == (1, 0)
        for _ in range(3):
            store.set("a", b"1")
        assert (proxy.trips, proxy.said.count(b"stats settings")) == (5, 1)
        store.close()


def test_limit_that_shrank_is_still_an_error(launch: Launch) -> None:
    """A server that came back with a lower limit refuses, and that is no silent loss; what was there before is gone."""
    large = launch(Memcached, "-I", "2m")
    store = MemcachedStore.from_url(large.url, timeout=PATIENT)
    store.set("a", b"x" * 2**20)
    large.options = tuple(SMALL)
    large.restart()
    store.set("a", b"small")
    with pytest.raises(ValueTooLarge, match="raise its -I"):
        store.set("a", b"x" * 2**20)
    assert store.get("a") != b"x" * 2**20
    store.close()


@pytest.mark.parametrize("count", [-(2**63), -1, 0, 2**63 - 1, 2**64 - 1, 2**64, 10**30])
def test_counters_of_any_size(store: MemcachedStore, count: int) -> None:
    """Counters are exact below zero and beyond 64 bits, where the server's own would stop or begin anew."""
    assert store.incr("a", count) == count
    assert store.incr("a", 1) == count + 1
    assert store.incr("a", -2) == count - 1
    assert store.get("a") == b"%d" % (count - 1)


# Round trips


TRIPS: dict[str, tuple[int, Callable[[MemcachedStore], object]]] = {
    "get": (1, lambda store: store.get("a")),
    "set": (1, lambda store: store.set("a", b"2", 60)),
    "delete": (1, lambda store: store.delete("a")),
    "add": (1, lambda store: store.add("new", b"1")),
    "add, refused": (2, lambda store: store.add("a", b"1")),
    "swap": (2, lambda store: store.swap("a", b"1", b"2")),
    "swap, refused": (1, lambda store: store.swap("a", b"0", b"2")),
    "touch": (2, lambda store: store.touch("a", 60)),
    "incr": (2, lambda store: store.incr("a")),
    "get_many": (1, lambda store: store.get_many([f"key:{number}" for number in range(1000)])),
    "set_many": (1, lambda store: store.set_many({f"key:{number}": b"1" for number in range(1000)})),
    "delete_many": (1, lambda store: store.delete_many([f"key:{number}" for number in range(1000)])),
    "none of many": (0, lambda store: (store.get_many([]), store.set_many({}), store.delete_many([]))),
}


@pytest.mark.parametrize("call", TRIPS)
def test_round_trips(watched: tuple[Proxy, MemcachedStore], call: str) -> None:
    """Each call is as few round trips as the protocol allows; a thousand keys go in one, or in a few large packets."""
    proxy, store = watched
    expected, work = TRIPS[call]
    work(store)
    assert proxy.trips == expected
    assert proxy.connections == 0


@pytest.mark.parametrize("link", ["own", "given"])
def test_every_write_is_confirmed(server: Memcached, link: str) -> None:
    """No command is sent without waiting for its answer, also with a client that by itself does not wait."""
    with Proxy(server.port) as proxy, contextlib.ExitStack() as stack:
        client = PooledClient(("127.0.0.1", proxy.port), timeout=PATIENT)
        assert client.default_noreply
        stack.enter_context(contextlib.closing(client))
        own = MemcachedStore.from_url(f"memcached://127.0.0.1:{proxy.port}", timeout=PATIENT)
        store = stack.enter_context(contextlib.closing(own)) if link == "own" else MemcachedStore(client)
        for _, work in TRIPS.values():
            store.set("a", b"1")
            work(store)
        assert b"noreply" not in proxy.said


def test_megabytes_go_in_several_packets(watched: tuple[Proxy, MemcachedStore]) -> None:
    """Many long values are written in packets of a mebibyte, so that no reply has to wait for all of them."""
    proxy, store = watched
    values = {f"key:{number}": bytes([number]) * 500_000 for number in range(8)}
    store.set_many(values)
    assert proxy.trips == 4
    assert store.get_many(values) == values


# At once


def test_swap_sees_through_a_rewrite(store: MemcachedStore, server: Memcached) -> None:
    """A value that somebody else touches between reading and writing is read again, and swapped if it is the same."""
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)) as other:
        seen: list[Entry | None] = []

        def decide(present: Entry | None) -> Entry:
            seen.append(present)
            if len(seen) < 3:
                other.touch("a", 60)
            return Entry.make(b"2", None)

        store.set("a", b"1")
        (only,) = store._servers.values()
        assert only.call(lambda connection: change(connection, b"a", decide))
        assert len(seen) == 3
        assert store.get("a") == b"2"


def test_deleted_meanwhile_stays_deleted(store: MemcachedStore, server: Memcached) -> None:
    """A value that somebody else deletes between reading and writing does not come back."""
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)) as other:

        def decide(present: Entry | None) -> Entry | None:
            other.delete("a")
            return present

        store.set("a", b"1")
        (only,) = store._servers.values()
        assert not only.call(lambda connection: change(connection, b"a", decide))
        assert store.get("a") is None


def test_endless_rewriting_is_a_conflict(store: MemcachedStore, server: Memcached) -> None:
    """Where others are faster each time the caller is told, instead of waiting for ever."""
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)) as other:

        def decide(present: Entry | None) -> Entry:
            other.set("a", b"theirs")
            return Entry.make(b"mine", None)

        store.set("a", b"1")
        (only,) = store._servers.values()
        with pytest.raises(StateConflict):
            only.call(lambda connection: change(connection, b"a", decide))
        assert store.get("a") == b"theirs"


# Several servers


@pytest.fixture
def pair(launch: Launch) -> tuple[Memcached, Memcached]:
    """Return two servers of this test's own."""
    return launch(Memcached), launch(Memcached)


def url_of(*servers: Memcached) -> str:
    """Return the URL of a store in several servers."""
    return "memcached://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


def test_keys_are_divided(pair: tuple[Memcached, Memcached]) -> None:
    """Each server gets about half of the keys, in whichever order the servers are named."""
    keys = [f"key:{number}" for number in range(200)]
    with (
        contextlib.closing(MemcachedStore.from_url(url_of(*pair), timeout=PATIENT)) as store,
        contextlib.closing(MemcachedStore.from_url(url_of(*reversed(pair)), timeout=PATIENT)) as other,
    ):
        store.set_many(dict.fromkeys(keys, b"1"))
        assert other.get_many(keys) == dict.fromkeys(keys, b"1")
        other.delete_many(keys[:100])
        assert store.get_many(keys) == dict.fromkeys(keys[100:], b"1")
        for server in pair:
            assert 30 < sum(server.ask(f"get {key}") != b"END\r\n" for key in keys[100:]) < 70


def test_dead_server_is_an_error_for_its_keys(pair: tuple[Memcached, Memcached]) -> None:
    """While one server is down its keys are unavailable, not missing, and nothing is written elsewhere for them."""
    keys = [f"key:{number}" for number in range(30)]
    with contextlib.closing(MemcachedStore.from_url(url_of(*pair), timeout=PATIENT)) as store:
        store.set_many(dict.fromkeys(keys, b"old"))
        pair[0].kill()
        lost = [key for key in keys if not is_written(store, key)]
        assert 0 < len(lost) < len(keys)
        for key in lost:
            with pytest.raises(StoreUnavailable):
                store.get(key)
            assert pair[1].ask(f"get {key}") == b"END\r\n"
        with pytest.raises(StoreUnavailable):
            store.get_many(keys)
        with pytest.raises(StoreUnavailable):
            store.check()
        pair[0].start()
        assert store.get_many(keys) == {key: b"new" for key in keys if key not in lost}


def is_written(store: MemcachedStore, key: str) -> bool:
    """Try to write."""
    try:
        store.set(key, b"new")
    except StoreUnavailable:
        return False
    return True


# What can be opened


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("memcached://host", ["host:11211"]),
        ("memcached://host/", ["host:11211"]),
        ("memcached://host:1", ["host:1"]),
        ("MEMCACHED://one:1,two", ["one:1", "two:11211"]),
        ("memcached://127.0.0.1:65535", ["127.0.0.1:65535"]),
        ("memcached://[::1]:5,[::1]", ["[::1]:5", "[::1]:11211"]),
    ],
)
def test_url_names_servers(url: str, names: list[str]) -> None:
    """A URL names one server or several, with 11211 as the port where none is named; nothing is connected."""
    store = open_store(url)
    assert isinstance(store, MemcachedStore)
    assert list(store._servers) == names
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "memcached://",
        "memcached:///",
        "memcached:///run/memcached.sock",
        "memcached://host/0",
        "memcached://host:port",
        "memcached://host:0",
        "memcached://host:65536",
        "memcached://host:",
        "memcached://:11211",
        "memcached://one,,two",
        "memcached://one,",
        "memcached://one two",
        "memcached://::1",
        "memcached://host?timeout=1",
        "memcached://host#fragment",
        "memcached://user:hunter2@host",
        "memcached://same:1,same:1",
    ],
)
def test_wrong_url_says_what_to_write(url: str) -> None:
    """A wrong URL is a ConfigError that shows the right form, and repeats nothing of it."""
    with pytest.raises(ConfigError, match=r"write memcached://host\[:port\]\[,host\[:port\]\.\.\.\]") as raised:
        open_store(url)
    assert "hunter2" not in str(raised.value)


def test_missing_library_names_the_extra() -> None:
    """Without pymemcache, the error names what installs it."""
    program = "import sys; sys.modules['pymemcache'] = None\nfrom flask_stateful.stores import open_store\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}open_store('memcached://host')"], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip().endswith('pip install "Flask-Stateful[memcached]"')


def test_each_address_of_a_name_is_tried(server: Memcached, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose first address does not answer, as localhost's may, is reached by its next one."""
    actual = socket.getaddrinfo

    def two_addresses(host: t.Any, port: t.Any, *arguments: t.Any, **options: t.Any) -> t.Any:
        if host != "two.example":
            return actual(host, port, *arguments, **options)
        dead = actual("127.0.0.1", free_port(), *arguments, **options)
        return [*dead, *actual("127.0.0.1", port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with contextlib.closing(open_store(f"memcached://two.example:{server.port}", timeout=PATIENT)) as store:
        store.set("a", b"1")
        assert store.get("a") == b"1"


UNUSABLE: dict[str, Callable[[], t.Any]] = {
    "not pooled": lambda: Client(("host", 1)),
    "moves keys": lambda: HashClient([("host", 1)]),
    "text": lambda: "memcached://host",
    "nothing": lambda: None,
    "prefix": lambda: PooledClient(("host", 1), key_prefix=b"app:"),
    "pickle": lambda: PooledClient(("host", 1), serde=pymemcache.serde.pickle_serde),
    "compression": lambda: PooledClient(("host", 1), serde=pymemcache.serde.compressed_serde),
    "deserializer": lambda: PooledClient(("host", 1), deserializer=lambda key, value, flags: value.decode()),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_client_is_refused(case: str) -> None:
    """A client that is none, no pool, or changes keys or values is a ConfigError that says what to give."""
    with pytest.raises(ConfigError, match="PooledClient"):
        MemcachedStore(UNUSABLE[case]())


def test_store_needs_a_client() -> None:
    """Without any client there is no store."""
    with pytest.raises(ConfigError, match="PooledClient"):
        MemcachedStore()


def test_given_clients_divide_the_keys(pair: tuple[Memcached, Memcached]) -> None:
    """Several clients that were given divide the keys as a URL's servers do, and stay open."""
    keys = [f"key:{number}" for number in range(50)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(PooledClient(server.address))) for server in pair]
        store = MemcachedStore(*clients)
        store.set_many(dict.fromkeys(keys, b"1"))
        store.close()
        assert all(client.version() for client in clients)
        with contextlib.closing(MemcachedStore.from_url(url_of(*pair), timeout=PATIENT)) as other:
            assert other.get_many(keys) == dict.fromkeys(keys, b"1")


# What an operator should mend


def test_well_server_has_no_problems(store: MemcachedStore) -> None:
    """A server that is well has no problems; that it evicts is said where sessions are kept in it."""
    assert store.check() == []
    assert store.durable is False
    assert store.shared
    assert store.remote
    assert store.persistent


@pytest.mark.parametrize("seconds", [60, -60, 0])
def test_wrong_clock_is_reported(store: MemcachedStore, seconds: int) -> None:
    """A clock that is off by more than five seconds is reported, with its sign: expiry depends on it."""
    with FakeClock() as fake:
        fake.set(fake.now() + seconds)
        problems = store.check()
    # The server's own clock is a whole number, and a little late.
    off = [int(found[1]) for problem in problems if (found := re.search(r"is ([+-]\d+) s off", problem))]
    assert len(off) == len(problems) == (1 if seconds else 0)
    assert all(abs(found + seconds) <= 5 for found in off)


@pytest.mark.parametrize(
    ("version", "old"), [(b"1.5.22", True), (b"1.4.0", True), (b"1.6.0", False), (b"2.0", False), (b"custom", False)]
)
def test_old_server_is_reported(version: bytes, old: bool) -> None:
    """A server before version 1.6 is reported; one with a version of another kind is not."""

    class Reporting:
        def call(self, work: Callable[[t.Any], t.Any]) -> t.Any:
            return work(self)

        def close(self) -> None: ...

        def stats(self) -> dict[bytes, t.Any]:
            return {b"version": version, b"time": int(clock.now())}

    problems = list(Server("host:1", Reporting()).problems())
    assert [problem.endswith("is too old: install 1.6 or newer") for problem in problems] == [True] * old


def test_server_without_settings_has_the_usual_limit() -> None:
    """What speaks the protocol and does not tell its settings is taken to have the usual limit."""

    class Reticent:
        def call(self, work: Callable[[t.Any], t.Any]) -> t.Any:
            return work(self)

        def close(self) -> None: ...

        def stats(self, what: str) -> t.Any:
            raise StoreError("refused")

    server = Server("host:1", Reticent())
    server.require_size(b"x" * (2**20 - OVERHEAD))
    with pytest.raises(ValueTooLarge):
        server.require_size(b"x" * (2**20 - OVERHEAD + 1))


# End to end


def test_setting_is_all_it_takes(server: Memcached) -> None:
    """An application whose setting names the server keeps sessions and cached values in it."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="a key for tests, long enough", STATEFUL_STORE=server.url, STATEFUL_STORE_TIMEOUT=PATIENT
    )
    state = Stateful(app)
    calls: list[int] = []

    @state.cache.memoize(ttl=60)
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    @app.get("/")
    def index() -> dict[str, int]:
        session["visits"] = session.get("visits", 0) + 1
        return {"visits": session["visits"], "doubled": double(21)}

    client = app.test_client()
    assert [client.get("/").json for _ in range(3)] == [{"visits": n, "doubled": 42} for n in (1, 2, 3)]
    assert calls == [21]
    items = dict(line.split()[1:] for line in server.ask("stats").decode().splitlines() if " curr_items " in line)
    assert int(items["curr_items"]) >= 2


@pytest.mark.parametrize(("setting", "warned"), [("default", True), ("sessions", True), ("cache", False)])
def test_check_warns_of_sessions_that_may_be_evicted(server: Memcached, setting: str, warned: bool) -> None:
    """Sessions in a store that evicts are something to mend; the cache is not."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY="a key for tests, that is long enough", STATEFUL_STORE_TIMEOUT=PATIENT)
    stores = {"default": "memcached"} if setting == "default" else {"default": "sqlite", setting: "memcached"}
    urls = {"memcached": server.url, "sqlite": "sqlite:///state.sqlite3"}
    Stateful(app, store={name: urls[kind] for name, kind in stores.items()})
    result = app.test_cli_runner().invoke(args=["state", "check"])
    assert (f"the {setting} store: it may evict sessions before they expire; " in result.output) == warned
    assert result.exit_code == int(warned)
