"""Bad cookies of every kind, through a real application: the page answers, with its defaults."""

from __future__ import annotations

import random
import re
import typing as t

import pytest

from flask_stateful import Stateful
from flask_stateful.cookies.tokens import Place, SealedCodec
from flask_stateful.sealing import Keyring

from .conftest import SECRET, Browser, make_app

#: So many bad cookies are sent.
TIMES: t.Final = 3000


def spoilt(genuine: str, chance: random.Random) -> str:
    """Return a genuine value with something wrong with it."""
    at, other = chance.randrange(len(genuine)), chance.randrange(len(genuine))
    return chance.choice(
        [
            genuine[:at],
            genuine[at + 1 :],
            genuine[:at] + chr(ord(genuine[at]) ^ 1 << chance.randrange(7)) + genuine[at + 1 :],
            genuine[:at] + "\xff\xfe" + genuine[at:],
            genuine[:at] + genuine[other:] + "x",
            genuine * chance.randrange(2, 30),
            f'"{genuine}',
            f'"{genuine}\\',
            "\\377" * at,
            '"\\377\\400"',
            "".join(chr(chance.randrange(256)) for _ in range(at)),
            "é" * at,
            "A" * 5000,
            "",
            "=",
            "." * at,
            "..",
            chance.randbytes(at).hex(),
        ]
    )


@pytest.mark.parametrize("kind", ["sealed", "signed"])
def test_thousands_of_bad_cookies(kind: str) -> None:
    """Forged, cut, foreign, doubled, too long, not ASCII: status 200 and the default, each time, and nothing sent."""
    browser = Browser(app := make_app())
    cookies = t.cast("Stateful", app.extensions["state"]).cookies
    jar, wire = (cookies, "__Host-x") if kind == "sealed" else (cookies.signed, "x")
    browser.visit(lambda: jar.set("x", "value"))
    genuine = browser.sent(wire)
    chance = random.Random(4)
    for _ in range(TIMES):
        value = re.sub(r"[;\r\n]", "", spoilt(genuine, chance))
        found = browser.ask(lambda: (jar.get("x", "default"), "x" in jar), cookie=f"a=1; {wire}={value}; b=2")
        assert found == ("default", False), value
        assert browser.lines == []


def test_thousands_of_bad_headers() -> None:
    """Whatever stands in the whole header, every jar answers."""
    browser = Browser(app := make_app())
    cookies = t.cast("Stateful", app.extensions["state"]).cookies
    chance = random.Random(5)
    for _ in range(TIMES):
        header = "".join(chance.choice('x=;" \\,\t\xff\xc3__Host-\x00aZ9.%') for _ in range(chance.randrange(200)))
        header = header.replace("\x00", "")
        found = browser.ask(lambda: (cookies.get("x"), cookies.signed.get("x"), cookies.plain.get("x")), cookie=header)
        assert found[:2] == (None, None)
        assert found[2] is None or isinstance(found[2], str)


def test_the_first_readable_of_several_counts(browser: Browser, state: Stateful) -> None:
    """Bad ones before it do no harm, and at most four are looked at."""
    browser.visit(lambda: state.cookies.set("x", 1))
    one = browser.sent("__Host-x")
    browser.visit(lambda: state.cookies.set("x", 2))
    two = browser.sent("__Host-x")
    for before, expected in ((0, 1), (3, 1), (4, None)):
        header = "; ".join([*["__Host-x=bad"] * before, f"__Host-x={one}", f"__Host-x={two}"])
        assert browser.ask(lambda: state.cookies.get("x"), cookie=header) == expected


def test_a_genuine_seal_around_something_else(browser: Browser, state: Stateful) -> None:
    """What opens and is no cookie of this version, or holds no value, is not there; the next one is looked at."""
    browser.visit(lambda: state.cookies.set("x", 1))
    good = browser.sent("__Host-x")
    codec, place = SealedCodec(Keyring(SECRET), "shop"), Place("__Host-x", "")
    for bad in (
        codec.write(place, b"\xd4\x63\x00", ()),  # an extension type that nobody knows
        codec.write(place, b"\x01", ("not a time",)),
        codec.write(place, b"\x01", (None, False, 7)),
    ):
        assert browser.ask(lambda bad=bad: state.cookies.get("x"), cookie=f"__Host-x={bad}") is None
        twins = f"__Host-x={bad}; __Host-x={good}"
        assert browser.ask(lambda twins=twins: state.cookies.get("x"), cookie=twins) == 1


def test_a_name_that_cannot_be_is_not_found(browser: Browser, state: Stateful) -> None:
    """A name with ``=`` in it is not the beginning of a value."""
    assert browser.ask(lambda: state.cookies.plain.get("a=b"), cookie="a=b=c") is None
    assert browser.ask(lambda: state.cookies.plain.get("a"), cookie="a=b=c") == "b=c"


def test_plain_text_that_is_no_text(browser: Browser, state: Stateful) -> None:
    """Bytes that are not UTF-8 are not there; those that are, are read."""
    assert browser.ask(lambda: state.cookies.plain.get("x"), cookie="x=\xff") is None
    assert browser.ask(lambda: state.cookies.plain.get("x"), cookie="x=" + "ä".encode().decode("latin-1")) == "ä"
    assert browser.ask(lambda: state.cookies.plain.get("x"), cookie="x=" + "a" * 4095) == "a" * 4095
    assert browser.ask(lambda: state.cookies.plain.get("x"), cookie="x=" + "a" * 4096) is None
