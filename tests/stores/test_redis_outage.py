"""The store in Redis and Valkey while servers are down, hung, killed and restarted, and what failures are called."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterator

import pytest
import redis
import redis.cluster
import redis.sentinel

from flask_stateful.errors import StoreError, StoreUnavailable
from flask_stateful.stores.redis import RedisStore
from flask_stateful.stores.redis.client import NotUnderstood, explain
from flask_stateful.testing.conformance.crowd import in_processes
from tests.services import Launch, Redis, Valkey
from tests.stores.proxy import Proxy
from tests.stores.redis_topologies import cluster, eventually, watched

#: Seconds that a server has to answer where it is going to: generous.
PATIENT = 30

#: Seconds after which a test has waited enough for a server that does not answer.
SHORT = 0.25


@pytest.fixture(params=[Redis, Valkey])
def server(request: pytest.FixtureRequest, launch: Launch) -> Redis:
    """Return a server of this test's own."""
    return launch(t.cast("type[Redis]", request.param))


@pytest.fixture
def store(server: Redis) -> Iterator[RedisStore]:
    """Return a store with connections of its own."""
    store = RedisStore.from_url(server.url, timeout=PATIENT)
    yield store
    store.close()


def hasty(server: Redis) -> RedisStore:
    """Return a store that does not wait long."""
    return RedisStore.from_url(server.url, timeout=SHORT)


# Down


def test_server_that_comes_later_is_used(server: Redis, store: RedisStore) -> None:
    """A store whose server is down at the start works as soon as that is up."""
    server.stop()
    with pytest.raises(StoreUnavailable) as raised:
        store.get("a")
    assert raised.value.__cause__ is not None
    server.start()
    store.set("a", b"1")
    assert store.get("a") == b"1"


def test_killed_server_is_unavailable_until_it_is_back(server: Redis, store: RedisStore) -> None:
    """While the server is down each call fails; when it is back the next one works."""
    store.set("a", b"1")
    server.kill()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            store.get("a")
    server.start()
    store.set("a", b"2")
    assert store.get("a") == b"2"


def test_restart_between_calls_goes_unnoticed(server: Redis, store: RedisStore) -> None:
    """A server that restarts while the store is idle causes no error, also where a script has to be sent again."""
    store.set("a", b"1")
    assert store.swap("a", b"1", b"2")
    server.restart()
    assert store.get("a") == b"2"
    server.restart()
    assert store.swap("a", b"2", b"3")


def test_connections_closed_by_the_server_go_unnoticed(server: Redis, store: RedisStore) -> None:
    """Idle connections that the server closes, however many, cause no error."""
    blocked = [threading.Thread(target=store._link.call, args=("BLPOP", f"list:{number}", 0)) for number in range(3)]
    for thread in blocked:
        thread.start()
    eventually(lambda: b"blocked_clients:3\r" in server.ask("INFO clients"))
    for number, thread in enumerate(blocked):
        server.ask(f"RPUSH list:{number} end")
        thread.join()
    assert server.ask("CLIENT LIST").count(b" laddr=127.0.0.1:") == 3
    assert server.ask("CLIENT KILL TYPE normal SKIPME yes") == b":3\r\n"
    for _ in range(3):
        store.set("a", b"1")
    assert server.ask("CLIENT LIST").count(b" laddr=127.0.0.1:") == 1


def test_unasked_words_are_not_an_answer(server: Redis) -> None:
    """A connection on which something arrived that nobody asked for is not used any more."""
    store = RedisStore.from_url(server.url, timeout=PATIENT)
    store.set("a", b"1")
    wire = store._link._idle[0]  # type: ignore[attr-defined]
    wire._socket.sendall(b"PING\r\n")
    eventually(lambda: not wire.idle())
    assert store.get("a") == b"1"
    assert wire not in store._link._idle  # type: ignore[attr-defined]
    store.close()


# Hung


