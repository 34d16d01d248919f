"""How a cookie is set, and removed: its attributes (:rfc:`6265`, RFC 6265bis) and what else is said about it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import typing as t
from datetime import timedelta

from ..declared.model import Purpose

#: Browsers keep no cookie for longer, in seconds (RFC 6265bis, section 5.5).
MAX_AGE: t.Final = 400 * 24 * 3600

#: Name and value together, in octets, and the value of one attribute (RFC 6265bis, section 5.6).
MAX_OCTETS: t.Final = 4096
_MAX_ATTRIBUTE: t.Final = 1024

_NAME: t.Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH: t.Final = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")
_DOMAIN: t.Final = re.compile(r"[a-z0-9](?:[a-z0-9.\-]*[a-z0-9])?")

#: What each prefix of a name makes browsers demand, told in lower case as they do.
_DEMANDS: t.Final = {
    "__host-http-": ("secure", "httponly", "host"),
    "__host-": ("secure", "host"),
    "__http-": ("secure", "httponly"),
    "__secure-": ("secure",),
}

SameSite: t.TypeAlias = t.Literal["Lax", "Strict", "None"]
Overflow: t.TypeAlias = t.Literal["error", "spill"]


class CookieOptions(t.TypedDict, total=False):
    """What can be said about a cookie, each by its name."""

    #: Seconds or a timedelta, 400 days at most; ``None`` for a cookie that goes with the browser session.
    max_age: float | timedelta | None
    #: The part of the site that gets it; ``"/"`` by default.
    path: str
    #: The domain whose hosts all get it; by default this host alone.
    domain: str | None
    #: Whether it travels by HTTPS only; by default when this request came so.
    secure: bool | None
    #: Whether scripts are kept from reading it; by default, except in the plain jar.
    httponly: bool
    #: ``"Lax"`` by default.
    samesite: SameSite
    #: Whether it is kept apart for each site that embeds this one.
    partitioned: bool
    #: What is done when it does not fit: ``"error"``, or ``"spill"`` its value to the store.
    overflow: Overflow
    #: What it is for: ``"necessary"`` by default.
    purpose: str
    #: Whose it is, such as a user's id: it opens for nobody else.
    owner: str


class Identity(t.NamedTuple):
    """What tells one cookie from another in a browser."""

    wire: str
    path: str
    domain: str | None
    partitioned: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """All that is said about a cookie, checked; see :class:`CookieOptions`."""

    max_age: int | None = None
    path: str = "/"
    domain: str | None = None
    secure: bool | None = None
    httponly: bool = True
    samesite: SameSite = "Lax"
    partitioned: bool = False
    overflow: Overflow = "error"
    purpose: str = "necessary"
    owner: str = ""
    #: What its name begins with on the wire, where HTTPS, path and domain allow it.
    prefix: str = ""

    def but(self, changes: t.Mapping[str, t.Any]) -> Options:
        """Return these options with some of them changed.

        :raises TypeError: if there is no such option.
        :raises ValueError: if no browser would take one.
        """
        if not changes:
            return self
        for name in changes:
            if name not in CookieOptions.__annotations__:
                near = difflib.get_close_matches(name, CookieOptions.__annotations__, n=1)
                hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(CookieOptions.__annotations__)}"
                raise TypeError(f"{name}= is no option of a cookie; {hint}")
        return dataclasses.replace(self, **{name: _CHECKS[name](value) for name, value in changes.items()})

    @functools.cached_property
    def kept(self) -> tuple[t.Any, ...]:
        """What sealing it anew and removing it need again, without the defaults at the end."""
        facts = [self.path, self.domain, self.partitioned, self.httponly, self.samesite, self.secure, self.purpose]
        while facts and facts[-1] == _KEPT_DEFAULTS[len(facts) - 1]:
            facts.pop()
        return tuple(facts)

    def wire_name(self, name: str, *, https: bool) -> str:
        """Return the name that the browser sees."""
        if https and self.prefix and self.path == "/" and self.domain is None and not _demands(name):
            return self.prefix + name
        return name

    def identity(self, wire: str) -> Identity:
        """Return what tells it from other cookies."""
        return Identity(wire, self.path, self.domain, self.partitioned)

    def attributes(self, *, https: bool) -> str:
        """Return the attributes, as they follow name and value in ``Set-Cookie``."""
        return self._secure_attributes if self._is_secure(https) else self._attributes

    @functools.cached_property
    def _attributes(self) -> str:
        domain = f"; Domain={self.domain}" if self.domain else ""
        max_age = "" if self.max_age is None else f"; Max-Age={self.max_age}"
        flags = ("; HttpOnly" if self.httponly else "") + ("; Partitioned" if self.partitioned else "")
        return f"; Path={self.path}{domain}{max_age}; SameSite={self.samesite}{flags}"

    @functools.cached_property
    def _secure_attributes(self) -> str:
        return f"{self._attributes}; Secure"

    def _is_secure(self, https: bool) -> bool:
        return https if self.secure is None else self.secure

    def require_obeyed(self, wire: str, where: str, *, https: bool) -> None:
        """Raise :exc:`ValueError` if browsers would refuse such a cookie under this name.

        :param where: how the error names it, as in ``state.cookies['cart']``.
        """
        demands = _demands(wire)
        if self.partitioned or self.samesite == "None":
            demands = (*demands, "secure")
        if "secure" in demands and not self._is_secure(https):
            what = f"the name {wire!r}" if _demands(wire) else 'partitioned=True and samesite="None"'
            raise ValueError(
                f"{where}: browsers take {what} only with Secure; serve it by HTTPS and leave secure= out"
                f" (a sealed cookie gets __Host- by itself)"
            )
        if "httponly" in demands and not self.httponly:
            raise ValueError(f"{where}: browsers take the name {wire!r} only with httponly=True")
        if "host" in demands and (self.domain is not None or self.path != "/"):
            raise ValueError(f'{where}: browsers take the name {wire!r} only with path="/" and without domain=')


#: What :attr:`Options.kept` leaves out at its end.
_KEPT_DEFAULTS: t.Final = ("/", None, False, True, "Lax", None, "necessary")


@functools.lru_cache(maxsize=256)
def _demands(name: str) -> tuple[str, ...]:
    if name.startswith("__"):
        lower = name.lower()
        for prefix, demands in _DEMANDS.items():
            if lower.startswith(prefix):
                return demands
    return ()


@functools.lru_cache(maxsize=256)
def is_name(name: object) -> bool:
    """Tell whether something can be a cookie's name (:rfc:`6265`, section 4.1.1)."""
    return isinstance(name, str) and len(name) < MAX_OCTETS and _NAME.fullmatch(name) is not None


