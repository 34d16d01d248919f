"""How a view is cached, and which of its answers may be (:rfc:`9111`)."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable

from flask import current_app

from .personal import uncovered
from .runtime import Consistency, Default

if t.TYPE_CHECKING:
    from flask import Response


class ViewRules(t.NamedTuple):
    """How a view is cached."""

    ttl: float | Default | None
    stale: float
    #: Query arguments that tell answers apart; ``None`` means all.
    query: tuple[str, ...] | None
    vary: tuple[str | Callable[[], t.Any], ...]
    tags: tuple[str, ...]
    unless: Callable[[], t.Any] | None
    #: Seconds that "there is no such page" is fresh; ``None`` does not store it.
    missing_ttl: float | None
    front: bool
    #: What of the database answers are made from, where that is not to be found out.
    depends_on: tuple[t.Any, ...] | None = None
    consistency: Consistency | None = None

    @property
    def personal(self) -> bool:
        """Whether an answer may be for one visitor."""
        return any(callable(name) or not name.startswith("header:") for name in self.vary)

    def refusal(self, response: Response, reads: Iterable[str]) -> str | None:
        """Say why an answer may not be stored; ``None`` if it may."""
        login: t.Any = getattr(current_app, "login_manager", None)
        config = t.cast("t.Any", current_app.config)
        remember = config.get("REMEMBER_COOKIE_NAME", "remember_token") if login else None
        names = [name for name in self.vary if isinstance(name, str)]
        personal = uncovered(reads, names, user_cookies=[remember] if remember else [])
        if personal:
            return f"it was made after reading {', '.join(sorted(personal))}, and vary= does not cover that"
        if response.status_code != 200 and not self.is_missing(response.status_code):
            return f"its status is {response.status_code}"
        if response.is_streamed or response.direct_passthrough:
            return "it is streamed"
        if "Set-Cookie" in response.headers:
            return "it sets a cookie"
        control = response.cache_control
        if control.private or control.no_store or control.no_cache:
            return "its Cache-Control forbids that"
        if "*" in response.vary or "cookie" in self.learned(response):
            return "it varies by every visitor"
        return None

    def is_missing(self, status: int | None) -> bool:
        """Tell whether a status says that there is no such page, and is to be stored."""
        return status in (404, 410) and self.missing_ttl is not None

    def learned(self, response: Response) -> tuple[str, ...]:
        """Return the request headers that an answer varies by, beyond those that are in the key already."""
        named = {header.lower() for header in map(_header_of, self.vary) if header}
        return tuple(sorted(header.lower() for header in response.vary if header.lower() not in named))

    def announce(self, response: Response) -> Response:
        """Tell caches further on what the answers vary by."""
        for header in map(_header_of, self.vary):
            if header:
                response.vary.add(header)
        return response


def _header_of(name: object) -> str | None:
    """Return the request header that carries what a view varies by."""
    if not isinstance(name, str):
        return None
    return name.partition(":")[2] if name.startswith("header:") else "Cookie"
