"""Opening a store by its URL."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pkgutil
import re
import typing as t
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import ConfigError
from .base import Store

__all__ = ["Store", "open_store", "register_scheme"]


@dataclasses.dataclass(frozen=True)
class _Scheme:
    """What there is to know about a scheme without importing its store.

    :param opener: ``module:name`` of a function that is called with the URL and the keyword ``timeout``.
    :param form: what its URLs look like.
    :param rooted: whether the opener takes the keyword ``root`` as well.
    """

    opener: str
    form: str
    rooted: bool = False


_REDIS = "flask_stateful.stores.redis:RedisStore.from_url"
_AT_HOST = "://[[user]:password@]host[:port][/database]"

_schemes: dict[str, _Scheme] = {
    "memory": _Scheme("flask_stateful.stores:open_memory", "memory://"),
    "sqlite": _Scheme("flask_stateful.stores:open_sqlite", "sqlite:///file or sqlite:////absolute/path", rooted=True),
    "redis": _Scheme(_REDIS, f"redis{_AT_HOST}"),
    "rediss": _Scheme(_REDIS, f"rediss{_AT_HOST}"),
    "unix": _Scheme(_REDIS, "unix:///path/to/redis.sock[?db=0]"),
    "valkey": _Scheme(_REDIS, f"valkey{_AT_HOST}"),
    "valkeys": _Scheme(_REDIS, f"valkeys{_AT_HOST}"),
    "redis+cluster": _Scheme(_REDIS, "redis+cluster://[[user]:password@]host:port,host:port"),
    "redis+sentinel": _Scheme(_REDIS, "redis+sentinel://[[user]:password@]host:port,host:port/service[/database]"),
}


def open_store(url: str, *, root: str | os.PathLike[str] | None = None, timeout: float = 0.25) -> Store:
    """Open the store that a URL names. Whoever opens a store closes it.

    .. code-block:: text

        memory://                         in this process
        sqlite:///state.sqlite3           a file under ``root``
        sqlite:////var/lib/state.sqlite3  a file anywhere; ``?durability=full`` waits for the disk in every write
        redis://localhost:6379/0          also rediss://, unix://, valkey://, valkeys://
        redis+cluster://h:6379,i:6379
        redis+sentinel://h:26379,i:26379/service

    :param url: text that :rfc:`3986` calls a URI; what has a meaning of its own in there is percent-encoded.
    :param root: the folder that relative paths are under.
    :param timeout: seconds that one call to the store may take.
    :raises ConfigError: if the URL names no store; the message never contains a password.
    """
    name, scheme = _scheme_of(url)
    options: dict[str, t.Any] = {"timeout": timeout, "root": root} if scheme.rooted else {"timeout": timeout}
    try:
        store = _opener_of(name, scheme)(name + url[len(name) :], **options)
    except ValueError:
        # The cause is left out: what the library could not read may be a part of a password.
        raise ConfigError(f"the {name}:// URL cannot be read; write {scheme.form}") from None
    if not isinstance(store, Store):
        raise ConfigError(f"the opener of {name}:// returned no Store: {scheme.opener}")
    return store


def register_scheme(name: str, opener: str, *, form: str | None = None) -> None:
    """Let :func:`open_store` open URLs of one more scheme.

    ::

        register_scheme("etcd", "my_package.stores:EtcdStore.from_url", form="etcd://host:port")

    :param name: the scheme, in lower case.
    :param opener: ``module:name`` of a function ``(url, *, timeout)`` that returns a store. The module is imported
        when the first such URL is opened. A :exc:`ValueError` says that the URL is malformed.
    :param form: what such URLs look like, for error messages.
    :raises ValueError: if the name cannot be a scheme, the opener has another form, or the scheme has an opener.
    """
    if not re.fullmatch(_SCHEME_NAME, name) or name != name.lower():
        raise ValueError(f"a scheme is lower-case letters, digits, '+', '-' and '.', beginning with a letter: {name!r}")
    if not re.fullmatch(r"[\w.]+:[\w.]+", opener):
        raise ValueError(f"write the opener as 'package.module:function', not {opener!r}")
    scheme = _Scheme(opener, form or f"{name}://...")
    if _schemes.setdefault(name, scheme) != scheme:
        raise ValueError(f"{name}:// is opened by {_schemes[name].opener}")


#: :rfc:`3986#section-3.1`
_SCHEME_NAME = r"[A-Za-z][A-Za-z0-9+.-]*"

_EXAMPLES = "'sqlite:///state.sqlite3' or 'redis://localhost:6379/0'"


def _scheme_of(url: str) -> tuple[str, _Scheme]:
    """Return the scheme that a URL begins with; nothing else of the URL is safe to repeat."""
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"a store is named by a URL such as {_EXAMPLES}, not by {type(url).__name__}")
    found = re.match(rf"({_SCHEME_NAME})(://)?", url)
    name = found[1].lower() if found else ""
    if found and found[2] and url == url.strip():
        if name in _schemes:
            return name, _schemes[name]
        near = difflib.get_close_matches(name, _schemes, n=1)
        hint = f"; did you mean {near[0]}://?" if near else ""
        raise ConfigError(f"no store is known for {name}://{hint} Known are: {', '.join(sorted(_schemes))}")
    if url != url.strip():
        raise ConfigError("a store URL has white space around it; remove that")
    if name in _schemes and url[len(name) : len(name) + 1] == ":":
        raise ConfigError(f"a store URL has two slashes after the colon; write {_schemes[name].form}")
    raise ConfigError(f"a store URL begins with a scheme and '://', such as {_EXAMPLES}")


def _opener_of(name: str, scheme: _Scheme) -> t.Callable[..., object]:
    """Import what opens a scheme."""
    try:
        return t.cast("t.Callable[..., object]", pkgutil.resolve_name(scheme.opener))
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name}:// needs the Python package {error.name!r}, which is not installed") from error
    except AttributeError as error:
        raise ConfigError(f"the opener of {name}:// does not exist: {scheme.opener}") from error


def open_memory(url: str, *, timeout: float) -> Store:
    """Open ``memory://``; there is nothing to wait for."""
    from .memory import MemoryStore

    if url != "memory://":
        raise ConfigError("a store in memory has no name and no options; write memory://")
    return MemoryStore()


def open_sqlite(url: str, *, timeout: float, root: str | os.PathLike[str] | None) -> Store:
    """Open the file that an SQLite URL names."""
    from .sqlite import SQLiteStore

    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc:
        raise ConfigError(
            "an SQLite URL has three slashes before a relative path, sqlite:///file, and four before an "
            "absolute one, sqlite:////absolute/path"
        )
    if path in ("", ":memory:"):
        raise ConfigError("SQLite stores are files, sqlite:///file; for a store in memory write memory://")
    if parts.fragment or "\0" in path or path.endswith("/"):
        raise ConfigError("an SQLite URL names a file, sqlite:///file; in its path write %23 for # and %3F for ?")
    if root is None and not Path(path).is_absolute():
        raise ConfigError(
            "there is no folder for the relative path after sqlite:///; write the absolute one, with "
            "four slashes: sqlite:////absolute/path"
        )
    return SQLiteStore(Path(root or "", path), timeout=timeout, **_sqlite_options(parts.query))


def _sqlite_options(query: str) -> dict[str, t.Any]:
    """Return the options of an SQLite URL as keywords."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    if options.keys() - {"durability"} or options.get("durability", "full") not in ("normal", "full"):
        raise ConfigError("the only option of an SQLite URL is ?durability=full, or =normal, which is the default")
    return options
