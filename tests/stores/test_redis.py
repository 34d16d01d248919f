"""What is particular to the store in Redis and Valkey, on real servers that are well."""

from __future__ import annotations

import contextlib
import datetime
import gc
import ipaddress
import sys
import threading
import traceback
import typing as t
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import redis.asyncio
import valkey as valkey_py
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flask_stateful.errors import ConfigError, StoreError, StoreUnavailable
from flask_stateful.stores import open_store
from flask_stateful.stores.redis import RedisStore
from flask_stateful.testing import FakeClock
from tests.services import Launch, Redis, Valkey
from tests.stores.proxy import Proxy
from tests.stores.redis_topologies import cluster, eventually

#: Seconds; no test here is about being late.
PATIENT = 30

#: Put together so that no line of source in a traceback contains it.
PASSWORD = "-".join(["pass/word", "nobody@may", "see#"])
QUOTED = "-".join(["pass%2Fword", "nobody%40may", "see%23"])


def statistic(server: Redis, name: str) -> int:
    """Return a number of ``INFO``."""
    lines = dict(line.partition(b":")[::2] for line in server.ask("INFO everything").splitlines())
    return int(lines[name.encode()])


def connections(server: Redis) -> int:
    """Return how many connections a server has ever had; asking is one of them."""
    return statistic(server, "total_connections_received")


@pytest.fixture(params=[Redis, Valkey])
def server(request: pytest.FixtureRequest, redis_server: Redis, valkey: Valkey) -> Redis:
    """Return each of the shared servers, empty."""
    server = redis_server if request.param is Redis else valkey
    assert server.ask("FLUSHALL") == b"+OK\r\n"
    return server


@pytest.fixture
def store(server: Redis) -> Iterator[RedisStore]:
    """Return a store with connections of its own."""
    store = RedisStore.from_url(server.url, timeout=PATIENT)
    yield store
    store.close()


# One round trip

LINKS: dict[str, Callable[[int], RedisStore]] = {
    "own": lambda port: RedisStore.from_url(f"redis://127.0.0.1:{port}", timeout=PATIENT),
    "redis-py": lambda port: RedisStore(redis.Redis(port=port)),
    "valkey-py": lambda port: RedisStore(valkey_py.Valkey(port=port)),
}

CALLS: dict[str, Callable[[RedisStore], object]] = {
    "get": lambda store: store.get("a"),
    "get nothing": lambda store: store.get("absent"),
    "set": lambda store: store.set("a", b"1"),
    "set with ttl": lambda store: store.set("a", b"1", 60),
    "add": lambda store: store.add("a", b"1", 60),
    "swap": lambda store: store.swap("a", b"1", b"2", 60),
    "swap in vain": lambda store: store.swap("a", b"other", b"2"),
    "touch": lambda store: store.touch("a", 60),
    "touch for ever": lambda store: store.touch("a"),
    "delete": lambda store: store.delete("a"),
    "incr": lambda store: store.incr("count"),
    "incr with ttl": lambda store: store.incr("count", 1, 60),
    "get_many": lambda store: store.get_many(["a", "b", "c"]),
    "set_many": lambda store: store.set_many({"a": b"1", "b": b"2", "c": b"3"}, 60),
    "delete_many": lambda store: store.delete_many(["a", "b", "c"]),
}

