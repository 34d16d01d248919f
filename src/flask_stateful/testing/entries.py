"""What a page's script keeps: entries in web storage, and cookies."""

from __future__ import annotations

import json
import re
import typing as t

import msgspec

from ..browser import registers
from ..browser.registers import Entry, Register
from ..browser.wire import from_base64url
from ..serialization import url_safe

if t.TYPE_CHECKING:
    from .browser import FakeTab

Json: t.TypeAlias = t.Any

#: The most octets of JSON that ``client.js`` takes for a field, and for one with a mirror cookie.
_VALUE_ROOM: t.Final = 64_512
_MIRROR_ROOM: t.Final = 156


class Field(t.NamedTuple):
    """A field as the page's script knows it."""

    label: str
    scope: str
    name: str
    options: dict[str, Json]
    is_shared: bool
    purpose: str

    @property
    def is_mirrored(self) -> bool:
        """Whether a cookie is the server's register."""
        return bool(self.options.get("m"))

    @property
    def room(self) -> int:
        """The most octets of JSON that it takes."""
        most: int = self.options.get("b", _VALUE_ROOM)
        return min(most, _MIRROR_ROOM if self.is_mirrored else _VALUE_ROOM)


class Entries:
    """The entries of one page, and the cookies that it sees."""

    def __init__(self, tab: FakeTab) -> None:
        self._browser = tab.browser
        self._declared = tab.browser.declarations()
        secure = "__Host-" if self._declared["secure"] else ""
        self._cookie_prefix = f"{secure}fs.{self._declared['ns']}."
        #: The declared fields, such as ``prefs.theme``.
        self.fields = {field.label: field for field in self._read_fields()}
        kept = self._browser.has_storage
        self._areas: dict[str, dict[str, str]] = {
            "local": self._browser.storage if kept else {},
            "tab": tab.storage if kept else {},
        }
        self._memory: dict[str, str] = {}
        self._granted = {"necessary"}
        #: Entries of earlier versions, which the server is to migrate.
        self._outdated = [field for scope in self._areas for field in self._find_outdated(scope)]

    def _read_fields(self) -> t.Iterator[Field]:
        for scope in ("local", "tab"):
            for model, declared in self._declared[scope].items():
                version = "" if declared["v"] == 1 else f"~{declared['v']}"
                for key, options in declared["f"].items():
                    label = f"{model}.{key}"
                    yield Field(label, scope, label + version, options, bool(declared["s"]), declared["p"])

    def _find_outdated(self, scope: str) -> t.Iterator[Field]:
        for key in list(self._areas[scope]):
            found = re.fullmatch(r"((\w+)\.[^~]+)(?:~(\d+))?", key.removeprefix(self._item("")))
            declared = found and self._declared[scope].get(found[2])
            if found and declared and int(found[3] or 1) < declared["v"]:
                yield Field(found[1], scope, found[0], {}, bool(declared["s"]), declared["p"])

    def value(self, label: str) -> Json:
        """Return a field's value."""
        entry = self._read(self.fields[label])
        return self.fields[label].options.get("d") if entry.value is None else json.loads(entry.value)

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
        """Keep an entry.

        :param seconds: how long its value lives; without, as long as before.
        """
        item: dict[str, Json] = {"w": _parts(entry), "d": int(entry.pending)}
        expires = self._expiry(field) if seconds is None else self._browser.now() / 1000 + seconds * 1000
        if expires is not None:
            item["e"] = expires
        self._area(field)[self._item(field.name)] = json.dumps(item)

    def _expiry(self, field: Field) -> float | None:
        try:
            return t.cast("float | None", json.loads(self._area(field)[self._item(field.name)]).get("e"))
        except (KeyError, ValueError, AttributeError):
            return None

    def _drop(self, field: Field) -> None:
        self._area(field).pop(self._item(field.name), None)

    def _area(self, field: Field) -> dict[str, str]:
        """Return where a field is kept: for want of consent, in the page's memory."""
        return self._areas[field.scope] if self._is_granted(field) else self._memory

    def _item(self, name: str) -> str:
        return f"fs:{self._declared['ns']}:{name}"

    def _is_granted(self, field: Field) -> bool:
        return field.purpose in self._granted

    def _pending(self) -> list[Field]:
        """Return what the server has not confirmed."""
        every = [*self.fields.values(), *self._outdated]
        return [field for field in every if self._is_granted(field) and self._read(field).pending]

    def _replica(self, scope: str) -> list[Field]:
        """Return the fields that the server keeps a copy of."""
        return [field for field in self.fields.values() if field.scope == scope and not field.is_mirrored]

    # Cookies

    def _cookie(self, name: str) -> str | None:
        if not self._browser.has_cookies:
            return None
        found = self._browser.client.get_cookie(self._cookie_prefix + name, self._browser.host)
        return None if found is None else found.value

    def _set_cookie(self, name: str, value: str | None) -> None:
        if not self._browser.has_cookies:
            return
        client, host = self._browser.client, self._browser.host
        if value is None:
            client.delete_cookie(self._cookie_prefix + name, domain=host)
        else:
            secure = bool(self._declared["secure"])
            client.set_cookie(self._cookie_prefix + name, value, domain=host, secure=secure)

    def _mirror(self, field: Field) -> None:
        self._set_cookie(field.name, encode(_parts(self._read(field))))

    def _meet_mirror(self, field: Field) -> None:
        """Take what a mirror cookie says, or write it again where ours is later."""
        entry, theirs = self._read(field), _register(self._cookie(field.name))
        if theirs is not None:
            taken = registers.take(entry, theirs, mirrored=True)
            if taken != entry:
                self._write(field, taken, field.options.get("s"))
        entry = self._read(field)
        if entry[1:3] != (theirs or Register())[1:]:
            self._mirror(field)


def _parts(entry: Entry) -> list[Json]:
    value = [] if entry.value is None else [json.loads(entry.value)]
    return [*value, entry.revision, entry.write]


def _register(cookie: str | None) -> Register | None:
    """Return what a mirror cookie holds; ``None`` where it holds nothing that fits."""
    try:
        *value, revision, write = json.loads(from_base64url(cookie or "") or b"null")
        return Register(msgspec.json.encode(value[0]) if value else None, int(revision), int(write))
    except (ValueError, TypeError):
        return None


def encode(message: Json) -> str:
    """Return a message as cookies and headers carry it."""
    return url_safe(msgspec.json.encode(message))
