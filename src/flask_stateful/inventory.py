"""``flask state inventory``: every piece of state that an application declares, and the cookies we need ourselves.

As Markdown it is the table of a cookie policy.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

import click
from flask import current_app
from flask.cli import with_appcontext

from .cookies.options import MAX_OCTETS
from .declared.codecs import describe
from .declared.fields import Field
from .declared.model import Kind, Model
from .errors import StateError
from .wiring import Wiring, current_wiring

_DAY: t.Final = 24 * 3600

#: What the browser and we keep of local or tab state, in bytes: DESIGN.md.
_REPLICA_BYTES: t.Final = 64 * 1024

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
    """One piece of state."""

    name: str
    place: str
    #: ``necessary``, ``preferences``, ``analytics`` or ``marketing``.
    purpose: str
    lifetime: str
    #: How large it may grow, in bytes; ``None`` where only the store sets a limit.
    max_bytes: int | None = None
    #: ``"yes"``, ``"no"``, or the fields that are.
    sealed: str = "no"
    #: The types of the fields, or what it is for.
    content: dict[str, str] | str = ""


def inventory(wiring: Wiring) -> list[Item]:
    """Return what the application keeps: its declared classes by name, then the cookies that we need ourselves.

    :raises ConfigError: if two classes have one name.
    """
    models = wiring.declared.models().values()
    in_browser = any(model.kind in ("local", "tab") for model in models)
    own = [_session_cookie(wiring), *(_browser_cookies(wiring) if in_browser else ())]
    return [*(_item(model, wiring) for model in models), *own]


def _item(model: Model, wiring: Wiring) -> Item:
    return Item(
        name=model.name,
        place=_PLACES[model.kind],
        purpose=model.purpose,
        lifetime=_lifetime(model, wiring),
        max_bytes=_max_bytes(model, wiring),
        sealed=_sealed(model),
        content={name: _described(field) for name, field in model.fields.items()},
    )


def _lifetime(model: Model, wiring: Wiring) -> str:
    if model.kind == "cookie":
        return "until the browser is closed" if model.max_age is None else _duration(model.max_age)
    if model.kind == "session":
        return _session_lifetime(wiring)
    return {"local": "until it is deleted", "tab": "until the tab is closed"}.get(model.kind, "until it is reset")


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
        return "yes"
    sealed = [name for name, field in model.fields.items() if field.sealed]
    return ", ".join(sealed) or "no"


def _described(field: Field) -> str:
    limits = [f"{field.max_bytes:,} bytes at most"] if field.max_bytes is not None else []
    if field.ttl is not None:
        limits.append(f"kept {_duration(field.ttl)}")
    return "; ".join([describe(field.type), *limits])


def _session_cookie(wiring: Wiring) -> Item:
    options = wiring.session_service().cookie.options
    return Item(
        name=options.name,
        place="cookie",
        purpose="necessary",
        lifetime=f"until the browser is closed, or {_session_lifetime(wiring)}",
        max_bytes=MAX_OCTETS,
        sealed="yes",
        content="finds the session on the server",
    )


def _browser_cookies(wiring: Wiring) -> list[Item]:
    """Return the cookies by which local and tab state travel."""
    prefix = f"fs.{re.sub(r'[^A-Za-z0-9_-]', '-', wiring.settings.namespace)}"
    rows = [
        ("_q.<tab>", "1 minute", 3500, "no", "carries to the server what the page has changed"),
        ("<name>.<field>", "400 days", 256, "no", "shows a small value of localStorage to the server"),
        ("_t", "5 seconds", None, "no", "tells which tab asks for a page"),
        ("_p", "until it is read", None, "no", "tells that the server has changed a value"),
        ("_b", "400 days", None, "signed", "tells one browser from another"),
        ("_u", "until the user signs out", None, "no", "tells whose values the browser keeps"),
        ("_c", "400 days", None, "no", "holds which purposes the visitor has agreed to"),
    ]
    return [
        Item(
            name=f"{prefix}.{name}",
            place="cookie",
            purpose="necessary",
            lifetime=lifetime,
            max_bytes=size or MAX_OCTETS,
            sealed=sealed,
            content=content,
        )
        for name, lifetime, size, sealed, content in rows
    ]


def _duration(seconds: float) -> str:
    for unit, length in (("day", _DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            count = int(seconds // length)
            return f"{count:,} {unit}{'s' if count != 1 else ''}"
    return f"{seconds:g} seconds"


# Output

_HEADINGS: t.Final = ("name", "kept in", "purpose", "how long", "bytes", "sealed", "content")


def _cells(item: Item) -> tuple[str, ...]:
    content = item.content
    if isinstance(content, dict):
        content = ", ".join(f"{name}: {kind}" for name, kind in content.items())
    size = "" if item.max_bytes is None else f"{item.max_bytes:,}"
    return item.name, item.place, item.purpose, item.lifetime, size, item.sealed, content


def as_table(items: t.Iterable[Item]) -> str:
    """Return the inventory in columns."""
    rows = [_HEADINGS, *map(_cells, items)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_markdown(items: t.Iterable[Item]) -> str:
    """Return the inventory as a Markdown table."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *map(_cells, items)]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def _escaped(cell: str) -> str:
    """Return a text that is no Markdown."""
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")


def as_json(items: t.Iterable[Item]) -> str:
    """Return the inventory as JSON."""
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
