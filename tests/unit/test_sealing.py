"""What is sealed opens with the right key in the right place, whole and unchanged, and in no other way."""

from __future__ import annotations

import hashlib
import hmac
import typing as t

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, example, given
from hypothesis import strategies as st

from flask_stateful.errors import BadSeal, PayloadError
from flask_stateful.sealing import FORMAT, KEY_ID_BYTES, OVERHEAD, Keyring, Seal

SECRET = "correct horse battery staple"
OLD, OLDER = "an older secret", b"the oldest \xff secret"

#: Version 1 of the format: whatever a later version writes, it reads this.
STORED = bytes.fromhex("01e3a27d70000102030405060708090a0bf59063aa964e8da30aa2ee1dd757ab2328bc9df5")
STORED_WITH_SECRET = bytes.fromhex("01e3a27d70000102030405060708090a0bd5ba1e1c827f92b11070c5a060dfac45031ef361")
TAG = bytes.fromhex("a7f15f325bf29549")


class Place(t.NamedTuple):
    """What :meth:`Keyring.seal_for` takes."""

    purpose: str
    name: str
    owner: str
    secret: bytes

    def of(self, keyring: Keyring) -> Seal:
        """Return the seal for this place."""
        return keyring.seal_for(self.purpose, name=self.name, owner=self.owner, secret=self.secret)


HERE = Place("session body", "cart", "ada", b"token")
PLACES = st.builds(Place, st.text(), st.text(), st.text(), st.binary())
SECRETS = st.one_of(st.text(min_size=1), st.binary(min_size=1))


@given(st.binary(), PLACES, SECRETS)
def test_round_trip(data: bytes, place: Place, secret: str | bytes) -> None:
    """What is unsealed is what was sealed, whatever the place and the key, also by another process."""
    sealed = place.of(Keyring(secret)).seal(data)
    assert place.of(Keyring(secret)).unseal(sealed) == (data, False)
    assert len(sealed) == len(data) + OVERHEAD


def test_text_and_its_bytes_are_the_same_key() -> None:
    """A key may be text or that text in UTF-8."""
    sealed = HERE.of(Keyring("schlüssel")).seal(b"data")
    assert HERE.of(Keyring("schlüssel".encode())).unseal(sealed) == (b"data", False)


@given(st.binary())
def test_two_seals_of_one_value_differ(data: bytes) -> None:
    """No sealed value tells that another one holds the same."""
    seal = HERE.of(Keyring(SECRET))
    assert len({seal.seal(data) for _ in range(5)}) == 5


def test_sealed_value_shows_nothing_of_the_data() -> None:
    """The bytes of the data are nowhere in the sealed value, nor those of the key."""
    sealed = HERE.of(Keyring(SECRET)).seal(b"a word that would be found" * 5)
    assert b"word" not in sealed
    assert SECRET.encode()[:4] not in sealed


# Refused


@given(st.binary(max_size=20), st.integers(0, 10**6))
def test_flipped_bit_is_refused(data: bytes, bit: int) -> None:
    """A sealed value in which one bit differs does not open."""
    seal = HERE.of(Keyring(SECRET))
    sealed = bytearray(seal.seal(data))
    bit %= len(sealed) * 8
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSeal):
        seal.unseal(bytes(sealed))


def test_every_single_flipped_bit_is_refused() -> None:
    """There is no bit in the format that may differ: not in its first byte, the key id, the nonce, or the tag."""
    seal = HERE.of(Keyring(SECRET, [OLD, OLDER]))
    sealed = seal.seal(b"data")
    for bit in range(len(sealed) * 8):
        flipped = int.from_bytes(sealed, "big") ^ 1 << bit
        with pytest.raises(BadSeal):
            seal.unseal(flipped.to_bytes(len(sealed), "big"))


@pytest.mark.parametrize("data", [b"", b"x", b"data" * 20])
def test_every_other_length_is_refused(data: bytes) -> None:
    """A sealed value that is cut at either end, or continued at either end, does not open."""
    seal = HERE.of(Keyring(SECRET))
    sealed = seal.seal(data)
    cut = [sealed[:length] for length in range(len(sealed))]
    cut += [sealed[start:] for start in range(1, len(sealed))]
    for wrong in [*cut, sealed + b"\0", b"\0" + sealed, sealed + sealed, sealed + b"x" * 100]:
        with pytest.raises(BadSeal):
            seal.unseal(wrong)


