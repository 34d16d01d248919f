"""From ``app.config`` to frozen settings.

Our own settings are read by ``init_app``, and all mistakes in them are reported together. Flask's are read when the
first session is looked at, since an application may still set them until then.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing as t
from collections.abc import Mapping
from datetime import timedelta

from .errors import ConfigError
from .sessions.change import SessionOptions
from .sessions.cookie import CookieOptions
from .stores import open_store
from .stores.base import Store

if t.TYPE_CHECKING:
    from flask import Flask

#: What ``store=`` and ``STATEFUL_STORE`` take; :data:`IN_DATABASE` is written like a URL.
StoreSetting: t.TypeAlias = str | Store | Mapping[str, str | Store]

#: The application's own database, which ``db=`` has named.
IN_DATABASE: t.Final = "db"

#: Returns the store in the application's database, for a timeout in seconds.
OpenInDatabase: t.TypeAlias = t.Callable[[float], Store]

_PREFIX: t.Final = "STATEFUL_"
_DEFAULT_STORE: t.Final = "sqlite:///state.sqlite3"
_NINETY_DAYS: t.Final = 90 * 24 * 3600.0
_STORE_NAMES: t.Final = ("default", "sessions", "cache")
_COOKIE_NAME: t.Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

#: A cookie kept for an instant: what a lifetime of nothing, or less, comes to.
_SHORTEST: t.Final = 0.001

#: A hundred years. What ends later has no date that a cookie could name.
_LONGEST: t.Final = 100 * 365.25 * 24 * 3600


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Our settings for one application. Times are in seconds, sizes in bytes."""

    namespace: str
    #: Where the browser's module and its endpoint are.
    url_prefix: str
    store_timeout: float
    keep_on_error: bool
    #: Which requests are atomic: ``"off"``, ``"writes"`` or ``"all"``.
    atomic: str
    #: ``None`` means Flask's ``PERMANENT_SESSION_LIFETIME``.
    session_idle_timeout: float | None
    #: ``None`` means 90 days, or the idle timeout if that is longer.
    session_lifetime: float | None
    session_max_bytes: int
    lock_timeout: float
    #: What all cookies that we set in one response may take of it, the session's own aside.
    cookie_budget: int
    cache_ttl: float
    #: How much of the cache one process keeps in its memory; 0 turns that off.
    cache_memory: int
    #: The stores by name: ``"default"`` always, the others where they have their own.
    stores: Mapping[str, Store]

    @property
    def cache_store(self) -> Store:
        """The store that cached values are kept in."""
        return self.stores.get("cache", self.stores["default"])

    @property
    def default_store(self) -> Store:
        """The store for all that has none of its own."""
        return self.stores["default"]

    @property
    def session_store(self) -> Store:
        """The store that sessions are kept in."""
        return self.stores.get("sessions", self.stores["default"])


class _Reader:
    """Reads settings one by one and gathers what is wrong with them."""

    def __init__(self, config: Mapping[str, t.Any]) -> None:
        self._config = config
        self._known: set[str] = set()
        self.mistakes: list[str] = []

    def read(self, name: str, default: t.Any, parse: t.Callable[[t.Any], t.Any]) -> t.Any:
        """Return a setting, or its default where it is missing or wrong."""
        key = _PREFIX + name
        self._known.add(key)
        if key not in self._config or self._config[key] is None:
            return default
        try:
            return parse(self._config[key])
        except (TypeError, ValueError) as error:
            self.mistakes.append(f"{key} {error}")
            return default

    def refuse_unknown(self) -> None:
        """Note every key under our prefix that no setting has."""
        known = sorted(self._known)
        for key in self._config:
            if key.startswith(_PREFIX) and key not in self._known:
                near = [_PREFIX + name for name in _resembling(key, known)]
                hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
                self.mistakes.append(f"{key} is not a setting; {hint}")


def _resembling(key: str, known: list[str]) -> list[str]:
    """Return the names that a misspelt one may have meant, all without the prefix, which would make them all alike."""
    wrong, names = key.removeprefix(_PREFIX), [name.removeprefix(_PREFIX) for name in known]
    return [name for name in names if wrong and wrong in name] or difflib.get_close_matches(wrong, names, n=1)


