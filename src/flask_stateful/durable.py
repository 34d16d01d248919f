"""State that is kept for ever: one row for each user, one for the application.

They lie in the database that ``db=`` names, or else in the default store.

A row is ``format byte . MessagePack map`` of a class's fields. A field that is declared ``sealed`` holds an extension
type with the sealed encoding, bound to the field and the row; the others can be read by whoever reads the store, as
in any database. Each version of a class has a row of its own, so that an older deploy finds and overwrites only its
own. Rows are written by ``swap``, field by field: two writers that change different fields both keep their change.

The store's key holds an *unkeyed* hash of the user's id: with a keyed one, rows would be lost with a retired key.
"""

from __future__ import annotations

import hashlib
import logging
import typing as t
from collections.abc import Callable

import msgspec
from flask import has_request_context, request

from .blocks import current_block
from .declared.kept import FieldsCodec, KeptValues, report_changed, report_invalid
from .declared.migrations import migrated
from .declared.model import versioned
from .errors import BadSeal, DecodeError, StateClosed, StateConflict, StateError
from .serialization import Raw, url_safe
from .stores.base import Store
from .tracking import TrackedItems
from .unit import WRITTEN, Group, Step

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .declared.fields import Field
    from .declared.model import Model
    from .sealing import Keyring
    from .unit import Unit

logger = logging.getLogger("flask_stateful")

#: Of any number of racing writers one wins each round, so this is how many may race.
MAX_ROUNDS: t.Final = 100

_FORMAT: t.Final = b"\x01"

#: The extension type of a sealed field.
_SEALED: t.Final = 64

#: What an extension type of the length of a seal begins with (MessagePack's ext 8, 16 and 32).
_EXTENSIONS: t.Final = (b"\xc7", b"\xc8", b"\xc9")

_encoder: t.Final = msgspec.msgpack.Encoder()
_decoder: t.Final = msgspec.msgpack.Decoder(dict[str, Raw])
_token_decoder: t.Final = msgspec.msgpack.Decoder(msgspec.msgpack.Ext)


class DurableRows:
    """The rows of one application.

    :param sender: the application, which is the sender of the signals.
    """

    def __init__(self, sender: object, store: Store, keyring: Keyring, namespace: str) -> None:
        self.sender = sender
        self.store = store
        self._keyring = keyring
        self._namespace = namespace

    def key(self, model: Model, owner: str, version: int) -> str:
        """Return the store key of a row."""
        key = f"{self._namespace}:{model.kind}:{versioned(model.name, version)}"
        if model.kind == "app":
            return key
        digest = hashlib.sha256(self._namespace.encode() + b"\0" + owner.encode()).digest()
        return f"{key}:{url_safe(digest)}"

    def read(self, model: Model, owner: str) -> tuple[int, bytes] | None:
        """Return the newest row that a class's version can use, and the version it is of."""
        versions = {self.key(model, owner, version): version for version in range(model.version, 0, -1)}
        found = self.store.get_many(versions)
        return next(((version, found[key]) for key, version in versions.items() if key in found), None)

    def seal(self, model: Model, owner: str, name: str, encoded: bytes) -> Raw:
        """Return a field's encoding, sealed."""
        seal = self._keyring.seal_for("durable field", name=f"{self._namespace}:{model.name}.{name}", owner=owner)
        return Raw(_encoder.encode(msgspec.msgpack.Ext(_SEALED, seal.seal(encoded))))

    def unseal(self, model: Model, owner: str, name: str, raw: Raw) -> tuple[Raw, bool]:
        """Return a field's encoding, and whether a fallback key had sealed it.

        :raises BadSeal: if it is not sealed, or not for this place, or its key has gone.
        """
        seal = self._keyring.seal_for("durable field", name=f"{self._namespace}:{model.name}.{name}", owner=owner)
        data, stale = seal.unseal(bytes(_token_decoder.decode(raw).data))
        return Raw(data), stale