@given(PLACES, PLACES)
@example(Place("ab", "c", "", b""), Place("a", "bc", "", b""))
@example(Place("a", "bc", "", b""), Place("a", "b", "c", b""))
@example(Place("a", "", "b", b""), Place("a", "b", "", b""))
@example(Place("a", "", "", b"b"), Place("a", "", "b", b""))
@example(Place("a", "", "", b""), Place("", "", "", b"a"))
def test_other_place_is_refused(there: Place, here: Place) -> None:
    """What was sealed for one purpose, name, owner and secret opens for no other."""
    assume(there != here)
    keyring = Keyring(SECRET)
    with pytest.raises(BadSeal):
        here.of(keyring).unseal(there.of(keyring).seal(b"data"))


@pytest.mark.parametrize("part", Place._fields)
def test_each_part_of_the_place_counts(part: str) -> None:
    """A seal for a place that differs in one part only, by one character only, does not open."""
    keyring = Keyring(SECRET)
    other = HERE._replace(**{part: getattr(HERE, part)[:-1]})
    with pytest.raises(BadSeal):
        other.of(keyring).unseal(HERE.of(keyring).seal(b"data"))


@given(SECRETS, SECRETS)
@example("secret", "secret ")
@example("secret", b"secret\0")
def test_other_key_is_refused(one: str | bytes, other: str | bytes) -> None:
    """What another application has sealed does not open."""
    as_bytes = [key.encode() if isinstance(key, str) else key for key in (one, other)]
    assume(as_bytes[0] != as_bytes[1])
    with pytest.raises(BadSeal):
        HERE.of(Keyring(other)).unseal(HERE.of(Keyring(one)).seal(b"data"))


@given(
    st.one_of(
        st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: FORMAT + Keyring(SECRET).current.id + tail)
    )
)
def test_random_bytes_are_refused(data: bytes) -> None:
    """Whatever the bytes are, also behind the right first bytes, nothing but BadSeal is raised."""
    with pytest.raises(BadSeal):
        HERE.of(Keyring(SECRET)).unseal(data)


def test_refusal_does_not_tell_why() -> None:
    """A forged, a cut and a swapped value, and one with an unknown key, are refused with the same words."""
    seal = HERE.of(Keyring(SECRET))
    sealed = seal.seal(b"data")
    wrong = [
        b"",
        sealed[:-1],
        sealed[:-1] + bytes([sealed[-1] ^ 1]),
        b"\x02" + sealed[1:],
        HERE._replace(owner="eve").of(Keyring(SECRET)).seal(b"data"),
        HERE.of(Keyring(OLD)).seal(b"data"),
    ]
    refusals = set()
    for data in wrong:
        with pytest.raises(BadSeal) as caught:
            seal.unseal(data)
        assert isinstance(caught.value, PayloadError)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        refusals.add(str(caught.value))
    assert len(refusals) == 1


# Several keys


@pytest.mark.parametrize("fallbacks", [[OLD, OLDER], [OLDER, OLD]])
@pytest.mark.parametrize("secret", [OLD, OLDER])
def test_fallback_opens_and_tells(secret: str | bytes, fallbacks: list[str | bytes]) -> None:
    """What an earlier key has sealed opens, in whatever order those are, and is marked to be sealed again."""
    sealed = HERE.of(Keyring(secret)).seal(b"data")
    assert HERE.of(Keyring(SECRET, fallbacks)).unseal(sealed) == (b"data", True)


def test_current_key_seals() -> None:
    """What is sealed with fallbacks in the keyring needs none of them to open."""
    sealed = HERE.of(Keyring(SECRET, [OLD, OLDER])).seal(b"data")
    assert HERE.of(Keyring(SECRET)).unseal(sealed) == (b"data", False)
    assert HERE.of(Keyring(SECRET, [OLD, OLDER])).unseal(sealed) == (b"data", False)


def test_removed_key_is_refused() -> None:
    """What a key has sealed that is no longer in the keyring does not open."""
    sealed = HERE.of(Keyring(OLD)).seal(b"data")
    assert HERE.of(Keyring(SECRET, [OLD])).unseal(sealed) == (b"data", True)
    with pytest.raises(BadSeal):
        HERE.of(Keyring(SECRET, [OLDER])).unseal(sealed)


@pytest.mark.parametrize("fallbacks", [[SECRET], [SECRET, OLD], [OLD, SECRET], [SECRET.encode()], [SECRET, SECRET]])
def test_current_key_repeated_among_fallbacks_stays_current(fallbacks: list[str | bytes]) -> None:
    """A current key that is listed as a fallback as well marks nothing stale."""
    keyring = Keyring(SECRET, fallbacks)
    assert HERE.of(keyring).unseal(HERE.of(keyring).seal(b"data")) == (b"data", False)
    assert keyring.find(keyring.current.id) is keyring.current