def read_settings(app: Flask, store: StoreSetting | None, open_in_database: OpenInDatabase | None = None) -> Settings:
    """Return the settings of an application.

    :param store: what was passed as ``Stateful(store=)``; it goes before ``STATEFUL_STORE``.
    :param open_in_database: ``None`` where the application has named no database.
    :raises ConfigError: listing every mistake, each with what to write instead.
    """
    reader = _Reader(app.config)
    values = {
        "namespace": reader.read("NAMESPACE", app.name, _namespace),
        "url_prefix": reader.read("URL_PREFIX", "/_state", _url_prefix),
        "store_timeout": reader.read("STORE_TIMEOUT", 0.25, _seconds),
        "keep_on_error": reader.read("KEEP_ON_ERROR", False, _flag),
        "atomic": reader.read("ATOMIC", "off", _atomic),
        "session_idle_timeout": reader.read("SESSION_IDLE_TIMEOUT", None, _seconds),
        "session_lifetime": reader.read("SESSION_LIFETIME", None, _seconds),
        "session_max_bytes": reader.read("SESSION_MAX_BYTES", 1024 * 1024, _size),
        "cookie_budget": reader.read("COOKIE_BUDGET", 3584, _size),
        "cache_ttl": reader.read("CACHE_TTL", 300.0, _seconds),
        "cache_memory": reader.read("CACHE_MEMORY", 32 * 1024 * 1024, _size_or_none),
        "lock_timeout": reader.read("LOCK_TIMEOUT", 5.0, _seconds),
    }
    configured = reader.read("STORE", _DEFAULT_STORE, lambda value: value)
    reader.refuse_unknown()
    opener = _StoreOpener(app, values["store_timeout"], open_in_database)
    stores = opener.open(configured if store is None else store)
    reader.mistakes += opener.mistakes
    if reader.mistakes:
        raise ConfigError("\n".join(reader.mistakes))
    if "cache" not in stores:
        # In a file of its own, so that a storm of cached values never blocks a login.
        sibling = stores["default"].sibling("cache")
        if sibling is not stores["default"]:
            stores["cache"] = sibling
    return Settings(**values, stores=stores)


class _StoreOpener:
    """Opens what ``store=`` names, and gathers what is wrong with it.

    :param timeout: seconds that one call to a store may take.
    """

    def __init__(self, app: Flask, timeout: float, open_in_database: OpenInDatabase | None) -> None:
        self._app = app
        self._timeout = timeout
        self._open_in_database = open_in_database
        self.mistakes: list[str] = []

    def open(self, setting: t.Any) -> dict[str, Store]:
        """Return the stores by the names of their parts."""
        named = dict(t.cast("Mapping[str, t.Any]", setting)) if isinstance(setting, Mapping) else {"default": setting}
        named.setdefault("default", _DEFAULT_STORE)
        stores: dict[str, Store] = {}
        for name, value in named.items():
            if name not in _STORE_NAMES:
                parts = " and ".join(map(repr, _STORE_NAMES))
                self.mistakes.append(f"STATEFUL_STORE has no part {name!r}; it has {parts}")
                continue
            try:
                stores[name] = self._store(value)
            except ConfigError as error:
                self.mistakes.append(f"STATEFUL_STORE{error}")
        return stores

    def _store(self, value: object) -> Store:
        if isinstance(value, Store):
            return value
        if not isinstance(value, str):
            raise ConfigError(
                f" must be a URL, a store or a dict of these, not {type(value).__name__};"
                f' write STATEFUL_STORE = "{_DEFAULT_STORE}"'
            )
        if value != IN_DATABASE:
            try:
                return open_store(value, root=self._app.instance_path, timeout=self._timeout)
            except ConfigError as error:
                raise ConfigError(f": {error}") from error
        if self._open_in_database is None:
            raise ConfigError(
                f' = "{IN_DATABASE}" is the application\'s own database, which is not known; write'
                f' Stateful(app, db=db, store="{IN_DATABASE}")'
            )
        return self._open_in_database(self._timeout)


