"""Nothing a browser sends is believed unless we made it, for this name and owner; keys can be changed meanwhile."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from flask_stateful import Stateful
from flask_stateful.cookies.options import Options
from flask_stateful.cookies.tokens import Place, SealedCodec, SignedCodec, TextCodec, facts_of
from flask_stateful.sealing import OVERHEAD, Keyring
from flask_stateful.serialization import dumps, from_url_safe, url_safe
from flask_stateful.testing import FakeClock

from .conftest import SECRET, Browser, make_app

CODECS = {"sealed": SealedCodec(Keyring(SECRET), "shop"), "signed": SignedCodec(Keyring(SECRET), "shop")}
PLACE = Place("seen", "ada")
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

kinds = pytest.mark.parametrize("kind", ["sealed", "signed"])


def written(kind: str, place: Place = PLACE, **options: t.Any) -> str:
    """Return a genuine value of a cookie."""
    codec = CODECS[kind]
    return codec.write(place, codec.encode("dark", "x"), facts_of(Options().but(options), 1_900_000_000))


@kinds
def test_a_genuine_value_opens(kind: str) -> None:
    """It opens where it belongs, with all that was said about it."""
    opened = CODECS[kind].read(PLACE, written(kind, path="/a", secure=True, samesite="Strict", purpose="marketing"))
    assert opened is not None
    assert CODECS[kind].decode(opened.body) == "dark"
    payload = opened.payload
    assert payload is not None
    assert (payload.expires, payload.path, payload.domain) == (1_900_000_000, "/a", None)
    assert (payload.secure, payload.samesite, payload.purpose) == (True, "Strict", "marketing")
    assert opened.stale is False


@kinds
def test_every_flipped_bit_is_noticed(kind: str) -> None:
    """No single bit of the text can be changed."""
    text = written(kind)
    for at in range(len(text)):
        for bit in range(8):
            changed = text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1 :]
            assert CODECS[kind].read(PLACE, changed) is None, (at, bit)


@kinds
def test_every_other_character_is_noticed(kind: str) -> None:
    """No single character stands for the same bytes as another one does."""
    text = written(kind)
    for at in (*range(8), *range(len(text) - 8, len(text))):
        for char in URL_SAFE:
            if char != text[at]:
                assert CODECS[kind].read(PLACE, text[:at] + char + text[at + 1 :]) is None


@kinds
def test_every_cut_is_noticed(kind: str) -> None:
    """A value that lost something at either end is not read, nor one that has more."""
    text = written(kind)
    for at in range(1, len(text)):
        assert CODECS[kind].read(PLACE, text[at:]) is None
        assert CODECS[kind].read(PLACE, text[:-at]) is None
    for more in ("A", "AA", "AAAA", "=", ".", " x"):
        assert CODECS[kind].read(PLACE, text + more) is None


@kinds
@given(name=st.text("abcSEN_-", min_size=1), owner=st.text(max_size=5))
@example(name="seen", owner="")
@example(name="__Host-seen", owner="ada")
@example(name="Seen", owner="ada")
def test_it_opens_for_no_other_name_or_owner(kind: str, name: str, owner: str) -> None:
    """A value that was copied to another cookie, or comes with another owner, is not there."""
    assume((name, owner) != PLACE)
    assert CODECS[kind].read(Place(name, owner), written(kind)) is None
    assert CODECS[kind].read(PLACE, written(kind, Place(name, owner))) is None


@kinds
def test_name_and_owner_cannot_run_into_each_other(kind: str) -> None:
    """What belongs to the name cannot be taken for a part of the owner."""
    assert CODECS[kind].read(Place("see", "nada"), written(kind)) is None
    assert CODECS[kind].read(Place("seenada", ""), written(kind)) is None


@kinds
def test_another_key_opens_nothing(kind: str) -> None:
    """Without the secret key a value is as good as forged."""
    other = type(CODECS[kind])(Keyring("another key"), "shop")  # type: ignore[call-arg]
    assert other.read(PLACE, written(kind)) is None


def test_one_kind_is_not_taken_for_the_other() -> None:
    """A sealed value is no signed one, nor the other way round."""
    assert CODECS["signed"].read(PLACE, written("sealed")) is None
    assert CODECS["sealed"].read(PLACE, written("signed")) is None


@given(data=st.binary(max_size=200), raw=st.text(max_size=200))
def test_invented_values_are_not_there(data: bytes, raw: str) -> None:
    """Whatever is sent, nothing is raised and nothing is found."""
    for codec in CODECS.values():
        assert codec.read(PLACE, raw) is None
        assert codec.read(PLACE, url_safe(data)) is None
    opened = TextCodec().read(PLACE, raw)
    assert opened is None or isinstance(opened.body, str)


@given(st.text(URL_SAFE + "+/= .\n"))
def test_one_text_for_the_same_bytes(text: str) -> None:
    """Base64 is read only as we write it."""
    data = from_url_safe(text)
    assert data is None or url_safe(data) == text


def test_a_cookie_without_expiry_is_compact() -> None:
    """It adds 3 bytes to what sealing takes anyway: one that begins the list, two for the day."""
    body = dumps({"tour": 1})
    token = from_url_safe(CODECS["sealed"].write(PLACE, body, ()))
    assert token is not None
    assert len(token) == OVERHEAD + len(body) + 3


def test_each_name_and_day_has_a_key_of_its_own(clock: FakeClock) -> None:
    """A key is used for one name on one day, far from what random nonces allow, and yesterday's cookies still open."""
    codec = SealedCodec(Keyring(SECRET), "shop")
    before = codec.write(PLACE, dumps(1), ())
    clock.advance(24 * 3600)
    after = codec.write(PLACE, dumps(1), ())
    days = [(from_url_safe(text) or b"")[-2:] for text in (before, after)]
    assert int.from_bytes(days[1], "big") - int.from_bytes(days[0], "big") == 1
    assert codec.read(PLACE, before) is not None
    assert codec.read(PLACE, after) is not None
    mixed = (from_url_safe(after) or b"")[:-2] + days[0]
    assert codec.read(PLACE, url_safe(mixed)) is None


