"""The store in Memcached while servers are down, hung, killed and restarted, and what failures are called."""

from __future__ import annotations

import contextlib
import threading
import traceback
import typing as t
from collections.abc import Callable, Iterator

import pytest
from pymemcache import exceptions
from pymemcache.client.base import PooledClient

from flask_stateful.errors import StoreError, StoreUnavailable, ValueTooLarge
from flask_stateful.stores.memcached import MemcachedStore
from flask_stateful.stores.memcached.link import explain
from flask_stateful.testing.conformance.crowd import in_processes
from tests.services import Launch, Memcached, Redis
from tests.stores.proxy import Proxy
from tests.stores.redis_topologies import eventually

#: Seconds that a server has to answer where it is going to: generous.
PATIENT = 30

#: Seconds after which a test has waited enough for a server that does not answer.
SHORT = 0.25


@pytest.fixture
def server(launch: Launch) -> Memcached:
    """Return a server of this test's own."""
    return launch(Memcached)


@pytest.fixture
def store(server: Memcached) -> Iterator[MemcachedStore]:
    """Return a store with connections of its own."""
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)) as store:
        yield store


@pytest.fixture
def hasty(server: Memcached) -> Iterator[MemcachedStore]:
    """Return a store that does not wait long."""
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=SHORT)) as store:
        yield store


def idle_of(store: MemcachedStore) -> t.Any:
    """Return the idle connections of a store with one server."""
    (server,) = store._servers.values()
    return server.link._idle  # type: ignore[attr-defined]


def connection_of(store: MemcachedStore) -> bytes:
    """Return what tells the server's connections apart: the local address of the one that is idle."""
    (connection,) = idle_of(store)
    return str(connection.client.sock.getsockname()).encode()


def read_if_there(store: MemcachedStore, key: str) -> bytes | None:
    """Read a value; nothing while the store is unavailable."""
    try:
        return store.get(key)
    except StoreUnavailable:
        return None


def freeze(server: Memcached, store: MemcachedStore) -> None:
    """Freeze the server, whose threads come to rest one after the other, and wait until it answers no more."""
    server.freeze()
    while read_if_there(store, "a") is not None:
        pass


# Down


def test_server_that_comes_later_is_used(server: Memcached, store: MemcachedStore) -> None:
    """A store whose server is down at the start works as soon as that is up."""
    server.stop()
    with pytest.raises(StoreUnavailable) as raised:
        store.get("a")
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)
    server.start()
    store.set("a", b"1")
    assert store.get("a") == b"1"


def test_killed_server_is_unavailable_until_it_is_back(server: Memcached, store: MemcachedStore) -> None:
    """While the server is down each call fails, and never says that there is nothing; then it works, and is empty."""
    store.set("a", b"1")
    server.kill()
    for call in (lambda: store.get("a"), lambda: store.get_many(["a"]), lambda: store.set("a", b"2"), store.check):
        with pytest.raises(StoreUnavailable):
            call()
    server.start()
    assert store.get("a") is None
    store.set("a", b"2")
    assert store.get("a") == b"2"


def test_restart_between_calls_goes_unnoticed(server: Memcached, store: MemcachedStore) -> None:
    """A server that restarts while the store is idle causes no error."""
    store.set("a", b"1")
    server.restart()
    assert store.get("a") is None
    server.restart()
    assert store.add("a", b"1")


def test_unasked_words_are_not_an_answer(server: Memcached, store: MemcachedStore) -> None:
    """A connection on which something arrived that nobody asked for is not used any more."""
    store.set("a", b"1")
    (connection,) = idle_of(store)
    connection.client.sock.sendall(b"version\r\n")
    eventually(lambda: not connection.idle())
    assert store.get("a") == b"1"
    assert connection not in idle_of(store)


# Hung