def session_options(app: Flask, settings: Settings) -> SessionOptions:
    """Return how long sessions live, which needs Flask's ``PERMANENT_SESSION_LIFETIME``."""
    idle_timeout = settings.session_idle_timeout
    if idle_timeout is None:
        try:
            idle_timeout = min(max(app.permanent_session_lifetime.total_seconds(), _SHORTEST), _LONGEST)
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise ConfigError(
                "PERMANENT_SESSION_LIFETIME must be seconds or a timedelta; write timedelta(days=31)"
            ) from None
    return SessionOptions(
        namespace=settings.namespace,
        idle_timeout=idle_timeout,
        lifetime=settings.session_lifetime or max(_NINETY_DAYS, idle_timeout),
        max_bytes=settings.session_max_bytes,
        lock_timeout=settings.lock_timeout,
    )


def cookie_options(app: Flask) -> CookieOptions:
    """Return how the session cookie is set, from Flask's own ``SESSION_COOKIE_*``.

    :raises ConfigError: listing every combination that browsers refuse.
    """
    config = t.cast("Mapping[str, t.Any]", app.config)
    interface = app.session_interface
    options = CookieOptions(
        name=str(config["SESSION_COOKIE_NAME"]),
        domain=interface.get_cookie_domain(app),
        path=interface.get_cookie_path(app),
        httponly=bool(config["SESSION_COOKIE_HTTPONLY"]),
        secure=bool(config["SESSION_COOKIE_SECURE"]),
        samesite=_samesite(config["SESSION_COOKIE_SAMESITE"]),
        partitioned=bool(config["SESSION_COOKIE_PARTITIONED"]),
        refresh=bool(config["SESSION_REFRESH_EACH_REQUEST"]),
    )
    mistakes = list(_cookie_mistakes(options))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return options


def _cookie_mistakes(options: CookieOptions) -> t.Iterator[str]:
    if not _COOKIE_NAME.fullmatch(options.name):
        yield 'SESSION_COOKIE_NAME must be letters, digits and hyphens; write SESSION_COOKIE_NAME = "session"'
        return
    if options.samesite not in ("Lax", "Strict", "None"):
        yield 'SESSION_COOKIE_SAMESITE must be "Lax", "Strict" or "None"'
    # Browsers do not tell upper from lower case in these prefixes.
    name = options.name.lower()
    if not options.secure:
        for needs_secure, what in (
            (options.partitioned, "SESSION_COOKIE_PARTITIONED"),
            (options.samesite == "None", 'SESSION_COOKIE_SAMESITE = "None"'),
            (name.startswith(("__host-", "__secure-")), f'SESSION_COOKIE_NAME = "{options.name}"'),
        ):
            if needs_secure:
                yield f"{what} works only with a secure cookie; write SESSION_COOKIE_SECURE = True"
    if name.startswith("__host-") and (options.domain or options.path != "/"):
        yield (
            f'SESSION_COOKIE_NAME = "{options.name}" allows no domain and only the path "/"; remove'
            ' SESSION_COOKIE_DOMAIN and write SESSION_COOKIE_PATH = "/"'
        )


def _samesite(value: object) -> str:
    return "Lax" if value is None else str(value).capitalize()


def _namespace(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s:]{1,64}", value):
        raise ValueError('must be 1 to 64 characters without spaces and colons; write STATEFUL_NAMESPACE = "shop"')
    return value


def _url_prefix(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(?:/[A-Za-z0-9._~\-]+)+", value):
        raise ValueError('must be a path without a slash at its end; write STATEFUL_URL_PREFIX = "/_state"')
    return value


def _seconds(value: object) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= _LONGEST:
        raise ValueError(
            f"must be seconds or a timedelta, more than 0 and at most 100 years, not {value!r}; write 1800 or"
            " timedelta(minutes=30)"
        )
    return float(seconds)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"must be a number of bytes above 0, not {value!r}; write 1024 * 1024")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be True or False, not {value!r}")
    return value


def _atomic(value: object) -> str:
    if value not in ("off", "writes", "all"):
        raise ValueError(f'must be "off", "writes" or "all", not {value!r}; write STATEFUL_ATOMIC = "writes"')
    return str(value)


def _size_or_none(value: object) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else _size(value)
