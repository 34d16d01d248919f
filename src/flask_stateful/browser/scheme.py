"""What an application declares for browsers: each field a slot, under the name that its register has everywhere."""

from __future__ import annotations

import enum
import math
import re
import typing as t
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import inspect

from ..declared.fields import Field
from ..declared.model import Model
from ..errors import ConfigError
from .replica import DAY
from .wire import BODY_BYTES, MIRROR_BYTES

#: What all mirror cookies of an application may come to, in octets.
MIRRORS_BYTES: t.Final = 1024

#: The longest JSON of a value that is mirrored without being asked for.
_SMALL: t.Final = 128

#: What a mirror cookie holds besides the value: brackets, commas and two counters of 16 digits.
_FRAME: t.Final = 36

#: What JavaScript asks of any object, so that no field and no class may be called so.
_OF_OBJECTS: t.Final = frozenset(
    [
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "then",
        "toJSON",
        "toLocaleString",
        "toString",
        "valueOf",
    ]
)

#: The cookie with the browser's id.
BROWSER: t.Final = "_b"

_OUTSIDE: t.Final = re.compile(r"[^A-Za-z0-9_-]")
#: What follows the name of a class in that of a register.
_NAME: t.Final = re.compile(r"\.\w+(?:~[0-9]{1,6})?", re.ASCII)
_HOST: t.Final = "__Host-"

#: The longest JSON of each type whose values are all short.
_LENGTHS: t.Final[dict[type[inspect.Type], int]] = {
    inspect.NoneType: 4,
    inspect.BoolType: 5,
    inspect.IntType: 17,
    inspect.FloatType: 25,
    inspect.DateType: 12,
    inspect.DateTimeType: 34,
    inspect.UUIDType: 38,
}


class Part(enum.IntEnum):
    """Where the server keeps a register."""

    #: In a cookie that scripts read and write.
    MIRROR = 1
    #: In the browser's record.
    SHARED = 2
    #: In the browser's record for one user.
    OWNED = 3
    #: In a tab's record.
    TAB = 4


#: The parts that are kept in the store, and for how long after their last change, in seconds.
TTLS: t.Final = {Part.SHARED: 30 * DAY, Part.OWNED: 30 * DAY, Part.TAB: DAY}


class Slot:
    """A field as the browser knows it."""

    __slots__ = ("field", "model", "name", "note", "owned", "part")

    def __init__(self, model: Model, field: Field, part: Part, cookie: str) -> None:
        #: The register's name.
        self.name: t.Final = field.key
        self.model: t.Final = model
        self.field: t.Final = field
        self.part: t.Final = part
        #: What a request notes that reads it.
        self.note: t.Final = f"cookie:{cookie}"
        #: Whether it goes when another user comes.
        self.owned: t.Final = model.kind == "tab" or not model.shared


