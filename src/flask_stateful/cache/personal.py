"""Which reads make an answer personal: found by watching, not by trust."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Iterator

from flask import Request
from werkzeug.datastructures import ImmutableMultiDict

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..unit import Unit

#: Session keys that bind the user, ours and Flask-Login's: what ``vary=("user",)`` covers.
_USER_KEYS: t.Final = frozenset({"(user)", "_user_id", "_fresh", "_id", "_remember", "_remember_seconds"})


def uncovered(reads: Iterable[str], vary: Iterable[str], *, user_cookies: Iterable[str] = ()) -> set[str]:
    """Return those reads that make an answer personal although it varies by this.

    :param vary: what the cached answer varies by: ``"user"``, ``"session"``, ``"cookie:NAME"``.
    :param user_cookies: cookies that bind the user, such as Flask-Login's.
    """
    covered = set(vary)
    if "user" in covered:
        covered |= {f"session:{key}" for key in _USER_KEYS} | {f"cookie:{name}" for name in user_cookies}
    personal = set(reads) - covered
    if "session" in covered:
        return {read for read in personal if not read.startswith("session:")}
    return personal


class WatchedCookies(ImmutableMultiDict[str, str]):
    """The cookies of a request, which tell the request's unit which of them are read."""

    unit: Unit

    def __getitem__(self, key: str) -> str:
        self.unit.reads.add(f"cookie:{key}")
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.unit.reads.add(f"cookie:{key}")
        return super().__contains__(key)

    def get(self, key: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Return one cookie."""
        self.unit.reads.add(f"cookie:{key}")
        return super().get(key, *args, **kwargs)

    def getlist(self, key: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Return all cookies of a name."""
        self.unit.reads.add(f"cookie:{key}")
        return super().getlist(key, *args, **kwargs)

    def __iter__(self) -> Iterator[str]:
        self.unit.reads.add("cookie:*")
        return super().__iter__()

    def __len__(self) -> int:
        self.unit.reads.add("cookie:*")
        return super().__len__()

    def items(self, multi: bool = False) -> t.Any:
        """Return names and values."""
        self.unit.reads.add("cookie:*")
        return super().items(multi)

    def values(self) -> t.Any:
        """Return the values."""
        self.unit.reads.add("cookie:*")
        return super().values()

    def lists(self) -> t.Any:
        """Return names and lists of values."""
        self.unit.reads.add("cookie:*")
        return super().lists()

    def to_dict(self, flat: bool = True) -> t.Any:
        """Return a plain dict."""
        self.unit.reads.add("cookie:*")
        return super().to_dict(flat)  # type: ignore[call-overload]


def watch_cookies(base: type[Request], unit_of: t.Callable[[WSGIEnvironment], Unit]) -> type[Request]:
    """Return a request class whose cookies tell which of them are read."""

    class WatchedRequest(base):  # type: ignore[misc, valid-type]
        @property
        def cookies(self) -> ImmutableMultiDict[str, str]:
            found = self.environ.get("flask_stateful.cookies")
            if found is None:
                found = WatchedCookies(super().cookies.items(multi=True))
                found.unit = unit_of(self.environ)
                self.environ["flask_stateful.cookies"] = found
            return t.cast("ImmutableMultiDict[str, str]", found)

    WatchedRequest.__name__ = WatchedRequest.__qualname__ = base.__name__
    return WatchedRequest
