"""What ``client.js`` does in a page, without what only a real browser has. The two follow the same rules."""

from __future__ import annotations

import json
import secrets
import typing as t

import msgspec

from ..browser import registers
from ..browser.registers import Entry, Register
from ..browser.wire import ANEW, BODY_BYTES, HEADER_BYTES, OUTBOX_BYTES, from_base64url
from .entries import Entries, Field, Json, encode

if t.TYPE_CHECKING:
    from .browser import FakeTab

#: What a message's own parts take besides its values.
_FRAME: t.Final = 64


class Page(Entries):
    """The script of a page that is open.

    :param island: what the page itself says of the state, as JSON.
    """

    def __init__(self, tab: FakeTab, island: str | None) -> None:
        super().__init__(tab)
        #: The values that the server has answered without confirming them, by their write numbers.
        self._answered: dict[str, int] = {}
        #: Values that were offered again, with their write numbers.
        self._offered: set[tuple[str, int]] = set()
        self._pulls = False
        #: The revisions that waited when everything was asked for: it has all come.
        self._asked: dict[str, str | None] = {}
        self._owner = ""
        message = None if island is None else json.loads(island)
        self._claim_tab(message)
        self._look()
        for field in self._outdated:
            self._offer(field, self._read(field))
        if message is not None:
            self._apply(message)
        self.send()

    # What JavaScript does

    def assign(self, label: str, value: Json) -> None:
        """Assign a field as JavaScript does.

        :raises TypeError: if the field is sealed, or JSON cannot hold the value.
        :raises ValueError: if the value is too large.
        """
        field = self.fields[label]
        if field.options.get("x"):
            raise TypeError(f"{label} is sealed: only Python can write it")
        try:
            text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
        except (ValueError, TypeError):
            raise TypeError(f"{label}: JSON cannot hold this") from None
        if len(text) > field.room:
            raise ValueError(f"{label}: {len(text):,} octets, {field.room:,} at most")
        self._commit(field, text)

    def reset(self, label: str) -> None:
        """Delete a field as JavaScript does."""
        self._commit(self.fields[label], None)

    def _commit(self, field: Field, value: bytes | None) -> None:
        entry = registers.assign(self._read(field), value, self._browser.now())
        self._write(field, entry, field.options.get("s"))
        if field.is_mirrored and self._is_granted(field):
            self._mirror(field)
        self._send_outbox()

    def leave(self) -> None:
        """Do what a page does before the next one is asked for."""
        if any(field.scope == "tab" for field in self.fields.values()):
            self._set_cookie("_t", self.id)
        self._send_outbox()
        self._areas["tab"][self._item("_t")] = f"{self.id}-"

    def arrived(self) -> None:
        """Take back what only said which tab asks for a page."""
        if self._cookie("_t") == self.id:
            self._set_cookie("_t", None)

    # This tab, its visitor, and what they allow

    def _claim_tab(self, island: Json) -> None:
        """Take the id that the page before has left; a copied tab finds one that is in use."""
        kept = self._areas["tab"].get(self._item("_t"), "")
        self._is_new = not kept.endswith("-")
        if self._is_new:
            self.id = island["t"] if island and island.get("new") else secrets.token_hex(4)
            for field in self._replica("tab"):
                entry = self._read(field)
                if entry.value is not None:
                    self._write(field, Entry(entry.value, 0, entry.write, pending=True))
        else:
            self.id = kept[:-1]
        self._areas["tab"][self._item("_t")] = self.id

    def _look(self) -> None:
        """Heed the cookies, which an answer or another tab may have set."""
        self._meet_owner(self._cookie("_u") or "")
        self._granted = {"necessary", *(self._cookie("_c") or "").split(".")}
        for field in [*self.fields.values(), *self._outdated]:
            if not self._is_granted(field):
                self._areas[field.scope].pop(self._item(field.name), None)
                self._set_cookie(field.name, None)
            elif field.is_mirrored:
                self._meet_mirror(field)

    def _meet_owner(self, tag: str) -> None:
        """Drop what belonged to somebody else, and ask for what belongs to whoever is there now."""
        self._owner = tag
        for scope, area in self._areas.items():
            before = area.get(self._item("_u"))
            if before == tag:
                continue
            if len(before or "") > 1 or tag.startswith(ANEW):
                for field in [*self.fields.values(), *self._outdated]:
                    if field.scope == scope and not field.is_shared:
                        self._drop(field)
            area[self._item("_u")] = tag
            if before or scope == "local" or not self._is_new:
                self._pulls |= bool(self._replica(scope))

    # Messages to the server

    def _push(self, fields: t.Iterable[Field], room: int) -> dict[str, Json]:
        """Return a message with as many fields as there is room for, the newest first."""
        push: dict[str, Json] = {"t": self.id, "u": self._owner, "q": int(not self._browser.has_storage), "p": {}}
        room -= _FRAME
        for field in sorted(fields, key=lambda field: -self._read(field).write):
            entry = self._read(field)
            value = [] if entry.value is None else [json.loads(entry.value)]
            parts = [*value, entry.revision, entry.write]
            octets = len(msgspec.json.encode([field.name, parts]))
            if octets <= room:
                room -= octets
                push["p"][field.name] = parts
        return push

    def header(self) -> str:
        """Return what goes along with a fetch."""
        return encode(self._push(self._unsent(), HEADER_BYTES * 3 // 4))

    def answered(self, header: str | None) -> None:
        """Take what came with the answer to a fetch."""
        self._look()
        if header:
            self._apply(json.loads(from_base64url(header) or b"{}"))
        self.send()

    def unconfirmed(self) -> list[str]:
        """Return the fields whose values the server has not confirmed."""
        return [field.label for field in self._pending()]

    def send(self) -> bool:
        """Send what is pending, until the server has answered for all of it.

        :return: whether it has.
        """
        while (is_pull := self._is_pulling()) or self._unsent():
            push = self._push(self._unsent(), BODY_BYTES)
            if is_pull:
                push["g"] = 1
            waiting = {name: self._cookie(name) for name in self._waiting().values()}
            answer = self._post(push)
            if answer is None:
                return False
            if is_pull:
                self._asked, self._pulls = waiting, False
            self._answered |= {name: parts[-1] for name, parts in push["p"].items()}
            for field in [field for field in self._outdated if field.name in push["p"]]:
                self._drop(field)
            self._apply(answer)
            self._look()
        self._send_outbox()
        return True

    def _unsent(self) -> list[Field]:
        return [field for field in self._pending() if self._answered.get(field.name) != self._read(field).write]

    def _send_outbox(self) -> None:
        """Leave what is pending in a cookie, so that whatever asks next carries it."""
        name = f"_q.{self.id}"
        room = (OUTBOX_BYTES - len(self._cookie_prefix) - len(name)) * 3 // 4
        push = self._push([field for field in self._unsent() if not field.is_mirrored], room)
        self._set_cookie(name, encode(push) if push["p"] else None)

    def _post(self, push: Json) -> Json:
        headers = {"X-State": encode({"t": self.id}), "Sec-Fetch-Site": "same-origin"}
        response = self._browser.request("POST", self._declared["url"], json=push, headers=headers)
        return response.json if response is not None and response.status_code == 200 else None

    # Messages from the server

    def _apply(self, patch: Json) -> None:
        """Take from a patch what its counters allow; what is for another tab or user is not for this one."""
        if patch.get("u", "") != self._owner:
            return
        every = self.fields.values()
        mine = {field.name: field for field in every if field.scope == "local" or patch.get("t") == self.id}
        for name in mine.keys() & patch.get("p", {}).keys():
            self._take(mine[name], patch["p"][name])
        for name in mine.keys() & patch.get("a", {}).keys():
            self._write(mine[name], registers.acknowledge(self._read(mine[name]), *patch["a"][name]))
        if "h" in patch:
            for name, field in mine.items():
                if not field.is_mirrored:
                    self._compare(field, patch["h"].get(name))
        self._pulls |= bool(patch.get("x"))

    def _take(self, field: Field, parts: list[Json]) -> None:
        value, (revision, write, *left) = ([], parts) if len(parts) == 2 else (parts[:1], parts[1:])
        register = Register(msgspec.json.encode(value[0]) if value else None, revision, write)
        before = self._read(field)
        taken = registers.take(before, register)
        if taken != before:
            self._write(field, taken, left[0] if left else field.options.get("s"))

    def _compare(self, field: Field, held: int | None) -> None:
        entry = self._read(field)
        if registers.compare(entry, held) != entry:
            # Without cookies the server never knows who we are, and has lost everything each time.
            if (field.name, entry.write) not in self._offered:
                self._offered.add((field.name, entry.write))
                self._offer(field, entry)
        elif not entry.pending and (held or 0) > entry.revision:
            self._pulls = True

    def _offer(self, field: Field, entry: Entry) -> None:
        self._answered.pop(field.name, None)
        self._write(field, entry._replace(pending=True))

    def _waiting(self) -> dict[str, str]:
        return {"local": "_p", "tab": f"_p.{self.id}"}

    def _is_pulling(self) -> bool:
        return any(self._is_awaited(scope, name) for scope, name in self._waiting().items()) or self._pulls

    def _is_awaited(self, scope: str, name: str) -> bool:
        """Tell whether something waits for this browser or tab; what has arrived is crossed out."""
        revision = self._cookie(name)
        if revision is None:
            return False
        here = max((self._read(field).revision for field in self._replica(scope)), default=0)
        if revision == self._asked.get(name) or int(revision) <= here:
            self._set_cookie(name, None)
            return False
        return True
