"""What a cookie's value is made of, in each kind of jar, and how it is told from a forged one.

A *sealed* value is ``sealed . day``, in URL-safe base64. Sealed is a MessagePack list: the value, when it expires and,
as far as they are not the default, the attributes that the cookie was set with. Name, namespace and owner are
authenticated along with it. Name and day are mixed into the key, so that 2**32 seals, the most that random nonces
allow for one key, are allowed for each name on each day (UTC).

A *signed* value is ``text . facts . key id and tag``: the text as it is, the same list without a value (nothing where
all are the default), and 128 bits of keyed BLAKE2b (:rfc:`7693`) over these, name, namespace and owner.

A *plain* value is its text.
"""

from __future__ import annotations

import functools
import hmac
import typing as t

import msgspec

from .. import clock
from ..errors import BadSeal, EncodeError
from ..sealing import KEY_ID_BYTES, Keyring, Seal
from ..serialization import Raw, dumps, from_url_safe, loads, url_safe
from .header import quote, unquote
from .options import Options, SameSite

_TAG_BYTES: t.Final = 16
_DAY_BYTES: t.Final = 2
_DAY: t.Final = 24 * 3600

#: How many seals are kept at hand: one for each name, owner and day that is met.
_RECENT: t.Final = 1024


class Payload(msgspec.Struct, array_like=True, frozen=True):
    """What a cookie holds. The order is the format; what is missing at the end has its default."""

    body: Raw
    #: Seconds since 1970; ``None`` for a cookie that goes with the browser session.
    expires: int | None = None
    #: Whether the body is a reference to a value in the store.
    spilled: bool = False
    path: str = "/"
    domain: str | None = None
    partitioned: bool = False
    httponly: bool = True
    samesite: SameSite = "Lax"
    secure: bool | None = None
    purpose: str = "necessary"


class Opened(t.NamedTuple):
    """A cookie that was found to be genuine."""

    #: The encoded value.
    body: t.Any
    #: ``None`` for a plain cookie, of which nothing is known.
    payload: Payload | None
    #: Whether a fallback key opened it, so that it is to be sent anew.
    stale: bool


class Place(t.NamedTuple):
    """Where a value belongs; it opens nowhere else."""

    wire: str
    owner: str


class Codec(t.Protocol):
    """How the cookies of one kind of jar are written and read."""

    #: What a developer writes for the jar.
    where: str
    #: Whether a value can be moved to the store, and can have an owner.
    spills: bool
    owned: bool

    def encode(self, value: t.Any, where: str) -> t.Any:
        """Return a value's encoded form, or raise :exc:`~flask_stateful.errors.EncodeError`."""

    def decode(self, body: t.Any) -> t.Any:
        """Return the value, or raise :exc:`~flask_stateful.errors.DecodeError`."""

    def write(self, place: Place, body: t.Any, facts: tuple[t.Any, ...]) -> str:
        """Return what stands in the header.

        :param facts: the fields of :class:`Payload` after the body, as :func:`facts_of` gives them.
        """
        ...

    def read(self, place: Place, raw: str) -> Opened | None:
        """Return what stands in the header, or ``None`` where it is not genuine."""
        ...


def facts_of(options: Options, expires: int | None, *, spilled: bool = False) -> tuple[t.Any, ...]:
    """Return what is kept beside a value, without the defaults at the end."""
    if options.kept or spilled:
        return (expires, spilled, *options.kept)
    return () if expires is None else (expires,)


