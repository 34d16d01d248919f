"""Messages: what was sent comes back, and whatever else arrives is no message."""

from __future__ import annotations

import base64
import json
import random
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stateful.browser import wire
from flask_stateful.browser.registers import MAX_COUNT, Register, Write
from flask_stateful.browser.wire import Patch, Push
from flask_stateful.serialization import url_safe

COUNTS = st.integers(0, MAX_COUNT)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=8,
)
VALUES = st.none() | JSON.map(lambda value: json.dumps(value, separators=(",", ":")).encode())
NAMES = st.from_regex(r"[a-z_]{1,9}\.[a-z]{1,9}(~[2-9])?", fullmatch=True)


def push_json(push: Push) -> bytes:
    """Write a push as client.js does."""
    parts = {
        name: [*([] if value is None else [json.loads(value)]), base, write]
        for name, (value, base, write) in push.writes.items()
    }
    message = {"t": push.tab, "u": push.owner, "p": parts, "q": int(push.memory), "g": int(push.pull)}
    return json.dumps(message, separators=(",", ":")).encode()


@given(
    st.dictionaries(NAMES, st.builds(Write, VALUES, COUNTS, COUNTS), max_size=5),
    st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    st.sampled_from(["", "aZ09_-xy"]),
    st.booleans(),
    st.booleans(),
)
def test_a_push_comes_as_it_was_sent(writes: dict[str, Write], tab: str, owner: str, memory: bool, pull: bool) -> None:
    """Every value, counter and flag of a push is read."""
    push = Push(tab, owner, writes, memory, pull)
    parsed = wire.parse_push(push_json(push))
    assert parsed is not None
    assert parsed._replace(writes={}) == push._replace(writes={})
    assert {name: (json.loads(value or b"0"), *rest) for name, (value, *rest) in parsed.writes.items()} == {
        name: (json.loads(value or b"0"), *rest) for name, (value, *rest) in writes.items()
    }


@given(st.builds(Register, VALUES, COUNTS, COUNTS))
def test_a_mirror_cookie_comes_back(register: Register) -> None:
    """What is written into a mirror cookie is read from it, and browsers take it as a cookie's value."""
    cookie = wire.encode_mirror(register)
    assert wire.parse_mirror(cookie) == register
    assert set(cookie) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.binary(max_size=200))
def test_base64url_comes_back(data: bytes) -> None:
    """It is what RFC 4648 says, without padding."""
    text = url_safe(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert wire.from_base64url(text) == data


@pytest.mark.parametrize("text", ["a", "ab=c", "YQ==", "a b", "ä", "Y+8", "Y/8", "\ud800", "YQ\n", "\x00abc"])
def test_what_is_no_base64url_is_nothing(text: str) -> None:
    """Padding, other alphabets and impossible lengths are refused rather than skipped."""
    assert wire.from_base64url(text) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"t":5}',
        b'{"t":"0123456"}',
        b'{"t":"0123456G"}',
        b'{"t":"01234567\\n"}',
        b'{"t":"01234567","u":"short"}',
        b'{"t":"01234567","u":"<script>"}',
        b'{"t":"01234567","q":true}',
        b'{"t":"01234567","g":2}',
        b'{"t":"01234567","p":[]}',
        b'{"t":"01234567","p":{"a":5}}',
        b'{"t":"01234567","p":{"a":[]}}',
        b'{"t":"01234567","p":{"a":[1]}}',
        b'{"t":"01234567","p":{"a":[1,-2,3]}}',
        b'{"t":"01234567","p":{"a":[1,2,-3]}}',
        b'{"t":"01234567","p":{"a":[1,2.0,3]}}',
        b'{"t":"01234567","p":{"a":[1,2,1e3]}}',
        b'{"t":"01234567","p":{"a":[1,2,"3"]}}',
        b'{"t":"01234567","p":{"a":[1,2,%s]}}' % (b"9" * 5000),
        b'{"t":"01234567","p":{"a":[NaN,1,2]}}',
        b'{"t":"01234567","p":{"a":["\\ud800",1,2]}}',
        b'{"t":"01234567","p":{"a":[%s1%s,1,2]}}' % (b"[" * 20_000, b"]" * 20_000),
        b'{"t":"01234567","p":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
        b'{"t":"01234567"} x',
        b"\xff\xfe",
    ],
)
def test_what_is_no_push_is_nothing(body: bytes) -> None:
    """Wrong types, arities, counters, nesting and encodings are no message, and no exception."""
    assert wire.parse_push(body) is None


@pytest.mark.parametrize("count", [MAX_COUNT + 1, 2**53, 2**64, 10**20])
def test_counters_end_where_those_of_javascript_do(count: int) -> None:
    """A counter that is larger is read as the largest, so that nobody can drive one to where it cannot be written."""
    parsed = wire.parse_push(b'{"t":"01234567","p":{"a":[1,%d,%d]}}' % (count, count))
    assert parsed is not None
    assert parsed.writes["a"] == Write(b"1", MAX_COUNT, MAX_COUNT)


