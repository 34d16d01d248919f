"""What browser and server say to each other, as JSON; in cookies and headers as base64url (:rfc:`4648`, section 5).

Values are carried as they are: the JSON of one field is cut out of a message, and put into one, without being decoded.
What a browser sends may be anything. Each parser here returns ``None`` where a message is not one, and never raises. It
passes over values: these are JSON only once their fields have decoded them, and go nowhere else before that.
"""

from __future__ import annotations

import functools
import re
import typing
import typing as t
from binascii import a2b_base64

import msgspec

from ..serialization import url_safe
from .registers import MAX_COUNT, Register, Write

#: How long each carrier may be, in octets; of a cookie, its name and value together.
OUTBOX_BYTES: t.Final = 3500
HEADER_BYTES: t.Final = 3000
BODY_BYTES: t.Final = 64 * 1024
ISLAND_BYTES: t.Final = 8 * 1024
MIRROR_BYTES: t.Final = 256

_TAB: t.Final = re.compile(r"[0-9a-f]{8}")
#: Begins an owner's tag where what came before it counts for nothing, whoever the browser takes it for.
ANEW: t.Final = "~"
_OWNER: t.Final = re.compile(rf"{ANEW}?[A-Za-z0-9_-]{{8}}|{ANEW}")
#: How long a whole number may be that JavaScript writes without an exponent.
_MAX_DIGITS: t.Final = 21
#: Into the standard alphabet, what is in that alone into what is in none.
_STANDARD: t.Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")

#: What a page's HTML parser, or an old JavaScript one, would take for something else.
_ESCAPES: t.Final = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))

#: In place of names: all of them are to be pulled.
EVERYTHING: t.Final = "*"

#: How many mirror cookies are kept parsed: a browser sends the same ones with each request.
_RECENT: t.Final = 1024

_BROKEN: t.Final = (msgspec.MsgspecError, ValueError, RecursionError)


class Push(t.NamedTuple):
    """What a browser sends."""

    #: The tab's id; empty where it names none.
    tab: str = ""
    #: The owner's tag that its entries have.
    owner: str = ""
    writes: t.Mapping[str, Write] = {}
    #: Whether its storage is full or denied, so that values live in its memory.
    memory: bool = False
    #: Whether it asks for everything that the server holds.
    pull: bool = False


class _PushJson(msgspec.Struct):
    t: str
    u: str = ""
    p: dict[str, msgspec.Raw] = {}
    q: typing.Literal[0, 1] = 0
    g: typing.Literal[0, 1] = 0


_push_decoder: t.Final = msgspec.json.Decoder(_PushJson)
_encode: t.Final = msgspec.json.Encoder().encode


def parse_push(body: bytes) -> Push | None:
    """Return what a browser has sent as JSON; ``None`` where it is no such message."""
    try:
        found = _push_decoder.decode(body)
        writes = {name: Write(*_parse_register(bytes(parts))) for name, parts in found.p.items()}
    except _BROKEN:
        return None
    if not _TAB.fullmatch(found.t) or not is_owner(found.u):
        return None
    return Push(found.t, found.u, writes, bool(found.q), bool(found.g))


def is_tab(tab: str) -> bool:
    """Tell whether a text is a tab's id."""
    return _TAB.fullmatch(tab) is not None


def is_owner(owner: str) -> bool:
    """Tell whether a text is an owner's tag, or empty."""
    return not owner or _OWNER.fullmatch(owner) is not None


def _parse_register(data: bytes) -> tuple[bytes | None, int, int]:
    """Return the value and the two counters of a register, or raise :exc:`ValueError`."""
    if data[:1] != b"[" or data[-1:] != b"]":
        raise ValueError("a register is [value, count, count] or [count, count]")
    # The value is whatever stands before the counters.
    *value, revision, write = data[1:-1].rsplit(b",", 2)
    return value[0] if value else None, _parse_count(revision), _parse_count(write)


def _parse_count(data: bytes) -> int:
    digits = data.strip()
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise ValueError("a counter is a whole number")
    return min(MAX_COUNT, int(digits))


@functools.lru_cache(maxsize=_RECENT)
def parse_mirror(text: str) -> Register | None:
    """Return what a mirror cookie holds; ``None`` where it is damaged."""
    data = from_base64url(text)
    if data is None:
        return None
    try:
        return Register(*_parse_register(data))
    except ValueError:
        return None


def encode_mirror(register: Register) -> str:
    """Return what a mirror cookie is to hold."""
    return url_safe(_encode(_wire(register)))


def _wire(register: Register, seconds: float | None = None) -> list[t.Any]:
    """Return a register as it is sent; with a value that expires, how many seconds are left."""
    if register.value is None:
        return [register.revision, register.write]
    parts: list[t.Any] = [msgspec.Raw(register.value), register.revision, register.write]
    return parts if seconds is None else [*parts, round(seconds, 3)]


class Patch:
    """What the server tells a browser.

    :param tab: the tab that it is for.
    :param owner: the tag of the user that local entries now belong to.
    """

    __slots__ = ("acknowledged", "held", "new_tab", "omitted", "owner", "registers", "tab")

    def __init__(self, tab: str = "", owner: str = "") -> None:
        self.tab = tab
        self.owner = owner
        #: Whether the server has made up the tab's id.
        self.new_tab = False
        #: The revisions and writes of what the browser has sent and stands.
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.registers: dict[str, list[t.Any]] = {}
        #: The revisions of everything that the server holds.
        self.held: dict[str, int] | None = None
        #: What was changed, but is too large for this carrier.
        self.omitted: list[str] = []

    def tell(self, name: str, register: Register, seconds: float | None = None) -> None:
        """Send a register.

        :param seconds: how long its value still lives, if it expires.
        """
        self.registers[name] = _wire(register, seconds)

    def encode(self) -> bytes:
        """Return the message as JSON."""
        message: dict[str, t.Any] = {"t": self.tab, "u": self.owner}
        if self.new_tab:
            message["new"] = 1
        for key, part in (("a", self.acknowledged), ("p", self.registers), ("x", self.omitted)):
            if part:
                message[key] = part
        if self.held is not None:
            message["h"] = self.held
        return _encode(message)

    def fitting(self, limit: int, encode: t.Callable[[bytes], str]) -> str:
        """Return the message as a carrier has it, without what is largest where it would be too long."""
        if len(text := encode(self.encode())) <= limit:
            return text
        self.held = None
        sizes = {name: len(_encode(register)) for name, register in self.registers.items()}
        for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if len(text := encode(self.encode())) <= limit:
                return text
            del self.registers[name]
            self.omitted.append(name)
        if len(text := encode(self.encode())) > limit:
            self.omitted = [EVERYTHING]
            text = encode(self.encode())
        return text


def island_text(message: bytes) -> str:
    """Return a message that can stand inside a ``<script>`` element."""
    text = message.decode()
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return text


def from_base64url(text: str) -> bytes | None:
    """Return the bytes of base64url without padding; ``None`` where it is none.

    Other than a token, a message may be written in more than one way, so it is not encoded again to compare.
    """
    try:
        return a2b_base64(text.encode("ascii").translate(_STANDARD) + b"=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        return None
