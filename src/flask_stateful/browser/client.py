"""Serves ``client.js``, with what the application declares put into it."""

from __future__ import annotations

import functools
import re
import typing as t
from hashlib import blake2b
from importlib import resources

import msgspec

from .scheme import Part, Scheme, Slot

#: What the declarations take the place of, once the module is squeezed.
_DECLARATIONS: t.Final = "const D={};"

_QUOTED: t.Final = re.compile(r'("(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`)')
_AROUND_SIGN: t.Final = re.compile(r"\s?([^\w$\s])\s?")

MODULE: t.Final = "client.js"


class ClientModule(t.NamedTuple):
    """The module as it is sent."""

    body: bytes
    etag: str


@functools.lru_cache(maxsize=32)
def client_module(scheme: Scheme, *, url: str, https: bool) -> ClientModule:
    """Return the module for an application.

    :param url: where the endpoint is.
    :param https: whether cookies have the prefixes that https gives them.
    """
    declared = msgspec.json.encode(declarations(scheme, url=url, https=https)).decode()
    body = _squeezed_source().replace(_DECLARATIONS, f"const D = {declared};\n", 1).encode()
    return ClientModule(body, blake2b(body, digest_size=12).hexdigest())


@functools.cache
def _squeezed_source() -> str:
    return squeezed(resources.files(__name__.rpartition(".")[0]).joinpath(MODULE).read_text(encoding="utf-8"))


def squeezed(source: str) -> str:
    """Return a module without comments, which are lines of their own, and without the white space that says nothing.

    :param source: a module whose statements end in a semicolon or in a block.
    """
    lines = (line.strip() for line in source.splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    # Every second part is text in quotes.
    parts = _QUOTED.split(code)
    parts[::2] = [_AROUND_SIGN.sub(r"\1", part).replace(";}", "}") for part in parts[::2]]
    return "".join(parts)


def declarations(scheme: Scheme, *, url: str, https: bool) -> dict[str, t.Any]:
    """Return what the module has to know of the declared classes."""
    found: dict[str, t.Any] = {"ns": scheme.namespace, "url": url, "secure": https, "local": {}, "tab": {}}
    for slot in scheme.slots.values():
        model = slot.model
        known = found[model.kind].setdefault(
            model.name, {"v": model.version, "p": model.purpose, "s": int(model.shared), "f": {}}
        )
        known["f"][slot.field.name] = _declaration(slot)
    return found


def _declaration(slot: Slot) -> dict[str, t.Any]:
    field, found = slot.field, dict[str, t.Any]()
    if field.sealed:
        found["x"] = 1
    else:
        found["d"] = msgspec.Raw(field.to_json(field.default()))
    if slot.part is Part.MIRROR:
        found["m"] = 1
    if field.max_bytes is not None:
        found["b"] = field.max_bytes
    if field.ttl is not None:
        found["s"] = field.ttl
    return found
