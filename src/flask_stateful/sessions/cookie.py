"""The session cookie: its options, its expiry, and the headers that go with it (:rfc:`6265`)."""

from __future__ import annotations

import dataclasses
import typing as t
from datetime import UTC, datetime

from ..cookies.header import make_private

if t.TYPE_CHECKING:
    from flask import Response


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """How the session cookie is set, and removed."""

    name: str
    domain: str | None
    path: str
    httponly: bool
    #: Also on plain HTTP. On HTTPS the cookie is always ``Secure``.
    secure: bool
    samesite: str
    partitioned: bool
    #: Whether a permanent session's cookie gets a new expiry when the session is renewed.
    refresh: bool


class SessionCookie:
    """Writes the session cookie into responses."""

    def __init__(self, options: CookieOptions) -> None:
        self.options = options

    def set(self, response: Response, value: str, *, is_secure: bool, expires_at: float | None) -> None:
        """Set the cookie.

        :param is_secure: whether the request came by HTTPS.
        :param expires_at: seconds since 1970, or ``None`` for a cookie that goes with the browser session.
        """
        self._write(response, value, is_secure, expires_at)

    def remove(self, response: Response, *, is_secure: bool) -> None:
        """Remove the cookie, with the options it was set with: a browser ignores a removal that lacks one."""
        self._write(response, "", is_secure, 0)

    def _write(self, response: Response, value: str, is_secure: bool, expires_at: float | None) -> None:
        options = self.options
        response.set_cookie(
            options.name,
            value,
            expires=None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
            max_age=0 if expires_at == 0 else None,
            path=options.path,
            domain=options.domain,
            secure=options.secure or is_secure,
            httponly=options.httponly,
            samesite=options.samesite,
            partitioned=options.partitioned,
        )
        make_private(response)