def test_of_a_name_sent_twice_the_last_counts() -> None:
    """As in JavaScript."""
    parsed = wire.parse_push(b'{"t":"01234567","p":{"a":[1,2,3],"a":[4,5,6]}}')
    assert parsed is not None
    assert parsed.writes == {"a": Write(b"4", 5, 6)}


def mangled(seed: int) -> bytes:
    """Return a push that was damaged somewhere."""
    chance = random.Random(seed)
    writes = {f"prefs.f{i}": Write(b'{"a":[1,"x"]}', i, i) for i in range(3)}
    data = bytearray(push_json(Push("01234567", "", writes)))
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = chance.choice([b"\\", b'"', b"[", b"}", b"\\ud800", b"1e9", b"NaN", b"\x00", b"-", b"," * 9])
        else:
            data[at:at] = data[: chance.randrange(len(data))]
    return bytes(data)


def test_thousands_of_damaged_messages_are_read_or_refused() -> None:
    """No damage raises; whatever is read has sound counters, tab and owner."""
    refused = 0
    for seed in range(6000):
        parsed = wire.parse_push(mangled(seed))
        if parsed is None:
            refused += 1
            continue
        assert wire.is_tab(parsed.tab)
        assert wire.is_owner(parsed.owner)
        assert all(0 <= count <= MAX_COUNT for sent in parsed.writes.values() for count in sent[1:])
    assert 1000 < refused < 6000


@given(st.text(max_size=60) | st.binary(max_size=60).map(url_safe))
def test_any_mirror_cookie_is_read_or_refused(text: str) -> None:
    """Whatever stands in a mirror cookie, nothing is raised."""
    register = wire.parse_mirror(text)
    assert register is None or 0 <= register.revision <= MAX_COUNT


def patch_of(count: int, size: int = 10) -> Patch:
    """Return a patch with registers of growing size."""
    patch = Patch("01234567")
    for i in range(count):
        patch.tell(f"prefs.f{i}", Register(json.dumps("x" * (size + i)).encode(), i + 1, 2))
    patch.held = {f"prefs.f{i}": i + 1 for i in range(count)}
    return patch


def test_a_patch_says_what_it_was_told() -> None:
    """Every part of a patch is written; what is empty is left out."""
    patch = Patch("01234567", "abcdefgh")
    assert json.loads(patch.encode()) == {"t": "01234567", "u": "abcdefgh"}
    patch.new_tab = True
    patch.acknowledged["prefs.a"] = (7, 8)
    patch.tell("prefs.b", Register(b'"x"', 1, 2))
    patch.tell("prefs.c", Register(None, 3, 4))
    patch.tell("prefs.d", Register(b"[5]", 5, 6), 1.5)
    patch.held = {}
    patch.omitted = ["prefs.e"]
    assert json.loads(patch.encode()) == {
        "t": "01234567",
        "u": "abcdefgh",
        "new": 1,
        "a": {"prefs.a": [7, 8]},
        "p": {"prefs.b": ["x", 1, 2], "prefs.c": [3, 4], "prefs.d": [[5], 5, 6, 1.5]},
        "x": ["prefs.e"],
        "h": {},
    }


@pytest.mark.parametrize(("limit", "encode"), [(3000, url_safe), (8192, wire.island_text)])
@pytest.mark.parametrize(("count", "size"), [(1, 9000), (30, 1000), (900, 3)])
def test_a_patch_never_exceeds_its_carrier(limit: int, encode: t.Any, count: int, size: int) -> None:
    """What does not fit is named, to be pulled; the small registers are still sent."""
    text = patch_of(count, size).fitting(limit, encode)
    message = json.loads(wire.from_base64url(text) or b"") if encode is url_safe else json.loads(text)
    assert len(text) <= limit
    assert {*message.get("p", {}), *message.get("x", [])} in ({f"prefs.f{i}" for i in range(count)}, {"*"})


@given(st.lists(st.text(st.sampled_from("</script>!-<&\u2028\u2029]]>\"'\\ \n"), max_size=40), max_size=5))
def test_an_island_cannot_be_left(values: list[str]) -> None:
    """Whatever a value holds, the island has no character that a page or a script would take for its end."""
    patch = Patch("01234567")
    for i, value in enumerate(values):
        patch.tell(f"prefs.f{i}", Register(json.dumps(value, ensure_ascii=False).encode(), 1, 1))
    text = wire.island_text(patch.encode())
    assert not set(text) & set("<>&\u2028\u2029")
    assert [register[0] for register in json.loads(text).get("p", {}).values()] == values