class Row(KeptValues):
    """The row of one class and one owner, for one request; outside of one, for one access.

    :param owner: the user's id; empty for the application; ``None`` where nobody is signed in.
    """

    def __init__(self, rows: DurableRows, model: Model, owner: str | None, *, unit: Unit | None) -> None:
        self._rows = rows
        self._model = model
        self._owner = owner
        self._unit = unit
        self._items: TrackedItems | None = None
        self._closed = unit is not None and unit.closed
        #: The row as the store holds it; ``None`` where it holds none of this version.
        self._data: bytes | None = None
        self._fields: dict[str, Raw] = {}
        #: The versions whose rows have become this one.
        self._earlier = range(0)

    # Reading

    def _sender(self) -> object:
        return self._rows.sender

    def _reading(self, field: Field) -> TrackedItems:
        return self._items or self._load()

    def _load(self) -> TrackedItems:
        found = None if self._owner is None else self._rows.read(self._model, self._owner)
        if found is not None:
            self._take(*found)
        self._items = TrackedItems(self._opened(self._fields, self._model.fields), FieldsCodec(self._model))
        return self._items

    def _take(self, version: int, data: bytes) -> None:
        fields = self._parsed(data)
        if version == self._model.version:
            self._data, self._fields = data, fields
            return
        anew = migrated(self._model, version, self._opened(fields, fields))
        if anew is not None:
            self._earlier = range(1, self._model.version)
            self._fields = {name: self._closed_field(name, bytes(raw)) for name, raw in anew.items()}

    def _parsed(self, data: bytes) -> dict[str, Raw]:
        try:
            if data[: len(_FORMAT)] == _FORMAT:
                return _decoder.decode(data[len(_FORMAT) :])
        except msgspec.DecodeError:
            pass
        logger.error("a row of %s is damaged; its defaults hold until it is written", self._model.title)
        return {}

    def _opened(self, fields: t.Mapping[str, Raw], names: t.Iterable[str]) -> dict[str, Raw]:
        """Return those fields of a row that can be read, without their seals."""
        opened: dict[str, Raw] = {}
        for name in names:
            field, raw = self._model.fields.get(name), fields.get(name)
            if raw is None:
                continue
            if field is None or not field.sealed:
                opened[name] = self._unsealed(name, raw) or raw
            elif (inner := self._unsealed(name, raw)) is not None:
                opened[name] = inner
            else:
                report_invalid(self._sender(), field, "seal")
        return opened

    def _unsealed(self, name: str, raw: Raw) -> Raw | None:
        opened = self._unseal(name, raw)
        return None if opened is None else opened[0]

    def _unseal(self, name: str, raw: Raw) -> tuple[Raw, bool] | None:
        """Return what a field's seal opens to, and whether a fallback key has opened it; ``None`` where none does."""
        if bytes(raw)[:1] not in _EXTENSIONS:
            return None
        try:
            return self._rows.unseal(self._model, self._owner or "", name, raw)
        except (BadSeal, DecodeError, msgspec.DecodeError):
            return None

    def _closed_field(self, name: str, encoded: bytes) -> Raw:
        """Return a field as the row holds it."""
        if self._model.fields[name].sealed:
            return self._rows.seal(self._model, self._owner or "", name, encoded)
        return Raw(encoded)

    # Writing

    def _writing(self, field: Field) -> TrackedItems:
        if self._closed:
            raise StateClosed(f"{field.where} was written after the response had been saved; write it in the view")
        if self._owner is None:
            raise self._refusal()
        if self._unit is not None and self._model.kind == "user":
            self._unit.reads.add(WRITTEN)
        return self._reading(field)

    def _refusal(self) -> StateError:
        title = self._model.title.rpartition(".")[2]
        return StateError(
            f"nobody is signed in, so there is no row of {title} to write to; sign the user in first, or write"
            f" {title}.of(user_id)"
        )

    def set(self, field: Field, value: t.Any) -> None:
        """Set a value; outside of a request, save it at once."""
        super().set(field, value)
        if self._unit is None:
            self.save()

    def reset(self, field: Field) -> None:
        """Remove a value; outside of a request, save that at once."""
        super().reset(field)
        if self._unit is None:
            self.save()

    def save(self) -> None:
        """Bring the store up to date, field by field.

        :raises StateConflict: if other writers won every round.
        """
        if self._items is None:
            return
        changed, removed = self._items.changes(), self._items.removed()
        if not changed and not removed:
            return
        if self._owner is None:
            raise self._refusal()
        sealed = {name: self._closed_field(name, encoded) for name, encoded in changed.items()}
        self._write(self._owner, sealed, removed)
        for name in (*changed, *removed):
            report_changed(self._sender(), self._model.fields[name])

    def _write(self, owner: str, changed: t.Mapping[str, Raw], removed: t.Collection[str]) -> None:
        store, key = self._rows.store, self._rows.key(self._model, owner, self._model.version)
        for _ in range(MAX_ROUNDS):
            fields = {name: raw for name, raw in self._fields.items() if name not in removed}
            fields = {**self._sealed_anew(fields), **changed}
            new = _FORMAT + _encoder.encode(fields)
            if store.add(key, new) if self._data is None else store.swap(key, self._data, new):
                store.delete_many([self._rows.key(self._model, owner, version) for version in self._earlier])
                self._data, self._fields = new, fields
                return
            if self._unit is not None and not self._unit.merges:
                break
            self._data = store.get(key)
            self._fields = {} if self._data is None else self._parsed(self._data)
        raise StateConflict(f"others kept rewriting a row of {self._model.title} while it was being saved")

    def _sealed_anew(self, fields: dict[str, Raw]) -> dict[str, Raw]:
        """Return a row's fields, those sealed with the current key that a fallback key opens."""
        anew = dict(fields)
        for name in fields.keys() & self._model.fields.keys():
            if self._model.fields[name].sealed and (opened := self._unseal(name, fields[name])) and opened[1]:
                anew[name] = self._closed_field(name, bytes(opened[0]))
        return anew

    def settle(self) -> None:
        """Go on from what was just saved."""
        self._earlier = range(0)
        if self._items is not None:
            self._items.rebase(self._opened(self._fields, self._model.fields), keep_changes=False)

    def remember(self) -> Callable[[], None]:
        """Return what goes back to how the row is now, with the fields that are not changed as the store has them."""
        changed, removed = ({}, set[str]()) if self._items is None else (self._items.changes(), self._items.removed())

        def go_back() -> None:
            items, self._data, self._fields, self._earlier = self._items, None, {}, range(0)
            self._items = None
            if items is not None:
                self._load()
                items.restore(self._opened(self._fields, self._model.fields), changed, removed)
                self._items = items

        return go_back

    def discard(self) -> None:
        """Forget what was not saved. What was, is read again."""
        self._items, self._data, self._fields, self._earlier = None, None, {}, range(0)

    def close(self) -> None:
        """Refuse further changes."""
        self._closed = True


