"""A store in Redis or Valkey: one server, a cluster, or the primary that sentinels name."""

from __future__ import annotations

import hashlib
import inspect
import re
import typing as t
import weakref
from collections.abc import Iterable, Iterator, Mapping

from ... import clock
from ...epochs import Epochs, NoEpochs
from ...errors import ConfigError, StoreError, StoreUnavailable
from ..base import Store, Ttl, is_key, require_key, ttl_seconds
from .client import Argument, ClientLink, NotUnderstood, require_bytes
from .tracking import TrackedEpochs, connector
from .url import open_link

#: The longest ttl, in milliseconds: some 285,000 years. Longer ones overflow in the server.
_MAX_TTL = 2**53

#: From how many seconds on a server's clock is reported as wrong.
_MAX_CLOCK_SKEW = 5

_SPECIAL = re.compile(rb"[\\*?\[\]]")


class _Script:
    """A script that the server knows by its hash once it has seen it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.hash = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# A script copies the values, which for long ones takes some thirty times as long as SET with IFEQ.
_SWAP = _Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], unpack(ARGV, 3))
return 1
""")

_PERSIST = _Script("""
redis.call('PERSIST', KEYS[1])
return redis.call('EXISTS', KEYS[1])
""")

# The count is read back as text: a number of Lua is exact only up to 2**53.
_INCR = _Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('INCRBY', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], unpack(ARGV, 2)) end
return redis.call('GET', KEYS[1])
""")


class RedisStore(Store):
    """Keeps values in Redis 6 or newer, or in Valkey; each call is one round trip.

    Keys and values lie there as they are, with the server's own expiry.

    A client that is given is used as it is, with its own connections, time limits and retries, and is not closed.
    By itself redis-py repeats what failed, with pauses: ``retry=Retry(NoBackoff(), 0)`` keeps an outage short; and its
    pool may not survive a fork while other threads use it. :meth:`from_url` opens what does, never sends a command
    twice, and takes a shorter way to a single server.

    In a cluster, calls on many keys are one round trip with each node, and the client asks again for what a node failed
    to answer.

    :param client: ``redis.Redis``, ``redis.RedisCluster``, what a ``redis.Sentinel`` returns as master, or the same
        of valkey-py.
    :raises ConfigError: if the client decodes values to text, is asynchronous, or is none.
    """

    abilities = frozenset({"touch", "incr", "many", "scan", "epochs"})
    shared = True
    remote = True

    def __init__(self, client: t.Any) -> None:
        self._link = client if isinstance(client, ClientLink) else ClientLink(_require_client(client))
        self._connect = connector(self._link)
        if self._connect is None:
            vars(self).update(abilities=self.abilities - {"epochs"})
        self._epochs = weakref.WeakSet[TrackedEpochs]()
        self._durable: bool | None = None
        #: Whether the server may be one that compares by itself: Valkey from version 8.1, Redis from 8.4.
        self._compares = True

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 0.25) -> t.Self:
        """Open a store; nothing is connected before the first call.

        :param url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://``, ``valkeys://``,
            ``redis+cluster://host:port,host:port`` or ``redis+sentinel://host:port,host:port/service``. What follows
            a ``?`` are options of the client library's connections, such as ``ssl_ca_certs``; for a sentinel's own
            login ``sentinel_username`` and ``sentinel_password``.
        :param timeout: seconds to connect, and for each reply.
        :raises ConfigError: if the URL is wrong, or redis-py is not installed.
        """
        return cls(open_link(url, timeout))

    @property
    def durable(self) -> bool:
        """Whether it keeps every record until its ttl is over.

        Asks the servers once for their eviction policy; :meth:`check` asks again. ``False`` where they do not tell.

        :raises StoreUnavailable: if they cannot be reached.
        """
        if self._durable is None:
            self._durable = _keeps(self._told("INFO"))
        return self._durable

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        if not is_key(key):
            return None
        value: bytes | None = self._link.call("GET", key.encode())
        return value

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        self._link.call("SET", *self._entry(key, value), *_expiry(ttl))

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        return bool(self._link.call("SET", *self._entry(key, value), *_expiry(ttl), "NX"))

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        encoded, new = self._entry(key, new)
        expiry = _expiry(ttl)
        if self._compares:
            try:
                return bool(self._link.call("SET", encoded, new, "IFEQ", old, *expiry))
            except NotUnderstood:
                self._compares = False
        return bool(self._run(_SWAP, encoded, old, new, *expiry))

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        if is_key(key):
            self._link.call("UNLINK", key.encode())

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl."""
        expiry = _expiry(ttl)
        if not is_key(key):
            return False
        if expiry:
            return bool(self._link.call("PEXPIRE", key.encode(), expiry[1]))
        return bool(self._run(_PERSIST, key.encode()))

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter of up to 64 bits; an existing one keeps its ttl."""
        expiry, encoded = _expiry(ttl), require_key(key).encode()
        if expiry:
            return int(self._run(_INCR, encoded, by, *expiry))
        return int(self._link.call("INCRBY", encoded, by))

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        wanted = list(dict.fromkeys(filter(is_key, keys)))
        if not wanted:
            return {}
        values = self._link.read_all([key.encode() for key in wanted])
        return {key: value for key, value in zip(wanted, values, strict=True) if value is not None}

    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl; each is atomic, together they are not."""
        expiry = _expiry(ttl)
        commands = [("SET", *self._entry(key, value), *expiry) for key, value in values.items()]
        if commands:
            self._link.call_all(commands)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several values."""
        if wanted := [key.encode() for key in filter(is_key, keys)]:
            self._link.delete_all(wanted)

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a text; those written meanwhile may be missed."""
        try:
            pattern = _SPECIAL.sub(rb"\\\g<0>", prefix.encode()) + b"*"
        except UnicodeEncodeError:
            return
        seen = set[bytes]()
        for found in self._link.scan(pattern):
            if found not in seen:
                seen.add(found)
                key = found.decode(errors="surrogateescape")
                if is_key(key):
                    yield key

    def epochs(self, prefix: str) -> Epochs:
        """Return the table that tells which keys under a prefix were changed: by whomever, for the server says so.

        Of a cluster nothing is heard, nor through a client that has no connection pool.
        """
        self._link.require_open()
        if self._connect is None:
            return NoEpochs()
        epochs = TrackedEpochs(self._connect, prefix)
        self._epochs.add(epochs)
        return epochs

    def check(self) -> list[str]:
        """Reach every server once and describe what an operator should mend.

        :return: one sentence for each problem.
        :raises StoreError: if the store does not work at all.
        """
        super().check()
        infos = self._told("INFO")
        self._durable = _keeps(infos)
        problems = [] if infos else ["what the Redis server evicts is unknown: allow its user +info"]
        for info in infos:
            problems += _version_problems(info)
            problems += _eviction_problems(info)
        for time in self._told("TIME"):
            problems += _clock_problems(time)
        for info, saved in zip(infos, self._told("CONFIG GET", "save"), strict=False):
            problems += _disk_problems(info, saved)
        return list(dict.fromkeys(problems))

    def close(self) -> None:
        """Release what :meth:`from_url` opened, and what listens for changes; a client that was given stays open."""
        for epochs in list(self._epochs):
            epochs.close()
        self._link.close()

    def _entry(self, key: str, value: bytes) -> tuple[bytes, bytes]:
        """Return what is to be written, or raise where it cannot be."""
        encoded = require_key(key).encode()
        if not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a value must be bytes, not {type(value).__name__}")
        self.require_size(value)
        return encoded, value

    def _run(self, script: _Script, key: bytes, *arguments: Argument) -> t.Any:
        """Run a script; only where the server does not have it, send its text."""
        try:
            return self._link.call("EVALSHA", script.hash, 1, key, *arguments)
        except NotUnderstood:
            return self._link.call("EVAL", script.text, 1, key, *arguments)

    def _told(self, *command: Argument) -> list[t.Any]:
        """Ask each server something; the answer is empty where its user may not."""
        self._link.require_open()
        try:
            return self._link.ask(*command)
        except StoreUnavailable:
            raise
        except StoreError:
            return []