def test_one_seal_opens_what_each_key_has_sealed() -> None:
    """A seal that is kept opens values of all keys in turn, each with its own cipher."""
    seal = HERE.of(Keyring(SECRET, [OLD, OLDER]))
    sealed = [(HERE.of(Keyring(key)).seal(b"data"), key is not SECRET) for key in (SECRET, OLD, OLDER)]
    for data, stale in sealed * 3:
        assert seal.unseal(data) == (b"data", stale)


# Keys are not shown


def test_repr_hides_keys() -> None:
    """Printing a keyring, a key or a seal shows neither a secret nor what was derived from it."""
    keyring = Keyring(SECRET, [OLD])
    seal = HERE.of(keyring)
    seal.seal(b"data")
    shown = repr((keyring, keyring.current, seal))
    derived = [keyring.current.subkey("session body"), keyring.current.subkey("key id")]
    for secret in (SECRET, OLD, "token", *(key.hex() for key in derived), *(repr(key) for key in derived)):
        assert secret not in shown
    assert keyring.current.id.hex() in shown


# Tags


@pytest.mark.parametrize("length", [1, 6, 8, 16, 64])
def test_tag_has_the_length_asked_for(length: int) -> None:
    """A tag is as long as asked for."""
    assert len(Keyring(SECRET).tag(b"data", "purpose", length=length)) == length


def test_tag_depends_on_key_purpose_and_data() -> None:
    """A tag differs for another key, another purpose and other data, and is the same each time otherwise."""
    keyring = Keyring(SECRET, [OLD])
    old = keyring.find(Keyring(OLD).current.id)
    tags = [
        keyring.tag(b"data", "purpose", length=16),
        keyring.tag(b"Data", "purpose", length=16),
        keyring.tag(b"data", "porpoise", length=16),
        keyring.tag(b"data", "purpose", length=16, key=old),
    ]
    assert len(set(tags)) == 4
    assert keyring.tag(b"data", "purpose", length=16) == tags[0]
    assert Keyring(OLD).tag(b"data", "purpose", length=16) == tags[3]


# The format, written down a second time


def hkdf_expand(key: bytes, info: bytes) -> bytes:
    """Return 32 bytes by :rfc:`5869`, 2.3: one block of SHA-256."""
    return hmac.digest(key, info + b"\x01", "sha256")


def root_key(secret: bytes) -> bytes:
    """Return the root of a secret's subkeys."""
    return hkdf_expand(hmac.digest(bytes(32), secret, "sha256"), b"flask-stateful")


def test_format_is_what_it_says() -> None:
    """A sealed value is laid out as documented, and opens with nothing but the documented steps."""
    root = root_key(SECRET.encode())
    sealed = HERE.of(Keyring(SECRET)).seal(b"data")
    assert sealed[:1] == FORMAT == b"\x01"
    assert sealed[1:5] == hkdf_expand(root, b"key id")[:KEY_ID_BYTES]
    key = hashlib.blake2b(b"token", key=hkdf_expand(root, b"session body"), digest_size=32).digest()
    associated = msgspec.msgpack.encode(["session body", "cart", "ada"])
    assert AESGCM(key).decrypt(sealed[5:17], sealed[17:], associated) == b"data"


def test_tag_is_what_it_says() -> None:
    """A tag is BLAKE2b, keyed with the purpose's subkey."""
    subkey = hkdf_expand(root_key(SECRET.encode()), b"session id")
    expected = hashlib.blake2b(b"data", key=subkey, digest_size=8).digest()
    assert Keyring(SECRET).tag(b"data", "session id", length=8) == expected


def test_stored_format_stays_readable() -> None:
    """Values that version 1 of the format has sealed open, in this version and in every later one."""
    assert HERE._replace(secret=b"").of(Keyring(SECRET)).unseal(STORED) == (b"data", False)
    assert HERE.of(Keyring(SECRET)).unseal(STORED_WITH_SECRET) == (b"data", False)
    assert HERE.of(Keyring("new", [SECRET])).unseal(STORED_WITH_SECRET) == (b"data", True)


def test_tags_stay_the_same() -> None:
    """A tag that was made once is made again by every later version."""
    assert Keyring(SECRET).tag(b"data", "session id", length=8) == TAG


def test_what_is_written_is_the_stored_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same nonce, this version writes the very bytes of format version 1."""
    monkeypatch.setattr("flask_stateful.sealing.os.urandom", lambda length: bytes(range(length)))
    assert HERE.of(Keyring(SECRET)).seal(b"data") == STORED_WITH_SECRET
