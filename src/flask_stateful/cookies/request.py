"""The cookies of one request: what the browser sent, and what is written over it."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

from .. import clock
from ..errors import DecodeError, StateClosed
from ..serialization import MISSING
from ..unit import WRITTEN, Step, stay
from . import header
from .options import MAX_OCTETS, Identity, Options, is_name
from .outgoing import CookieService, Kind, Outgoing, Written, options_of
from .tokens import Codec, Opened, Place

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Response

    from ..unit import Unit

_UNREAD: t.Final = object()


class RequestCookies:
    """The cookies of one request. Each is decoded once, and reading gives what was written."""

    step: t.ClassVar[Step] = Step.COOKIES

    def __init__(self, service: CookieService, unit: Unit, environ: WSGIEnvironment) -> None:
        self._service = service
        self._unit: Unit | None = unit
        self._environ = environ
        self._https = environ.get("wsgi.url_scheme") == "https"
        self._closed = unit.ended
        self._received: dict[tuple[Kind, Place], t.Any] = {}
        self._written: dict[tuple[Kind, str], Written] = {}
        self._outgoing = Outgoing(service, https=self._https)
        #: The text of each ``Set-Cookie`` that has been saved.
        self._lines: dict[Identity, str] = {}
        self._sends = False
        #: Goes back to what was settled.
        self._go_back = self.remember()

    # Reading

    def get(self, kind: Kind, name: str, options: Options) -> t.Any:
        """Return a cookie's value, or :data:`~flask_stateful.serialization.MISSING`.

        :raises StoreUnavailable: if the value was spilled and the store cannot be reached.
        """
        if not is_name(name):
            return MISSING
        self.note_read(name)
        written = self._written.get((kind, name))
        if written is not None:
            return written.value if written.options.owner == options.owner else MISSING
        place = self._place(name, options)
        value = self._received.get((kind, place), _UNREAD)
        if value is _UNREAD:
            value = self._received[kind, place] = self._receive(kind, name, options)
        return value

    def allows(self, purpose: str) -> bool:
        """Tell whether the visitor lets a cookie of a purpose be set."""
        return self._service.allowed(purpose)

    def note_read(self, name: str) -> None:
        """Note that the answer depends on a cookie, and let the response say so."""
        unit = self._unit
        if unit is not None:
            unit.reads.add(f"cookie:{header.without_prefix(name)}")
            if header.vary_by_cookie not in unit.outgoing:
                unit.outgoing.append(header.vary_by_cookie)

    def _place(self, name: str, options: Options) -> Place:
        return Place(options.wire_name(name, https=self._https), options.owner)

    def _receive(self, kind: Kind, name: str, options: Options) -> t.Any:
        """Return the value of the first cookie that can be read."""
        codec, place = self._service.codecs[kind], self._place(name, options)
        for opened in self._genuine(codec, place):
            reference = _reference(codec, opened)
            body = opened.body if reference is None else self._service.spills.get(reference)
            if body is None:
                continue
            try:
                value = codec.decode(body)
            except DecodeError:
                continue
            if opened.stale:
                own = options_of(opened, options)
                anew = Written(kind=kind, name=name, wire=place.wire, options=own, value=value, body=body)
                anew.reference = reference
                self._outgoing.send_anew(anew)
            return value
        return MISSING

    def _genuine(self, codec: Codec, place: Place) -> t.Iterator[Opened]:
        """Yield those of the cookies of a name that are ours and have not expired."""
        for raw in header.finder(place.wire).raw(self._environ):
            opened = codec.read(place, raw) if len(place.wire) + len(raw) <= MAX_OCTETS else None
            if opened is not None and not _is_over(opened):
                yield opened

    # Writing

    def set(self, kind: Kind, name: str, value: t.Any, options: Options) -> None:
        """Set a cookie.

        :raises ValueError: if browsers would refuse it.
        :raises EncodeError: if the value cannot be stored.
        :raises CookieTooLarge: if it does not fit and may not be spilled.
        :raises StateClosed: if the response has been saved.
        """
        codec = self._service.codecs[kind]
        where = f"{codec.where}[{name!r}]"
        wire = self._writable(name, options, where)
        if options.owner and not codec.owned:
            raise ValueError(f"{where}: owner= needs a seal; use state.cookies or state.cookies.signed")
        if options.overflow == "spill" and not codec.spills:
            raise ValueError(f'{where}: overflow="spill" hides the value in the store; use state.cookies')
        body = codec.encode(value, where)
        written = Written(kind=kind, name=name, wire=wire, options=options, value=value, body=body)
        self._outgoing.write(written, where)
        self._keep(written)

    def delete(self, kind: Kind, name: str, options: Options, changes: t.Mapping[str, t.Any]) -> None:
        """Remove a cookie, with the attributes it was set with, as far as they are known.

        :param changes: attributes that are said again.
        :raises StateClosed: if the response has been saved.
        """
        codec = self._service.codecs[kind]
        self.note_read(name)
        options = self._options_as_set(kind, name, options).but(changes)
        wire = self._writable(name, options, f"{codec.where}[{name!r}]")
        written = Written(kind=kind, name=name, wire=wire, options=options)
        self._outgoing.remove(written)
        self._keep(written)

    def _options_as_set(self, kind: Kind, name: str, options: Options) -> Options:
        written = self._written.get((kind, name))
        if written is not None:
            return written.options
        opened = next(self._genuine(self._service.codecs[kind], self._place(name, options)), None)
        return options if opened is None else options_of(opened, options)

    def _writable(self, name: str, options: Options, where: str) -> str:
        """Return the name on the wire, or raise where such a cookie cannot be written."""
        if self._closed:
            raise StateClosed(f"{where} was written after the response had been saved; write it in the view")
        if type(name) is not str:
            raise TypeError(f"a cookie's name must be str, not {type(name).__name__}")
        wire = options.wire_name(name, https=self._https)
        if not (is_name(name) and is_name(wire)):
            raise ValueError(
                f"{where}: a cookie's name is made of letters, digits and !#$%&'*+-.^_`|~; write it like 'cart_items'"
            )
        options.require_obeyed(wire, where, https=self._https)
        return wire

    def _keep(self, written: Written) -> None:
        self._written[written.kind, written.name] = written
        if self._unit is not None:
            self._unit.reads.add(WRITTEN)

    # Saving

    def save(self) -> None:
        """Let the response set what was written, and move spilled values to the store.

        :raises CookieTooLarge: if it is more than the response's budget.
        :raises StoreUnavailable: if a value is to be spilled and the store cannot be reached.
        """
        sent = self._outgoing.settle()
        for written in sent:
            self._release_spill_before(written)
        self._lines.update({written.identity: written.line for written in sent})
        if sent and not self._sends and self._unit is not None:
            self._unit.outgoing.append(self._send)
            self._sends = True

    def _send(self, response: Response) -> None:
        for line in self._lines.values():
            response.headers.add("Set-Cookie", line)
        if self._lines:
            header.make_private(response)

    def settle(self) -> None:
        """Let what was saved be sent, whatever becomes of what is written from now on."""
        self._go_back = self.remember()

    def remember(self) -> Callable[[], None]:
        """Return what goes back to the cookies as they are now."""
        written, lines, unwrite = dict(self._written), dict(self._lines), self._outgoing.remember()

        def go_back() -> None:
            self._written, self._lines = dict(written), dict(lines)
            unwrite()

        return go_back

    def discard(self) -> None:
        """Forget what was not settled. That the response depends on cookies stays true."""
        self._go_back()

    def close(self) -> None:
        """Refuse further writes."""
        self._closed = True
        # These know us; the garbage collector need not find that out.
        self._unit, self._go_back = None, stay

    def _release_spill_before(self, written: Written) -> None:
        """Let go of the value that the cookie written over had in the store."""
        codec, spills = self._service.codecs[written.kind], self._service.spills
        if not codec.spills:
            return
        for opened in self._genuine(codec, Place(written.wire, written.options.owner)):
            reference = _reference(codec, opened)
            same = options_of(opened, written.options).identity(written.wire) == written.identity
            if reference is not None and same and reference != written.reference:
                (spills.remove if written.value is MISSING else spills.retire)(reference)


def _reference(codec: Codec, opened: Opened) -> bytes | None:
    """Return where in the store a cookie's value lies, if it does."""
    if opened.payload is None or not opened.payload.spilled:
        return None
    return t.cast("bytes", codec.decode(opened.body))


def _is_over(opened: Opened) -> bool:
    expires = None if opened.payload is None else opened.payload.expires
    return expires is not None and clock.now() >= expires