def test_hung_server_is_unavailable(server: Memcached, hasty: MemcachedStore) -> None:
    """A server that accepts and does not answer is unavailable: for a connection that is open, and for a new one."""
    hasty.set("a", b"1")
    freeze(server, hasty)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="TimeoutError"):
            hasty.get("a")
    server.thaw()
    assert eventually(lambda: read_if_there(hasty, "a")) == b"1"


def test_late_reply_is_no_answer_to_the_next_call(server: Memcached, hasty: MemcachedStore) -> None:
    """After a timeout the connection is given up, so that the late reply answers nobody."""
    hasty.set_many({"a": b"A", "b": b"B"})
    for _ in range(3):
        freeze(server, hasty)
        with pytest.raises(StoreUnavailable):
            hasty.get("a")
        server.thaw()
        assert eventually(lambda: read_if_there(hasty, "b")) == b"B"
        assert eventually(lambda: read_if_there(hasty, "a")) == b"A"


COMMANDS: dict[bytes, Callable[[MemcachedStore], object]] = {
    b"get a\r\n": lambda store: store.get("a"),
    b"get a b\r\n": lambda store: store.get_many(["a", "b"]),
    b"set a ": lambda store: store.set("a", b"1"),
    b"set b ": lambda store: store.set_many({"a": b"1", "b": b"2"}),
    b"add a ": lambda store: store.add("a", b"1"),
    b"gets a\r\n": lambda store: store.swap("a", b"0", b"2"),
    b"gets a\r\n ": lambda store: store.touch("a"),
    b"gets a\r\n  ": lambda store: store.incr("a"),
    b"delete a\r\n": lambda store: store.delete("a"),
    b"md a q\r\n": lambda store: store.delete_many(["a", "b"]),
    b"stats\r\n": lambda store: store._servers[next(iter(store._servers))].call(lambda client: client.stats()),
}


@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_never_sent_twice(command: bytes, given: bool, memcached: Memcached) -> None:
    """A connection that breaks after a command was sent is an error: whether it was done is not known."""
    memcached.flush()
    with Proxy(memcached.port) as proxy, contextlib.ExitStack() as stack:
        if given:
            client = stack.enter_context(contextlib.closing(PooledClient(("127.0.0.1", proxy.port), timeout=PATIENT)))
            store = MemcachedStore(client)
        else:
            store = MemcachedStore.from_url(f"memcached://127.0.0.1:{proxy.port}", timeout=PATIENT)
        store.set("a", b"0")
        proxy.reset()
        proxy.hang_up = True
        with pytest.raises(StoreUnavailable):
            COMMANDS[command](store)
        assert (proxy.said.count(command.rstrip(b" ")), proxy.connections) == (1, 0)
        store.close()


@pytest.mark.parametrize("change", ["swap", "touch", "incr", "add"])
def test_broken_between_reading_and_writing(change: str, server: Memcached) -> None:
    """A connection that breaks between the two halves of a change is an error; nothing is written over a new one."""
    changes: dict[str, Callable[[], object]] = {
        "swap": lambda: store.swap("a", b"0", b"1"),
        "touch": lambda: store.touch("a", 60),
        "incr": lambda: store.incr("a"),
        "add": lambda: store.add("a", b"1"),
    }
    with Proxy(server.port) as proxy:
        store = MemcachedStore.from_url(f"memcached://127.0.0.1:{proxy.port}", timeout=PATIENT)
        store.set("a", b"0")
        proxy.reset()
        proxy.hang_up = True
        with pytest.raises(StoreUnavailable):
            changes[change]()
        assert proxy.connections == 0
        assert b"cas " not in proxy.said
        assert store.get("a") == b"0"
        store.close()


