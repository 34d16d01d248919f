"""The way to a Redis server through a client of redis-py or valkey-py, and what its failures mean."""

from __future__ import annotations

import os
import re
import typing as t
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from ...errors import ConfigError, StateError, StoreError, StoreUnavailable

Argument: t.TypeAlias = str | bytes | int

#: What says "not now": the exceptions of redis-py and valkey-py, which have the same names, and the codes that a
#: server's replies begin with. Everything else says "not so".
_UNAVAILABLE = frozenset(
    {
        *("OSError", "ConnectionError", "TimeoutError", "BusyLoadingError", "ReadOnlyError", "TryAgainError"),
        *("ClusterError", "RedisClusterException", "ValkeyClusterException"),
        *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOREPLICAS", "READONLY", "TRYAGAIN"),
    }
)

#: What derives from one of those and still says "not so".
_REFUSED = frozenset({"AuthenticationError", "AuthorizationError", "CrossSlotTransactionError", "InvalidPipelineStack"})

_LOGIN = "mend the login in the store's URL: redis://user:password@host, percent-encoded"
_RIGHTS = "its ACL must allow +@read +@write +@scripting for the keys of this application"
_CLUSTER = "it belongs to a cluster: write redis+cluster://host:port"
_FULL = "it is full: raise its maxmemory"

_HINTS = {
    **dict.fromkeys(("AuthenticationError", "NOAUTH", "WRONGPASS"), _LOGIN),
    **dict.fromkeys(("NoPermissionError", "NOPERM"), _RIGHTS),
    **dict.fromkeys(("MovedError", "MOVED"), _CLUSTER),
    **dict.fromkeys(("OutOfMemoryError", "OOM"), _FULL),
    "WRONGTYPE": "something else has written to this key: give the application a database or a namespace of its own",
}

#: Where the texts of servers and clients begin to repeat the command, with its key and value.
_ECHO = re.compile(r",? (?:with args beginning|to execute|for command)\b.*", re.DOTALL)


class NotUnderstood(StoreError):
    """The server does not have the script that was called by its hash, or not that option; nothing was done."""


class _Failures:
    """Turns every exception of the block into one of ours, with the cause chained."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, StateError):
            error.args = tuple(_ECHO.sub("", arg) if isinstance(arg, str) else arg for arg in error.args)
            raise explain(error) from error


failures = _Failures()


def explain(error: Exception) -> StoreError:
    """Return the exception of ours that says the same as one of a client library."""
    names = [kind.__name__ for kind in type(error).__mro__]
    code = str(error).partition(" ")[0]
    if code.isalpha() and code.isupper() and code != "ERR":
        names.insert(0, code)
    if "NOSCRIPT" in names or "NoScriptError" in names or str(error).removeprefix("ERR ") == "syntax error":
        return NotUnderstood("the Redis server does not understand the command")
    decisive = next((name for name in names if name in _UNAVAILABLE or name in _REFUSED), None)
    if decisive in _UNAVAILABLE:
        return StoreUnavailable(f"the Redis server cannot be reached or is not ready ({names[0]})")
    hint = next((f": {_HINTS[name]}" for name in names if name in _HINTS), "")
    return StoreError(f"the Redis server refused ({names[0]}){hint}")


class ClientLink:
    """Sends commands through a client as it is: with its own connections, time limits and retries.

    :param client: ``redis.Redis``, ``redis.RedisCluster``, their namesakes of valkey-py, or what behaves like them.
    :param close: closes what was opened for this link.
    """

    #: Whether keys lie on several servers, so that one command cannot name any two of them.
    is_cluster: bool

    def __init__(self, client: t.Any, close: Callable[[], object] = lambda: None) -> None:
        self.is_cluster = hasattr(client, "get_primaries")
        self._client = client
        self._close = close
        self._closed = False

    @property
    def client(self) -> t.Any:
        """The client, as long as the link is open."""
        self.require_open()
        return self._client

    def require_open(self) -> None:
        """Raise :exc:`StoreError` after :meth:`close`."""
        if self._closed:
            raise StoreError("this RedisStore was closed")

    def call(self, *command: Argument) -> t.Any:
        """Send one command and return its reply."""
        with failures:
            return self.client.execute_command(*command)

    def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[t.Any]:
        """Send several commands in one exchange, of a cluster in one with each node, and return their replies.

        A cluster's client by itself repeats those commands that a node failed to answer.
        """
        with failures, self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return require_replies(pipeline.execute(raise_on_error=False))

    def read_all(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of several keys."""
        if self.is_cluster:
            return self.call_all([("GET", key) for key in keys])
        values: list[bytes | None] = self.call("MGET", *keys)
        return values

    def delete_all(self, keys: Sequence[bytes]) -> None:
        """Delete several keys."""
        if self.is_cluster:
            self.call_all([("UNLINK", key) for key in keys])
        else:
            self.call("UNLINK", *keys)

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        """Yield the keys of strings that match a pattern; one may come more than once."""
        with failures:
            found: Iterator[bytes] = self.client.scan_iter(match=pattern, count=500, _type="string")
        while True:
            with failures:
                self.require_open()
                key = next(found, None)
            if key is None:
                return
            yield key

    def ask(self, *command: Argument) -> list[t.Any]:
        """Send a command without a key to each server that holds data, and return their replies."""
        with failures:
            if not self.is_cluster:
                return [self.client.execute_command(*command)]
            nodes = self.client.get_primaries()
            return [self.client.execute_command(*command, target_nodes=node) for node in nodes]

    def close(self) -> None:
        """Close what was opened for this link."""
        if not self._closed:
            self._closed = True
            self._close()