class RequestRows(Group["tuple[Model, str | None]", Row]):
    """The rows that one request has looked at."""

    step: t.ClassVar[Step] = Step.DURABLE


class DurablePlace:
    """Keeps the state of users and of the application.

    :param rows: returns the application's rows.
    :param user_id: returns the id of the request's user.
    :param unit_of: returns the unit of the request with this environ.
    """

    def __init__(
        self,
        rows: DurableRows,
        user_id: t.Callable[[], str | None],
        unit_of: t.Callable[[WSGIEnvironment], Unit],
    ) -> None:
        self._rows = rows
        self._user_id = user_id
        self._unit_of = unit_of

    def values(self, model: Model, user_id: str | None = None) -> Row:
        """Return the row of a class, for the request's user or another one."""
        block = current_block.get()
        if has_request_context():
            unit = self._unit_of(request.environ)
            owner = "" if model.kind == "app" else user_id or self._own(unit)
        elif block is None:
            return Row(self._rows, model, "" if model.kind == "app" else user_id, unit=None)
        else:
            unit, owner = block.unit, "" if model.kind == "app" else user_id
        rows = unit.part(RequestRows, RequestRows)
        row = rows.get((model, owner))
        if row is None:
            row = rows[model, owner] = Row(self._rows, model, owner, unit=unit)
        return row

    def _own(self, unit: Unit) -> str | None:
        # A cached page that shows it must vary by the user, wherever the user's id comes from.
        unit.reads.add("session:(user)")
        return self._user_id()