def test_interrupted_call_gives_up_its_connection(memcached: Memcached) -> None:
    """A call that is ended from outside, between question and answer, does not leave its answer to the next one."""

    class Interrupted(BaseException):
        pass

    class Interrupting:
        def __init__(self, actual: t.Any) -> None:
            self.sendall, self.close = actual.sendall, actual.close

        def recv(self, size: int) -> bytes:
            raise Interrupted

    with contextlib.closing(MemcachedStore.from_url(memcached.url, timeout=PATIENT)) as store:
        store.set_many({"a": b"A", "b": b"B"})
        (connection,) = idle_of(store)
        connection.client.sock = Interrupting(connection.client.sock)
        with pytest.raises(Interrupted):
            store.get("a")
        assert list(idle_of(store)) == []
        assert store.get("b") == b"B"


# Threads and processes


def test_threads_never_get_another_ones_answer(server: Memcached, hasty: MemcachedStore) -> None:
    """While the server is frozen, killed and restarted, threads get their own values, nothing, or an error."""
    ended = threading.Event()
    wrong: list[object] = []
    served, failed = [0] * 4, [0] * 4

    def work(number: int) -> None:
        key, value = f"key:{number}", b"%d" % number * 1000
        while not ended.is_set():
            try:
                hasty.set(key, value)
                found = hasty.get_many([key]).get(key, value), hasty.get(key) or value
                served[number] += 1
            except StoreUnavailable:
                failed[number] += 1
            except BaseException as error:
                wrong.append(error)
                raise
            else:
                wrong.extend(other for other in found if other != value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for take, give_back in ((server.freeze, server.thaw), (server.kill, server.start), (server.stop, server.start)):
        wait_for_more(served)
        take()
        wait_for_more(failed)
        give_back()
    wait_for_more(served)
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def wait_for_more(counts: list[int]) -> None:
    """Wait until every count has grown."""
    before = list(counts)
    eventually(lambda: all(now > then for now, then in zip(counts, before, strict=True)))


def test_child_uses_connections_of_its_own(server: Memcached, store: MemcachedStore) -> None:
    """A forked child does not touch the connections that it inherited, and leaves them open when it ends."""
    store.set("a", b"1")
    own = connection_of(store)

    def work(number: int) -> tuple[bytes, bytes]:
        store.get("a")
        first = connection_of(store)
        store.get("a")
        return first, connection_of(store)

    (first, again), (second, _) = in_processes(2, work, patience=PATIENT)
    assert len({own, first, second}) == 3
    assert again == first
    assert store.get("a") == b"1"
    assert connection_of(store) == own


def test_child_that_drops_the_store_leaves_the_parents_connection(server: Memcached) -> None:
    """A child in which the store is collected or closed does not end the parent's connection."""
    stores = [MemcachedStore.from_url(server.url, timeout=PATIENT)]
    store = stores[0]
    store.set("a", b"1")
    own = connection_of(store)

    def work(number: int) -> None:
        nonlocal store
        store.close()
        store = None  # type: ignore[assignment]
        stores.clear()

    in_processes(1, work, patience=PATIENT)
    assert store.get("a") == b"1"
    assert connection_of(store) == own
    store.close()


def test_given_client_is_refused_in_a_child(server: Memcached) -> None:
    """A child never speaks on the connections of a client that its parent was given."""
    with contextlib.closing(PooledClient(server.address, timeout=PATIENT)) as client:
        store = MemcachedStore(client)
        store.set("a", b"1")

        def work(number: int) -> str:
            with pytest.raises(StoreError, match="make the client in each process") as raised:
                store.get("a")
            return type(raised.value).__name__

        assert in_processes(1, work, patience=PATIENT) == ["StoreError"]
        assert store.get("a") == b"1"


def test_given_client_that_ignores_exceptions_does_not(server: Memcached) -> None:
    """A client that was made to take an outage for a miss does so for others, and not for the store."""
    with contextlib.closing(PooledClient(server.address, timeout=PATIENT, ignore_exc=True)) as client:
        store = MemcachedStore(client)
        store.set("a", b"1")
        server.kill()
        for call in (lambda: store.get("a"), lambda: store.get_many(["a"]), lambda: store.incr("a")):
            with pytest.raises(StoreUnavailable):
                call()


# What failures are called


def test_too_many_connections_are_unavailable(launch: Launch) -> None:
    """A server whose connections are all taken is unavailable, and the error says what to raise."""
    server = launch(Memcached, "-c", "32")
    with contextlib.ExitStack() as stack:
        stores = [
            stack.enter_context(contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)))
            for _ in range(60)
        ]
        with pytest.raises(StoreUnavailable):
            [store.get("a") for store in stores]
        for taken in stores:
            taken.close()
        store = stack.enter_context(contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)))
        assert eventually(lambda: works(store))


