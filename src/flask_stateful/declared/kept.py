"""What the places of server-side state have in common: values that are decoded when looked at and tracked."""

from __future__ import annotations

import abc
import logging
import typing as t

from .. import signals
from ..errors import DecodeError
from ..seldom import log_seldom
from ..serialization import MISSING, Raw
from ..tracking import TrackedItems

if t.TYPE_CHECKING:
    from .fields import Field
    from .model import Model


class KeptValues(abc.ABC):
    """The values of declared classes, in tracked items."""

    @abc.abstractmethod
    def _reading(self, field: Field) -> TrackedItems | None:
        """Return what holds a field's value; ``None`` where it could not be read, so that defaults hold."""

    @abc.abstractmethod
    def _writing(self, field: Field) -> TrackedItems:
        """Return what is to hold a field's value, or raise where nothing can be written."""

    @abc.abstractmethod
    def _sender(self) -> object:
        """Return the application, which is the sender of the signals."""

    def _key(self, field: Field) -> str:
        """Return what the items call a field."""
        return field.name

    def get(self, field: Field) -> t.Any:
        """Return a field's value, or its default."""
        items = self._reading(field)
        if items is None:
            return field.default()
        key = self._key(field)
        value = self._value(items, field, key)
        return items.default(key, field.default) if value is MISSING else value

    def set(self, field: Field, value: t.Any) -> None:
        """Set a value that the field has checked."""
        self._writing(field).assign(self._key(field), value)

    def reset(self, field: Field) -> None:
        """Remove a value, so that the default holds again."""
        self._writing(field).reset(self._key(field))

    def known(self, field: Field) -> bool:
        """Tell whether there is a value."""
        items = self._reading(field)
        if items is None:
            return False
        items.adopt_defaults()
        return self._value(items, field, self._key(field)) is not MISSING

    def _value(self, items: TrackedItems, field: Field, key: str) -> t.Any:
        value = items.values.get(key, MISSING)
        if type(value) is Raw:
            try:
                return items.decode(key, value)
            except DecodeError:
                items.delete(key)
                report_invalid(self._sender(), field, "type")
                return MISSING
        return value


def report_invalid(sender: object, field: Field, reason: str) -> None:
    """Log that a value was dropped, and send the signal; neither says what it was."""
    log_seldom(
        sender, logging.WARNING, "%s reads as its default: what is kept of it does not fit (%s)", field.where, reason
    )
    signals.state_invalid.send(sender, name=field.label, reason=reason)


def report_changed(sender: object, field: Field) -> None:
    """Send the signal that a change was saved."""
    signals.state_changed.send(sender, name=field.label)


class FieldsCodec:
    """Encodes the values of one class, each by its field and under the field's own name."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._fields = model.fields

    def encode(self, key: str, value: t.Any) -> bytes:
        """Return the encoding of a value."""
        return self._fields[key].dumps(value)

    def decode(self, key: str, raw: Raw) -> t.Any:
        """Return an encoded value."""
        return self._fields[key].loads(raw)

    def require_room(self, key: str, encoded: bytes) -> None:
        """Do nothing: a field has seen to that when it encoded the value."""

    def check(self, key: str, value: t.Any) -> None:
        """Raise where a value was changed in place to what it may not be."""
        self._fields[key].check(value)

    def is_steady(self, key: str) -> bool:
        """Tell whether equal values encode to equal bytes in every process."""
        return self._fields[key].steady

    def conflict(self, key: str) -> str:
        """Return what to say where a value was changed that is no longer the one at its key."""
        return f"{self._fields[key].where} was changed after another value had taken its place; look it up again"