def test_hung_server_is_unavailable(server: Redis) -> None:
    """A server that accepts and does not answer is unavailable: for a connection that is open, and for a new one."""
    store = hasty(server)
    store.set("a", b"1")
    server.freeze()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="TimeoutError"):
            store.get("a")
    server.thaw()
    assert eventually(lambda: read_if_there(store, "a")) == b"1"
    store.close()


def read_if_there(store: RedisStore, key: str) -> bytes | None:
    """Read a value; nothing while the store is unavailable."""
    try:
        return store.get(key)
    except StoreUnavailable:
        return None


def test_late_reply_is_no_answer_to_the_next_call(server: Redis) -> None:
    """After a timeout the connection is given up, so that the late reply answers nobody."""
    store = hasty(server)
    store.set_many({"a": b"A", "b": b"B"})
    for _ in range(5):
        server.freeze()
        with pytest.raises(StoreUnavailable):
            store.get("a")
        server.thaw()
        assert eventually(lambda: read_if_there(store, "b")) == b"B"
        assert eventually(lambda: read_if_there(store, "a")) == b"A"
    store.close()


def test_timed_out_command_is_done_once(server: Redis) -> None:
    """A command that timed out may still be done, but never twice."""
    store = hasty(server)
    store.set("count", b"0")
    server.freeze()
    with pytest.raises(StoreUnavailable):
        store.incr("count")
    server.thaw()
    assert eventually(lambda: server.ask("GET count") == b"$1\r\n1\r\n")
    store.set("a", b"1")
    assert server.ask("GET count") == b"$1\r\n1\r\n"
    store.close()