def _require_client(client: t.Any) -> t.Any:
    """Return the client, or raise :exc:`ConfigError` where it cannot be used."""
    execute = getattr(client, "execute_command", None)
    if execute is None:
        raise ConfigError(
            "RedisStore takes a client of redis-py or valkey-py; open a URL with RedisStore.from_url(url)"
        )
    if inspect.iscoroutinefunction(execute):
        raise ConfigError("RedisStore takes a synchronous client: redis.Redis, not redis.asyncio.Redis")
    if hasattr(client, "get_encoder"):
        require_bytes(client.get_encoder().decode_responses)
    return client


def _expiry(ttl: Ttl) -> tuple[()] | tuple[str, int]:
    """Return the arguments of ``SET`` that say when a value expires."""
    seconds = ttl_seconds(ttl)
    return () if seconds is None else ("PX", max(1, round(min(seconds * 1000, _MAX_TTL))))


def _keeps(infos: list[dict[str, t.Any]]) -> bool:
    """Tell from what servers say whether none of them evicts."""
    return bool(infos) and all(info.get("maxmemory_policy") == "noeviction" for info in infos)


def _version_problems(info: dict[str, t.Any]) -> Iterator[str]:
    version = str(info.get("redis_version", ""))
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < 6:
        yield f"Redis {version} is too old: install Redis 6 or newer, or Valkey"


def _eviction_problems(info: dict[str, t.Any]) -> Iterator[str]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield f"the Redis server may evict sessions before they expire: set maxmemory-policy noeviction, not {policy}"


def _clock_problems(time: tuple[int, int]) -> Iterator[str]:
    ahead = time[0] + time[1] / 1_000_000 - clock.now()
    if abs(ahead) > _MAX_CLOCK_SKEW:
        yield f"the Redis server's clock is {ahead:+.0f} s off this machine's: let both follow the same time (NTP)"


def _disk_problems(info: dict[str, t.Any], saved: dict[str, str]) -> Iterator[str]:
    if not info.get("aof_enabled") and not saved.get("save"):
        yield "the Redis server keeps nothing on disk and forgets every session when it restarts: set appendonly yes"
