"""From a URL to a link: to one server, to a cluster, or to the primary that sentinels name."""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing as t
from collections.abc import Callable
from urllib.parse import unquote

from ...errors import ConfigError
from .client import ClientLink, ClusterLink, require_bytes

_FORMS = {
    "": "redis://[[user]:password@]host[:port][/database], or rediss://... for TLS",
    "unix": "unix://[[user]:password@]/path/to/socket[?db=database]",
    "cluster": "redis+cluster://[[user]:password@]host[:port],host[:port],...",
    "sentinel": "redis+sentinel://[[user]:password@]host[:port],host[:port],.../service[/database]",
}

_SCHEME = re.compile(r"(?P<library>redis|valkey)(?P<tls>s?)(?:\+(?P<kind>cluster|sentinel))?|(?P<unix>unix)")
_REST = re.compile(r"(?P<login>[^/?#]*@)?(?P<hosts>[^@/?#]*)(?P<path>/[^@?#]*)?(?P<query>\?[^#]*)?")
_HOST = re.compile(r"(?P<name>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?")


def open_link(url: str, timeout: float) -> ClientLink:
    """Return a link to what a URL names; nothing is connected yet.

    :param timeout: seconds to connect, and for each reply.
    :raises ConfigError: if the URL is wrong, or neither redis-py nor valkey-py is installed.
    """
    scheme, rest = _SCHEME.fullmatch(url.partition("://")[0]), _REST.fullmatch(url.partition("://")[2])
    if scheme is None:
        raise ConfigError(f"the URL of a Redis server begins with redis://, valkey:// or unix://: {_FORMS['']}")
    kind = scheme["kind"] or scheme["unix"] or ""
    library = _library(scheme["library"] or "redis")
    try:
        return _OPENERS[kind](_Target(library, timeout, bool(scheme["tls"]), _require(rest)))
    except (TypeError, ValueError):
        # What the library says may repeat the password.
        raise ConfigError(
            f"the Redis URL is wrong: write {_FORMS[kind]}, percent-encode what is special in the password, and name "
            "only options that the client library has"
        ) from None


def _library(preferred: str) -> t.Any:
    for name in (preferred, "redis", "valkey"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigError('a Redis URL needs redis-py: pip install "Flask-Stateful[redis]"')


def _require(match: re.Match[str] | None) -> re.Match[str]:
    if match is None:
        raise ValueError("the text does not have this form")
    return match


@dataclasses.dataclass
class _Target:
    """What a URL says, and the library that understands it."""

    library: t.Any
    timeout: float
    tls: bool
    rest: re.Match[str]

    @property
    def path(self) -> str:
        return (self.rest["path"] or "").removeprefix("/")

    def hosts(self, default_port: int) -> list[tuple[str, int]]:
        """Return names and ports."""
        found = [_require(_HOST.fullmatch(host)) for host in self.rest["hosts"].split(",")]
        return [(host["name"].strip("[]"), int(host["port"] or default_port)) for host in found]

    def no_retry(self) -> t.Any:
        """Return what keeps the library from sending a command again, and from sleeping before it does."""
        return self.library.retry.Retry(self.library.backoff.NoBackoff(), 0)

    def pool(self, place: str) -> t.Any:
        """Return a connection pool of the library, with the URL's login and options.

        :param place: what follows the login: host and database, or a path.
        """
        scheme = "unix" if place.startswith("/") else "rediss" if self.tls else "redis"
        pool = self.library.ConnectionPool.from_url(
            f"{scheme}://{self.rest['login'] or ''}{place}{self.rest['query'] or ''}",
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            retry=self.no_retry(),
            protocol=2,
        )
        options = pool.connection_kwargs
        require_bytes(options.get("decode_responses", False))
        # A connection is made, and not connected, to hear of options that it does not know.
        pool.connection_class(**{name: options[name] for name in options if not name.startswith("sentinel_")})
        return pool

    def client(self, place: str) -> t.Any:
        """Return a client of the library for a single server."""
        return self.library.Redis(connection_pool=self.pool(place))

    def options(self) -> dict[str, t.Any]:
        """Return the URL's login and options, for a client that finds its servers by itself."""
        found = self.pool("any").connection_kwargs.items()
        options = {
            name: value for name, value in found if isinstance(value, (str, bool, int, float)) and name != "host"
        }
        return options | ({"ssl": True} if self.tls else {})


def _open_single(target: _Target) -> ClientLink:
    _require(re.fullmatch(r"\d*", target.path))
    target.hosts(6379)
    return _link(target.client(f"{target.rest['hosts']}/{target.path}"))


def _open_unix(target: _Target) -> ClientLink:
    if target.rest["hosts"] or not target.path:
        raise ValueError("a path has no host before it")
    return _link(target.client(target.rest["path"]))


def _open_cluster(target: _Target) -> ClientLink:
    library, options, hosts = target.library, target.options(), target.hosts(6379)
    if target.path or options.pop("db", 0):
        raise ConfigError(f"a Redis cluster has no databases: write {_FORMS['cluster']}")

    def connect() -> t.Any:
        nodes = [library.cluster.ClusterNode(host, port) for host, port in hosts]
        # As it is made the client asks the nodes about the cluster, and must go on to the next where one is down.
        if hasattr(library.retry.Retry, "get_retries"):
            retry = library.retry.Retry(library.backoff.NoBackoff(), len(hosts))
            client = library.RedisCluster(startup_nodes=nodes, retry=retry, **options)
            client.set_retry(target.no_retry())
        else:  # valkey-py, and redis-py before version 6
            client = library.RedisCluster(startup_nodes=nodes, cluster_error_retry_attempts=len(hosts), **options)
            client.cluster_error_retry_attempts = 0
        return client

    return ClusterLink(connect)


def _open_sentinel(target: _Target) -> ClientLink:
    library, options = target.library, target.options()
    service, _, database = target.path.partition("/")
    if not service:
        raise ValueError("the service is what follows the slash")
    if database:
        options["db"] = int(database)
    login = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    transport = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl"))}
    sentinels = library.sentinel.Sentinel(
        target.hosts(26379), sentinel_kwargs={**transport, **login, "retry": target.no_retry()}, retry=target.no_retry()
    )
    primary = sentinels.master_for(unquote(service), **options)
    return _link(primary, *sentinels.sentinels)


def _link(client: t.Any, *others: t.Any) -> ClientLink:
    """Return the fastest link to one server; closing it closes what was opened for it."""

    def close() -> None:
        for opened in (client, *others):
            opened.connection_pool.disconnect()

    try:
        from .wire import WireLink
    except ImportError:  # hiredis is missing
        return ClientLink(client, close)
    return WireLink(client, close)


_OPENERS: dict[str, Callable[[_Target], ClientLink]] = {
    "": _open_single,
    "unix": _open_unix,
    "cluster": _open_cluster,
    "sentinel": _open_sentinel,
}
