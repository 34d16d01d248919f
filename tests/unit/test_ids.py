"""Session ids: random, opaque, recognised only where we issued them, found among whatever cookies a browser sends."""

from __future__ import annotations

import re
import secrets
import typing as t

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from flask_stateful.sealing import Keyring
from flask_stateful.sessions.ids import Identities, Identity, new_handle, store_key

SECRET = "correct horse battery staple"
IDENTITIES = Identities(Keyring(SECRET), "shop")

#: An id as version 1 writes it into the cookie, and where the store keeps its session. Both stay readable for ever.
TOKEN = "0123456789-abcdefghijklmnopqrstuvwxyz_ABCDE"
COOKIE = "e3a27d70.0123456789-abcdefghijklmnopqrstuvwxyz_ABCDE.bc4aeb878e01125e"
STORE_KEY = "shop:session:Z3Hbga1WNsvt3gJquQIy6fVA3LMn7VbBFTCl829T6hk"


def issued() -> tuple[Identity, str]:
    """Return a new id and its cookie's value."""
    identity = IDENTITIES.issue()
    return identity, IDENTITIES.cookie_value(identity)


def test_ids_are_random_and_never_repeat() -> None:
    """A hundred thousand ids differ, each has 256 bits, and each bit is set in about half of them."""
    tokens = {IDENTITIES.issue().token for _ in range(100_000)}
    assert len(tokens) == 100_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)
    first = {token[:6] for token in tokens}
    assert len(first) > 99_990


def test_ids_come_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is what the system's generator gives for 32 bytes, and nothing else."""
    asked: list[int | None] = []
    monkeypatch.setattr(secrets, "token_urlsafe", lambda size=None: asked.append(size) or TOKEN)
    assert IDENTITIES.issue().token == TOKEN
    assert asked == [32]


def test_handles_are_random() -> None:
    """A session's public name has 128 random bits and says nothing else."""
    handles = {new_handle() for _ in range(10_000)}
    assert len(handles) == 10_000
    assert {len(handle) for handle in handles} == {16}


def test_round_trip() -> None:
    """The cookie's value is recognised as the id that it was made from, by this and every other process."""
    identity, value = issued()
    for identities in (IDENTITIES, Identities(Keyring(SECRET), "shop")):
        recognised = identities.recognise(value)
        assert recognised is not None
        assert (recognised.token, recognised.key, recognised.stale) == (identity.token, identity.key, False)


def test_cookie_is_the_key_id_the_token_and_a_tag() -> None:
    """The cookie's value has three parts and fits any cookie: nothing in it needs quotes."""
    identity, value = issued()
    assert re.fullmatch(rf"[0-9a-f]{{8}}\.{re.escape(identity.token)}\.[0-9a-f]{{16}}", value)


def test_stored_format_stays_readable() -> None:
    """An id that version 1 wrote into a cookie is recognised, and its session is looked for in the same place."""
    identity = IDENTITIES.recognise(COOKIE)
    assert identity is not None
    assert (identity.token, identity.key) == (TOKEN, STORE_KEY)
    assert IDENTITIES.cookie_value(identity) == COOKIE


# Refused


@given(st.integers(0, 68), st.characters())
def test_changed_character_is_refused(at: int, character: str) -> None:
    """A cookie's value in which one character differs is not recognised."""
    _, value = issued()
    assume(value[at] != character)
    assert IDENTITIES.recognise(value[:at] + character + value[at + 1 :]) is None


def test_every_changed_character_is_refused() -> None:
    """There is no place in a cookie's value at which another character of the same kind would do."""
    _, value = issued()
    for at, character in enumerate(value):
        other = {"0": "1", ".": "-"}.get(character, "0")
        assert IDENTITIES.recognise(value[:at] + other + value[at + 1 :]) is None


