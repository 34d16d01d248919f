"""The browser state of one request: what it carries, what it reads, what it changes."""

from __future__ import annotations

import logging
import secrets
import typing as t
from collections.abc import Callable

from .. import clock, signals
from ..declared.fields import Field
from ..declared.model import Model
from ..errors import StateClosed, StoreError
from ..seldom import log_seldom
from ..unit import WRITTEN, Step
from .answer import NO_COOKIES, Answer, Cookies
from .carriers import Carriers
from .identity import Browser
from .owner import Ownership, change_owner, keep_owned, meet_owner
from .records import save_changes
from .registers import NOTHING, Register
from .replica import Held, Registers
from .scheme import BROWSER, TTLS, Part, Scheme, Slot
from .sealed import Opened, Sealer
from .sent import overlay
from .service import BrowserService
from .shelf import Shelf
from .wire import Push

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class _Facts(t.NamedTuple):
    """What was stored by a certain moment, and the cookies that say so."""

    written: t.Mapping[str, Held] = {}
    stored: t.Mapping[Part, Registers] = {}
    mirrored: t.Mapping[str, Register] = {}
    migrated: t.Collection[str] = ()
    cookies: Cookies = NO_COOKIES


_NOTHING: t.Final = _Facts()


class Visit:
    """The browser state of one request, made when that first touches any."""

    step: t.ClassVar[Step] = Step.BROWSER

    def __init__(self, service: BrowserService, environ: WSGIEnvironment) -> None:
        self.service = service
        self.scheme = service.scheme
        self.carriers = Carriers(environ, self.scheme.prefix)
        self.unit = service.unit_of(environ)
        self.answer = Answer(self)
        self.shelves: dict[Part, Shelf] = {}
        #: Names of earlier versions whose values have been migrated, by where they were.
        self.outdated: dict[Part, dict[str, Register]] = {}
        #: The classes that were looked through for earlier versions.
        self.migrated: set[str] = set()
        #: The values of each class, as :class:`~flask_stateful.browser.place.BrowserValues`.
        self.values: dict[Model, t.Any] = {}
        #: What this request has stored, by the part it is in.
        self.stored: dict[Part, Registers] = {}
        self.written: dict[str, Held] = {}
        #: The mirror cookies that it has set.
        self.mirrored: dict[str, Register] = {}
        self.closed = self.unit.closed
        self.is_new_tab = False
        #: What fallback keys have opened, by the register's name.
        self.opened_stale: dict[str, Opened] = {}
        self.ownership: t.Final = Ownership(self.carriers.owner, is_met=not service.asks_for_user)
        self._browser: Browser | None = None
        self._pushes: list[Push] | None = None
        self._header: Push | None = None
        self._tab: str | None = None
        self._sealer: Sealer | None = None
        self._settled = _NOTHING
        if not self.unit.ended:
            self.unit.join(self)
        self.unit.outgoing.append(self.answer.send)

    # Who it is

    @property
    def pushes(self) -> list[Push]:
        """What this request carries besides mirror cookies."""
        if self._pushes is None:
            self._header = self.carriers.header()
            self._pushes = self.carriers.outboxes()
            if self._header is not None:
                self._pushes.append(self._header)
        return self._pushes

    def arrived(self, push: Push) -> None:
        """Note what came as the request's body."""
        self._pushes, self._tab = [push], push.tab

    @property
    def tab(self) -> str:
        """The tab that sent the request; empty where nobody knows."""
        if self._tab is None:
            if self.pushes and self._header is not None:
                # Only a script can send a header, and it knows which tab it is in.
                self._tab = self._header.tab
            else:
                self._tab, self.is_new_tab = self.carriers.tab, self.carriers.is_new_tab
        return self._tab

    @property
    def browser(self) -> Browser | None:
        """The browser, if it brought an id that is genuine."""
        if self._browser is None:
            cookie = self.carriers.cookies.get(BROWSER)
            self._browser = None if cookie is None else self.service.identities.recognise(cookie)
            if cookie is not None and self._browser is None:
                self.carriers.report("browser id")
        return self._browser

    def require_browser(self) -> Browser:
        """Return the browser, with a new id if it has none."""
        if self.browser is None:
            self._browser = self.service.identities.new()
        browser = t.cast("Browser", self._browser)
        if browser.stale:
            self.answer.identify(self.service.identities.cookie(browser))
        return browser

    def sealer(self) -> Sealer:
        """Return what seals and opens for this browser and user."""
        if self._sealer is None:
            service = self.service
            self._sealer = Sealer(
                service.keyring, service.replica, self.require_browser().id, lambda: service.user_id() or ""
            )
        return self._sealer

    @property
    def status(self) -> t.Literal["ok", "memory"]:
        """What the browser says of its storage: ``"memory"`` where that is full or denied."""
        return "memory" if any(push.memory for push in self.pushes) else "ok"

    def slot(self, name: str) -> Slot:
        """Return the slot of a register."""
        return self.scheme.slots[name]

    @property
    def now(self) -> int:
        """The time as revisions count it."""
        return int(clock.now() * 1_000_000)

    def extend(self, scheme: Scheme) -> None:
        """Go on with a class that nobody had looked at when the visit began."""
        self.scheme = scheme
        self.values = {}
        self.shelves = {part: shelf for part, shelf in self.shelves.items() if shelf.changes()}

    # Reading

    def reading(self, field: Field) -> Slot:
        """Note that a field is read, and return its slot."""
        slot = self.scheme.slots[field.key]
        if slot.owned and not self.ownership.is_met:
            meet_owner(self)
        self.answer.is_personal = True
        self.unit.reads.add(slot.note)
        return slot

    def note_read(self, cookie: str) -> None:
        """Note that what the response says depends on one of our cookies."""
        self.unit.reads.add(f"cookie:{self.scheme.prefix}{cookie}")

    def key(self, part: Part, owner: str | None = None) -> str | None:
        """Return where a part's record lies; ``None`` where there can be none."""
        browser = self.browser
        if browser is None or (part is Part.TAB and not self.tab):
            return None
        owner = self.ownership.tag if owner is None else owner
        parts = {Part.SHARED: (), Part.OWNED: ("user", owner), Part.TAB: ("tab", owner, self.tab)}[part]
        return self.service.replica.key(browser.id, *parts)

    def everything_held(self) -> dict[str, Held]:
        """Return all that the store holds for this browser, its user and this tab.

        :raises StoreError: if the store fails.
        """
        keys = {part: self.key(part) for part in TTLS}
        missing = [key for part, key in keys.items() if key is not None and part not in self.stored]
        loaded = self.service.replica.load_many(missing) if missing else {}
        everything: dict[str, Held] = {}
        for part, key in keys.items():
            everything |= self.stored[part] if part in self.stored else loaded.get(key or "", {})
        return everything

    def shelf(self, part: Part) -> Shelf:
        """Return the registers of a part."""
        shelf = self.shelves.get(part)
        if shelf is None:
            shelf = self.shelves[part] = Shelf(self, self._held(part))
            overlay(self, part, shelf)
        return shelf

    def _held(self, part: Part) -> dict[str, Register]:
        if part is Part.MIRROR:
            return self._mirrors() | self.mirrored
        key, now = self.key(part), clock.now()
        if key is None:
            return {}
        try:
            return {name: held.at(now) for name, held in self.service.replica.load(key).items()}
        except StoreError:
            # What the browser holds is not lost. Until the store is back, pages are made from defaults.
            return {}

    def _mirrors(self) -> dict[str, Register]:
        mirror, is_strange = self.carriers.mirror, self.ownership.has_moved
        names = (slot.name for slot in self.scheme.parts[Part.MIRROR] if not (slot.owned and is_strange))
        return {name: register for name in names if (register := mirror(name)) is not None}

    def refused(self, name: str) -> None:
        """Note that what the browser holds of a field does not fit, and was dropped."""
        reason = "seal" if self.slot(name).field.sealed else "type"
        log_seldom(
            self.service.app, logging.WARNING, "dropped what a browser holds of %s: it does not fit (%s)", name, reason
        )
        signals.state_invalid.send(self.service.app, name=name, reason=reason)

    # Writing

    def writable(self, slot: Slot) -> Shelf:
        """Return the registers of a field that Python is about to change."""
        if self.closed:
            raise StateClosed(
                f"{slot.field.where} was written to after the response had been saved, in a streamed body, say; write"
                " to it before the view returns"
            )
        self.unit.reads.add(WRITTEN)
        self.answer.is_private = True
        if slot.owned:
            keep_owned(self)
        if slot.part is Part.TAB and not self.tab:
            self._tab, self.is_new_tab = secrets.token_hex(4), True
            self.answer.name_tab(self._tab)
        return self.shelf(slot.part)

    def changes(self, part: Part) -> dict[str, bytes | None]:
        """Return what Python has changed in a part, as far as it was looked at."""
        shelf = self.shelves.get(part)
        changed = {} if shelf is None else shelf.changes()
        if not changed and part not in self.outdated:
            return changed
        # What the visitor has not agreed to lives for this request alone; what is removed goes in any case.
        kept = {name: value for name, value in changed.items() if value is None or self.allows(self.slot(name))}
        return {**kept, **dict.fromkeys(self.outdated[part])} if part in self.outdated else kept

    def allows(self, slot: Slot) -> bool:
        """Tell whether the visitor lets a field be kept."""
        return self.service.allowed(slot.model.purpose)

    def has_news(self) -> bool:
        """Tell whether the page needs more than mirror cookies to say what Python has changed."""
        return any(self.changes(part) for part in TTLS)

    def save(self) -> None:
        """Store what Python has changed, and have the browser told."""
        if self.shelves or self.outdated:
            save_changes(self)
            self.shelves, self.outdated = {}, {}
        change_owner(self)

    def tell_changed(self, name: str, *, by: t.Literal["server", "browser"] = "server") -> None:
        """Say that a change was kept."""
        signals.state_changed.send(self.service.app, name=name, by=by)

    def seen(self, part: Part, name: str) -> Register:
        """Return a register as this request sees it."""
        outdated = self.outdated.get(part, {})
        if name in outdated:
            return outdated[name]
        shelf = self.shelves.get(part)
        return NOTHING if shelf is None else shelf.seen.get(name, NOTHING)

    def register(self, part: Part, name: str, held: Held | None) -> Register:
        """Return a register as a record has it; one of an earlier version that it lacks, as the browser sent it."""
        if held is not None:
            return held.at(clock.now())
        return self.outdated.get(part, {}).get(name, NOTHING)

    def held(self, name: str, register: Register) -> Held:
        """Return a register as a record is to hold it."""
        slot = self.scheme.slots.get(name)
        ttl = slot.field.ttl if slot is not None and register.value is not None else None
        return Held(*register, expires=None if ttl is None else clock.now() + ttl)

    def settle(self) -> None:
        """Let the browser hear of what was stored, whatever becomes of what is changed from now on."""
        self._settled = self._facts()

    def remember(self) -> Callable[[], None]:
        """Return what goes back to how everything is now; records that nothing was changed in are read again."""
        shelves = {part: (shelf, changed) for part, shelf in self.shelves.items() if (changed := shelf.changes())}
        owner, facts = self.ownership.remember(), self._facts()
        tab, outdated = (self._tab, self.is_new_tab), dict(self.outdated)

        def go_back() -> None:
            has_moved = owner()
            self._go_back(facts)
            (self._tab, self.is_new_tab), self.outdated = tab, dict(outdated)
            self.shelves = {} if has_moved else {part: shelf for part, (shelf, _) in shelves.items()}
            for part, (_, changed) in shelves.items():
                self.shelf(part).restore(changed)

        return go_back

    def _facts(self) -> _Facts:
        return _Facts(
            dict(self.written), dict(self.stored), dict(self.mirrored), set(self.migrated), self.answer.remember()
        )

    def _go_back(self, facts: _Facts) -> None:
        self.written, self.stored, self.mirrored = dict(facts.written), dict(facts.stored), dict(facts.mirrored)
        self.migrated = set(facts.migrated)
        self.answer.go_back(facts.cookies)

    def discard(self) -> None:
        """Forget what was not settled."""
        self.shelves, self.outdated = {}, {}
        self._go_back(self._settled)
        change_owner(self)

    def close(self) -> None:
        """Refuse further changes."""
        self.closed = True
        # These know the visit; without this, it would stay in memory until the garbage collector runs.
        self.values, self.shelves = {}, {}