# Changed keys


def rotated(old: str = SECRET, new: str = "the next key", **config: t.Any) -> Browser:
    """Return a browser of the same application, after its key was changed."""
    return Browser(make_app(SECRET_KEY=new, SECRET_KEY_FALLBACKS=[old], **config))


@kinds
def test_a_rotated_key_sends_the_cookie_anew(browser: Browser, state: Stateful, kind: str, clock: FakeClock) -> None:
    """A cookie that a fallback key opens is read, and sealed with the current key in the same response."""
    jar = state.cookies if kind == "sealed" else state.cookies.signed
    options: dict[str, t.Any] = {"path": "/a", "domain": "shop.example", "samesite": "Strict", "httponly": False}
    browser.visit(lambda: jar.with_options(domain="shop.example").set("x", "1", max_age=100, **options))
    old = browser.lines[0]
    clock.advance(40)
    later = rotated()
    there = t.cast("Stateful", later.app.extensions["state"]).cookies
    jar_there = (there if kind == "sealed" else there.signed).with_options(domain="shop.example")
    assert later.ask(lambda: jar_there["x"], cookie=old.partition(";")[0]) == "1"
    (new,) = later.lines
    assert new.partition(";")[0] != old.partition(";")[0]
    assert new.partition(";")[2] == old.partition(";")[2].replace("Max-Age=100", "Max-Age=60")
    assert later.ask(lambda: jar_there["x"], cookie=new.partition(";")[0]) == "1"
    assert later.lines == []
    clock.advance(61)
    assert later.ask(lambda: jar_there.get("x"), cookie=new.partition(";")[0]) is None
    # Without the old key, only what was sealed anew is read.
    bare = Browser(make_app(SECRET_KEY="the next key"))
    assert bare.ask(lambda: bare.app.extensions["state"].cookies.get("x"), cookie=old.partition(";")[0]) is None


def test_secure_is_kept_where_a_proxy_hides_https(browser: Browser, state: Stateful) -> None:
    """A cookie that was set with ``secure=True`` is sent anew with Secure, also when the request looks like HTTP."""
    insecure = Browser(browser.app, https=False)
    insecure.visit(lambda: state.cookies.set("x", 1, secure=True))
    later = Browser(make_app(SECRET_KEY="next", SECRET_KEY_FALLBACKS=[SECRET]), https=False)
    jar = t.cast("Stateful", later.app.extensions["state"]).cookies
    assert later.ask(lambda: jar["x"], cookie=insecure.lines[0].partition(";")[0]) == 1
    assert later.lines[0].endswith("; Secure")


def test_what_a_request_writes_goes_before_sealing_anew(browser: Browser, state: Stateful) -> None:
    """A cookie that is read with an old key and then set, or removed, goes out once."""
    browser.visit(lambda: state.cookies.set("x", 1))
    old = browser.lines[0].partition(";")[0]
    later = rotated()
    jar = t.cast("Stateful", later.app.extensions["state"]).cookies
    assert later.ask(lambda: (jar["x"], jar.set("x", 2), jar["x"]), cookie=old) == (1, None, 2)
    assert len(later.lines) == 1
    assert later.ask(lambda: jar.pop("x"), cookie=old) == 1
    assert len(later.lines) == 1
    assert "Max-Age=0" in later.lines[0]


def test_sealing_anew_never_fails_a_page(browser: Browser, state: Stateful) -> None:
    """Where a response has no room for them, cookies with an old key wait for another one."""
    browser.visit(lambda: [state.cookies.set(name, "x" * 700) for name in "ab"])
    old = "; ".join(line.partition(";")[0] for line in browser.lines)
    later = rotated(STATEFUL_COOKIE_BUDGET=1500)
    jar = t.cast("Stateful", later.app.extensions["state"]).cookies
    assert later.ask(lambda: [len(jar[name]) for name in "ab"], cookie=old) == [700, 700]
    assert later.names == {"__Host-a"}


def test_a_discarded_response_seals_nothing_anew(browser: Browser, state: Stateful) -> None:
    """A 5xx sets no cookie at all."""
    browser.visit(lambda: state.cookies.set("x", 1))
    old = browser.lines[0].partition(";")[0]
    later = rotated()
    jar = t.cast("Stateful", later.app.extensions["state"]).cookies
    later.visit(lambda: (jar["x"], 1 / 0), cookie=old)
    assert later.lines == []