class SealedCodec:
    """Any value, which nobody else can read or forge."""

    where = "state.cookies"
    spills = owned = True

    def __init__(self, keyring: Keyring, namespace: str) -> None:
        self._keyring = keyring
        self._namespace = namespace
        self._seal = functools.lru_cache(maxsize=_RECENT)(self._make_seal)

    def encode(self, value: t.Any, where: str) -> bytes:
        """Return a value's encoded form."""
        return dumps(value, where=where)

    def decode(self, body: t.Any) -> t.Any:
        """Return the value."""
        return loads(body)

    def write(self, place: Place, body: bytes, facts: tuple[t.Any, ...]) -> str:
        """Return the sealed value."""
        day = int(clock.now() // _DAY).to_bytes(_DAY_BYTES, "big")
        data = _encoder.encode([Raw(body), *facts])
        return url_safe(self._seal(place, day).seal(data) + day)

    def read(self, place: Place, raw: str) -> Opened | None:
        """Return what is sealed."""
        token = from_url_safe(raw)
        if token is None:
            return None
        try:
            data, stale = self._seal(place, token[-_DAY_BYTES:]).unseal(token[:-_DAY_BYTES])
            payload = _decoder.decode(data)
        except (BadSeal, msgspec.DecodeError):
            return None
        return Opened(payload.body, payload, stale)

    def _make_seal(self, place: Place, day: bytes) -> Seal:
        name = f"{self._namespace}:{place.wire}"
        return self._keyring.seal_for("cookie", name=name, owner=place.owner, secret=day + name.encode())


class TextCodec:
    """Text, which anybody can read and write."""

    where = "state.cookies.plain"
    spills = owned = False

    def encode(self, value: t.Any, where: str) -> str:
        """Return the text itself."""
        if type(value) is not str:
            kind = type(value).__name__
            raise EncodeError(
                f"{where} must be str, not {kind}; write str(...), or put it into state.cookies, which takes any value"
            )
        dumps(value, where=where)  # refuses what UTF-8 cannot carry
        return value

    def decode(self, body: t.Any) -> str:
        """Return the text itself."""
        return t.cast("str", body)

    def write(self, place: Place, body: str, facts: tuple[t.Any, ...]) -> str:
        """Return the text, quoted where it must be."""
        return quote(body)

    def read(self, place: Place, raw: str) -> Opened | None:
        """Return the text."""
        text = unquote(raw)
        return None if text is None else Opened(text, None, False)


class SignedCodec(TextCodec):
    """Text, which anybody can read and nobody else can write."""

    where = "state.cookies.signed"
    owned = True

    def __init__(self, keyring: Keyring, namespace: str) -> None:
        self._keyring = keyring
        self._namespace = namespace

    def write(self, place: Place, body: str, facts: tuple[t.Any, ...]) -> str:
        """Return text, facts and tag."""
        told = url_safe(_encoder.encode([None, *facts])) if facts else ""
        key = self._keyring.current
        tag = url_safe(key.id + self._keyring.tag(self._message(place, body, told), _SIGNED, length=_TAG_BYTES))
        return quote(f"{body}.{told}.{tag}")

    def read(self, place: Place, raw: str) -> Opened | None:
        """Return the text, if the tag is ours."""
        parts = (unquote(raw) or "").rsplit(".", 2)
        sent = from_url_safe(parts[-1])
        if len(parts) != 3 or sent is None:
            return None
        text, told, _ = parts
        key = self._keyring.find(sent[:KEY_ID_BYTES])
        if key is None:
            return None
        tag = self._keyring.tag(self._message(place, text, told), _SIGNED, length=_TAG_BYTES, key=key)
        if not hmac.compare_digest(tag, sent[KEY_ID_BYTES:]):
            return None
        # The tag was ours, so what it covers is, too.
        payload = _decoder.decode(from_url_safe(told) or b"") if told else _NOTHING_TOLD
        return Opened(text, payload, key is not self._keyring.current)

    def _message(self, place: Place, text: str, told: str) -> bytes:
        return _encoder.encode((self._namespace, *place, text, told))


_SIGNED: t.Final = "signed cookie"
_encoder: t.Final = msgspec.msgpack.Encoder()
_decoder: t.Final = msgspec.msgpack.Decoder(Payload)
_NOTHING_TOLD: t.Final = Payload(Raw(b"\xc0"))
