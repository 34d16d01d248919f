"""The part of a session that is a mapping."""

from __future__ import annotations

import abc
import logging
import typing as t
from collections.abc import Iterator, Mapping

from flask.sessions import SessionMixin

from ..serialization import Raw, dumps
from ..tracking import TrackedItems

logger = logging.getLogger("flask_stateful")

#: Where Flask keeps what was flashed; looking at the messages takes them out.
FLASHED: t.Final = "_flashes"


class SessionMapping(SessionMixin, abc.ABC):
    """Keys and values that are fetched when they are looked at and decoded one by one."""

    #: Whether the response has been saved.
    closed = False

    @abc.abstractmethod
    def _values(self, read: object = "*") -> dict[str, t.Any]:
        """Return the values, of which one is to be read, or all of them."""

    @abc.abstractmethod
    def _writable(self) -> TrackedItems:
        """Return what is to be changed, or raise where nothing may be."""

    @abc.abstractmethod
    def _decode(self, key: str, raw: Raw) -> t.Any:
        """Return the value of a key that nobody has looked at yet, or raise :exc:`KeyError` where it is damaged."""

    # Reading

    def __getitem__(self, key: str) -> t.Any:
        value = self._values(key)[key]
        return self._decode(key, value) if type(value) is Raw else value

    def get(self, key: str, default: t.Any = None) -> t.Any:
        """Return the value of a key; where there is none, the default."""
        value = self._values(key).get(key, default)
        return super().get(key, default) if type(value) is Raw else value

    def __contains__(self, key: object) -> bool:
        return key in self._values(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def copy(self) -> dict[str, t.Any]:
        """Return the keys and values as a dict of its own."""
        return dict(self)

    def __or__(self, other: Mapping[str, t.Any]) -> dict[str, t.Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, t.Any]) -> dict[str, t.Any]:
        return {**other, **self}

    def __ior__(self, other: Mapping[str, t.Any]) -> t.Self:
        self.update(other)
        return self

    # Writing

    def __setitem__(self, key: str, value: t.Any) -> None:
        items = self._writable()
        if type(key) is not str:
            raise TypeError(f"a session key must be str, not {type(key).__name__}; write session[str(key)]")
        if not key.isascii():
            dumps(key, where="a session key")
        items.assign(key, value)

    def __delitem__(self, key: str) -> None:
        if self.closed and key == FLASHED and key in self:
            # A page that is sent in parts shows them all the same, and a test may look at them after its request.
            logger.warning(
                "flashed messages were looked at after the session had been saved, so that the next page shows them"
                " again; call get_flashed_messages() before the view returns"
            )
        else:
            self._writable().delete(key)

    def popitem(self) -> tuple[str, t.Any]:
        """Remove and return the newest key and its value, as a dict does."""
        key = next(reversed(self), None)
        if key is None:
            raise KeyError("popitem(): the session is empty")
        return key, self.pop(key)
