"""Where :class:`LocalState` and :class:`TabState` keep their values, as far as a request sees it."""

from __future__ import annotations

import typing as t

from ..current import get_request
from ..declared.fields import Field
from ..declared.model import Model
from ..errors import ConfigError, DecodeError
from ..serialization import FROZEN, MISSING
from .migrations import migrate_earlier
from .scheme import Part, Scheme, Slot
from .service import BrowserService
from .visit import Visit

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class BrowserPlace:
    """Keeps the state of browsers and of their tabs.

    :param service: what the application's browser state needs.
    """

    def __init__(self, service: BrowserService) -> None:
        self._service = service

    def values(self, model: Model, user_id: str | None = None) -> BrowserValues:
        """Return the values of a class in the current request.

        :raises ConfigError: outside of a request.
        """
        try:
            environ = get_request().environ
        except RuntimeError:
            raise ConfigError(
                f"{model.title} is kept in a browser, and there is none outside of a request; read it in a view and"
                " hand on the value"
            ) from None
        service = self._service
        visit: Visit | None = environ.get(service.environ_key)
        values: BrowserValues | None = None if visit is None else visit.values.get(model)
        if values is None:
            visit = visit_of(service, environ, service.scheme_with(model))
            values = visit.values[model] = BrowserValues(visit, model)
        return values


class BrowserValues:
    """The values of one class in one request."""

    __slots__ = ("_visit",)

    def __init__(self, visit: Visit, model: Model) -> None:
        self._visit = visit
        if model.version > 1:
            migrate_earlier(visit, model)

    def get(self, field: Field) -> t.Any:
        """Return a field's value, or its default."""
        visit = self._visit
        slot = visit.reading(field)
        value = MISSING if slot.part in visit.shelves else _glance(visit, slot)
        return visit.shelf(slot.part).get(field, visit.refused) if value is MISSING else value

    def set(self, field: Field, value: t.Any) -> None:
        """Set a value."""
        visit = self._visit
        visit.writable(visit.slot(field.key)).assign(field.key, value)

    def reset(self, field: Field) -> None:
        """Let the default hold again."""
        visit = self._visit
        visit.writable(visit.slot(field.key)).reset(field.key)

    def known(self, field: Field) -> bool:
        """Tell whether there is a value."""
        visit = self._visit
        return visit.shelf(visit.reading(field).part).knows(field, visit.refused)


def _glance(visit: Visit, slot: Slot) -> t.Any:
    """Return what a mirror cookie says, if nothing else could know better, and if that cannot change in place.

    Most pages only read a few such values, and to watch them for changes takes longer than to read them.
    """
    if slot.part is not Part.MIRROR or visit.pushes or visit.mirrored or visit.ownership.has_moved:
        return MISSING
    register, field = visit.carriers.mirror(slot.name), slot.field
    try:
        value = field.default() if register is None or register.value is None else field.from_json(register.value)
    except DecodeError:
        return MISSING
    return value if type(value) in FROZEN else MISSING


def visit_of(service: BrowserService, environ: WSGIEnvironment, scheme: Scheme | None = None) -> Visit:
    """Return the browser state of a request, made at first use."""
    key = service.environ_key
    visit: Visit | None = environ.get(key)
    if visit is None:
        visit = environ[key] = Visit(service, environ)
    elif scheme is not None and visit.scheme is not scheme:
        visit.extend(scheme)
    return visit
