"""Opening a store by its URL."""

from __future__ import annotations

import difflib
import math
import os
import pkgutil
import re
import typing as t
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import ConfigError
from .base import Store

__all__ = ["Store", "open_store", "register_scheme"]

_REDIS = "flask_stateful.stores.redis:RedisStore.from_url"
_SQL = "flask_stateful.stores.sql:SQLStore.from_url"

#: What opens the URLs of a scheme, as ``module:name``; a module is imported when it is needed.
_schemes: dict[str, str] = {
    "memory": "flask_stateful.stores:open_memory",
    "sqlite": "flask_stateful.stores:open_sqlite",
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "redis+cluster": _REDIS,
    "redis+sentinel": _REDIS,
    "memcached": "flask_stateful.stores.memcached:MemcachedStore.from_url",
    "postgresql": _SQL,
    "postgresql+psycopg": _SQL,
    "mysql+pymysql": _SQL,
    "mariadb+pymysql": _SQL,
}

#: :rfc:`3986#section-3.1`
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"

_EXAMPLES = "'sqlite:///state.sqlite3' or 'redis://localhost:6379/0'"


def open_store(url: str, *, root: str | os.PathLike[str] | None = None, timeout: float = 0.25) -> Store:
    """Open the store that a URL names. Whoever opens a store closes it.

    .. code-block:: text

        memory://                         in this process
        sqlite:///state.sqlite3           a file under root
        sqlite:////var/lib/state.sqlite3  a file anywhere; ?durability=full waits for the disk in every write
        redis://localhost:6379/0          also rediss://, unix://, valkey://, valkeys://
        redis+cluster://h:6379,i:6379
        redis+sentinel://h:26379,i:26379/service
        memcached://h:11211,i:11211       may evict, and forgets all when it restarts: for the cache
        postgresql+psycopg://h/name       also postgresql://
        mariadb+pymysql://h/name          also mysql+pymysql://

    :param url: a URI as in :rfc:`3986`; characters that have a meaning in it are percent-encoded.
    :param root: the folder that relative paths are under.
    :param timeout: seconds that one call to the store may take.
    :raises ConfigError: if the URL names no store; the message never contains a password.
    :raises ValueError: if the timeout is none.
    """
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be seconds, more than 0, not {timeout}")
    scheme = _scheme_of(url)
    options: dict[str, t.Any] = {"timeout": timeout}
    if scheme == "sqlite":
        options["root"] = root
    try:
        store = _opener_of(scheme)(scheme + url[len(scheme) :], **options)
    except ValueError:
        # The cause is left out: what could not be read may be a part of a password.
        raise ConfigError(f"the {scheme}:// URL cannot be read by {_schemes[scheme]}") from None
    if not isinstance(store, Store):
        raise ConfigError(f"{scheme}:// needs an opener that returns a Store; {_schemes[scheme]} does not")
    return store


def register_scheme(scheme: str, opener: str) -> None:
    """Let :func:`open_store` open the URLs of one more scheme.

    ::

        register_scheme("etcd", "my_package.stores:EtcdStore.from_url")

    :param scheme: in lower case.
    :param opener: ``module:name`` of a function ``(url, *, timeout)`` that returns a store. The module is imported
        when the first such URL is opened. The function raises :exc:`~flask_stateful.errors.ConfigError` where the URL
        is malformed, and says what to write instead.
    :raises ValueError: if the scheme cannot be one, the opener has another form, or the scheme has an opener.
    """
    if not re.fullmatch(_SCHEME, scheme) or scheme != scheme.lower():
        raise ValueError(f"a scheme is lower-case letters, digits, +, - and ., beginning with a letter, not {scheme!r}")
    if not re.fullmatch(r"[\w.]+:[\w.]+", opener):
        raise ValueError(f"write the opener as 'package.module:function', not {opener!r}")
    if _schemes.setdefault(scheme, opener) != opener:
        raise ValueError(f"{scheme}:// is opened by {_schemes[scheme]}")


def _scheme_of(url: str) -> str:
    """Return the scheme that a URL begins with, in lower case. Nothing else of a URL is safe to repeat."""
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"a store is named by a URL such as {_EXAMPLES}, not by {type(url).__name__}")
    if url != url.strip() or not url.isprintable():
        raise ConfigError("a store URL has white space around it or control characters in it; remove them")
    found = re.match(rf"({_SCHEME}):(//)?", url)
    scheme = found[1].lower() if found else ""
    if found and found[2] is None and scheme in _schemes:
        raise ConfigError(f"two slashes are missing after {scheme}: in a store URL; write {scheme}://...")
    if found is None or found[2] is None:
        raise ConfigError(f"a store URL begins with a scheme and ://; write for instance {_EXAMPLES}")
    if scheme not in _schemes:
        near = difflib.get_close_matches(scheme, _schemes, n=1)
        hint = f"; did you mean {near[0]}://?" if near else "."
        raise ConfigError(f"no store is known for {scheme}://{hint} Known are {', '.join(sorted(_schemes))}")
    return scheme


def _opener_of(scheme: str) -> t.Callable[..., object]:
    """Import what opens a scheme."""
    try:
        return t.cast("t.Callable[..., object]", pkgutil.resolve_name(_schemes[scheme]))
    except ModuleNotFoundError as error:
        raise ConfigError(f"{scheme}:// needs the Python package {error.name}, which is not installed") from error
    except AttributeError as error:
        raise ConfigError(f"{scheme}:// needs {_schemes[scheme]}, which does not exist") from error


def open_memory(url: str, *, timeout: float) -> Store:
    """Open ``memory://``, where there is nothing to wait for."""
    from .memory import MemoryStore

    if url != "memory://":
        raise ConfigError("a store in memory has no name and no options; write memory://")
    return MemoryStore()


def open_sqlite(url: str, *, timeout: float, root: str | os.PathLike[str] | None) -> Store:
    """Open the file that an SQLite URL names."""
    from .sqlite import SQLiteStore

    rest = url.removeprefix("sqlite://")
    if unquote(rest.partition("?")[0]).removeprefix("/") in ("", ":memory:"):
        raise ConfigError("an SQLite store is a file, sqlite:///state.sqlite3; for a store in memory write memory://")
    if not rest.startswith("/"):
        raise ConfigError(
            "write three slashes before a relative path, sqlite:///state.sqlite3, and four before an absolute one, "
            "sqlite:////var/lib/state.sqlite3"
        )
    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.fragment or "\0" in path or path.endswith("/"):
        raise ConfigError("sqlite:/// is followed by the path of a file; in it write %23 for #, and %3F for ?")
    if root is None and not Path(path).is_absolute():
        raise ConfigError(
            "nothing says which folder the path after sqlite:/// is relative to; write the absolute one, with four "
            "slashes: sqlite:////var/lib/state.sqlite3"
        )
    return SQLiteStore(Path(root or "", path), timeout=timeout, **_sqlite_options(parts.query))


def _sqlite_options(query: str) -> dict[str, t.Any]:
    """Return the options of an SQLite URL as keywords."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    if options.keys() - {"durability"} or options.get("durability", "full") not in ("normal", "full"):
        raise ConfigError("the one option of an SQLite URL is ?durability=full or ?durability=normal, the default")
    return options
