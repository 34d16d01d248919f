"""Epochs that a Redis or Valkey server moves by announcing what changes: heard, lost, regained, forked and closed."""

from __future__ import annotations

import functools
import gc
import logging
import socket
import threading
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.backoff
import redis.retry
import valkey as valkey_py

from flask_stateful import clock
from flask_stateful.epochs import ANY, Epochs, Marks, slot_of
from flask_stateful.errors import StoreError
from flask_stateful.stores.base import Store
from flask_stateful.stores.redis import RedisStore
from flask_stateful.stores.redis import tracking as redis_tracking
from flask_stateful.stores.redis.tracking import TrackedEpochs
from flask_stateful.testing import FakeClock
from flask_stateful.testing.conformance.crowd import in_processes
from tests.services import Launch, Redis, Valkey, free_port
from tests.stores.proxy import Proxy
from tests.stores.redis_topologies import eventually, watched
from tests.stores.test_redis import make_certificate

#: Seconds that the store may take to answer; no test here is about being late.
PATIENT = 30

KEY, OTHER = "app:cache:key", "app:cache:other"

assert slot_of(KEY) != slot_of(OTHER)


@pytest.fixture(params=[Redis, Valkey])
def server(request: pytest.FixtureRequest, launch: Launch) -> Redis:
    """Return a server of this test's own."""
    return launch(t.cast("type[Redis]", request.param))


@pytest.fixture
def proxy(server: Redis) -> Iterator[Proxy]:
    """Return a relay to the server."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def open_one() -> Iterator[Callable[[str], Store]]:
    """Open stores, and see that none leaves a thread behind."""
    opened: list[Store] = []

    def open_url(url: str) -> Store:
        opened.append(RedisStore.from_url(url, timeout=PATIENT))
        return opened[-1]

    yield open_url
    for store in opened:
        store.close()
    eventually(lambda: listeners() == [])


@pytest.fixture
def store(server: Redis, open_one: Callable[[str], Store]) -> Store:
    """Return a store."""
    return open_one(server.url)


@pytest.fixture
def epochs(store: Store) -> Epochs:
    """Return epochs that are live."""
    return live(store)


@pytest.fixture
def proxied(proxy: Proxy, open_one: Callable[[str], Store]) -> Epochs:
    """Return epochs that are live, whose connection goes over the relay."""
    return live(open_one(f"redis://127.0.0.1:{proxy.port}"))


def live(store: Store, prefix: str = "app:cache") -> Epochs:
    """Return a store's epochs once they are live."""
    epochs = store.epochs(prefix)
    epochs.marks([KEY])
    eventually(lambda: epochs.live)
    return epochs


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "flask-stateful-redis"]


def subscribers(server: Redis) -> list[bytes]:
    """Return the ids of the connections that listen."""
    return [line.split()[0] for line in server.ask("CLIENT LIST TYPE pubsub").splitlines() if line.startswith(b"id=")]


def hears(epochs: Epochs, marks: Marks) -> bool:
    """Wait until the epochs have moved away from some marks, while they are live."""
    return eventually(lambda: epochs.live and not epochs.is_unchanged(marks))


# What is heard


