"""A session's record: what the header and the body hold, who can open which, and what its bytes mean for ever."""

from __future__ import annotations

import typing as t
from types import SimpleNamespace
from unittest import mock

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_stateful.errors import BadSeal, DecodeError, PayloadError
from flask_stateful.sealing import Keyring
from flask_stateful.serialization import Raw, dumps, dumps_items, loads
from flask_stateful.sessions import record
from flask_stateful.sessions.record import TOMBSTONE, Header, RecordSeal

from .values import exact, values

SECRET = "correct horse battery staple"
TOKEN, KEY = "0123456789-abcdefghijklmnopqrstuvwxyz_ABCDE", "shop:session:somewhere"
HEADER = Header(b"a-handle", "ada", 1700000000.0, 1700000060.5, 7776000, "192.0.2.1", "Browser/1.0 (ä)")
ITEMS = {"name": "Ada", "cart": [7, (8, 9)], "_permanent": True}

#: A record as version 1 of the format has it. Every later version reads it.
STORED = bytes.fromhex(
    "01e3a27d70000102030405060708090a0b0051c035a63484d445071fa2e6d083a29d13778d2e882a96b03cedd21dfc8ad0c8"
    "7ada9584b9a3d7360190fdeb7e439b5f8171dc93cdfabc5c7badf8f4c459b34c6e11b2b269c0dfe9e06944ef4656af4a5804"
    "f88e471c3b0aace0be214ee2405a87d3c8ba5606c7ed1794b90acb9faed0dfa9900d5e60bcde8c20e4717dfac6591118f86c"
    "f9"
)

texts, floats = st.text(max_size=200), st.floats(allow_nan=False)
headers = st.builds(Header, st.binary(), st.none() | texts, floats, floats, floats, texts, texts)
contents = st.dictionaries(st.text(), values(), max_size=4)


def seal_of(secret: str = SECRET, *fallbacks: str, token: str = TOKEN, key: str = KEY) -> RecordSeal:
    """Return the seal of one session id."""
    return RecordSeal(Keyring(secret, fallbacks), token=token, key=key)


def encoded(items: t.Mapping[str, t.Any]) -> dict[str, Raw]:
    """Return items as a session hands them on."""
    return {key: Raw(dumps(value)) for key, value in items.items()}


def forged(*, header: bytes | None = None, body: bytes | None = None) -> bytes:
    """Return a record that was sealed as ours are, but holds other bytes as its header or body."""
    encoder = record._header_encoder if header is None else SimpleNamespace(encode=lambda _: header)
    encode_items = dumps_items if body is None else lambda _: body
    with mock.patch.multiple(record, _header_encoder=encoder, dumps_items=encode_items):
        return seal_of().seal(HEADER, {})


def body_at(data: bytes) -> int:
    """Return where the body of a record begins."""
    return 19 + int.from_bytes(data[17:19], "big")


@given(headers, contents)
def test_round_trip(header: Header, items: dict[str, t.Any]) -> None:
    """Header and values come back as they were sealed, in their order, from another seal of the same id as well."""
    data = seal_of().seal(header, encoded(items))
    opened = seal_of().open(data)
    assert opened.header == header
    assert exact({key: loads(raw) for key, raw in opened.items.items()}) == exact(items)
    assert opened.data == data
    assert not opened.stale


@given(contents)
def test_values_that_were_not_decoded_are_sealed_again(items: dict[str, t.Any]) -> None:
    """What was opened can be sealed again without decoding a value."""
    opened = seal_of().open(seal_of().seal(HEADER, encoded(items)))
    again = seal_of().open(seal_of().seal(HEADER, opened.items))
    assert {key: bytes(raw) for key, raw in again.items.items()} == {key: dumps(value) for key, value in items.items()}


def test_values_stay_encoded() -> None:
    """Opening a record decodes none of its values: one that cannot be decoded is found when it is looked at."""
    of_no_type = msgspec.msgpack.encode(msgspec.msgpack.Ext(100, b""))
    opened = seal_of().open(seal_of().seal(HEADER, {"broken": Raw(of_no_type), "fine": Raw(dumps(1))}))
    assert loads(opened.items["fine"]) == 1
    with pytest.raises(DecodeError):
        loads(opened.items["broken"])


# Refused


@pytest.mark.parametrize("other", [{"token": TOKEN[:-1] + "0"}, {"key": KEY + "2"}, {"secret": "another"}])
def test_record_of_another_id_is_refused(other: dict[str, str]) -> None:
    """A record opens for no other token, at no other place in the store, and with no other key."""
    data = seal_of().seal(HEADER, encoded(ITEMS))
    with pytest.raises(BadSeal):
        seal_of(**other).open(data)


