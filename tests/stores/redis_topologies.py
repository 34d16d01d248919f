"""More than one Valkey server: a cluster of three, and a primary with a replica that sentinels watch."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Callable, Iterator

from flask_stateful import clock
from tests.services import Sentinel, Valkey, launched

_SLOTS = 16_384


def eventually(condition: Callable[[], object], seconds: float = 60) -> t.Any:
    """Wait until a condition holds, for what other processes do in their own time; return what it is."""
    for _ in range(round(seconds / 0.02)):
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        clock.wait(0.02)
    raise AssertionError(f"not so after {seconds} s")


class Cluster:
    """Three nodes, each with a third of the slots and no replica."""

    def __init__(self, nodes: list[Valkey]) -> None:
        self.nodes = nodes
        for number, node in enumerate(nodes):
            first, last = (_SLOTS * end // len(nodes) for end in (number, number + 1))
            assert node.ask(f"CLUSTER ADDSLOTSRANGE {first} {last - 1}") == b"+OK\r\n"
            assert node.ask(f"CLUSTER SET-CONFIG-EPOCH {number + 1}") == b"+OK\r\n"
        for node in nodes[1:]:
            assert nodes[0].ask(f"CLUSTER MEET 127.0.0.1 {node.port}") == b"+OK\r\n"
        self.wait()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def wait(self) -> None:
        """Wait until every node agrees that the cluster works."""
        for node in self.nodes:
            eventually(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER INFO"))
            eventually(lambda node=node: node.ask("CLUSTER SHARDS").count(b"$6\r\nonline\r\n") == len(self.nodes))


@contextlib.contextmanager
def cluster(*options: str) -> Iterator[Cluster]:
    """Run a cluster for the length of a block.

    :param options: more options of each node.
    """
    common = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
    with contextlib.ExitStack() as stack:
        yield Cluster([stack.enter_context(launched(Valkey, *common, *options)) for _ in range(3)])


class Watched:
    """A primary with one replica, and a sentinel that makes the one the other's successor."""

    def __init__(self, primary: Valkey, replica: Valkey, sentinel: Sentinel) -> None:
        self.primary, self.replica, self.sentinel = primary, replica, sentinel
        eventually(lambda: b"master_link_status:up" in replica.ask("INFO replication"))
        eventually(lambda: b"num-slaves\r\n$1\r\n1\r\n" in sentinel.ask("SENTINEL MASTER main"))

    @property
    def url(self) -> str:
        return self.sentinel.url


@contextlib.contextmanager
def watched(*options: str) -> Iterator[Watched]:
    """Run a watched primary for the length of a block.

    :param options: more lines of the sentinel's configuration.
    """
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(launched(Valkey, "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(launched(Valkey, "--replicaof", f"127.0.0.1 {primary.port}"))
        lines = [
            f"sentinel monitor main 127.0.0.1 {primary.port} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 5000",
            *options,
        ]
        yield Watched(primary, replica, stack.enter_context(launched(Sentinel, *lines)))
