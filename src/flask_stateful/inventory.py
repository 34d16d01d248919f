"""``flask state inventory``: every piece of state that an application declares, and what we need ourselves.

As Markdown it is the table of a cookie policy.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t
from collections.abc import Iterable, Iterator

import click
from flask import current_app
from flask.cli import with_appcontext

from .browser.scheme import Part, Scheme, Slot, own_prefix
from .browser.wire import MIRROR_BYTES, OUTBOX_BYTES
from .consent import DAYS, NECESSARY
from .cookies.header import CONSENT
from .cookies.options import MAX_OCTETS
from .declared.codecs import describe
from .declared.fields import Field
from .declared.model import Kind, Model
from .errors import StateError
from .wiring import Wiring, current_wiring

_DAY: t.Final = 24 * 3600

#: How long the cookies of browser state last: as long as browsers let a cookie last.
_LONGEST: t.Final = 400 * _DAY

#: What the browser and we keep of local or tab state, in bytes: DESIGN.md.
_REPLICA_BYTES: t.Final = 64 * 1024

#: What an entry of the module's own takes in web storage, at the very most, in bytes.
_ENTRY_BYTES: t.Final = 64

_PLACES: t.Final[dict[Kind, str]] = {
    "cookie": "cookie",
    "local": "localStorage",
    "tab": "sessionStorage",
    "session": "session (server)",
    "user": "store (server)",
    "app": "store (server)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of state that an application keeps."""

    #: What the class or the cookie is called. On https the browser sees cookies with ``__Host-`` in front, and the one
    #: that ends in ``_b`` with ``__Host-Http-``.
    name: str
    #: ``"cookie"``, ``"localStorage"``, ``"sessionStorage"``, ``"session (server)"`` or ``"store (server)"``;
    #: several have commas between them.
    place: str
    #: ``"necessary"``, ``"preferences"``, ``"analytics"`` or ``"marketing"``.
    purpose: str
    #: How long it is kept, in words.
    lifetime: str
    #: How large it may grow, in bytes; ``None`` where only the store sets a limit.
    max_bytes: int | None = None
    #: Whether the browser can read or forge it: ``"sealed"`` neither, ``"signed"`` not forge; ``"no"``; or the names of
    #: those fields that are sealed.
    sealed: str = "no"
    #: What it is for: the first paragraph of the class's docstring.
    about: str = ""
    #: The types of a class's fields, by name.
    fields: dict[str, str] = dataclasses.field(default_factory=dict[str, str])


def inventory(wiring: Wiring) -> list[Item]:
    """Return what the application keeps: its declared classes by name, then what we need ourselves.

    :raises ConfigError: if two classes have one name, or a field cannot be kept where it is to be.
    """
    models = list(wiring.declared.models().values())
    return [*(_item(model, wiring) for model in models), *_own(models, wiring)]


# Declared classes


def _item(model: Model, wiring: Wiring) -> Item:
    return Item(
        name=model.name,
        place=_PLACES[model.kind],
        purpose=model.purpose,
        lifetime=_lifetime(model, wiring),
        max_bytes=_max_bytes(model, wiring),
        sealed=_sealed(model),
        about=_about(model),
        fields={name: _described(field) for name, field in model.fields.items()},
    )


def _lifetime(model: Model, wiring: Wiring) -> str:
    if model.kind == "cookie":
        return "until the browser is closed" if model.max_age is None else _duration(model.max_age)
    if model.kind == "session":
        return _session_lifetime(wiring)
    if model.kind == "tab":
        return "until the tab is closed"
    ttls = [field.ttl for field in model.fields.values() if field.ttl is not None]
    if len(ttls) == len(model.fields):
        return _duration(max(ttls))
    return "until it is deleted"


def _session_lifetime(wiring: Wiring) -> str:
    return f"{_duration(wiring.session_service().records.options.idle_timeout)} after its last use"


def _max_bytes(model: Model, wiring: Wiring) -> int | None:
    if model.kind == "cookie":
        return MAX_OCTETS if model.overflow == "error" else None
    if model.kind == "session":
        return wiring.settings.session_max_bytes
    return _REPLICA_BYTES if model.kind in ("local", "tab") else None


def _sealed(model: Model) -> str:
    if model.kind in ("cookie", "session"):
        return "sealed"
    sealed = [name for name, field in model.fields.items() if field.sealed]
    return ", ".join(sealed) or "no"


def _about(model: Model) -> str:
    """Return the first paragraph of the class's docstring, in one line."""
    text = next((field.owner.__doc__ for field in model.fields.values()), None)
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def _described(field: Field) -> str:
    limits = [f"{field.max_bytes:,} bytes at most"] if field.max_bytes is not None else []
    if field.ttl is not None:
        limits.append(f"kept {_duration(field.ttl)}")
    return "; ".join([describe(field.type), *limits])


# What we need ourselves