def test_halves_of_two_records_are_no_record() -> None:
    """A header put before another session's body does not open."""
    one, other = seal_of(), seal_of(token=TOKEN[:-1] + "0", key=KEY + "2")
    mine, theirs = one.seal(HEADER, encoded(ITEMS)), other.seal(HEADER, encoded(ITEMS))
    at = body_at(mine)
    for seal in (one, other):
        for mixed in (mine[:at] + theirs[at:], theirs[:at] + mine[at:]):
            with pytest.raises(BadSeal):
                seal.open(mixed)


def test_body_needs_the_visitors_token() -> None:
    """With the application's key, but without the token, the header opens and the body does not."""
    data = seal_of().seal(HEADER, encoded(ITEMS))
    at, nonce, key = body_at(data), data[5:17], Keyring(SECRET).current
    header = key.cipher("session header", KEY.encode()).decrypt(nonce, data[19:at], data[:19])
    assert msgspec.msgpack.decode(header, type=Header) == HEADER
    for purpose in ("session header", "session body"):
        for secret in (b"", KEY.encode(), TOKEN[:-1].encode()):
            with pytest.raises(InvalidTag):
                key.cipher(purpose, secret).decrypt(nonce, data[at:], data[:at])


def test_every_flipped_bit_and_every_other_length_is_refused() -> None:
    """A record that was changed anywhere, cut anywhere or continued is refused, and nothing but that is raised."""
    seal = seal_of()
    data = seal.seal(HEADER, encoded(ITEMS))
    number = int.from_bytes(data, "big")
    flipped = [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in range(len(data) * 8)]
    for wrong in [*flipped, *(data[:length] for length in range(len(data))), data + b"\0", data * 2]:
        with pytest.raises(PayloadError):
            seal.open(wrong)


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused(data: bytes, with_format: bool) -> None:
    """Whatever the store holds, nothing but a PayloadError is raised."""
    with pytest.raises(PayloadError):
        seal_of().open(b"\x01" + data if with_format else data)


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x91\x01", b"\x81\x01\x02", b"\x81\xa1a", dumps(ITEMS) + b"\0"])
def test_sealed_body_that_is_no_mapping_is_refused(body: bytes) -> None:
    """Bytes that we have sealed, but that are no mapping with text as keys, are refused."""
    with pytest.raises(DecodeError):
        seal_of().open(forged(body=body))


@given(st.one_of(st.binary(max_size=40), values().map(dumps)))
def test_sealed_header_that_is_none_is_refused(header: bytes) -> None:
    """Bytes that we have sealed, but that are no header, are refused."""
    try:
        msgspec.msgpack.decode(header, type=Header)
    except msgspec.MsgspecError:
        pass
    else:
        assume(False)
    with pytest.raises(DecodeError):
        seal_of().open(forged(header=header))


def test_tombstone_is_no_record() -> None:
    """A tombstone is told from a record by its first byte, and holds nothing."""
    assert TOMBSTONE == b"\x00"
    with pytest.raises(PayloadError):
        seal_of().open(TOMBSTONE)


# Several keys


def test_fallback_opens_and_marks_the_record() -> None:
    """A record that an earlier key has sealed opens and is marked; a removed key's does not open."""
    data = seal_of("old").seal(HEADER, encoded(ITEMS))
    assert seal_of("new", "older", "old").open(data).stale
    with pytest.raises(BadSeal):
        seal_of("new", "older").open(data)


# What can be seen from outside


def test_record_shows_nothing() -> None:
    """Neither who the visitor is nor what the session holds can be read in the store."""
    data = seal_of().seal(HEADER, encoded(ITEMS))
    for text in ("ada", "Ada", "a-handle", "192.0.2.1", "Browser", "cart", TOKEN, KEY):
        assert text.encode() not in data


def test_two_records_of_one_session_differ() -> None:
    """Sealing the same content again gives other bytes, so that a swap in the store never takes one for the other."""
    seal = seal_of()
    assert len({seal.seal(HEADER, encoded(ITEMS)) for _ in range(5)}) == 5


def test_stored_format_stays_readable() -> None:
    """A record of format version 1 opens, in this version and in every later one."""
    opened = seal_of().open(STORED)
    assert opened.header == HEADER
    assert exact({key: loads(raw) for key, raw in opened.items.items()}) == exact(ITEMS)


def test_what_is_written_is_the_stored_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same nonces, this version writes the very bytes of format version 1."""
    monkeypatch.setattr("flask_stateful.sessions.record.os.urandom", lambda length: bytes(range(length)))
    assert seal_of().seal(HEADER, encoded(ITEMS)) == STORED