NO_CALLS: dict[str, Callable[[RedisStore], object]] = {
    "get": lambda store: store.get("\ud800"),
    "delete": lambda store: store.delete(""),
    "touch": lambda store: store.touch("k" * 1025, 60),
    "get_many": lambda store: store.get_many(["", "\ud800"]),
    "set_many": lambda store: store.set_many({}),
    "delete_many": lambda store: store.delete_many([]),
    "scan": lambda store: list(store.scan("\ud800")),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("call", CALLS)
def test_call_is_one_round_trip(server: Redis, link: str, call: str) -> None:
    """Each call is one round trip, on one connection."""
    with Proxy(server.port) as proxy:
        store = LINKS[link](proxy.port)
        store.set_many({"a": b"1", "b": b"2"})
        CALLS[call](store)
        proxy.reset()
        CALLS[call](store)
        assert (proxy.trips, proxy.connections) == (1, 0)
        store.close()


@pytest.mark.parametrize("call", NO_CALLS)
def test_malformed_key_is_no_round_trip(server: Redis, call: str) -> None:
    """What cannot be there is not asked for."""
    with Proxy(server.port) as proxy:
        store = LINKS["own"](proxy.port)
        NO_CALLS[call](store)
        assert (proxy.trips, proxy.connections) == (0, 0)
        store.close()


def test_cluster_call_is_one_round_trip() -> None:
    """In a cluster a call with one key is one round trip, and one with many is one with each node."""
    with cluster() as nodes, contextlib.ExitStack() as stack:
        store = RedisStore.from_url(nodes.url, timeout=PATIENT)
        clients = [stack.enter_context(redis.Redis(port=node.port)) for node in nodes.nodes]
        many = {f"key:{number}": b"1" for number in range(100)}
        several: dict[str, Callable[[RedisStore], object]] = {
            "set_many": lambda store: store.set_many(many, 60),
            "get_many": lambda store: store.get_many(many),
            "delete_many": lambda store: store.delete_many(many),
        }
        for name, call in {**CALLS, **several}.items():
            call(store)
            before = [reads(client) for client in clients]
            call(store)
            made = [reads(client) - count - 1 for client, count in zip(clients, before, strict=True)]
            assert sorted(made) == ([1, 1, 1] if name in several else [0, 0, 1]), name
        store.close()


def reads(client: t.Any) -> int:
    """Return how often a server has read from clients; asking is one of these."""
    count: int = client.info("stats")["total_reads_processed"]
    return count


# Scripts


@pytest.mark.parametrize("link", LINKS)
def test_script_is_sent_once(redis_server: Redis, link: str) -> None:
    """Where the server has lost the scripts, each is sent once more, and nothing is done twice."""
    with Proxy(redis_server.port) as proxy:
        store = LINKS[link](proxy.port)
        store.set("a", b"1")
        store.swap("a", b"other", b"2")
        assert redis_server.ask("SCRIPT FLUSH") == b"+OK\r\n"
        proxy.reset()
        assert store.swap("a", b"1", b"2")
        assert store.incr("a", 1, 60) == 3
        assert store.touch("a")
        assert proxy.trips == 6
        proxy.reset()
        assert store.swap("a", b"3", b"4")
        assert store.incr("a", 1, 60) == 5
        assert store.touch("a")
        assert proxy.trips == 3
        assert b"redis.call" not in proxy.said
        store.close()


@pytest.mark.parametrize("link", LINKS)
def test_swap_is_left_to_servers_that_can(redis_server: Redis, valkey: Valkey, link: str) -> None:
    """A server that compares by itself does so; one that cannot is asked for it once, and runs a script."""
    for server, asked, scripts in ((valkey, 4, 0), (redis_server, 1, 4)):
        server.ask("SET a 1")
        with Proxy(server.port) as proxy:
            store = LINKS[link](proxy.port)
            store.touch("a")
            proxy.reset()
            assert store.swap("a", b"1", b"2")
            assert not store.swap("a", b"1", b"3")
            assert not store.swap("absent", b"", b"3")
            assert store.swap("a", b"2", b"3", 60)
            assert (store.get("a"), store.get("absent")) == (b"3", None)
            assert proxy.said.count(b"\r\nIFEQ\r\n") == asked
            assert proxy.said.count(b"\r\nEVALSHA\r\n") == scripts
            store.close()


# What lies in the server


def test_keys_and_values_are_raw(server: Redis, store: RedisStore) -> None:
    """A key is its UTF-8 bytes, a value the bytes themselves."""
    store.set("Schlüssel\r\n", b"\xff\x00")
    with redis.Redis.from_url(server.url) as client:
        assert client.keys() == ["Schlüssel\r\n".encode()]
        assert client.get("Schlüssel\r\n".encode()) == b"\xff\x00"


def test_key_is_utf8_whatever_the_client_encodes(server: Redis, store: RedisStore) -> None:
    """A client that encodes text otherwise reaches the same keys."""
    with redis.Redis.from_url(server.url, encoding="latin-1") as client:
        RedisStore(client).set("Schlüssel", b"1")
    assert store.get("Schlüssel") == b"1"
    assert list(store.scan("Schl")) == ["Schlüssel"]


@pytest.mark.parametrize(
    ("ttl", "low", "high"),
    [(1e-9, 1, 1), (0.0015, 1, 2), (60, 59_000, 60_000), (1e300, 2**53 - 60_000, 2**53), (timedelta.max, 2**52, 2**53)],
)
def test_ttl_is_rounded_to_what_the_server_takes(server: Redis, ttl: t.Any, low: int, high: int) -> None:
    """A ttl is whole milliseconds, at least one; the longest ones are shortened to what the server can hold."""
    with Proxy(server.port) as proxy:
        store = LINKS["own"](proxy.port)
        for write in (
            lambda: store.set("a", b"1", ttl),
            lambda: store.add("b", b"1", ttl),
            lambda: store.incr("c", 1, ttl),
            lambda: store.set_many({"d": b"1"}, ttl),
            lambda: store.touch("d", ttl),
            lambda: store.swap("d", b"1", b"1", ttl),
        ):
            proxy.reset()
            write()
            numbers = [int(word) for word in proxy.said.split(b"\r\n") if word.isdigit() and len(word) < 17]
            assert any(low <= number <= high for number in numbers)
        if high > 10:
            assert low <= int(server.ask("PTTL a")[1:]) <= high
        store.close()


@pytest.mark.parametrize("link", LINKS)
def test_foreign_type_is_an_error(server: Redis, link: str) -> None:
    """A list where a value should be is an error, which says so; the connection goes on to be used."""
    store = LINKS[link](server.port)
    server.ask("RPUSH list one two")
    store.set("a", b"1")
    before = connections(server)
    calls: list[Callable[[], object]] = [
        lambda: store.get("list"),
        lambda: store.swap("list", b"one", b"two"),
        lambda: store.incr("list"),
        lambda: store.incr("list", 1, 60),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="something else has written") as raised:
            call()
        assert not isinstance(raised.value, StoreUnavailable)
        assert raised.value.__cause__ is not None
    assert store.get_many(["list", "a"]) == {"a": b"1"}
    assert not store.add("list", b"1")
    assert connections(server) == before + 1
    store.close()


def test_counter_overflow_is_an_error(store: RedisStore) -> None:
    """A counter that would leave 64 bits stays as it is."""
    store.set("a", b"%d" % (2**63 - 1))
    for ttl in (None, 60):
        with pytest.raises(StoreError):
            store.incr("a", 1, ttl)
    assert store.incr("a", 0, 60) == 2**63 - 1


def test_scan_passes_over_what_is_foreign(server: Redis, store: RedisStore) -> None:
    """Keys of other types, and those that cannot be ours, are not listed."""
    store.set("app:ours", b"1")
    with redis.Redis.from_url(server.url) as client:
        client.rpush("app:list", "one")
        client.set(b"app:\xff", "not UTF-8")
        client.set("app:" + "x" * 1024, "too long")
        assert client.dbsize() == 4
    assert list(store.scan("app:")) == ["app:ours"]


def test_scan_lists_once_what_the_server_lists_twice() -> None:
    """A server may name a key more than once while its table grows; the store does not."""

    class Repeating(redis.Redis):
        def scan_iter(self, **options: t.Any) -> Iterator[bytes]:
            yield from [b"a", b"b", b"a", b"a", b"b"]

    assert list(RedisStore(Repeating()).scan("")) == ["a", "b"]


# Connections


def test_threads_share_idle_connections(server: Redis, store: RedisStore) -> None:
    """Threads that come and go use one connection after the other; nothing is left of those that ended."""
    store.set("a", b"1")
    before = connections(server)
    for _ in range(20):
        thread = threading.Thread(target=store.get, args=("a",))
        thread.start()
        thread.join()
    assert connections(server) == before + 1


def test_close_closes_idle_connections(server: Redis, store: RedisStore) -> None:
    """A store that is closed leaves no connection behind, neither of its own nor of the client that it asks through."""
    gc.collect()  # what a test before has left to the garbage collector
    store.set("a", b"1")
    assert store.durable
    eventually(lambda: server.ask("CLIENT LIST").count(b" laddr=127.0.0.1:") == 2)
    store.close()
    eventually(lambda: b" laddr=127.0.0.1:" not in server.ask("CLIENT LIST"))


def test_close_closes_every_connection(server: Redis, store: RedisStore) -> None:
    """A store that is closed leaves no connection behind, also where calls were under way."""
    calls = [threading.Thread(target=store._link.call, args=("BLPOP", f"list:{number}", 0)) for number in range(3)]
    for call in calls:
        call.start()
    eventually(lambda: b"blocked_clients:3\r" in server.ask("INFO clients"))
    store.set("a", b"1")
    store.close()
    for number, call in enumerate(calls):
        server.ask(f"RPUSH list:{number} end")
        call.join()
    eventually(lambda: b" laddr=127.0.0.1:" not in server.ask("CLIENT LIST"))


def test_given_client_stays_open(server: Redis) -> None:
    """A store does not close a client that it was given, and does not use it any more."""
    with redis.Redis.from_url(server.url) as client:
        before = connections(server)
        store = RedisStore(client)
        store.set("a", b"1")
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.get("a")
        assert client.get("a") == b"1"
        assert connections(server) == before + 2


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_unix_socket_and_database(server: Redis, scheme: str) -> None:
    """A database is chosen in the URL, over TCP and over a Unix socket."""
    over_tcp = RedisStore.from_url(f"{scheme}://127.0.0.1:{server.port}/3", timeout=PATIENT)
    over_path = RedisStore.from_url(f"unix://{server.socket_path}?db=3", timeout=PATIENT)
    over_tcp.set("a", b"1")
    assert over_path.get("a") == b"1"
    with redis.Redis(port=server.port, db=3) as client:
        assert client.get("a") == b"1"
    over_tcp.close()
    over_path.close()


def test_valkey_schemes_prefer_valkey_py(server: Redis) -> None:
    """Each scheme is opened with the library of its name, where that is installed."""
    for scheme, library in (("redis", redis), ("valkey", valkey_py)):
        store = RedisStore.from_url(f"{scheme}://127.0.0.1:{server.port}", timeout=PATIENT)
        assert type(store._link.client) is library.Redis
        store.set("a", b"1")
        assert store.get("a") == b"1"
        store.close()


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_tls_to_sentinels_and_clusters(library: str) -> None:
    """The schemes of sentinels and clusters have a form for TLS, which holds for every connection."""
    store = RedisStore.from_url(f"{library}s+sentinel://host/main?ssl_ca_certs=/ca")
    client = store._link.client
    assert client.connection_pool.connection_class.__name__ == "SentinelManagedSSLConnection"
    for pool in (client.connection_pool, client.connection_pool.sentinel_manager.sentinels[0].connection_pool):
        assert pool.connection_kwargs["ssl_ca_certs"] == "/ca"
    assert pool.connection_class.__name__ == "SSLConnection"
    RedisStore.from_url(f"{library}s+cluster://host?ssl_ca_certs=/ca").close()
    with pytest.raises(ConfigError):
        RedisStore.from_url(f"{library}+cluster://host?ssl_ca_certs=/ca")


def test_open_store_opens_it(server: Redis) -> None:
    """The scheme is known to open_store, which hands on the timeout."""
    store = open_store(server.url, timeout=7)
    assert isinstance(store, RedisStore)
    assert store._link.client.connection_pool.connection_kwargs["socket_timeout"] == 7
    store.close()


def test_url_options_reach_the_connections(server: Redis) -> None:
    """What follows the question mark are options of the client library, which win."""
    store = RedisStore.from_url(f"{server.url}?client_name=shop&socket_timeout=7", timeout=PATIENT)
    store.set("a", b"1")
    assert b" name=shop " in server.ask("CLIENT LIST")
    assert store._link.client.connection_pool.connection_kwargs["socket_timeout"] == 7
    store.close()


@pytest.mark.parametrize("kind", [Redis, Valkey])
def test_password_is_percent_encoded(kind: type[Redis], launch: Launch) -> None:
    """A password with special characters is written percent-encoded; none or a wrong one is an error that says so."""
    server = launch(kind, "--requirepass", PASSWORD)
    host = f"127.0.0.1:{server.port}"
    store = RedisStore.from_url(f"redis://:{QUOTED}@{host}", timeout=PATIENT)
    store.set("a", b"1")
    assert store.get("a") == b"1"
    store.close()
    for url in (f"redis://{host}", f"redis://:{QUOTED}x@{host}"):
        store = RedisStore.from_url(url, timeout=PATIENT)
        with pytest.raises(StoreError, match="mend the login") as raised:
            store.get("a")
        assert not isinstance(raised.value, StoreUnavailable)
        assert PASSWORD not in "".join(traceback.format_exception(raised.value))
        assert PASSWORD not in repr(store)
        store.close()


def test_tls(launch: Launch, tmp_path: Path) -> None:
    """rediss:// checks the server's certificate, and keeps its connection over many calls."""
    make_certificate(tmp_path)
    files = ["--tls-cert-file", f"{tmp_path}/server.crt", "--tls-key-file", f"{tmp_path}/server.key"]
    options = ["--port", "0", "--tls-port", "{port}", "--tls-ca-cert-file", f"{tmp_path}/server.crt", *files]
    server = launch(Redis, *options, "--tls-auth-clients", "no")
    store = RedisStore.from_url(
        f"rediss://127.0.0.1:{server.port}/1?ssl_ca_certs={tmp_path}/server.crt", timeout=PATIENT
    )
    before = connections(server)
    for number in range(5):
        store.set("a", b"x" * 100_000 + b"%d" % number)
        assert store.get("a") == b"x" * 100_000 + b"%d" % number
    assert connections(server) == before + 2
    server.ask("CLIENT KILL TYPE normal")
    assert store.swap("a", b"x" * 100_000 + b"4", b"1")
    store.close()
    unknown = RedisStore.from_url(f"rediss://127.0.0.1:{server.port}", timeout=PATIENT)
    with pytest.raises(StoreUnavailable) as raised:
        unknown.get("a")
    assert "CERTIFICATE_VERIFY_FAILED" in str(raised.value.__cause__)
    unknown.close()


def make_certificate(folder: Path) -> None:
    """Write a certificate for 127.0.0.1 that nobody else has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "server.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))


# What cannot be opened

HOSTS = "127.0.0.1:1,127.0.0.1:2"

WRONG_URLS = {
    "no number as port": "redis://:{}@host:port/0",
    "port out of range": "redis://:{}@host:99999/0",
    "no number as database": "redis://:{}@host/zero",
    "no host": "redis://:{}@/0",
    "several hosts": "redis://:{}@" + HOSTS + "/0",
    "unknown option": "redis://:{}@host?no_such_option=1",
    "fragment": "redis://:{}#x@host/0",
    "raw slash in the password": "redis://:{}/x@host/0",
    "raw slash after digits": "redis://:123/{}@host/0",
    "raw question mark in the password": "redis://:123?{}@host/0",
    "decoding": "redis://:{}@host?decode_responses=true",
    "socket without path": "unix://:{}@",
    "socket with host": "unix://:{}@host/path",
    "cluster with database": "redis+cluster://:{}@" + HOSTS + "/1",
    "cluster with database option": "redis+cluster://:{}@" + HOSTS + "?db=1",
    "cluster with unknown option": "redis+cluster://:{}@" + HOSTS + "?no_such_option=1",
    "cluster with empty host": "redis+cluster://:{}@host:1,,host:2",
    "sentinel without service": "redis+sentinel://:{}@" + HOSTS,
    "sentinel with no number as database": "redis+sentinel://:{}@" + HOSTS + "/main/x",
    "sentinel with unknown option": "redis+sentinel://:{}@" + HOSTS + "/main?no_such_option=1",
    "unknown scheme": "radis://:{}@host",
    "no scheme": ":{}@host",
}


@pytest.mark.parametrize("url", [pytest.param(url, id=name) for name, url in WRONG_URLS.items()])
def test_wrong_url_says_what_to_write(url: str) -> None:
    """A wrong URL is a ConfigError that shows the right form, and nothing of the password."""
    password = "".join(["hunt", "er2"])
    with pytest.raises(ConfigError) as raised:
        RedisStore.from_url(url.format(password))
    assert password not in "".join(traceback.format_exception(raised.value))
    kind = url.partition("://")[0] if "://" in url else "redis"
    assert f"{kind.replace('radis', 'redis')}://" in str(raised.value) or "decode_responses=False" in str(raised.value)


@pytest.mark.parametrize("scheme", ["redis", "valkeys", "unix", "redis+cluster", "redis+sentinel"])
def test_missing_library_names_the_extra(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py and valkey-py, the error names what installs it."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "valkey", None)
    with pytest.raises(ConfigError, match=r'pip install "Flask-Stateful\[redis\]"'):
        RedisStore.from_url(f"{scheme}://host")


@pytest.mark.parametrize("missing", ["redis", "valkey"])
def test_either_library_will_do(missing: str, server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only one of the libraries is installed, it opens the URLs of both."""
    monkeypatch.setitem(sys.modules, missing, None)
    for scheme in ("redis", "valkey"):
        store = RedisStore.from_url(f"{scheme}://127.0.0.1:{server.port}", timeout=PATIENT)
        store.set("a", b"1")
        assert store.get("a") == b"1"
        store.close()


def test_works_without_hiredis(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hiredis is missing, commands go through the client; still nothing is sent twice."""
    monkeypatch.setitem(sys.modules, "flask_stateful.stores.redis.wire", None)
    with Proxy(server.port) as proxy:
        store = RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", timeout=PATIENT)
        store.set("a", b"1")
        assert store.swap("a", b"1", b"2")
        proxy.hang_up = True
        proxy.reset()
        with pytest.raises(StoreUnavailable):
            store.incr("count")
        assert proxy.said.count(b"INCRBY") == 1
        store.close()


@pytest.mark.parametrize(
    ("client", "hint"),
    [
        (lambda: redis.Redis(decode_responses=True), "decode_responses=False"),
        (lambda: valkey_py.Valkey(decode_responses=True), "decode_responses=False"),
        (lambda: redis.asyncio.Redis(), "not redis.asyncio.Redis"),
        (lambda: "redis://localhost", "RedisStore.from_url"),
        (lambda: None, "RedisStore.from_url"),
    ],
)
def test_unusable_client_is_refused(client: Callable[[], t.Any], hint: str) -> None:
    """A client that decodes, is asynchronous, or is none, is a ConfigError that names the fix."""
    with pytest.raises(ConfigError, match=hint):
        RedisStore(client())


def test_client_is_used_whatever_its_class() -> None:
    """What behaves like a client is used as one, and is not replaced by one that is connected to this machine."""

    class Dictionary:
        def __init__(self) -> None:
            self.values: dict[bytes, bytes] = {}

        def execute_command(self, name: str, *arguments: t.Any) -> t.Any:
            if name == "SET":
                self.values[arguments[0]] = arguments[1]
                return True
            assert name == "GET"
            return self.values.get(arguments[0])

    client = Dictionary()
    store = RedisStore(client)
    store.set("a", b"1")
    assert store.get("a") == b"1"
    assert client.values == {b"a": b"1"}


# What an operator should mend


def test_well_server_has_no_problems(store: RedisStore) -> None:
    """A server that is set up well has no problems."""
    assert store.check() == []
    assert store.durable is True
    assert store.shared
    assert store.remote


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
def test_evicting_server_is_not_durable(launch: Launch, policy: str) -> None:
    """A server that may evict is not durable and says so; once mended, a check notices."""
    server = launch(Valkey, "--maxmemory-policy", policy)
    store = RedisStore.from_url(server.url, timeout=PATIENT)
    assert store.durable is False
    assert [problem for problem in store.check() if f"noeviction, not {policy}" in problem]
    server.ask("CONFIG SET maxmemory-policy noeviction")
    assert store.check() == []
    assert store.durable is True
    store.close()


def test_durable_asks_once(server: Redis) -> None:
    """The eviction policy is asked for once, and not at the start."""
    with Proxy(server.port) as proxy:
        store = LINKS["own"](proxy.port)
        assert proxy.connections == 0
        assert store.durable
        proxy.reset()
        assert store.durable
        assert proxy.trips == 0
        store.close()


def test_durable_of_unreachable_server_is_an_error() -> None:
    """Whether a server evicts is not guessed while it cannot be reached."""
    store = RedisStore.from_url("redis://127.0.0.1:1")
    with pytest.raises(StoreUnavailable):
        store.durable  # noqa: B018
    with pytest.raises(StoreUnavailable):
        store.check()


def test_forgetful_server_is_reported(launch: Launch) -> None:
    """A server that keeps nothing on disk is reported; with either way of keeping it, it is not."""
    server = launch(Redis, "--save", "", "--appendonly", "no")
    store = RedisStore.from_url(server.url, timeout=PATIENT)
    (problem,) = store.check()
    assert "appendonly yes" in problem
    server.ask("CONFIG SET appendonly yes")
    assert store.check() == []
    store.close()


@pytest.mark.parametrize(("seconds", "text"), [(60, "-60 s"), (-60, "+60 s"), (4, None), (-4, None)])
def test_wrong_clock_is_reported(server: Redis, seconds: int, text: str | None) -> None:
    """A clock that is off by more than five seconds is reported, with its sign."""
    store = RedisStore.from_url(server.url, timeout=PATIENT)
    with FakeClock() as clock:
        clock.set(clock.now() + seconds)
        problems = store.check()
    assert [text in problem for problem in problems] == ([True] if text else [])
    store.close()


@pytest.mark.parametrize(
    ("version", "old"), [("5.0.14", True), ("6.0.0", False), ("255.255.255", False), ("df-1", False)]
)
def test_old_server_is_reported(version: str, old: bool) -> None:
    """A server before version 6 is reported; one with a version of another kind is not."""

    class Reporting(redis.Redis):
        def execute_command(self, *command: t.Any, **options: t.Any) -> t.Any:
            now = datetime.datetime.now(datetime.UTC).timestamp()
            info = {"redis_version": version, "maxmemory_policy": "noeviction"}
            return {"INFO": info, "TIME": (int(now), 0), "CONFIG GET": {"save": "1 1"}}.get(command[0])

    assert [f"Redis {version} is too old" in problem for problem in RedisStore(Reporting()).check()] == [True] * old


def test_what_a_server_does_not_tell_is_not_reported(launch: Launch) -> None:
    """A user who may not ask still gets a store that works; whether it evicts then counts as unknown."""
    server = launch(Redis)
    server.ask("ACL SETUSER app on nopass ~* +@read +@write +@scripting -info -time -config")
    store = RedisStore.from_url(f"redis://app:any@127.0.0.1:{server.port}", timeout=PATIENT)
    store.set("a", b"1")
    assert store.swap("a", b"1", b"2")
    assert store.durable is False
    (problem,) = store.check()
    assert "+info" in problem
    store.close()


# What servers refuse


def test_full_server_refuses(launch: Launch) -> None:
    """A server that is full and does not evict refuses writes, says why, and still answers reads."""
    server = launch(Redis)
    store = RedisStore.from_url(server.url, timeout=PATIENT)
    store.set("a", b"1")
    server.ask("CONFIG SET maxmemory 1")
    for write in (lambda: store.set("b", b"1"), lambda: store.swap("a", b"1", b"2"), lambda: store.incr("c", 1, 9)):
        with pytest.raises(StoreError, match="raise its maxmemory") as raised:
            write()
        assert not isinstance(raised.value, StoreUnavailable)
    assert store.get("a") == b"1"
    store.close()


@pytest.mark.parametrize("link", LINKS)
def test_refusal_of_one_among_many_tells_no_key(launch: Launch, link: str) -> None:
    """Where a server refuses one of many commands, the error names neither its key nor its value."""
    server = launch(Redis)
    store = LINKS[link](server.port)
    store.set("a", b"1")
    server.ask("CONFIG SET maxmemory 1")
    secrets = ["-".join([kind, "nobody", "may", "see"]) for kind in ("key", "value")]
    with pytest.raises(StoreError, match="raise its maxmemory") as raised:
        store.set_many({secrets[0]: secrets[1].encode()})
    text = "".join(traceback.format_exception(raised.value))
    assert not any(secret in text for secret in secrets)
    assert store.get("a") == b"1"
    store.close()


def test_forbidden_command_tells_no_key(launch: Launch) -> None:
    """A server that does not know a command repeats its arguments; our errors do not."""
    server = launch(Redis, "--rename-command", "UNLINK", "", "--rename-command", "GET", "")
    key = "-".join(["key", "nobody", "may", "see"])
    for store in (LINKS["own"](server.port), LINKS["redis-py"](server.port), LINKS["valkey-py"](server.port)):
        for call in (store.get, store.delete):
            with pytest.raises(StoreError) as raised:
                call(key)
            assert "unknown command" in str(raised.value.__cause__)
            assert key not in "".join(traceback.format_exception(raised.value))
        store.close()


def test_user_without_rights_is_told(launch: Launch) -> None:
    """A user whose ACL forbids a command learns what it needs."""
    server = launch(Redis)
    server.ask("ACL SETUSER app on nopass ~* +get +client")
    store = RedisStore.from_url(f"redis://app:any@127.0.0.1:{server.port}", timeout=PATIENT)
    assert store.get("a") is None
    with pytest.raises(StoreError, match="its ACL must allow"):
        store.set("a", b"1")
    store.close()


NOT_NOW = {
    "replica": (["--replicaof", "127.0.0.1 1"], "READONLY|ReadOnlyError"),
    "stale replica": (["--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no"], "MASTERDOWN|MasterDownError"),
    "without replicas": (["--min-replicas-to-write", "1"], "NOREPLICAS"),
    "cluster without slots": (["--cluster-enabled", "yes"], "CLUSTERDOWN|ClusterDownError"),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("case", NOT_NOW)
def test_server_that_is_not_ready_is_unavailable(launch: Launch, case: str, link: str) -> None:
    """What a server refuses only for the moment is unavailable."""
    options, name = NOT_NOW[case]
    store = LINKS[link](launch(Redis, *options).port)
    with pytest.raises(StoreUnavailable, match=name):
        store.get("a") if case == "stale replica" else store.set("a", b"1")
    store.close()


def run_until_killed(client: t.Any, script: str) -> None:
    """Run a script that somebody else ends."""
    with pytest.raises(redis.RedisError, match="killed"):
        client.eval(script, 0)


@pytest.mark.parametrize("link", LINKS)
def test_busy_server_is_unavailable(launch: Launch, link: str) -> None:
    """A server that is kept busy by somebody's script is unavailable until the script ends."""
    server = launch(Redis, "--busy-reply-threshold", "1")
    store = LINKS[link](server.port)
    with redis.Redis.from_url(server.url) as client:
        script = threading.Thread(target=run_until_killed, args=(client, "while true do end"))
        script.start()
        with pytest.raises(StoreUnavailable, match="BUSY"):
            eventually(lambda: store.get("a"))
        eventually(lambda: server.ask("SCRIPT KILL") == b"+OK\r\n")
        script.join()
    assert store.get("a") is None
    store.close()


@pytest.mark.parametrize("link", LINKS)
def test_cluster_node_wants_its_own_scheme(link: str) -> None:
    """A node of a cluster that is used as a single server says what to write instead."""
    with cluster() as nodes:
        store = LINKS[link](nodes.nodes[0].port)
        with pytest.raises(StoreError, match=r"redis\+cluster://") as raised:
            [store.get(f"key:{number}") for number in range(100)]
        assert not isinstance(raised.value, StoreUnavailable)
        store.close()
