"""What is said to who writes something wrong, and to who sends it."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from flask_stateful import ConfigError, LocalState, Stateful, field
from tests.browser.support import Prefs, Tab, make_app


def declare(body: dict[str, t.Any] | None = None, **keywords: t.Any) -> t.Any:
    """Declare a class with one field."""
    body = body or {"x": 0}
    namespace = {"__module__": __name__, "__qualname__": "<locals>.Wrong", "__annotations__": dict.fromkeys(body, int)}
    return type(LocalState)("Wrong", (LocalState,), {**namespace, **body}, **keywords)


@pytest.mark.parametrize(
    ("mistake", "advice"),
    [
        (lambda: declare(name=5), 'name="prefs"'),
        (lambda: declare(shared="yes"), "write True or False"),
        (lambda: field(0, tttl=5), "no option 'tttl'"),
        (lambda: declare({"x": field(0, max_bytes=t.cast("t.Any", "5"))}), "write a number of bytes above 0"),
        (lambda: declare({"x": field(0, sealed=t.cast("t.Any", "yes"))}), "write True or False"),
        (lambda: declare({"x": field(0, mirror=t.cast("t.Any", "yes"))}), "write True or False"),
        (lambda: Prefs(theme="dark"), r"handle\.theme = \.\.\."),
        (lambda: Stateful(Flask("x"), user_id=t.cast("t.Any", "ada")), "user_id=lambda"),
        (lambda: Stateful(Flask("x"), declared=t.cast("t.Any", Prefs)), r"declared=\[Prefs\]"),
        (lambda: Stateful().reset(Prefs(), t.cast("t.Any", 3)), r"state\.reset\(prefs, 'theme'\)"),
        (lambda: Stateful().known(Prefs(), t.cast("t.Any", 3)), "named by text, not int"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(mistake: t.Callable[[], t.Any], advice: str) -> None:
    """It is a TypeError where it is made."""
    with pytest.raises(TypeError, match=advice):
        mistake()


def test_a_cookie_for_no_known_purpose_is_refused() -> None:
    """Nobody could agree to it, so it would be dropped without a word."""
    state = t.cast("t.Any", make_app()).state
    with pytest.raises(ValueError, match="purpose= must be 'necessary', 'preferences', 'analytics' or 'marketing'"):
        state.cookies.with_options(purpose="evil")


@pytest.mark.parametrize("name", ["constructor", "then", "toJSON", "hasOwnProperty", "valueOf"])
def test_names_that_javascript_asks_any_object_for_are_refused(name: str) -> None:
    """The module could not tell the field from what objects have."""
    with pytest.raises(ConfigError, match=name):
        make_app(declare({name: 0})).test_client().get("/_state/client.js")


@pytest.mark.parametrize("origin", ["http://[::", "http://[x]", "null", "", "//", "http://localhost.evil"])
def test_an_origin_that_is_none_of_ours_is_refused(origin: str) -> None:
    """Whatever it is made of."""
    tab = Tab(make_app().test_client())
    assert tab.send({}, headers={"X-State": "1", "Origin": origin}).status_code == 403
