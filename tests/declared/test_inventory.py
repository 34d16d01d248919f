"""``flask state inventory`` lists every declared piece of state, in three formats."""

from __future__ import annotations

import json
import typing as t
from datetime import timedelta

from flask_stateful import AppState, CookieState, LocalState, SessionState, field

from .conftest import Site


def site_with_state() -> Site:
    """Return a site that declares one class of several kinds."""

    class Prefs(LocalState, purpose="preferences"):
        theme: t.Literal["auto", "dark"] = "auto"
        draft: str = field("", max_bytes=65_536, ttl=timedelta(days=7))
        coupon: dict[str, int] | None = field(None, sealed=True)

    class Consent(CookieState, max_age=timedelta(days=180)):
        analytics: bool = False

    class Cart(SessionState):
        items: list[int] = []

    class Flags(AppState):
        closed: bool = False

    return Site(declared=[Prefs, Consent, Cart, Flags], config={"STATEFUL_NAMESPACE": "my.shop"})


def run(site: Site, *arguments: str) -> str:
    """Return what the command prints."""
    done = site.app.test_cli_runner().invoke(args=["state", "inventory", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_json_has_every_fact() -> None:
    """Each class is listed with place, purpose, lifetime, size cap, seal and types."""
    listed = {item["name"]: item for item in json.loads(run(site_with_state(), "--format", "json"))}
    assert listed["prefs"] == {
        "name": "prefs",
        "place": "localStorage",
        "purpose": "preferences",
        "lifetime": "until it is deleted",
        "max_bytes": 65_536,
        "sealed": "coupon",
        "content": {
            "theme": "Literal['auto', 'dark']",
            "draft": "str; 65,536 bytes at most; kept 7 days",
            "coupon": "dict[str, int] | None",
        },
    }
    assert (listed["consent"]["lifetime"], listed["consent"]["sealed"]) == ("180 days", "yes")
    assert listed["consent"]["max_bytes"] == 4096
    assert listed["cart"]["lifetime"] == "31 days after its last use"
    assert (listed["flags"]["place"], listed["flags"]["max_bytes"]) == ("store (server)", None)


def test_our_own_cookies_are_listed() -> None:
    """The session's cookie is always listed, those of browser state where there is some."""
    names = [item["name"] for item in json.loads(run(site_with_state(), "--format", "json"))]
    assert names[:4] == ["cart", "consent", "flags", "prefs"]
    assert names[4] == "session"
    assert {name.removeprefix("fs.my-shop.") for name in names[5:]} == {
        "_q.<tab>",
        "<name>.<field>",
        "_t",
        "_p",
        "_b",
        "_u",
        "_c",
    }
    bare = Site(declared=[])
    assert [item["name"] for item in json.loads(run(bare, "--format", "json"))] == ["session"]


def test_the_table_is_aligned() -> None:
    """By default there are columns, one line for each piece."""
    heading, *lines = run(site_with_state()).splitlines()
    column = heading.index("purpose")
    assert len(lines) == 12
    assert {line[column:].split(" ")[0] for line in lines} == {"necessary", "preferences"}


def test_markdown_is_a_table() -> None:
    """Every row has as many cells, and nothing in it is taken for markup."""
    rows = run(site_with_state(), "--format", "markdown").splitlines()
    assert {row.replace("\\|", "").count("|") for row in rows} == {8}
    assert rows[1] == "| --- | --- | --- | --- | --- | --- | --- |"
    assert not any("<" in row for row in rows)


def test_duplicates_are_told() -> None:
    """Two classes of one name, which one application never uses both, are told here."""

    class Prefs(AppState):
        x: int = 0

    class Other(AppState, name="prefs"):
        x: int = 0

    site = Site()
    site.app.extensions["stateful"].declared._used = {"a": Prefs._model, "b": Other._model}
    done = site.app.test_cli_runner().invoke(args=["state", "inventory"])
    assert done.exit_code == 1
    assert "both called 'prefs'" in done.output


def test_an_unknown_format_is_refused() -> None:
    """There are three formats."""
    done = Site(declared=[]).app.test_cli_runner().invoke(args=["state", "inventory", "--format", "xml"])
    assert done.exit_code == 2
