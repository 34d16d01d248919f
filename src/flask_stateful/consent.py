"""What a visitor has agreed to: ``state.consent``.

Each declared class and each cookie has a purpose. What is ``"necessary"`` needs no consent. Everything else lives for
the request alone, and in the browser for the page alone, until the visitor has agreed to its purpose.

The answer itself is kept in a cookie that scripts can read, since they have to heed it as well: the granted purposes,
joined by dots. It is the visitor's own word, so it is neither sealed nor signed.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable

from .cookies.header import CONSENT, HOST
from .cookies.jar import Jar
from .cookies.options import Options
from .declared.model import Purpose

if t.TYPE_CHECKING:
    from .cookies.request import RequestCookies

NECESSARY: t.Final = "necessary"

#: The purposes that can be asked for.
PURPOSES: t.Final[tuple[str, ...]] = tuple(purpose for purpose in t.get_args(Purpose) if purpose != NECESSARY)

#: How long an answer counts, in days; then it is to be asked for again.
DAYS: t.Final = 180


class ConsentCookie:
    """Where the visitor's answer is.

    :param find: returns the cookies of the current request.
    :param prefix: what the names of the application's own cookies begin with.
    """

    def __init__(self, find: Callable[[], RequestCookies], prefix: str) -> None:
        options = Options(prefix=HOST, httponly=False).but({"max_age": DAYS * 24 * 3600})
        self._jar = Jar(find, "plain", options)
        self._name = prefix + CONSENT

    def granted(self) -> frozenset[str]:
        """Return the purposes that the visitor has agreed to."""
        return frozenset(self._jar.get(self._name, "").split(".")).intersection(PURPOSES)

    def keep(self, granted: frozenset[str]) -> None:
        """Let these be the purposes that the visitor has agreed to."""
        if granted:
            self._jar.set(self._name, ".".join(sorted(granted)))
        else:
            self._jar.delete(self._name)

    def allows(self, purpose: str) -> bool:
        """Tell whether something may be kept. Nothing is read for what is necessary."""
        return purpose == NECESSARY or purpose in self.granted()


class Consent:
    """What the visitor of the current request has agreed to.

    :param cookie: returns where the application keeps the answer.
    :param forget: removes what the browser holds for a purpose.
    """

    def __init__(self, cookie: Callable[[], ConsentCookie], forget: Callable[[str], None]) -> None:
        self._cookie = cookie
        self._forget = forget

    def has(self, purpose: Purpose) -> bool:
        """Tell whether the visitor has agreed to a purpose; to ``"necessary"``, always.

        :raises ValueError: if there is no such purpose.
        """
        if purpose != NECESSARY:
            _require_purposes((purpose,))
        return self._cookie().allows(purpose)

    def grant(self, *purposes: Purpose) -> None:
        """Note that the visitor has agreed to these purposes. What this request has written for them is kept.

        :raises ValueError: if there is no such purpose.
        :raises StateClosed: if the response has been saved.
        """
        cookie = self._cookie()
        cookie.keep(cookie.granted() | _require_purposes(purposes))

    def withdraw(self, *purposes: Purpose) -> None:
        """Note that the visitor does not agree, or no longer, and remove what declared classes hold for these purposes.

        Of cookies that no class declares, nobody knows the names: delete those yourself.

        :raises ValueError: if there is no such purpose.
        :raises StateClosed: if the response has been saved.
        """
        cookie = self._cookie()
        cookie.keep(cookie.granted() - _require_purposes(purposes))
        for purpose in purposes:
            self._forget(purpose)

    def __repr__(self) -> str:
        return "<Consent>"


def _require_purposes(purposes: tuple[str, ...]) -> frozenset[str]:
    """Return the purposes, or raise where one is none."""
    for purpose in purposes:
        if purpose not in PURPOSES:
            known = ", ".join(f'"{one}"' for one in PURPOSES)
            raise ValueError(f"{purpose!r} is no purpose that a visitor can agree to; write one of {known}")
    if not purposes:
        raise ValueError('a purpose is missing; write state.consent.grant("analytics")')
    return frozenset(purposes)
