"""The contract of stores, on Memcached: one server and several, opened by a URL and through a client that was given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymemcache.client.base import PooledClient

from flask_stateful.stores.base import Store
from flask_stateful.stores.memcached import MemcachedStore
from flask_stateful.testing import StoreConformance
from tests import services
from tests.services import Memcached

#: Seconds; no test here is about being late.
PATIENT = 30


@pytest.fixture(scope="module")
def three_servers() -> Iterator[list[Memcached]]:
    """Return servers that divide the keys."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(services.launched(Memcached)) for _ in range(3)]


class MemcachedConformance(StoreConformance):
    """What the classes below share; each says which servers there are."""

    servers: list[Memcached]

    @pytest.fixture(autouse=True)
    def empty(self) -> None:
        """Set :attr:`servers`, and empty them."""
        raise NotImplementedError

    def forget(self) -> None:
        for server in self.servers:
            server.flush()

    @property
    def url(self) -> str:
        return "memcached://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def make_store(self, tmp_path: Path) -> Store:
        return MemcachedStore.from_url(self.url, timeout=PATIENT)

    def reopen(self, store: Store) -> Store:
        return MemcachedStore.from_url(self.url, timeout=PATIENT)

    def make_unreachable(self, tmp_path: Path) -> Store:
        return MemcachedStore.from_url(f"memcached://127.0.0.1:{services.free_port()}", timeout=PATIENT)

    def make_with_client(self, tmp_path: Path) -> tuple[Store, Callable[[], object]]:
        clients = [PooledClient(server.address) for server in self.servers]

        def use_clients() -> None:
            (used,) = [connection for client in clients for connection in client.client_pool.free]
            assert used.sock
            for client in clients:
                assert client.version()
                client.close()

        return MemcachedStore(*clients), use_clients


class TestMemcached(MemcachedConformance):
    """One server."""

    @pytest.fixture(autouse=True)
    def empty(self, memcached: Memcached) -> None:
        self.servers = [memcached]
        self.forget()


class TestSeveral(MemcachedConformance):
    """Several servers that divide the keys."""

    @pytest.fixture(autouse=True)
    def empty(self, three_servers: list[Memcached]) -> None:
        self.servers = three_servers
        self.forget()


class TestGivenClient(TestMemcached):
    """One server, through a client of pymemcache that was given."""

    @pytest.fixture(autouse=True)
    def client(self, memcached: Memcached) -> Iterator[None]:
        """Set :attr:`given`, and close it after the test, which the store does not."""
        with contextlib.closing(PooledClient(memcached.address)) as self.given:
            yield

    def make_store(self, tmp_path: Path) -> Store:
        return MemcachedStore(self.given)

    def refuse_fork(self) -> None:
        pytest.skip("a given client belongs to the process that made it, and the store says so")

    def test_works_on_both_sides_of_a_fork(self, store: Store) -> None:
        """In a child a store with a given client is an error, which another test shows."""
        self.refuse_fork()

    def test_works_after_a_fork_amid_writes(self, store: Store) -> None:
        """In a child a store with a given client is an error, which another test shows."""
        self.refuse_fork()