def _own(models: list[Model], wiring: Wiring) -> Iterator[Item]:
    """Yield the cookies and entries that are needed for what is declared, and no others."""
    yield _session_cookie(wiring)
    prefix = own_prefix(wiring.settings.namespace)
    if any(model.purpose != NECESSARY for model in models):
        yield _cookie(prefix + CONSENT, _duration(DAYS * _DAY), "holds what the visitor has agreed to")
    scheme = wiring.browser_service().whole_scheme()
    for slot in scheme.parts[Part.MIRROR]:
        yield _mirror_cookie(slot, prefix)
    if scheme.slots:
        yield _cookie(f"{prefix}_u", "until the user signs out", "says whose values the browser holds")
        yield from _storage_entries(scheme)
    if any(scheme.parts[part] for part in (Part.SHARED, Part.OWNED, Part.TAB)):
        yield from _replica_cookies(scheme)


def _replica_cookies(scheme: Scheme) -> Iterator[Item]:
    """Yield the cookies that fields need of which the server keeps a copy."""
    prefix = scheme.prefix
    longest = _duration(_LONGEST)
    yield _cookie(f"{prefix}_b", longest, "tells this browser from others", sealed="signed")
    yield _cookie(f"{prefix}_q.<tab>", "1 minute", "brings what the page has changed", max_bytes=OUTBOX_BYTES)
    yield _cookie(f"{prefix}_p", "until the page has it, 30 days at most", "says that the server has changed a value")
    if scheme.parts[Part.TAB]:
        yield _cookie(f"{prefix}_p.<tab>", "until the tab has it, 1 day at most", "says the same to one tab")
        yield _cookie(f"{prefix}_t", "1 minute at most", "says which tab asks for a page")


def _storage_entries(scheme: Scheme) -> Iterator[Item]:
    """Yield what the module keeps in the browser beside the values themselves."""
    prefix = f"fs:{scheme.namespace}:"
    both = f"{_PLACES['local']}, {_PLACES['tab']}"
    yield _entry(f"{prefix}_u", both, "until it is deleted", "says whose values the browser holds")
    yield _entry(f"{prefix}_t", _PLACES["tab"], "until the tab is closed", "tells this tab from others")


def _entry(name: str, place: str, lifetime: str, about: str) -> Item:
    return Item(name=name, place=place, purpose=NECESSARY, lifetime=lifetime, max_bytes=_ENTRY_BYTES, about=about)


def _mirror_cookie(slot: Slot, prefix: str) -> Item:
    """Return the cookie that shows a small field to the server. It is kept for what its class is kept for."""
    ttl = slot.field.ttl
    lifetime = _duration(_LONGEST if ttl is None else min(ttl, _LONGEST))
    about = f"shows {slot.field.key} to the server"
    return _cookie(prefix + slot.name, lifetime, about, purpose=slot.model.purpose, max_bytes=MIRROR_BYTES)


def _session_cookie(wiring: Wiring) -> Item:
    options = wiring.session_service().cookie.options
    lifetime = f"until the browser is closed, or {_session_lifetime(wiring)}"
    return _cookie(options.name, lifetime, "finds the session on the server", sealed="signed")


def _cookie(
    name: str,
    lifetime: str,
    about: str,
    *,
    purpose: str = NECESSARY,
    max_bytes: int = MAX_OCTETS,
    sealed: str = "no",
) -> Item:
    return Item(
        name=name,
        place="cookie",
        purpose=purpose,
        lifetime=lifetime,
        max_bytes=max_bytes,
        sealed=sealed,
        about=about,
    )


def _duration(seconds: float) -> str:
    for unit, length in (("day", _DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            count = int(seconds // length)
            return f"{count:,} {unit}{'s' if count != 1 else ''}"
    return f"{seconds:g} seconds"


# Output

_HEADINGS: t.Final = ("name", "purpose", "kept in", "how long", "bytes at most", "sealed", "what for", "fields")


def _cells(item: Item) -> tuple[str, ...]:
    fields = ", ".join(f"{name}: {kind}" for name, kind in item.fields.items())
    size = "" if item.max_bytes is None else f"{item.max_bytes:,}"
    return item.name, item.purpose, item.place, item.lifetime, size, item.sealed, item.about, fields


def as_table(items: Iterable[Item]) -> str:
    """Return an inventory in columns."""
    rows = [_HEADINGS, *map(_cells, items)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_markdown(items: Iterable[Item]) -> str:
    """Return an inventory as a Markdown table, such as a cookie policy has one.

    :param items: what ``state.inventory()`` returned, or some of it.
    """
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *map(_cells, items)]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def _escaped(cell: str) -> str:
    """Return a text that is no Markdown."""
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")


def as_json(items: Iterable[Item]) -> str:
    """Return an inventory as a JSON list of objects, which have the attributes of an :class:`Item`."""
    return json.dumps([dataclasses.asdict(item) for item in items], indent=2)


_FORMATS: t.Final = {"table": as_table, "json": as_json, "markdown": as_markdown}


@click.command("inventory")
@with_appcontext
@click.option("--format", "style", type=click.Choice(list(_FORMATS)), default="table", help="How to print it.")
def inventory_command(style: str) -> None:
    """List every declared piece of state: where it is kept, what for, for how long. Markdown suits a cookie policy."""
    try:
        click.echo(_FORMATS[style](inventory(current_wiring())))
    except StateError as error:
        raise click.ClickException(f"{current_app.name}: {error}") from error