@given(st.text())
@example("")
@example("x" * 69)
@example("x" * 300)
@example("x" * 8192)
@example("\0" * 69)
@example("0" * 8 + "." + "A" * 43 + "." + "0" * 16)
def test_what_we_never_issued_is_refused(value: str) -> None:
    """Whatever text the cookie holds, it is not recognised, and nothing is raised."""
    assert IDENTITIES.recognise(value) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value + "\n",
        lambda value: "\n" + value,
        lambda value: value.upper(),
        lambda value: value[:-1],
        lambda value: value[1:],
        lambda value: value + value,
        lambda value: f'"{value}"',
        lambda value: value.replace(".", "%2E"),
        lambda value: value.split(".")[1],
        lambda value: ".".join(reversed(value.split("."))),
        lambda value: value[:8] + "." + value[9:52] + "." + "0" * 16,
    ],
)
def test_other_shapes_are_refused(change: t.Callable[[str], str]) -> None:
    """A cookie's value that was cut, continued, quoted, escaped or rearranged is not recognised."""
    _, value = issued()
    assert IDENTITIES.recognise(value) is not None
    assert IDENTITIES.recognise(change(value)) is None


def test_tag_of_another_id_is_refused() -> None:
    """Two valid ids do not make a third one."""
    (_, one), (_, other) = issued(), issued()
    assert IDENTITIES.recognise(one[:52] + other[52:]) is None


def test_id_of_another_application_is_refused() -> None:
    """An id that was issued with another key is not recognised."""
    other = Identities(Keyring("another secret"), "shop")
    value = other.cookie_value(other.issue())
    assert IDENTITIES.recognise(value) is None
    key_id = Keyring(SECRET).current.id.hex()
    assert IDENTITIES.recognise(key_id + value[8:]) is None


def test_fallback_key_is_recognised_and_marked() -> None:
    """An id with the tag of a fallback key is recognised, and its cookie is to be sent anew with the current key's."""
    identity, old = issued()
    rotated = Identities(Keyring("new secret", ["older", SECRET]), "shop")
    recognised = rotated.recognise(old)
    assert recognised is not None
    assert (recognised.token, recognised.key, recognised.stale) == (identity.token, identity.key, True)
    new = rotated.cookie_value(recognised)
    assert new != old
    again = rotated.recognise(new)
    assert again is not None
    assert not again.stale
    assert Identities(Keyring("new secret"), "shop").recognise(new) is not None


def test_removed_key_is_refused() -> None:
    """An id with the tag of a key that is no longer among the fallbacks is not recognised."""
    _, value = issued()
    assert Identities(Keyring("new secret", ["older"]), "shop").recognise(value) is None


# Where the store keeps it


def test_store_key_stays_the_same_when_keys_change() -> None:
    """No secret goes into the store's key, so that changing SECRET_KEY moves no session."""
    identity = Identity(Keyring("one"), "shop", TOKEN)
    assert identity.key == Identity(Keyring("two"), "shop", TOKEN).key == store_key("shop", TOKEN)


@given(st.lists(st.tuples(st.from_regex(r"[^\s:]{1,8}", fullmatch=True), st.text("ab-_", max_size=4)), unique=True))
def test_store_keys_differ(places: list[tuple[str, str]]) -> None:
    """Two ids, or one id in two namespaces, are kept in two places."""
    assert len({store_key(namespace, token) for namespace, token in places}) == len(places)


def test_store_key_does_not_hold_the_token() -> None:
    """The store's key begins with the namespace, and no part of the token is in it."""
    identity, _ = issued()
    assert identity.key.startswith("shop:session:")
    assert re.fullmatch(r"shop:session:[A-Za-z0-9_-]{43}", identity.key)
    pieces = {identity.token[at : at + 4] for at in range(40)}
    assert not any(piece in identity.key for piece in pieces)


def test_repr_hides_the_id() -> None:
    """Printing an id, or what issues them, shows neither the token nor its place in the store."""
    identity, _ = issued()
    for thing in (identity, IDENTITIES, identity.seal):
        assert identity.token not in repr(thing)
        assert identity.key not in repr(thing)