def _max_age(value: t.Any) -> int | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"max_age= must be seconds, a timedelta or None, not {type(value).__name__}")
    if not 0 < seconds <= MAX_AGE:
        raise ValueError(
            f"max_age= must be more than 0 and at most 400 days ({MAX_AGE:,} seconds), not {value}; to remove the"
            " cookie, write delete(name)"
        )
    return math.ceil(seconds)


def _path(value: t.Any) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value) or len(value) > _MAX_ATTRIBUTE:
        raise ValueError(
            f'path= must begin with "/" and be at most {_MAX_ATTRIBUTE:,} characters of an address, percent-encoded'
        )
    return value


def _domain(value: t.Any) -> str | None:
    if value is None:
        return None
    try:
        domain = value.lstrip(".").encode("idna").decode().lower()
    except (AttributeError, UnicodeError):
        domain = ""
    if not _DOMAIN.fullmatch(domain) or len(domain) > _MAX_ATTRIBUTE:
        raise ValueError('domain= must be a domain without port and scheme; write domain="example.com"')
    return t.cast("str", domain)


def _one_of(name: str, *allowed: t.Any) -> t.Callable[[t.Any], t.Any]:
    def check(value: t.Any) -> t.Any:
        if not any(value is one or (isinstance(one, str) and value == one) for one in allowed):
            raise ValueError(f"{name}= must be {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}")
        return value

    return check


def _text(name: str) -> t.Callable[[t.Any], str]:
    def check(value: t.Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name}= must be str, not {type(value).__name__}; write {name}=str(...)")
        return value

    return check


_CHECKS: t.Final[dict[str, t.Callable[[t.Any], t.Any]]] = {
    "max_age": _max_age,
    "path": _path,
    "domain": _domain,
    "secure": _one_of("secure", None, True, False),
    "httponly": _one_of("httponly", True, False),
    "samesite": _one_of("samesite", "Lax", "Strict", "None"),
    "partitioned": _one_of("partitioned", True, False),
    "overflow": _one_of("overflow", "error", "spill"),
    "purpose": _one_of("purpose", *t.get_args(Purpose)),
    "owner": _text("owner"),
}
