"""What an application needs for browser state, made at first use."""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Callable, Iterable

from ..declared.model import Model
from ..errors import ConfigError
from ..sealing import Keyring
from ..unit import Unit
from .identity import Identities
from .registers import Conflict
from .replica import Replica
from .scheme import Scheme, Slot

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Flask

logger = logging.getLogger("flask_stateful")


class BrowserService:
    """What the browser state of an application works with.

    :param models: returns the declared classes known so far.
    :param user_id: returns the id of the request's user.
    :param unit_of: returns the unit of the request with this environ.
    :param allowed: tells whether the visitor lets anything be kept for a purpose.
    :param asks_for_user: whether nothing but ``user_id`` tells when the user is another one.
    """

    def __init__(
        self,
        app: Flask,
        keyring: Keyring,
        replica: Replica,
        *,
        namespace: str,
        models: Callable[[], Iterable[Model]],
        user_id: Callable[[], str | None],
        unit_of: Callable[[WSGIEnvironment], Unit],
        allowed: Callable[[str], bool],
        asks_for_user: bool = False,
    ) -> None:
        self.app: t.Final = app
        self.keyring: t.Final = keyring
        self.replica: t.Final = replica
        self.identities: t.Final = Identities(keyring)
        self.user_id: t.Final = user_id
        self.unit_of: t.Final = unit_of
        self.allowed: t.Final = allowed
        self.asks_for_user: t.Final = asks_for_user
        #: Where a request keeps its browser state.
        self.environ_key: t.Final = f"flask_stateful.browser.{id(app)}"
        self._namespace = namespace
        self._models = models
        self.scheme = self._make_scheme(models())

    def scheme_with(self, model: Model) -> Scheme:
        """Return the scheme, made anew where a class has been declared since."""
        if self.scheme.models.get(model.name) is not model:
            self.scheme = self._make_scheme([*self.scheme.models.values(), *self._models(), model])
        return self.scheme

    def whole_scheme(self) -> Scheme:
        """Return the scheme with every class that is known by now."""
        models = list(self._models())
        if any(model.kind in ("local", "tab") and self.scheme.models.get(model.name) is not model for model in models):
            self.scheme = self._make_scheme([*self.scheme.models.values(), *models])
        return self.scheme

    def _make_scheme(self, models: Iterable[Model]) -> Scheme:
        scheme = Scheme(self._namespace, models)
        if not self.replica.store.durable:
            for slot in scheme.slots.values():
                if slot.field.fresh:
                    raise ConfigError(
                        f"{slot.field.where} is fresh, and the default store may forget what it has seen; write"
                        ' store={"default": "sqlite:///state.sqlite3", ...}, or remove fresh=True'
                    )
        return scheme

    def conflict(self, slot: Slot) -> Conflict:
        """Return what becomes of conflicts about a field, as the registers ask for it."""
        field = slot.field
        if slot.field.sealed:
            return "server"
        if not callable(field.conflict):
            return field.conflict
        merge = field.conflict

        def merged(server: bytes | None, browser: bytes | None) -> bytes | None:
            values = [field.default() if value is None else field.from_json(value) for value in (server, browser)]
            try:
                return field.to_json(field.check(merge(*values)))
            except Exception as error:
                # The message of the exception may hold the value.
                logger.error("the conflict= of %s failed (%s); the browser's stands", field.where, type(error).__name__)
                return browser

        return merged
