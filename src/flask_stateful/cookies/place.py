"""Declared state in cookies: one sealed cookie for each class."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

from flask import request

from ..declared.kept import FieldsCodec, KeptValues, report_changed
from ..declared.migrations import earlier_version, migrated
from ..declared.model import versioned
from ..errors import StateClosed
from ..serialization import MISSING, Raw
from ..tracking import TrackedItems
from ..unit import Group, Step
from .header import HOST
from .jar import Jar
from .options import Options

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..declared.fields import Field
    from ..declared.model import Model
    from ..unit import Unit
    from .request import RequestCookies


class DeclaredCookie(KeptValues):
    """The cookie of one class, in one request.

    It holds the encodings of those fields that have a value. What is assigned is written at once, so that a value that
    does not fit into a cookie is refused where it is assigned; what was changed in place is written when the response
    is saved.
    """

    def __init__(self, sender: object, model: Model, find: t.Callable[[], RequestCookies]) -> None:
        self._app = sender
        self._model = model
        self._find = find
        options = {"max_age": model.max_age, "overflow": model.overflow, "purpose": model.purpose}
        self._jar = Jar(find, "sealed", Options(prefix=HOST).but(options))
        self._items: TrackedItems | None = None
        self._closed = False
        #: What the cookie held before this request.
        self._before: dict[str, bytes] = {}
        #: What it holds as far as it was written.
        self._written: dict[str, bytes] = {}
        #: The names of cookies of earlier versions, which go when this one is written.
        self._earlier: list[str] = []

    def _sender(self) -> object:
        return self._app

    def _reading(self, field: Field) -> TrackedItems:
        if self._items is None:
            self._items = self._load()
        else:
            self._find().note_read(self._model.key)
        return self._items

    def _load(self) -> TrackedItems:
        versions = {
            version: found
            for version in range(self._model.version, 0, -1)
            if (found := self._received(versioned(self._model.name, version))) is not None
        }
        stored = versions.get(self._model.version, {})
        version = earlier_version(versions, self._model.version)
        anew = None if version is None else migrated(self._model, version, versions[version])
        if anew is not None:
            stored = anew
            self._earlier = [versioned(self._model.name, version) for version in versions]
        stored = {name: raw for name, raw in stored.items() if name in self._model.fields}
        self._before = self._written = {name: bytes(raw) for name, raw in stored.items()}
        return TrackedItems(stored, FieldsCodec(self._model))

    def _received(self, name: str) -> dict[str, Raw] | None:
        value: t.Any = self._jar.get(name, MISSING)
        if not isinstance(value, dict):
            return None
        fields: t.Any = value  # pyright: ignore[reportUnknownVariableType]
        return {key: Raw(raw) for key, raw in fields.items() if type(key) is str and type(raw) is bytes}

    def _writing(self, field: Field) -> TrackedItems:
        if self._closed:
            raise StateClosed(f"{field.where} was written after the response had been saved; write it in the view")
        return self._reading(field)

    def set(self, field: Field, value: t.Any) -> None:
        """Set a value that the field has checked.

        :raises CookieTooLarge: if the cookie would become too large, and its class does not spill.
        """
        items = self._writing(field)
        self._write(self._now(items) | {field.name: field.dumps(value)})
        items.assign(field.name, value)

    def reset(self, field: Field) -> None:
        """Remove a value, so that the default holds again."""
        items = self._writing(field)
        items.reset(field.name)
        self._write(self._now(items))

    def _now(self, items: TrackedItems) -> dict[str, bytes]:
        # In this order: a default that was changed in place since it was reset is a value that is there.
        changed, removed = items.changes(), items.removed()
        return {name: bytes(raw) for name, raw in items.stored.items() if name not in removed} | changed

    def _write(self, fields: dict[str, bytes]) -> None:
        if fields == self._written:
            return
        if fields:
            self._jar.set(self._model.key, fields)
        else:
            self._jar.delete(self._model.key)
        for name in self._earlier:
            self._jar.delete(name)
        self._written, self._earlier = fields, []

    def save(self) -> None:
        """Let the response set what has changed."""
        if self._items is None:
            return
        self._write(self._now(self._items))
        if not self._find().allows(self._model.purpose):
            return
        for name, field in self._model.fields.items():
            if self._written.get(name) != self._before.get(name):
                report_changed(self._app, field)

    def settle(self) -> None:
        """Let what was saved stand."""
        self._before = self._written

    def remember(self) -> Callable[[], None]:
        """Return what goes back to the cookie as it is now, its jar having done so before."""
        items, facts = self._items, (self._before, self._written, self._earlier)
        restore = None if items is None else items.remember()

        def go_back() -> None:
            self._items, (self._before, self._written, self._earlier) = items, facts
            if restore is not None:
                restore()

        return go_back

    def discard(self) -> None:
        """Forget what was changed. What was settled is read again."""
        self._items, self._earlier = None, []

    def close(self) -> None:
        """Refuse further changes."""
        self._closed = True


class DeclaredCookies(Group["Model", DeclaredCookie]):
    """The declared cookies that one request has looked at."""

    #: Before the cookies themselves, which this writes.
    step: t.ClassVar[Step] = Step.BROWSER


class CookiePlace:
    """Keeps declared classes in cookies.

    :param sender: the application, which is the sender of the signals.
    :param find: returns the cookies of the current request.
    :param unit_of: returns the unit of the request with this environ.
    """

    def __init__(
        self,
        sender: object,
        find: t.Callable[[], RequestCookies],
        unit_of: t.Callable[[WSGIEnvironment], Unit],
    ) -> None:
        self._sender = sender
        self._find = find
        self._unit_of = unit_of

    def values(self, model: Model, user_id: str | None = None) -> DeclaredCookie:
        """Return the values of a class in the current request."""
        unit = self._unit_of(request.environ)
        cookies = unit.part(DeclaredCookies, DeclaredCookies)
        cookie = cookies.get(model)
        if cookie is None:
            cookie = cookies[model] = DeclaredCookie(self._sender, model, self._find)
            if unit.closed:
                cookie.close()
        return cookie
