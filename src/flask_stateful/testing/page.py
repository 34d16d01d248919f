"""What ``client.js`` does in a page, without what only a real browser has. The two follow the same rules."""

from __future__ import annotations

import json
import secrets
import typing as t

import msgspec

from ..browser import registers
from ..browser.registers import Entry, Register
from ..browser.wire import OUTBOX_BYTES, from_base64url, to_base64url

if t.TYPE_CHECKING:
    from .browser import FakeTab

Json: t.TypeAlias = t.Any


class Field(t.NamedTuple):
    """A field as the page's script knows it."""

    scope: str
    name: str
    options: dict[str, Json]
    is_shared: bool
    purpose: str


class Page:
    """The script of a page that is open: ``client.js``, without what only a real browser has."""

    def __init__(self, tab: FakeTab, island: str | None) -> None:
        self._tab = tab
        self._browser = tab.browser
        self._declared = tab.browser.declarations()
        prefix = "__Host-" if self._declared["secure"] else ""
        self._cookie_prefix = f"{prefix}fs.{self._declared['ns']}."
        self.fields = dict(self._read_fields())
        kept = self._browser.has_storage
        self._areas: dict[str, dict[str, str]] = {
            "local": self._browser.storage if kept else {},
            "tab": tab.storage if kept else {},
        }
        self._memory: dict[str, str] = {}
        self._granted = {"necessary"}
        #: Pushed values that the server has answered without confirming them.
        self._refused: dict[str, int] = {}
        self._pulls = False
        self._start(None if island is None else json.loads(island))

    def _read_fields(self) -> t.Iterator[tuple[str, Field]]:
        for scope in ("local", "tab"):
            for model, declared in self._declared[scope].items():
                version = "" if declared["v"] == 1 else f"~{declared['v']}"
                for key, options in declared["f"].items():
                    label = f"{model}.{key}"
                    yield label, Field(scope, label + version, options, bool(declared["s"]), declared["p"])

    def _start(self, island: Json) -> None:
        self._claim_tab(island)
        self._meet_cookies()
        if island is not None:
            self._apply(island)
        self._ask_for_waiting()
        self.send()

    # What JavaScript reads and writes

    def value(self, label: str) -> Json:
        """Return a field's value."""
        entry = self._read(self.fields[label])
        return self.fields[label].options.get("d") if entry.value is None else json.loads(entry.value)

    def assign(self, label: str, value: Json) -> None:
        """Assign a field as JavaScript does."""
        field = self.fields[label]
        if field.options.get("x"):
            raise TypeError(f"{label} is sealed: only Python can write it")
        self._commit(field, msgspec.json.encode(value))

    def reset(self, label: str) -> None:
        """Delete a field as JavaScript does."""
        self._commit(self.fields[label], None)

    def _commit(self, field: Field, value: bytes | None) -> None:
        self._write(field, registers.assign(self._read(field), value, self._browser.now()), field.options.get("s"))
        if field.options.get("m") and self._is_granted(field):
            self._mirror(field)
        self._send_outbox()

    # Entries

    def _read(self, field: Field) -> Entry:
        try:
            item = json.loads(self._area(field)[self._item(field.name)])
            *value, revision, write = item["w"]
            entry = Entry(msgspec.json.encode(value[0]) if value else None, revision, write, bool(item["d"]))
        except (KeyError, ValueError, TypeError):
            return Entry()
        return entry._replace(value=None) if item.get("e", float("inf")) <= self._browser.now() / 1000 else entry

    def _write(self, field: Field, entry: Entry, seconds: float | None = None) -> None:
        value = [] if entry.value is None else [json.loads(entry.value)]
        item: dict[str, Json] = {"w": [*value, entry.revision, entry.write], "d": int(entry.pending)}
        if seconds is not None:
            item["e"] = self._browser.now() / 1000 + seconds * 1000
        self._area(field)[self._item(field.name)] = json.dumps(item)

    def _area(self, field: Field) -> dict[str, str]:
        """Return where a field is kept: for want of consent, in the page's memory."""
        return self._areas[field.scope] if self._is_granted(field) else self._memory

    def _item(self, name: str) -> str:
        return f"fs:{self._declared['ns']}:{name}"

    def _pending(self) -> list[Field]:
        return [field for field in self.fields.values() if self._is_granted(field) and self._read(field).pending]

    # Cookies

    def _cookie(self, name: str) -> str | None:
        if not self._browser.has_cookies:
            return None
        found = self._browser.client.get_cookie(self._cookie_prefix + name)
        return None if found is None else found.value

    def _set_cookie(self, name: str, value: str | None) -> None:
        if not self._browser.has_cookies:
            return
        if value is None:
            self._browser.client.delete_cookie(self._cookie_prefix + name)
        else:
            secure = bool(self._declared["secure"])
            self._browser.client.set_cookie(self._cookie_prefix + name, value, secure=secure)

    def _mirror(self, field: Field) -> None:
        entry = self._read(field)
        value = [] if entry.value is None else [json.loads(entry.value)]
        self._set_cookie(field.name, _encode([*value, entry.revision, entry.write]))

    def _send_outbox(self) -> None:
        name = f"_q.{self.id}"
        room = (OUTBOX_BYTES - len(self._cookie_prefix) - len(name)) * 3 // 4
        push = self._push([field for field in self._pending() if not field.options.get("m")], room)
        self._set_cookie(name, _encode(push) if push.get("p") else None)

    def leave(self) -> None:
        """Do what a page does before the next one is asked for."""
        if any(field.scope == "tab" for field in self.fields.values()):
            self._set_cookie("_t", self.id)
        self._send_outbox()
        self._areas["tab"][self._item("_t")] = f"{self.id}-"

    def _claim_tab(self, island: Json) -> None:
        """Take the id that the page before has left; a copied tab finds one that is in use."""
        kept = self._areas["tab"].get(self._item("_t"), "")
        if kept.endswith("-"):
            self.id = kept[:-1]
        else:
            self.id = island["t"] if island and island.get("new") else secrets.token_hex(4)
            self._offer_copies()
        self._areas["tab"][self._item("_t")] = self.id

    def _offer_copies(self) -> None:
        for field in self.fields.values():
            entry = self._read(field)
            if field.scope == "tab" and entry.value is not None:
                self._write(field, Entry(entry.value, 0, entry.write, pending=True))

    def _meet_cookies(self) -> None:
        self._meet_owner(self._cookie("_u") or "")
        self._granted = {"necessary", *(self._cookie("_c") or "").split(".")}
        for field in self.fields.values():
            if not self._is_granted(field):
                self._areas[field.scope].pop(self._item(field.name), None)
            elif field.options.get("m"):
                self._meet_mirror(field)

    def _meet_owner(self, tag: str) -> None:
        self._owner = tag
        for scope, area in self._areas.items():
            before = area.get(self._item("_u"), "")
            area[self._item("_u")] = tag
            if before and before != tag:
                for field in self.fields.values():
                    if field.scope == scope and not field.is_shared:
                        area.pop(self._item(field.name), None)

    def _meet_mirror(self, field: Field) -> None:
        entry, cookie = self._read(field), self._cookie(field.name)
        parts = None if cookie is None else json.loads(from_base64url(cookie) or b"null")
        if parts is not None:
            *value, revision, write = parts
            register = Register(msgspec.json.encode(value[0]) if value else None, revision, write)
            if entry[1:3] == register[1:]:
                return
            taken = registers.take(entry, register, mirrored=True)
            if taken != entry:
                self._write(field, taken)
                return
        if self._read(field) != Entry():
            self._mirror(field)

    def _is_granted(self, field: Field) -> bool:
        return field.purpose in self._granted

    # Messages

    def _push(self, fields: t.Iterable[Field], room: int) -> dict[str, Json]:
        push: dict[str, Json] = {"t": self.id, "u": self._owner}
        if not self._browser.has_storage:
            push["q"] = 1
        for field in fields:
            entry = self._read(field)
            value = [] if entry.value is None else [json.loads(entry.value)]
            longer = {**push, "p": {**push.get("p", {}), field.name: [*value, entry.revision, entry.write]}}
            if len(json.dumps(longer)) <= room:
                push = longer
        return push

    def header(self) -> str:
        """Return what goes along with a fetch."""
        return _encode(self._push(self._pending(), 2000))

    def answered(self, header: str | None) -> None:
        """Take what came with the answer to a fetch."""
        self._meet_cookies()
        if header:
            self._apply(json.loads(from_base64url(header) or b"{}"))
        self.send()

    def send(self) -> None:
        """Send what is pending, until the server has answered for all of it."""
        while self._pulls or self._unsent():
            unsent = self._unsent()
            push = self._push(unsent, 60_000)
            if self._pulls:
                push["g"] = 1
            asked = [self._cookie(name) for name in self._waiting().values()] if self._pulls else []
            self._pulls = False
            answer = self._post(push)
            if answer is None:
                return
            self._refused |= {name: parts[-1] for name, parts in push.get("p", {}).items()}
            self._meet_cookies()
            self._apply(answer, asked)
        self._send_outbox()

    def _unsent(self) -> list[Field]:
        return [field for field in self._pending() if self._refused.get(field.name) != self._read(field).write]

    def _post(self, push: Json) -> Json:
        headers = {"X-State": _encode({"t": self.id}), "Sec-Fetch-Site": "same-origin"}
        url, base_url = self._declared["url"], self._browser.base_url
        response = self._browser.client.post(url, json=push, headers=headers, base_url=base_url)
        return response.json if response.status_code == 200 else None

    def _apply(self, patch: Json, asked: t.Sequence[str | None] = ()) -> None:
        """Take from a patch what its counters allow; what is for another tab is not for this one.

        :param asked: what waited when the patch was asked for: it holds all of that.
        """
        if patch.get("u", "") != self._owner:
            return
        mine = {
            field.name: field for field in self.fields.values() if field.scope == "local" or patch.get("t") == self.id
        }
        for name, (revision, write) in patch.get("a", {}).items():
            if name in mine:
                self._write(mine[name], registers.acknowledge(self._read(mine[name]), revision, write))
        highest = {"local": 0, "tab": 0}
        for name, parts in patch.get("p", {}).items():
            if name in mine:
                revision = self._take(mine[name], parts)
                highest[mine[name].scope] = max(highest[mine[name].scope], revision)
        self._compare(patch.get("h"), mine)
        self._pulls |= bool(patch.get("x"))
        self._clear_waiting(highest, asked)

    def _take(self, field: Field, parts: list[Json]) -> int:
        value, (revision, write, *rest) = (None, parts) if len(parts) == 2 else (parts[0], parts[1:])
        register = Register(None if len(parts) == 2 else msgspec.json.encode(value), revision, write)
        taken = registers.take(self._read(field), register)
        self._write(field, taken, rest[0] if rest else field.options.get("s"))
        return int(revision)

    def _compare(self, held: Json, mine: dict[str, Field]) -> None:
        if held is None:
            return
        for name, field in mine.items():
            if not field.options.get("m"):
                before = self._read(field)
                after = registers.compare(before, held.get(name))
                if after != before:
                    self._refused.pop(name, None)
                    self._write(field, after)

    def _waiting(self) -> dict[str, str]:
        return {"local": "_p", "tab": f"_p.{self.id}"}

    def _clear_waiting(self, highest: dict[str, int], asked: t.Sequence[str | None]) -> None:
        for scope, name in self._waiting().items():
            revision = self._cookie(name)
            if revision is not None and (int(revision) <= highest[scope] or revision in asked):
                self._set_cookie(name, None)

    def _ask_for_waiting(self) -> None:
        self._pulls |= any(self._cookie(name) is not None for name in self._waiting().values())


def _encode(message: Json) -> str:
    return to_base64url(msgspec.json.encode(message))
