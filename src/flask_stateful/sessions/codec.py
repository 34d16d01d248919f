"""How the values of a session are encoded: each by itself, those of declared fields by their field."""

from __future__ import annotations

import sys
import typing as t
from collections.abc import Callable

from ..errors import EncodeError, ValueTooLarge
from ..serialization import Raw, dumps, loads
from .plain import plain

if t.TYPE_CHECKING:
    from ..declared.fields import Field


class SessionCodec:
    """Encodes and decodes what a session holds.

    :param max_bytes: how long the encoding of one assigned value may be.
    :param field_of: returns the declared field that is kept under a key, if one is.
    """

    def __init__(self, max_bytes: int, field_of: Callable[[str], Field | None]) -> None:
        self._max_bytes = max_bytes
        self.field_of = field_of

    def encode(self, key: str, value: t.Any) -> bytes:
        """Return the encoding of a value."""
        field = self.field(key)
        if field is not None:
            return field.dumps(value)
        try:
            return dumps(value, where=f"session[{key!r}]")
        except EncodeError as error:
            return _dumps_plain(value, error)

    def decode(self, key: str, raw: Raw) -> t.Any:
        """Return an encoded value."""
        field = self.field(key)
        return loads(raw) if field is None else field.loads(raw)

    def require_room(self, key: str, encoded: bytes) -> None:
        """Raise where one value alone is longer than a session may be."""
        if len(encoded) > self._max_bytes:
            raise ValueTooLarge(
                f"session[{key!r}] takes {len(encoded):,} bytes and STATEFUL_SESSION_MAX_BYTES allows"
                f" {self._max_bytes:,}"
            )

    def check(self, key: str, value: t.Any) -> None:
        """Raise where a declared field was changed in place to what it may not be."""
        field = self.field(key)
        if field is not None:
            field.check(value)

    def is_steady(self, key: str) -> bool:
        """Tell whether equal values of a key encode to equal bytes in every process."""
        field = self.field(key)
        return field is None or field.steady

    def conflict(self, key: str) -> str:
        """Return what to say where a value from before the lock was changed."""
        return (
            f"session[{key!r}] was looked up before the lock, changed by another request, and then changed"
            " here; look it up inside `with state.sessions.lock():`"
        )

    def field(self, key: str) -> Field | None:
        """Return the declared field that is kept under a key, if one is."""
        # Only a declared field's key has a dot that matters, so that other keys cost no more than looking for one.
        return self.field_of(key) if "." in key else None


def _dumps_plain(value: t.Any, refusal: EncodeError) -> bytes:
    """Encode what Flask's own session would take, or raise what was wrong with it as it stands."""
    try:
        return dumps(plain(value))
    except (EncodeError, RecursionError):
        raise refusal from None


#: Of a session that could not be read, and so knows no application.
NO_FIELDS: t.Final = SessionCodec(sys.maxsize, lambda key: None)