class Scheme:
    """The slots of an application.

    :param namespace: sets its cookies apart from those of other applications of the same host.
    :raises ConfigError: if a field cannot be kept where it is to be.
    """

    def __init__(self, namespace: str, models: Iterable[Model]) -> None:
        #: What the name of each of our cookies begins with.
        self.prefix: t.Final = own_prefix(namespace)
        self.namespace: t.Final = cookie_namespace(namespace)
        self.models: t.Final = {model.name: model for model in models if model.kind in ("local", "tab")}
        self.slots: t.Final = {slot.name: slot for slot in self._slots()}
        #: The slots of each part.
        self.parts: t.Final = {part: [slot for slot in self.slots.values() if slot.part is part] for part in Part}

    def wire_name(self, name: str, *, https: bool) -> str:
        """Return what one of our cookies is called."""
        return f"{_HOST if https else ''}{self.prefix}{name}"

    def _slots(self) -> Iterator[Slot]:
        left = MIRRORS_BYTES
        # Those that ask for it come first; what is left goes to the others as they are declared.
        for asked in (True, None, False):
            for model in self.models.values():
                for field in model.fields.values():
                    if field.mirror is asked or (asked is False and field.mirror is False):
                        size = self._mirror_size(model, field)
                        mirrored = size is not None and size <= left
                        if asked and not mirrored:
                            raise ConfigError(_no_mirror(field, size))
                        left -= size if mirrored and size else 0
                        yield self._slot(model, field, mirrored=mirrored)

    def _slot(self, model: Model, field: Field, *, mirrored: bool) -> Slot:
        if not field.name.isascii():
            raise ConfigError(f"{field.where} has a name that no cookie can have; use the letters a to z")
        for name in {model.name, field.name} & _OF_OBJECTS:
            raise ConfigError(f"{field.where}: JavaScript asks any object for {name!r}; choose another name")
        if field.max_bytes is not None and field.max_bytes > BODY_BYTES:
            raise ConfigError(f"{field.where} has max_bytes={field.max_bytes:,}, and a browser may send {BODY_BYTES:,}")
        if mirrored:
            return Slot(model, field, Part.MIRROR, self.prefix + field.key)
        return Slot(model, field, record_of(model), self.prefix + BROWSER)

    def _mirror_size(self, model: Model, field: Field) -> int | None:
        """Return how long a field's mirror cookie may become; ``None`` where it cannot have one."""
        if model.kind != "local" or field.sealed or field.mirror is False or field.conflict != "browser":
            return None
        longest = field.max_bytes if field.max_bytes is not None else longest_json(inspect.type_info(field.type))
        if longest is None or (field.mirror is None and longest > _SMALL):
            return None
        size = len(self.wire_name(field.key, https=True)) + math.ceil((longest + _FRAME) * 4 / 3)
        return size if size <= MIRROR_BYTES else None


def is_register_of(model: Model, name: str) -> bool:
    """Tell whether a name is that of a register of a class, in any version."""
    return name.startswith(model.name) and _NAME.fullmatch(name, len(model.name)) is not None


def cookie_namespace(namespace: str) -> str:
    """Return a namespace in the letters that the name of a cookie may have."""
    return _OUTSIDE.sub("-", namespace)


def own_prefix(namespace: str) -> str:
    """Return what the names of an application's own cookies begin with."""
    return f"fs.{cookie_namespace(namespace)}."


def record_of(model: Model) -> Part:
    """Return where the fields of a model are kept that have no mirror cookie."""
    if model.kind == "tab":
        return Part.TAB
    return Part.SHARED if model.shared else Part.OWNED


def _no_mirror(field: Field, size: int | None) -> str:
    if field.conflict != "browser":
        return f"{field.where} is mirrored, so the browser's write always stands; remove mirror=True or conflict="
    if size is None:
        return (
            f"{field.where} may be longer than the {MIRROR_BYTES} octets of a mirror cookie; write"
            f" max_bytes={_SMALL}, or remove mirror=True"
        )
    return f"{field.where} does not fit: all mirror cookies together have {MIRRORS_BYTES:,} octets; remove mirror=True"


def longest_json(info: inspect.Type) -> int | None:
    """Return how long a type's JSON may be, in bytes; ``None`` where there is no end to it."""
    if isinstance(info, inspect.Metadata):
        return longest_json(info.type)
    if isinstance(info, inspect.UnionType):
        return _longest(map(longest_json, info.types))
    if isinstance(info, inspect.LiteralType):
        return max(len(msgspec.json.encode(value)) for value in info.values)
    if isinstance(info, inspect.EnumType):
        return max(len(msgspec.json.encode(member.value)) for member in info.cls)
    if isinstance(info, inspect.StrType):
        # The longest of a character is what an escape takes: \u0001.
        return None if info.max_length is None else 6 * info.max_length + 2
    return _LENGTHS.get(type(info))


def _longest(lengths: Iterable[int | None]) -> int | None:
    known = list(lengths)
    return None if None in known else max(t.cast("list[int]", known))
