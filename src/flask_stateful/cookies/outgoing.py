"""What one response does to the browser's cookies: lines of ``Set-Cookie``, within a budget, and values spilled."""

from __future__ import annotations

import dataclasses
import math
import typing as t
from collections.abc import Callable

from .. import clock
from ..errors import CookieTooLarge
from ..serialization import MISSING
from .options import MAX_OCTETS, Identity, Options
from .tokens import Codec, Opened, Place, facts_of

if t.TYPE_CHECKING:
    from .spill import Spills

#: Which jar: cookies of one are told from another's by how their values are written.
Kind: t.TypeAlias = t.Literal["sealed", "signed", "plain"]

#: What a line takes in a response besides its text.
_AROUND_LINE: t.Final = len("Set-Cookie: \r\n")

_REMOVED: t.Final = "=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


class CookieService:
    """What an application's cookies need.

    :param budget: octets that all our ``Set-Cookie`` lines of one response may take.
    """

    def __init__(self, codecs: t.Mapping[Kind, Codec], spills: Spills, budget: int) -> None:
        self.codecs = codecs
        self.spills = spills
        self.budget = budget
        #: Tells whether the visitor lets cookies of a purpose be set; without that they last for the request alone.
        self.allowed: Callable[[str], bool] = lambda purpose: True


@dataclasses.dataclass(slots=True, kw_only=True)
class Written:
    """A cookie that a request has written, or sends anew."""

    kind: Kind
    name: str
    wire: str
    options: Options
    #: :data:`~flask_stateful.serialization.MISSING` removes the cookie.
    value: t.Any = MISSING
    #: Its encoded form.
    body: t.Any = None
    #: Where the value lies in the store, if it does.
    reference: bytes | None = None
    #: Whether the store has got it.
    is_stored: bool = False
    #: The text of ``Set-Cookie``.
    line: str = ""

    @property
    def octets(self) -> int:
        """What it takes of the response, in octets."""
        return len(self.line) + _AROUND_LINE

    @property
    def identity(self) -> Identity:
        """What tells it from other cookies."""
        return self.options.identity(self.wire)


class Outgoing:
    """The cookies that one response sets and removes.

    :param https: whether the request came by HTTPS.
    """

    def __init__(self, service: CookieService, *, https: bool) -> None:
        self._service = service
        self._https = https
        self._written: dict[Identity, Written] = {}
        self._anew: dict[Identity, Written] = {}

    def write(self, written: Written, where: str) -> None:
        """Set a cookie, unless the response is discarded.

        :param where: how an error names it.
        :raises CookieTooLarge: if it does not fit and may not be spilled.
        :raises ValueTooLarge: if the store does not take its value either.
        """
        size = self._seal(written)
        if size > MAX_OCTETS and written.options.overflow == "spill":
            size = self._spill(written)
        if size > MAX_OCTETS:
            name = len(written.wire)
            advice = ', or write overflow="spill"' if written.kind == "sealed" else ""
            raise CookieTooLarge(
                f"{where} takes {size:,} octets (name {name:,}, value {size - name:,}) and browsers keep"
                f" {MAX_OCTETS:,}; store less{advice}"
            )
        self._keep(written)

    def remove(self, written: Written) -> None:
        """Remove a cookie, unless the response is discarded."""
        options = dataclasses.replace(written.options, max_age=None)
        written.line = written.wire + _REMOVED + options.attributes(https=self._https)
        self._keep(written)

    def send_anew(self, written: Written) -> None:
        """Seal a cookie with the current key, unless this response writes it anyway."""
        self._seal(written)
        self._anew[written.identity] = written

    def settle(self) -> list[Written]:
        """Return what goes out, after moving to the store what has to be there first.

        :raises CookieTooLarge: if it is more than the response's budget.
        :raises StoreUnavailable: if a value is to be spilled and the store cannot be reached.
        """
        allowed = self._service.allowed
        sent = [one for one in self._written.values() if one.value is MISSING or allowed(one.options.purpose)]
        room = self._service.budget - self._fit(sent)
        for identity, written in self._anew.items():
            # A page must not fail because a key was changed: what has no room is sent with another response.
            if identity not in self._written and written.octets <= room and allowed(written.options.purpose):
                sent.append(written)
                room -= written.octets
        for written in sent:
            if written.reference is not None and not written.is_stored:
                self._service.spills.put(written.reference, written.body, written.options.max_age)
                written.is_stored = True
        return sent

    def remember(self) -> Callable[[], None]:
        """Return what goes back to the cookies as they are written now."""
        written = {identity: (one, dataclasses.replace(one)) for identity, one in self._written.items()}

        def go_back() -> None:
            self._written = {identity: one for identity, (one, _) in written.items()}
            for one, before in written.values():
                one.value, one.reference, one.is_stored = before.value, before.reference, before.is_stored
                one.line = before.line

        return go_back

    def _seal(self, written: Written) -> int:
        """Make the cookie's line.

        :return: what name and value take, in octets.
        """
        options, codec = written.options, self._service.codecs[written.kind]
        expires = None if options.max_age is None else math.ceil(clock.now()) + options.max_age
        body = written.body if written.reference is None else codec.encode(written.reference, written.wire)
        facts = facts_of(options, expires, spilled=written.reference is not None)
        text = codec.write(Place(written.wire, options.owner), body, facts)
        written.line = f"{written.wire}={text}{options.attributes(https=self._https)}"
        return len(written.wire) + len(text)

    def _spill(self, written: Written) -> int:
        written.reference, written.is_stored = self._service.spills.new_reference(written.body), False
        return self._seal(written)

    def _keep(self, written: Written) -> None:
        before = self._written.pop(written.identity, None)
        if before is not None and (before.kind, before.name) != (written.kind, written.name):
            before.value = MISSING  # another jar's cookie of the same name, which the browser will not keep
        self._written[written.identity] = written

    def _fit(self, sent: list[Written]) -> int:
        """Return what the cookies take of the response, after spilling those that may be, the largest first."""
        budget = self._service.budget
        taken = sum(written.octets for written in sent)
        for written in sorted(sent, key=lambda one: one.octets, reverse=True):
            if taken <= budget:
                break
            if written.options.overflow == "spill" and written.reference is None and written.value is not MISSING:
                taken -= written.octets
                self._spill(written)
                taken += written.octets
        if taken > budget:
            each = ", ".join(f"{self._service.codecs[one.kind].where}[{one.name!r}] {one.octets:,}" for one in sent)
            raise CookieTooLarge(
                f"the cookies of this response take {taken:,} octets ({each}), and STATEFUL_COOKIE_BUDGET allows"
                f' {budget:,}; store less, write overflow="spill", or raise STATEFUL_COOKIE_BUDGET together with the'
                " buffers for response headers of the servers in front"
            )
        return taken


def options_of(opened: Opened, options: Options) -> Options:
    """Return the options with what a cookie says of its own; a plain one says nothing."""
    payload = opened.payload
    if payload is None:
        return options
    remaining = None if payload.expires is None else max(payload.expires - math.ceil(clock.now()), 1)
    return dataclasses.replace(
        options,
        max_age=remaining,
        path=payload.path,
        domain=payload.domain,
        partitioned=payload.partitioned,
        httponly=payload.httponly,
        samesite=payload.samesite,
        secure=payload.secure,
        purpose=payload.purpose,
    )
