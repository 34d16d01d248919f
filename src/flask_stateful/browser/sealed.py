"""Sealed fields: the browser holds a token that it can neither read nor forge.

A token opens only in the field, the version, the browser and for the user that it was sealed for. That does not keep
anybody from bringing back an earlier one: a field that is *fresh* has its latest stamp kept in the store.
"""

from __future__ import annotations

import base64
import binascii
import typing as t

import msgspec

from .. import clock
from ..errors import BadSeal, DecodeError, ExpiredSeal
from ..sealing import Keyring, Seal
from ..serialization import Raw
from .replica import DAY, Replica
from .scheme import Slot

_STAMP_TTL: t.Final = 400 * DAY


class _Payload(t.NamedTuple):
    value: Raw
    #: The higher, the later.
    stamp: int
    expires: float | None


class Opened(t.NamedTuple):
    """A token that was found to be genuine."""

    token: bytes
    #: The field's value, encoded.
    data: bytes
    expires: float | None
    #: Whether a fallback key has opened it, so that it is to be sealed anew.
    stale: bool


_encode: t.Final = msgspec.msgpack.Encoder().encode
_decoder: t.Final = msgspec.msgpack.Decoder(_Payload)
_text_decoder: t.Final = msgspec.json.Decoder(str)


class Sealer:
    """Seals and opens for one browser and one user.

    :param user_id: the user's id; empty for nobody, and for a field that stays with the browser.
    """

    def __init__(self, keyring: Keyring, replica: Replica, browser: bytes, user_id: t.Callable[[], str]) -> None:
        self._keyring = keyring
        self._replica = replica
        self._browser = browser
        self._user_id = user_id

    def seal(self, slot: Slot, data: bytes, stamp: int, *, expires: float | None) -> bytes:
        """Return a token as JSON.

        :param data: the field's value, encoded.
        :param stamp: the register's next revision.
        :param expires: seconds since 1970.
        """
        payload = _Payload(Raw(data), stamp, expires)
        return msgspec.json.encode(base64.urlsafe_b64encode(self._seal(slot).seal(_encode(payload))).decode())

    def open(self, slot: Slot, token: bytes) -> Opened:
        """Return what is in a token.

        :raises BadSeal: if it is forged, of another place, expired or, in a fresh field, not the latest.
        :raises DecodeError: if it is no token.
        """
        try:
            sealed = base64.b64decode(_text_decoder.decode(token), altchars=b"-_", validate=True)
            data, stale = self._seal(slot).unseal(sealed)
            payload = _decoder.decode(data)
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            raise DecodeError("not a sealed value") from None
        if payload.expires is not None and payload.expires <= clock.now():
            raise ExpiredSeal("the sealed value has expired")
        if slot.field.fresh and payload.stamp < self._latest(slot):
            raise BadSeal("the sealed value is not the latest")
        return Opened(token, bytes(payload.value), payload.expires, stale)

    def note(self, slot: Slot, stamp: int) -> None:
        """Refuse what was sealed in a fresh field before a stamp."""
        self._replica.store.set(self._stamp_key(slot), b"%d" % stamp, _STAMP_TTL)

    def _latest(self, slot: Slot) -> int:
        return int(self._replica.store.get(self._stamp_key(slot)) or 0)

    def _stamp_key(self, slot: Slot) -> str:
        return self._replica.key(self._browser, "fresh", slot.name)

    def _seal(self, slot: Slot) -> Seal:
        user_id = self._user_id() if slot.owned else ""
        owner = f"{self._browser.hex()}:{user_id}"
        return self._keyring.seal_for("browser field", name=slot.name, owner=owner)
