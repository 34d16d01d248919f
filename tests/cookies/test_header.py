"""Cookies are found in any header, and their text is quoted so that it comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import parse_cookie

from flask_stateful.cookies.header import CookieFinder, all_spellings, quote, unquote, without_prefix

NAMES = st.sampled_from(["session", "Session", "xsession", "session2", "__Host-session", "a.b", "aXb", "$x"])
TOKENS = st.text("abcXYZ0123456789._-", max_size=12)


def find(name: str, header: str) -> list[str]:
    """Return what is found in a header."""
    return CookieFinder(name).values({"HTTP_COOKIE": header})


@given(st.lists(st.tuples(NAMES, TOKENS), max_size=8), NAMES, st.sampled_from(["; ", ";", " ;  "]))
def test_finds_what_werkzeug_finds(cookies: list[tuple[str, str]], name: str, between: str) -> None:
    """In any header that a browser sends, the values of a name are those that parsing the whole header gives."""
    header = between.join(f"{key}={value}" for key, value in cookies)
    assert find(name, header) == parse_cookie(header).getlist(name)[:4]


def test_nothing_is_found_in_nothing() -> None:
    """Without a cookie header there is no value."""
    assert CookieFinder("session").values({}) == []
    assert find("session", "") == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("session=a", ["a"]),
        ("session=a; other=b", ["a"]),
        ("other=b; session=a", ["a"]),
        ("session=a; session=b", ["a", "b"]),
        ('session="a"', ["a"]),
        ("session= a ; x=y", ["a"]),
        ("session=", [""]),
        ("xsession=a; session2=b; Session=c", []),
        ("x=session=a", []),
        ("x=1,session=a", []),
        ("session", []),
        ("session=a; " * 9, ["a"] * 4),
        ("=a; session=b;;; =", ["b"]),
    ],
)
def test_twins_quotes_and_neighbours(header: str, expected: list[str]) -> None:
    """All values of the name are found in order, at most four, quoted or not, and those of no similar name."""
    assert find("session", header) == expected


@given(st.text())
def test_no_header_breaks_it(header: str) -> None:
    """Whatever the header holds, nothing is raised and nothing is found that is not in it."""
    assert all(value in header for value in find("session", header))


@pytest.mark.parametrize(
    "header",
    [
        "session=" + " " * 50_000 + 'a"b',
        "session=" + " " * 50_000 + "a" + " " * 50_000 + '"b',
        ('session="a" ' * 5000) + "b",
        "session" * 10_000,
        "session=" * 10_000,
        ";" * 100_000,
        ";" + " " * 100_000 + "x",
        '"' * 100_000,
    ],
    ids=range(8),
)
def test_long_header_is_read_in_linear_time(header: str) -> None:
    """A header that is far longer than servers take, and made to go wrong, is read at once."""
    # What is not linear would take longer than the tests may.
    assert all(value in header for value in find("session", header))


def test_a_name_and_its_prefixes() -> None:
    """A name is the same with each prefix that browsers know, and what was sent under any of them is found."""
    names = ["x", "__Host-x", "__Host-Http-x", "__Http-x", "__Secure-x"]
    assert {without_prefix(name) for name in names} == {"x"}
    assert without_prefix("__host-x") == "__host-x"
    assert without_prefix("__x") == "__x"
    header = "; ".join(f"{name}={number}" for number, name in enumerate(names))
    assert sorted(all_spellings({"HTTP_COOKIE": header}, "x")) == ["0", "1", "2", "3", "4"]


@given(st.text(max_size=100))
def test_quoting_is_undone(text: str) -> None:
    """What is quoted is ASCII without separators, and comes back, by Werkzeug's parser as well."""
    quoted = quote(text)
    assert quoted.isascii()
    assert not set(quoted) & set(";,\r\n\x00")
    assert unquote(quoted) == text
    assert parse_cookie(f"x={quoted}")["x"] == text


@given(st.text(max_size=100))
def test_unquoting_never_fails(raw: str) -> None:
    """Any text has a value or none."""
    found = unquote(raw)
    assert found is None or isinstance(found, str)


@pytest.mark.parametrize("raw", ['"' * 100_000, '"' + "\\" * 100_000 + '"', '"' + "\\3" * 100_000 + '"', " " * 100_000])
def test_long_text_is_unquoted_in_linear_time(raw: str) -> None:
    """Text that is far longer than a cookie, and made to go wrong, is read at once."""
    # What is not linear would take longer than the tests may.
    assert unquote(raw) is not None