def works(store: MemcachedStore) -> bool:
    """Try to write."""
    try:
        store.set("a", b"1")
    except StoreUnavailable:
        return False
    return True


def test_other_server_is_told_apart(redis_server: Redis) -> None:
    """What does not speak the protocol is no outage but a wrong address."""
    with contextlib.closing(MemcachedStore.from_url(f"memcached://127.0.0.1:{redis_server.port}")) as store:
        with pytest.raises(StoreError, match="name another host and port") as raised:
            store.set("a", b"1")
        assert not isinstance(raised.value, StoreUnavailable)


def test_full_server_refuses(launch: Launch) -> None:
    """A server that is full and may not evict refuses writes and says what to change."""
    server = launch(Memcached, "-M", "-m", "2")
    with contextlib.closing(MemcachedStore.from_url(server.url, timeout=PATIENT)) as store:
        store.set("first", b"1")
        values = {f"key:{number}": b"x" * 10_000 for number in range(1000)}
        with pytest.raises(StoreError, match="raise its -m") as raised:
            store.set_many(values)
        assert not isinstance(raised.value, StoreUnavailable)
        assert store.get("first") == b"1"


KINDS: dict[type[Exception], type[StoreError]] = {
    exceptions.MemcacheError: StoreError,
    exceptions.MemcacheClientError: StoreError,
    exceptions.MemcacheIllegalInputError: StoreError,
    exceptions.MemcacheUnknownError: StoreError,
    exceptions.MemcacheServerError: StoreError,
    exceptions.MemcacheUnknownCommandError: StoreUnavailable,
    exceptions.MemcacheUnexpectedCloseError: StoreUnavailable,
    ConnectionRefusedError: StoreUnavailable,
    TimeoutError: StoreUnavailable,
    OSError: StoreUnavailable,
    ValueError: StoreError,
    KeyError: StoreError,
}


def test_every_exception_of_the_library_is_mapped() -> None:
    """Each exception class of pymemcache says "not now" or "not so"; a new one has to be put in place."""
    defined = {kind for kind in vars(exceptions).values() if isinstance(kind, type)}
    assert defined <= KINDS.keys(), "decide in memcached/link.py what they mean, and name them here"
    for kind, ours in KINDS.items():
        found = explain(kind("text of the library"))
        assert type(found) is ours, kind.__name__
        assert "text of the library" not in str(found)
    assert type(explain(exceptions.MemcacheServerError(b"object too large for cache"))) is ValueTooLarge


def test_causes_tell_no_secret(memcached: Memcached) -> None:
    """What the library says of an answer that it does not understand repeats it; what we chain does not."""
    secret = "-".join(["value", "nobody", "may", "see"])

    class Garbled:
        def __init__(self, actual: t.Any) -> None:
            self.sendall, self.close = actual.sendall, actual.close

        def recv(self, size: int) -> bytes:
            return f"{secret}\r\n".encode()

    with contextlib.closing(MemcachedStore.from_url(memcached.url, timeout=PATIENT)) as store:
        store.set("a", b"1")
        for call in (store.get, lambda key: store.set(key, b"1"), lambda key: store.get_many([key])):
            store.get("a")
            (connection,) = idle_of(store)
            connection.client.sock = Garbled(connection.client.sock)
            with pytest.raises(StoreError) as raised:
                call("a")
            assert raised.value.__cause__ is not None
            assert secret not in "".join(traceback.format_exception(raised.value))
