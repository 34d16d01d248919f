"""The contract of stores, on Redis and Valkey, through every kind of link."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import valkey as valkey_py

from flask_stateful.stores.base import Store
from flask_stateful.stores.redis import RedisStore
from flask_stateful.testing import StoreConformance
from tests import services
from tests.services import Redis, Valkey
from tests.stores.redis_topologies import Cluster, Watched, cluster, watched

#: Seconds; no test here is about being late.
PATIENT = 30


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Return a cluster."""
    with cluster() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def servers() -> Iterator[Watched]:
    """Return a primary that a sentinel watches."""
    with watched() as servers:
        yield servers


class RedisConformance(StoreConformance):
    """What the classes below share; each says which server, and how the store gets to it."""

    url: str

    @pytest.fixture(autouse=True)
    def server(self) -> None:
        """Set :attr:`url` to an empty server."""
        raise NotImplementedError

    def make_store(self, tmp_path: Path) -> Store:
        return RedisStore.from_url(self.url, timeout=PATIENT)

    def reopen(self, store: Store) -> Store:
        return RedisStore.from_url(self.url, timeout=PATIENT)

    def make_unreachable(self, tmp_path: Path) -> Store:
        return RedisStore.from_url(f"redis://127.0.0.1:{services.free_port()}", timeout=PATIENT)

    def make_with_client(self, tmp_path: Path) -> tuple[Store, Callable[[], object]]:
        client = redis.Redis.from_url(self.url)

        def use_client() -> None:
            assert client.ping()
            client.close()

        return RedisStore(client), use_client

    def advance(self, store: Store, seconds: float) -> None:
        super().advance(store, seconds)
        with redis.Redis.from_url(self.url) as client:
            let_pass(client, seconds)


def let_pass(client: t.Any, seconds: float) -> None:
    """Shorten what every key of a server has left to live, and remove those that have nothing left."""
    for key in client.scan_iter():
        left = client.pttl(key)
        if left > seconds * 1000:
            client.pexpire(key, round(left - seconds * 1000))
        elif left >= 0:
            client.delete(key)


class TestRedis(RedisConformance):
    """Redis, over the short way."""

    @pytest.fixture(autouse=True)
    def server(self, redis_server: Redis) -> None:
        self.url = f"{redis_server.url[:-1]}1"
        with redis.Redis.from_url(self.url) as client:
            client.flushdb()


class TestValkey(RedisConformance):
    """Valkey, over the short way."""

    @pytest.fixture(autouse=True)
    def server(self, valkey: Valkey) -> None:
        self.url = f"{valkey.url[:-1]}1"
        with redis.Redis.from_url(self.url) as client:
            client.flushdb()


class TestRedisClient(TestRedis):
    """Redis, through a client of redis-py that was given."""

    def make_store(self, tmp_path: Path) -> Store:
        return RedisStore(redis.Redis.from_url(self.url))

    def test_works_after_a_fork_amid_writes(self, store: Store) -> None:
        """A child of a process with busy threads hangs in redis-py, whose pool keeps a lock that one of them held."""
        pytest.skip("redis-py's own connection pool does not survive that")


class TestValkeyClient(TestValkey):
    """Valkey, through a client of valkey-py that was given."""

    def make_store(self, tmp_path: Path) -> Store:
        return RedisStore(valkey_py.Valkey.from_url(self.url))


class TestCluster(RedisConformance):
    """A cluster of three nodes."""

    @pytest.fixture(autouse=True)
    def server(self, nodes: Cluster) -> None:
        self.url = nodes.url
        self.nodes = nodes.nodes
        for node in self.nodes:
            assert node.ask("FLUSHALL") == b"+OK\r\n"

    def make_with_client(self, tmp_path: Path) -> tuple[Store, Callable[[], object]]:
        client = redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

        def use_client() -> None:
            assert client.ping(target_nodes="all")
            client.close()

        return RedisStore(client), use_client

    def make_unreachable(self, tmp_path: Path) -> Store:
        ports = services.free_port(), services.free_port()
        return RedisStore.from_url(f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}")

    def advance(self, store: Store, seconds: float) -> None:
        StoreConformance.advance(self, store, seconds)
        for node in self.nodes:
            with redis.Redis(port=node.port) as client:
                let_pass(client, seconds)


class TestSentinel(RedisConformance):
    """The primary that a sentinel names."""

    @pytest.fixture(autouse=True)
    def server(self, servers: Watched) -> None:
        self.url = servers.url
        assert servers.primary.ask("FLUSHALL") == b"+OK\r\n"
        self.primary = servers.primary

    def make_with_client(self, tmp_path: Path) -> tuple[Store, Callable[[], object]]:
        sentinels = redis.Sentinel([("127.0.0.1", int(self.url.split(":")[2].split("/")[0]))])
        client = sentinels.master_for("main")

        def use_client() -> None:
            assert client.ping()
            client.close()
            sentinels.close()

        return RedisStore(client), use_client

    def make_unreachable(self, tmp_path: Path) -> Store:
        return RedisStore.from_url(f"redis+sentinel://127.0.0.1:{services.free_port()}/main")

    def advance(self, store: Store, seconds: float) -> None:
        StoreConformance.advance(self, store, seconds)
        with redis.Redis.from_url(self.primary.url) as client:
            let_pass(client, seconds)
