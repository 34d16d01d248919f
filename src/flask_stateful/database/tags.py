"""What version rows are called: a table, one row of it, the rest of its rows, or everything in a database."""

from __future__ import annotations

import hashlib
import re
import typing as t
import uuid
from collections.abc import Sequence

#: Everything in one database: what is changed by SQL that does not say which tables it writes.
EVERYTHING: t.Final = "*"

#: Longer tags are hashed: the column takes 255 characters, and databases index fewer bytes than that.
_LONGEST: t.Final = 200

_PUNCTUATION: t.Final = re.compile(r"[\W_]+", re.ASCII)


def table_tag(name: str, schema: str | None = None) -> str:
    """Return the tag of a table. Names that differ in case alone share one: not every database tells them apart."""
    return _bounded((f"{schema}.{name}" if schema else name).casefold())


def row_tag(table: str, key: str) -> str:
    """Return the tag of one row of a table.

    :param key: as :func:`row_key` returns it.
    """
    return _bounded(f"{table}[{key}]")


def other_rows(table: str) -> str:
    """Return the tag of what is written to a table without saying which rows."""
    return row_tag(table, "*")


def row_key(values: Sequence[t.Any]) -> str | None:
    """Return one text for a primary key, the same for all values that a database may take for equal.

    Two keys may share a text: then a change of one row counts as a change of the other.

    :return: ``None`` where only the database can tell which values are equal, as with floats, or accents.
    """
    parts = [_key_part(value) for value in values]
    return None if None in parts else ",".join(t.cast("list[str]", parts))


def _key_part(value: t.Any) -> str | None:
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, int):
        return str(int(value))
    if not isinstance(value, str) or not value.isascii():
        return None
    text = _PUNCTUATION.sub("", value).casefold()
    return text.lstrip("0") or "0" if text.isdecimal() else text


def _bounded(tag: str) -> str:
    if len(tag) <= _LONGEST:
        return tag
    return f"{tag[:100]}#{hashlib.sha256(tag.encode()).hexdigest()[:32]}"