class ClusterLink(ClientLink):
    """Sends commands through a cluster's client that is made at the first one, and anew after an outage.

    Both libraries look for the cluster's nodes while the client is made, and may forget them all while none answers.

    :param connect: returns a new client.
    """

    def __init__(self, connect: Callable[[], t.Any]) -> None:
        super().__init__(None, self._drop)
        self.is_cluster = True
        self._connect = connect
        self._pid = os.getpid()
        self._inherited: t.Any = None

    @property
    def client(self) -> t.Any:
        """The client, made where there is none."""
        self.require_open()
        if self._pid != os.getpid():
            # Kept, for its end would wait for locks that threads of the other process held during the fork.
            self._inherited, self._client, self._pid = self._client, None, os.getpid()
        client = self._client
        if client is None:
            client = self._client = self._connect()
        return client

    def call(self, *command: Argument) -> t.Any:
        """Send one command and return its reply."""
        try:
            return super().call(*command)
        except StoreUnavailable as error:
            self._drop_lost(error)
            raise

    def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[t.Any]:
        """Send several commands, in one exchange with each node, and return their replies."""
        try:
            return super().call_all(commands)
        except StoreUnavailable as error:
            self._drop_lost(error)
            raise

    def _drop_lost(self, error: StoreUnavailable) -> None:
        """Drop a client that has lost the cluster; of one that merely could not reach a node, nothing is wrong."""
        names = {kind.__name__ for kind in type(error.__cause__).__mro__}
        if names & {"RedisClusterException", "ValkeyClusterException"}:
            self._drop()

    def _drop(self) -> None:
        """Leave the client to the threads that still use it; the last one's end closes it."""
        self._client = None


def require_bytes(decode_responses: object) -> None:
    """Raise :exc:`ConfigError` for a client that makes text of values."""
    if decode_responses:
        raise ConfigError("the Redis client decodes values to text: make it with decode_responses=False")


def require_replies(replies: list[t.Any]) -> list[t.Any]:
    """Return the replies, or raise the first error among them.

    The client's own way would put the command, with its key and value, into the error's text.
    """
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