CHANGES = {
    "written": "SET {key} 2",
    "deleted": "DEL {key}",
    "unlinked": "UNLINK {key}",
    "counted": "INCR {key}",
    "expired": "PEXPIRE {key} 1",
    "renamed": "RENAME {key} elsewhere",
    "scripted": "EVAL \"return redis.call('SET', KEYS[1], '2')\" 1 {key}",
    "flushed": "FLUSHALL",
    "flushed database": "FLUSHDB",
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_by_another_is_heard(server: Redis, epochs: Epochs, change: str) -> None:
    """Whoever changes a key in whatever way, its epoch moves, each time."""
    for _ in range(2):
        before = epochs.marks([KEY])
        server.ask(f"SET {KEY} 1")
        assert hears(epochs, before)
        marks = epochs.marks([KEY])
        assert epochs.is_unchanged(marks)
        assert not server.ask(CHANGES[change].format(key=KEY)).startswith(b"-")
        assert hears(epochs, marks)


def test_expiry_is_heard(server: Redis, epochs: Epochs) -> None:
    """The server announces when a key expires that nobody asks for."""
    before = epochs.marks([KEY])
    server.ask(f"SET {KEY} 1 PX 500")
    assert hears(epochs, before)
    marks = epochs.marks([KEY])
    assert hears(epochs, marks)
    assert server.ask(f"EXISTS {KEY}") == b":0\r\n"


def test_eviction_is_heard(server: Redis, epochs: Epochs) -> None:
    """What the server evicts to make room is not what it was."""
    before = epochs.marks([KEY])
    server.ask(f"SET {KEY} 1")
    assert hears(epochs, before)
    marks = epochs.marks([KEY])
    server.ask("CONFIG SET maxmemory 1 maxmemory-policy allkeys-random")
    eventually(lambda: server.ask(f"SETNX {KEY} 1") and server.ask("DBSIZE") == b":0\r\n")
    assert hears(epochs, marks)


def test_other_keys_keep_their_epochs(server: Redis, epochs: Epochs) -> None:
    """A change moves the epochs of the keys that it changes."""
    marks, other = epochs.marks([KEY]), epochs.marks([OTHER])
    server.ask(f"SET {KEY} 1")
    assert hears(epochs, marks)
    assert epochs.is_unchanged(other)


def test_flush_moves_every_epoch(server: Redis, epochs: Epochs) -> None:
    """After a flush no key is what it was, also one that the server did not have."""
    marks = epochs.marks([KEY, OTHER])
    server.ask("FLUSHALL")
    assert hears(epochs, marks[:1])
    assert hears(epochs, marks[1:])


def test_other_prefixes_are_not_announced(server: Redis, epochs: Epochs) -> None:
    """Of keys with another prefix, such as sessions and other applications, nothing is heard."""
    foreign = ["app:session:key", "shop:cache:key"]
    marks, fence = epochs.marks(foreign), epochs.marks([KEY])
    for key in foreign:
        server.ask(f"SET {key} 1")
    server.ask(f"SET {KEY} 1")
    assert hears(epochs, fence)
    assert epochs.is_unchanged(marks)


@pytest.mark.parametrize("prefix", ["", "caf\u00e9 *:"])
def test_any_prefix_will_do(store: Store, prefix: str) -> None:
    """An empty prefix hears of every key; one of other characters is taken as it is."""
    epochs = live(store, prefix)
    marks = epochs.marks([f"{prefix}key"])
    store.set(f"{prefix}key", b"1")
    assert hears(epochs, marks)


def test_bytes_that_are_no_text_do_not_matter(server: Redis, store: Store) -> None:
    """A key that somebody else made of other bytes is passed over."""
    epochs = live(store, "")
    marks = epochs.marks([KEY])
    with redis.Redis(port=server.port) as client:
        client.set(b"\xff\xfe", "1")
    server.ask(f"SET {KEY} 1")
    assert hears(epochs, marks)
    assert len(subscribers(server)) == 1


def test_own_change_moves_its_epoch_at_once(proxy: Proxy, proxied: Epochs) -> None:
    """What this process changes it does not trust from that moment on, whenever the server says so."""
    proxy.silent = True
    marks, other = proxied.marks([KEY]), proxied.marks([OTHER])
    proxied.changed([KEY])
    assert not proxied.is_unchanged(marks)
    assert proxied.is_unchanged(other) or not proxied.live


# When it is trusted


def test_nothing_is_connected_before_it_is_needed(proxy: Proxy, open_one: Callable[[str], Store]) -> None:
    """Epochs connect, and start their thread, when the first marks are taken; until then nothing is trusted."""
    store = open_one(f"redis://127.0.0.1:{proxy.port}")
    epochs = store.epochs("app:cache")
    epochs.changed([KEY])
    assert not epochs.live
    assert (listeners(), proxy.connections) == ([], 0)
    epochs.marks([KEY])
    eventually(lambda: epochs.live)
    assert (len(listeners()), proxy.connections) == (1, 1)


def test_marks_from_before_the_subscription_are_void(server: Redis, store: Store) -> None:
    """What was marked before the server confirmed the subscription may have changed without a word."""
    for number in range(100):
        epochs = store.epochs(f"app:{number}")
        marks = epochs.marks([KEY])
        # On a busy machine the server may have been faster than this thread.
        if not epochs.live:
            break
    eventually(lambda: epochs.live)
    assert not epochs.is_unchanged(marks)


class _Hesitant:
    """A connection whose server takes its time to confirm the subscription, and then has nothing to say."""

    def __init__(self) -> None:
        self.said: tuple[object, ...] = ()
        self.asked, self.confirms, self.closed = threading.Event(), threading.Event(), threading.Event()
        self._sock, self.other = socket.socketpair()

    def send_command(self, *command: object) -> None:
        self.said = command

    def read_response(self) -> object:
        if self.said[0] == "SUBSCRIBE":
            self.asked.set()
            assert self.confirms.wait(PATIENT)
        return 1

    def can_read(self, timeout: float) -> bool:
        assert self._sock.recv(1), "the socket was shut down"
        return True

    def disconnect(self) -> None:
        self._sock.close()
        self.other.close()
        self.closed.set()


def test_is_not_live_before_the_server_confirms() -> None:
    """A connection alone is not enough: what the server has not confirmed yet, it may not announce."""
    connection = _Hesitant()
    epochs = TrackedEpochs(lambda: connection, "app:cache")
    epochs.marks([KEY])
    assert connection.asked.wait(PATIENT)
    assert not epochs.live
    connection.confirms.set()
    eventually(lambda: epochs.live)
    epochs.close()


def test_close_wakes_a_listener_that_waits() -> None:
    """A listener that waits for the server's next words ends when it is closed, without another word."""
    connection = _Hesitant()
    connection.confirms.set()
    epochs = TrackedEpochs(lambda: connection, "app:cache")
    epochs.marks([KEY])
    eventually(lambda: epochs.live)
    epochs.close()
    assert connection.closed.is_set()
    assert listeners() == []


def test_close_does_not_wait_for_one_that_cannot_be_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed epochs are trusted no more, also while their listener hangs in the library."""
    monkeypatch.setattr(redis_tracking, "ANSWER", 0.01)
    connection = _Hesitant()
    connection.confirms.set()
    monkeypatch.setattr(socket.socket, "shutdown", lambda sock, how: None)
    epochs = TrackedEpochs(lambda: connection, "app:cache")
    epochs.marks([KEY])
    eventually(lambda: epochs.live)
    epochs.close()
    assert (epochs.live, len(listeners())) == (False, 1)
    connection.other.close()
    eventually(lambda: listeners() == [])


def test_lost_connection_is_not_trusted(server: Redis, proxy: Proxy, proxied: Epochs) -> None:
    """A lost connection ends all trust at once, and tells by ANY; no copy from before it is trusted again."""
    port, marks, newest = proxy.target, proxied.marks([KEY, OTHER]), proxied.table[ANY]
    assert proxied.is_unchanged(marks)
    proxy.cut()
    assert eventually(lambda: not proxied.live and proxied.table[ANY] != newest)
    assert not proxied.is_unchanged(marks)
    server.ask(f"SET {KEY} 1")
    between = proxied.marks([KEY, OTHER])
    proxy.target = port
    eventually(lambda: proxied.live)
    for mark in (*marks, *between):
        assert not proxied.is_unchanged((mark,))
    assert proxied.is_unchanged(proxied.marks([KEY]))


def test_connection_killed_by_the_server_is_made_anew(server: Redis, epochs: Epochs) -> None:
    """A server that ends the connection, as it does to those that read too slowly, is followed by another one."""
    (first,), marks = subscribers(server), epochs.marks([KEY])
    server.ask("CLIENT KILL TYPE pubsub")
    eventually(lambda: subscribers(server) not in ([], [first]))
    assert hears(epochs, marks)


def test_restarted_server_is_followed(server: Redis, epochs: Epochs) -> None:
    """A server that restarts is heard again, and what was true of the one before is not trusted."""
    marks = epochs.marks([KEY])
    server.kill()
    eventually(lambda: not epochs.live)
    server.start()
    assert hears(epochs, marks)
    marks = epochs.marks([OTHER])
    server.ask(f"SET {OTHER} 1")
    assert hears(epochs, marks)


def test_hung_link_is_noticed(proxy: Proxy, proxied: Epochs) -> None:
    """A link on which words are lost without an error ends all trust, and is replaced when one works."""
    marks = proxied.marks([KEY])
    proxy.silent = True
    eventually(lambda: not proxied.live)
    proxy.silent = False
    eventually(lambda: proxied.live)
    assert not proxied.is_unchanged(marks)


def test_hung_server_is_noticed(server: Redis, epochs: Epochs) -> None:
    """A server that hangs, with its connections open, ends all trust."""
    server.freeze()
    eventually(lambda: not epochs.live)
    server.thaw()
    eventually(lambda: epochs.live)


def test_quiet_server_is_asked_for_a_sign_of_life(proxy: Proxy, proxied: Epochs) -> None:
    """While nothing changes, the server is asked whether it is there, on the same connection, and trust goes on."""
    marks = proxied.marks([KEY])
    proxy.reset()
    eventually(lambda: proxy.said.count(b"PING") >= 2)
    assert proxied.is_unchanged(marks)
    assert proxy.connections == 0


class _Recording(clock.Clock):
    """A clock on which no time passes, that writes down for how long a listener waits."""

    def __init__(self) -> None:
        self.waits: list[float | None] = []
        self.enough = threading.Event()

    def wait_for(self, event: threading.Event, timeout: float | None) -> bool:
        if threading.current_thread() not in listeners():
            return event.wait(timeout)
        self.waits.append(timeout)
        if len(self.waits) < 7:
            return event.is_set()
        self.enough.set()
        return event.wait()


PAUSING = redis.retry.Retry(redis.backoff.ConstantBackoff(10), 10)


@pytest.mark.parametrize(
    "open_on",
    [
        lambda port: RedisStore.from_url(f"redis://127.0.0.1:{port}"),
        lambda port: RedisStore(redis.Redis(port=port, retry=PAUSING)),
    ],
    ids=["url", "client that pauses by itself"],
)
def test_attempts_to_connect_are_paced(open_on: Callable[[int], Store]) -> None:
    """While there is no server, the pauses between two attempts grow, up to two seconds."""
    previous = clock.install(recording := _Recording())
    try:
        epochs = open_on(free_port()).epochs("app:cache")
        epochs.marks([KEY])
        assert recording.enough.wait(PATIENT)
        epochs.close()
    finally:
        clock.install(previous)
    assert recording.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_pauses_are_short_again_after_a_success(proxy: Proxy, proxied: Epochs) -> None:
    """A connection that is lost after it worked is replaced soon, however long the outage before it was."""
    listener = t.cast("t.Any", listeners()[0])
    listener._pause = 2.0
    port = proxy.target
    for _ in range(2):
        proxy.cut()
        eventually(lambda: not proxied.live)
        proxy.target = port
        eventually(lambda: proxied.live)
        eventually(lambda: listener._pause == 0.1)


# Servers and clients that are different


@pytest.mark.parametrize("rule", ["-client|tracking", "-subscribe", "-client|id"])
def test_refusal_is_said_once(launch: Launch, caplog: pytest.LogCaptureFixture, rule: str) -> None:
    """Where the server forbids it nothing is trusted, one line says so, and the store works; it is tried again."""
    server = launch(Valkey)
    server.ask(f"ACL SETUSER default {rule}")
    with FakeClock(patience=0.01) as fake, Proxy(server.port) as proxy:
        store = RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", timeout=PATIENT)
        epochs = store.epochs("app:cache")
        with caplog.at_level(logging.WARNING, "flask_stateful"):
            epochs.marks([KEY])
            for attempts in (1, 2, 3):
                eventually(functools.partial(_reached, proxy, attempts, fake))
            assert not epochs.live
            store.set(KEY, b"1")
            assert store.get(KEY) == b"1"
        server.ask(f"ACL SETUSER default +{rule[1:]}")
        eventually(lambda: fake.advance(1) or epochs.live)
        store.close()
    assert [record.message for record in caplog.records] == [
        "cached values are not held in memory, for the Redis server refused (NoPermissionError): its ACL must allow "
        "+@read +@write +@scripting for the keys of this application; it needs Redis 6 or newer, or Valkey, and a user "
        "with +client|id +client|tracking +subscribe +ping &__redis__:invalidate"
    ]


def _reached(proxy: Proxy, attempts: int, fake: FakeClock) -> bool:
    """Tell whether so many attempts were made, letting time pass until then."""
    if proxy.said.count(b"CLIENT") // 2 >= attempts:
        return True
    fake.advance(1)
    return False


CLIENTS: dict[str, Callable[[Redis], t.Any]] = {
    "redis": lambda server: redis.Redis(port=server.port),
    "resp3": lambda server: redis.Redis(port=server.port, protocol=3),
    "resp2": lambda server: redis.Redis(port=server.port, protocol=2, socket_timeout=None),
    "patient": lambda server: redis.Redis(port=server.port, health_check_interval=1, retry=PAUSING),
    "single": lambda server: redis.Redis(port=server.port, single_connection_client=True),
    "pool": lambda server: redis.Redis(connection_pool=redis.BlockingConnectionPool(port=server.port, timeout=1)),
    "url": lambda server: redis.Redis.from_url(server.url),
    "socket": lambda server: redis.Redis(unix_socket_path=str(server.socket_path), db=3),
    "valkey": lambda server: valkey_py.Valkey(port=server.port),
    "valkey resp3": lambda server: valkey_py.Valkey(port=server.port, protocol=3),
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_given_client_is_followed_to_its_server(server: Redis, kind: str) -> None:
    """A store with a client that was given listens on a connection of its own, with that client's settings."""
    client = CLIENTS[kind](server)
    store = RedisStore(client)
    epochs = live(store)
    marks = epochs.marks([KEY])
    server.ask(f"SET {KEY} 1")
    assert hears(epochs, marks)
    store.close()
    assert listeners() == []
    assert client.ping()
    client.close()


def test_login_and_database_are_the_clients(launch: Launch) -> None:
    """The connection logs in as the store does."""
    server = launch(Redis, "--requirepass", "hidden")
    store = RedisStore.from_url(f"redis://:hidden@127.0.0.1:{server.port}/2", timeout=PATIENT)
    epochs = live(store)
    marks = epochs.marks([KEY])
    store.set(KEY, b"1")
    assert hears(epochs, marks)
    store.close()


def test_client_without_connections_of_its_own_is_not_trusted() -> None:
    """A client that says nothing about its connections gets epochs that are never trusted, and does not claim more."""

    class Wrapper:
        def execute_command(self, *arguments: t.Any) -> None:
            """Do nothing."""

    store = RedisStore(Wrapper())
    epochs = store.epochs("app:cache")
    assert "epochs" not in store.abilities
    assert (epochs.live, epochs.marks([KEY])) == (False, ())


def test_works_without_hiredis(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' own parsers understand the notices too."""
    parser = redis.connection._RESP2Parser  # type: ignore[attr-defined]
    store = RedisStore(redis.Redis(connection_pool=redis.ConnectionPool(port=server.port, parser_class=parser)))
    epochs = live(store)
    marks = epochs.marks([KEY])
    server.ask(f"SET {KEY} 1")
    assert hears(epochs, marks)
    marks = epochs.marks([KEY])
    server.ask("FLUSHALL")
    assert hears(epochs, marks)
    store.close()


def test_tls(launch: Launch, tmp_path: Path) -> None:
    """Over TLS notices are heard, and a listener that waits for one ends."""
    make_certificate(tmp_path)
    files = ["--tls-cert-file", f"{tmp_path}/server.crt", "--tls-key-file", f"{tmp_path}/server.key"]
    options = ["--port", "0", "--tls-port", "{port}", "--tls-ca-cert-file", f"{tmp_path}/server.crt", *files]
    server = launch(Redis, *options, "--tls-auth-clients", "no")
    url = f"rediss://127.0.0.1:{server.port}/1?ssl_ca_certs={tmp_path}/server.crt"
    store = RedisStore.from_url(url, timeout=PATIENT)
    epochs = live(store)
    marks = epochs.marks([KEY])
    store.set(KEY, b"1")
    assert hears(epochs, marks)
    store.close()
    assert listeners() == []


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_failover_is_followed(library: str) -> None:
    """When the primary dies its successor is listened to, and nothing is trusted from before."""
    with watched() as servers:
        store = RedisStore.from_url(servers.url.replace("redis", library), timeout=PATIENT)
        epochs = live(store)
        marks = epochs.marks([KEY])
        servers.primary.kill()
        eventually(lambda: not epochs.live)
        assert hears(epochs, marks)
        assert len(subscribers(servers.replica)) >= 1
        marks = epochs.marks([OTHER])
        assert eventually(lambda: servers.replica.ask(f"SET {OTHER} 1") == b"+OK\r\n")
        assert hears(epochs, marks)
        store.close()


def test_demoted_primary_is_left() -> None:
    """When the sentinels demote a primary that lives, its successor is listened to."""
    with watched() as servers:
        store = RedisStore.from_url(servers.url, timeout=PATIENT)
        epochs = live(store)
        assert tracking(servers.primary)
        assert servers.sentinel.ask("SENTINEL FAILOVER main") == b"+OK\r\n"
        eventually(lambda: tracking(servers.replica) and not tracking(servers.primary))
        eventually(lambda: epochs.live)
        store.close()


def tracking(server: Redis) -> list[bytes]:
    """Return the connections that track what changes."""
    return [line for line in server.ask("CLIENT LIST").splitlines() if b" redir=" in line and b" redir=-1" not in line]


def test_primary_that_another_connection_has_left_is_left() -> None:
    """A primary that the sentinels no longer name to the store is not listened to, though it answers."""
    with watched() as servers:
        store = RedisStore.from_url(servers.url, timeout=PATIENT)
        epochs = live(store)
        (before,) = (line.split()[0] for line in tracking(servers.primary))
        pool = t.cast("t.Any", store)._link.client.connection_pool
        pool.proxy.master_address = ("127.0.0.1", 1)
        eventually(lambda: before not in [line.split()[0] for line in tracking(servers.primary)])
        eventually(lambda: epochs.live)
        assert pool.proxy.master_address == ("127.0.0.1", servers.primary.port)
        store.close()


# Processes, and the end


def test_child_listens_for_itself(server: Redis, epochs: Epochs) -> None:
    """A forked child trusts nothing at first, then has a connection of its own; the parent's goes on."""
    parents, marks = subscribers(server), epochs.marks([KEY, OTHER])

    def work(number: int) -> tuple[bool, bool, bool]:
        trusted = epochs.live or epochs.is_unchanged(marks)
        epochs.marks([KEY])
        eventually(lambda: epochs.live)
        own = epochs.marks([OTHER])
        server.ask(f"SET {OTHER} {number}")
        heard = hears(epochs, own)
        return trusted, heard, len(subscribers(server)) > 1

    assert in_processes(2, work, patience=PATIENT) == [(False, True, True)] * 2
    assert hears(epochs, marks[1:])
    assert epochs.is_unchanged(marks[:1])
    eventually(lambda: subscribers(server) == parents)


def test_child_that_takes_no_marks_starts_nothing(server: Redis, epochs: Epochs) -> None:
    """A forked child that does not use the cache has neither thread nor connection, and may close the store."""

    def work(number: int) -> tuple[int, int]:
        count = len(subscribers(server)), len(listeners())
        epochs.close()
        return count

    assert in_processes(1, work, patience=PATIENT) == [(1, 0)]
    assert epochs.live
    assert len(subscribers(server)) == 1


def test_close_ends_the_thread_and_its_connection(server: Redis, epochs: Epochs) -> None:
    """What was closed listens no more, trusts nothing, and does not begin again."""
    marks = epochs.marks([KEY])
    epochs.close()
    assert listeners() == []
    eventually(lambda: subscribers(server) == [])
    assert not epochs.is_unchanged(marks)
    epochs.marks([KEY])
    epochs.close()
    assert (listeners(), epochs.live) == ([], False)


def test_closed_before_it_began(store: Store) -> None:
    """What is closed before the first marks are taken never begins to listen."""
    epochs = store.epochs("app:cache")
    epochs.close()
    epochs.marks([KEY])
    assert listeners() == []


def test_closing_the_store_ends_it(server: Redis, store: Store) -> None:
    """A store that is closed closes what listens for it, and gives no more of it out."""
    several = [live(store), live(store, "other")]
    store.close()
    assert listeners() == []
    assert not any(epochs.live for epochs in several)
    eventually(lambda: subscribers(server) == [])
    with pytest.raises(StoreError, match="closed"):
        store.epochs("app:cache")


def test_close_ends_a_pause(open_one: Callable[[str], Store]) -> None:
    """A listener that waits before it tries again does not keep close() waiting."""
    with FakeClock():
        epochs = open_one(f"redis://127.0.0.1:{free_port()}").epochs("app:cache")
        epochs.marks([KEY])
        epochs.close()
        assert listeners() == []


def test_epochs_that_are_dropped_end_by_themselves(server: Redis, store: Store) -> None:
    """Epochs that nobody has any more end their thread and their connection."""
    epochs = live(store)
    assert len(subscribers(server)) == 1
    del epochs
    gc.collect()
    eventually(lambda: not listeners())
    eventually(lambda: subscribers(server) == [])