COMMANDS: dict[bytes, Callable[[RedisStore], object]] = {
    b"GET": lambda store: store.get("a"),
    b"SET": lambda store: store.set("a", b"1"),
    b"INCRBY": lambda store: store.incr("a"),
    b"IFEQ": lambda store: store.swap("a", b"1", b"2"),
    b"EVALSHA": lambda store: store.touch("a"),
    b"PEXPIRE": lambda store: store.touch("a", 60),
    b"MGET": lambda store: store.get_many(["a", "b"]),
    b"UNLINK": lambda store: store.delete("a"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_never_sent_twice(command: bytes, redis_server: Redis) -> None:
    """A connection that breaks after a command was sent is an error: whether it was done is not known."""
    with Proxy(redis_server.port) as proxy:
        store = RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", timeout=PATIENT)
        store.get("a")
        proxy.reset()
        proxy.hang_up = True
        with pytest.raises(StoreUnavailable):
            COMMANDS[command](store)
        assert (proxy.said.count(b"\r\n%b\r\n" % command), proxy.connections) == (1, 0)
        store.close()


def test_interrupted_call_gives_up_its_connection(redis_server: Redis) -> None:
    """A call that is ended from outside, between question and answer, does not leave its answer to the next one."""

    class Interrupted(BaseException):
        pass

    class Interrupting:
        def __init__(self, actual: t.Any) -> None:
            self.sendall = actual.sendall

        def recv(self, size: int) -> bytes:
            raise Interrupted

    store = RedisStore.from_url(redis_server.url, timeout=PATIENT)
    store.set_many({"a": b"A", "b": b"B"})
    (wire,) = store._link._idle  # type: ignore[attr-defined]
    wire._socket = Interrupting(wire._socket)
    with pytest.raises(Interrupted):
        store.get("a")
    assert store.get("b") == b"B"
    store.close()


# Threads and processes


def test_threads_never_get_another_ones_answer(server: Redis) -> None:
    """While the server is frozen, killed and restarted, threads get their own values, nothing, or an error."""
    store = hasty(server)
    ended = threading.Event()
    wrong: list[object] = []
    served, failed = [0] * 4, [0] * 4

    def work(number: int) -> None:
        key, value = f"key:{number}", b"%d" % number * 1000
        while not ended.is_set():
            try:
                store.set(key, value)
                found = store.get_many([key]).get(key, value), store.get(key) or value
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
    store.close()


def wait_for_more(counts: list[int]) -> None:
    """Wait until every count has grown."""
    before = list(counts)
    eventually(lambda: all(now > then for now, then in zip(counts, before, strict=True)))


def test_child_uses_connections_of_its_own(server: Redis, store: RedisStore) -> None:
    """A forked child does not touch the connections that it inherited, and leaves them open when it ends."""
    own = store._link.call("CLIENT", "ID")

    def work(number: int) -> tuple[int, int]:
        return store._link.call("CLIENT", "ID"), store._link.call("CLIENT", "ID")

    (first, again), (second, _) = in_processes(2, work, patience=PATIENT)
    assert len({own, first, second}) == 3
    assert again == first
    assert store._link.call("CLIENT", "ID") == own


def test_child_that_drops_the_store_leaves_the_parents_connection(server: Redis) -> None:
    """A child in which the store is collected or closed does not end the parent's connection."""
    stores = [RedisStore.from_url(server.url, timeout=PATIENT)]
    store = stores[0]
    own = store._link.call("CLIENT", "ID")

    def work(number: int) -> None:
        nonlocal store
        store.close()
        store = None  # type: ignore[assignment]
        stores.clear()

    in_processes(1, work, patience=PATIENT)
    assert store._link.call("CLIENT", "ID") == own
    store.close()


# Sentinel and cluster


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_failover_is_followed(scheme: str) -> None:
    """When the primary dies the sentinels' choice takes over: for a while the store is unavailable, then it works."""
    with watched() as servers:
        store = RedisStore.from_url(servers.url.replace("redis", scheme), timeout=PATIENT)
        store.set("a", b"1")
        eventually(lambda: servers.replica.ask("GET a") == b"$1\r\n1\r\n")
        servers.primary.kill()
        with pytest.raises(StoreUnavailable):
            store.get("a")
        assert eventually(lambda: read_if_there(store, "a")) == b"1"
        store.set("a", b"2")
        assert servers.replica.ask("GET a") == b"$1\r\n2\r\n"
        store.close()


def test_demoted_primary_is_left() -> None:
    """When the sentinels demote a primary that lives, the store goes to its successor, without a wrong answer."""
    with watched() as servers:
        store = RedisStore.from_url(servers.url, timeout=PATIENT)
        store.set("a", b"1")
        eventually(lambda: servers.replica.ask("GET a") == b"$1\r\n1\r\n")
        assert servers.sentinel.ask("SENTINEL FAILOVER main") == b"+OK\r\n"
        eventually(lambda: b"role:slave" in servers.primary.ask("INFO replication"))
        eventually(lambda: writes(store))
        assert servers.replica.ask("GET a") == b"$1\r\n2\r\n"
        store.close()


def writes(store: RedisStore) -> bool:
    """Try to write."""
    try:
        store.set("a", b"2")
    except StoreUnavailable:
        return False
    return True


def test_sentinel_with_a_password() -> None:
    """Sentinels have a login of their own, and the service may have a database."""
    with watched() as servers:
        assert servers.sentinel.ask("ACL SETUSER default resetpass >hidden") == b"+OK\r\n"
        host = f"127.0.0.1:{servers.sentinel.port}"
        store = RedisStore.from_url(f"redis+sentinel://{host}/main/2?sentinel_password=hidden", timeout=PATIENT)
        store.set("a", b"1")
        with redis.Redis(port=servers.primary.port, db=2) as client:
            assert client.get("a") == b"1"
        store.close()
        stranger = RedisStore.from_url(f"redis+sentinel://{host}/main", timeout=PATIENT)
        with pytest.raises(StoreError):
            stranger.get("a")
        stranger.close()


def test_unknown_service_is_unavailable() -> None:
    """A service that no sentinel knows is unavailable: they may yet learn of it."""
    with watched() as servers:
        store = RedisStore.from_url(servers.url.replace("/main", "/other"), timeout=PATIENT)
        with pytest.raises(StoreUnavailable, match="MasterNotFoundError"):
            store.get("a")
        store.close()


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_cluster_loses_a_node_and_then_all(scheme: str) -> None:
    """Without a node some keys are unavailable; without all of them every key is; and it works when they are back."""
    with cluster("--cluster-require-full-coverage", "no") as nodes:
        store = RedisStore.from_url(nodes.url.replace("redis", scheme), timeout=PATIENT)
        keys = [f"key:{number}" for number in range(30)]
        store.set_many(dict.fromkeys(keys, b"1"))
        nodes.nodes[0].kill()
        outcomes = {key: reads(store, key) for key in keys}
        assert set(outcomes.values()) == {True, False}
        for node in nodes.nodes[1:]:
            node.kill()
        assert not any(reads(store, key) for key in keys)
        for node in nodes.nodes:
            node.start()
        nodes.wait()
        eventually(lambda: all(reads(store, key) for key in keys))
        assert store.get_many(keys) == {}
        store.close()


def reads(store: RedisStore, key: str) -> bool:
    """Try to read."""
    try:
        store.get(key)
    except StoreUnavailable:
        return False
    return True


def test_cluster_that_is_down_at_the_start_is_found_later() -> None:
    """A store is opened while no node of its cluster answers, and works when they do."""
    with cluster() as nodes:
        for node in nodes.nodes:
            node.stop()
        store = RedisStore.from_url(nodes.url, timeout=PATIENT)
        with pytest.raises(StoreUnavailable):
            store.get("a")
        for node in nodes.nodes:
            node.start()
        nodes.wait()
        store.set("a", b"1")
        assert store.get("a") == b"1"
        store.close()


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_cluster_that_moved_is_found_by_its_url(scheme: str) -> None:
    """A cluster that comes back at other addresses is found, for the one in the URL still leads there."""
    with cluster() as old, Proxy(old.nodes[0].port) as proxy:
        store = RedisStore.from_url(f"{scheme}+cluster://127.0.0.1:{proxy.port}", timeout=PATIENT)
        store.set("a", b"1")
        for node in old.nodes:
            node.kill()
        assert not reads(store, "a")
        with cluster() as new:
            proxy.target = new.nodes[0].port
            eventually(lambda: reads(store, "a"))
            store.set("a", b"2")
            assert any(node.ask("GET a") == b"$1\r\n2\r\n" for node in new.nodes)
        store.close()


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_cluster_is_found_while_a_node_is_down(scheme: str) -> None:
    """A store that begins while a node is down, be it the first one, serves the keys of the others."""
    with cluster("--cluster-require-full-coverage", "no") as nodes:
        nodes.nodes[0].kill()
        store = RedisStore.from_url(nodes.url.replace("redis", scheme), timeout=PATIENT)
        assert {reads(store, f"key:{number}") for number in range(30)} == {True, False}
        store.close()


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_cluster_command_is_never_sent_twice(scheme: str, launch: Launch) -> None:
    """A cluster's connection that breaks after a command with one key was sent is an error."""
    with Proxy(0) as proxy:
        node = launch(Valkey, "--cluster-enabled", "yes", "--cluster-announce-port", str(proxy.port))
        assert node.ask("CLUSTER ADDSLOTSRANGE 0 16383") == b"+OK\r\n"
        eventually(lambda: b"cluster_state:ok" in node.ask("CLUSTER INFO"))
        proxy.target = node.port
        store = RedisStore.from_url(f"{scheme}+cluster://127.0.0.1:{proxy.port}", timeout=PATIENT)
        for command in COMMANDS.keys() - {b"MGET"}:
            eventually(lambda: reads(store, "a"))
            proxy.reset()
            proxy.hang_up = True
            with pytest.raises(StoreUnavailable):
                COMMANDS[command](store)
            assert proxy.said.count(b"\r\n%b\r\n" % command) == 1
            # Of several nodes valkey-py would ask the next; with one, only this shows it.
            assert getattr(store._link.client, "cluster_error_retry_attempts", 0) == 0
        store.close()


def test_cluster_child_makes_a_client_of_its_own() -> None:
    """A forked child leaves the cluster's client to its parent."""
    with cluster() as nodes:
        store = RedisStore.from_url(nodes.url, timeout=PATIENT)
        store.set("a", b"1")
        client = store._link.client

        def work(number: int) -> tuple[bytes | None, bool]:
            return store.get("a"), store._link.client is client

        assert in_processes(2, work, patience=PATIENT) == [(b"1", False)] * 2
        assert store._link.client is client
        assert store.get("a") == b"1"
        store.close()


# What failures are called

UNAVAILABLE = {
    *("ConnectionError", "TimeoutError", "MaxConnectionsError", "ExternalAuthProviderError", "BusyLoadingError"),
    *("ReadOnlyError", "TryAgainError", "ClusterError", "ClusterDownError", "MasterDownError", "SlotNotCoveredError"),
    *("RedisClusterException", "ValkeyClusterException", "MasterNotFoundError", "SlaveNotFoundError"),
}

REFUSED = {
    *("RedisError", "ValkeyError", "InvalidResponse", "ResponseError", "DataError", "PubSubError", "WatchError"),
    *("AuthenticationError", "AuthorizationError", "AuthenticationWrongNumberOfArgsError", "NoPermissionError"),
    *("OutOfMemoryError", "ExecAbortError", "NoScriptError", "ModuleError", "NoSuchFieldsetError", "EventException"),
    *("LockError", "LockNotOwnedError", "ChildDeadlockedError", "IncorrectPolicyType", "InvalidPipelineStack"),
    *("AskError", "MovedError", "ClusterCrossSlotError", "CrossSlotTransactionError"),
    *("InvalidTokenSchemaErr", "RequestTokenErr", "TokenRenewalErr"),
}


def exceptions_of(package: str) -> list[type[Exception]]:
    """Return every exception class that a loaded package defines."""
    found, new = set[type[Exception]](), {Exception}
    while new:
        found |= new
        new = {kind for parent in new for kind in parent.__subclasses__()} - found
    return sorted((kind for kind in found if kind.__module__.split(".")[0] == package), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("package", ["redis", "valkey"])
def test_every_exception_of_the_libraries_is_mapped(package: str) -> None:
    """Each exception class of redis-py and valkey-py says "not now" or "not so"; a new one has to be put in place."""
    kinds = exceptions_of(package)
    assert len(kinds) > 25
    unknown = {kind.__name__ for kind in kinds} - UNAVAILABLE - REFUSED
    assert unknown == set(), "decide in redis/client.py what they mean, and name them here"
    for kind in kinds:
        error = kind.__new__(kind, "text of the library")
        found = explain(error)
        assert isinstance(found, StoreUnavailable) == (kind.__name__ in UNAVAILABLE), kind.__name__
        assert isinstance(found, NotUnderstood) == (kind.__name__ == "NoScriptError"), kind.__name__
        assert "text of the library" not in str(found)


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (ConnectionRefusedError(111, "refused"), True),
        (TimeoutError("timed out"), True),
        (OSError("no route"), True),
        (redis.ResponseError("LOADING Redis is loading the dataset in memory"), True),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (redis.ResponseError("ERR unknown command"), False),
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), False),
        (redis.ResponseError("Error: LOADING is not the first word"), False),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "text"), False),
    ],
)
def test_other_errors_are_mapped_by_class_and_code(error: Exception, unavailable: bool) -> None:
    """The system's errors are outages; replies go by the code that they begin with."""
    assert isinstance(explain(error), StoreUnavailable) == unavailable
