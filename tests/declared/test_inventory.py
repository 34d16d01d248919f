"""``flask state inventory`` lists every declared piece of state, in three formats."""

from __future__ import annotations

import json
import re
import typing as t
from datetime import timedelta

from flask_stateful import AppState, CookieState, LocalState, SessionState, TabState, field
from flask_stateful.declared.classes import State
from flask_stateful.inventory import Item, inventory
from flask_stateful.wiring import current_wiring

from .conftest import Site


def site_with_state() -> Site:
    """Return a site that declares one class of several kinds."""

    class Prefs(LocalState, purpose="preferences"):
        """How the visitor
        likes it.

        Nobody else needs to know this.
        """

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
        "about": "How the visitor likes it.",
        "fields": {
            "theme": "Literal['auto', 'dark']",
            "draft": "str; 65,536 bytes at most; kept 7 days",
            "coupon": "dict[str, int] | None",
        },
    }
    assert (listed["consent"]["lifetime"], listed["consent"]["sealed"]) == ("180 days", "sealed")
    assert listed["consent"]["max_bytes"] == 4096
    assert listed["cart"]["lifetime"] == "31 days after its last use"
    assert (listed["flags"]["place"], listed["flags"]["max_bytes"]) == ("store (server)", None)


def own(*declared: type[State]) -> dict[str, Item]:
    """Return what of ours an application with these classes lists, by what follows the namespace."""
    site = Site(declared=list(declared), config={"STATEFUL_NAMESPACE": "my.shop"})
    with site.app.app_context():
        items = site.state.inventory()
    return {re.sub("^fs[.]my-shop[.]|^fs:my-shop", "", item.name): item for item in items[len(declared) :]}


def test_our_own_cookies_come_last() -> None:
    """The declared classes are listed by name, then the session's cookie, which is always needed, and our others."""
    names = [item["name"] for item in json.loads(run(site_with_state(), "--format", "json"))]
    assert names[:5] == ["cart", "consent", "flags", "prefs", "session"]
    assert names[5:]
    assert all(name.startswith(("fs.my-shop.", "fs:my-shop:")) for name in names[5:])
    assert list(own()) == ["session"]


def test_only_what_is_needed_is_listed() -> None:
    """Each cookie and entry of our own is listed where a declared class needs it, and not otherwise."""

    class Theme(LocalState):
        name: t.Literal["light", "dark"] = "light"

    class Draft(LocalState, version=1):
        text: str = ""

    class Wizard(TabState):
        step: int = 1

    class Visits(AppState, purpose="analytics"):
        count: int = 0

    browser = {"session", "_u", ":_u", ":_t"}
    assert set(own(Theme)) == {*browser, "theme.name"}
    assert set(own(Draft)) == {*browser, "_b", "_q.<tab>", "_p"}
    assert set(own(Wizard)) == {*browser, "_b", "_q.<tab>", "_p", "_p.<tab>", "_t"}
    assert set(own(Visits)) == {"session", "_c"}


def test_a_mirror_cookie_is_kept_for_what_its_class_is_kept_for() -> None:
    """The cookie of a small field has the purpose of its class, and ends with the field."""

    class Taste(LocalState, purpose="marketing"):
        colour: t.Literal["red", "blue"] = "red"
        size: t.Annotated[int, "in cm"] = field(0, ttl=timedelta(days=7))

    listed = own(Taste)
    assert listed["taste.colour"] == Item(
        name="fs.my-shop.taste.colour",
        place="cookie",
        purpose="marketing",
        lifetime="400 days",
        max_bytes=256,
        sealed="no",
        about="shows taste.colour to the server",
    )
    assert listed["taste.size"].lifetime == "7 days"


def test_consent_is_kept_as_long_as_the_inventory_says() -> None:
    """The lifetime of the cookie with the visitor's answer is what its response says."""

    class Visits(CookieState, purpose="analytics"):
        count: int = 0

    site = Site(declared=[Visits])
    with site.app.test_request_context():
        site.state.consent.grant("analytics")
        response = site.app.process_response(site.app.make_response(""))
    days = int(own(Visits)["_c"].lifetime.removesuffix(" days"))
    assert f"Max-Age={days * 24 * 3600};" in response.headers["Set-Cookie"]


def test_state_that_ends_by_itself_says_when() -> None:
    """Local state of which every field has an end is kept until the last of them, not until it is deleted."""

    class Seen(LocalState):
        pages: list[str] = field(default_factory=list[str], ttl=timedelta(days=30))
        words: list[str] = field(default_factory=list[str], ttl=timedelta(days=7))

    with Site(declared=[Seen]).app.app_context():
        assert inventory(current_wiring())[0].lifetime == "30 days"


def test_the_table_is_aligned() -> None:
    """By default there are columns, one line for each piece."""
    heading, *lines = run(site_with_state()).splitlines()
    column = heading.index("purpose")
    assert len(lines) == 4 + 1 + 8
    assert {line[column:].split(" ")[0] for line in lines} == {"necessary", "preferences"}


def test_markdown_is_a_table() -> None:
    """Every row has as many cells, and nothing in it is taken for markup."""
    rows = run(site_with_state(), "--format", "markdown").splitlines()
    assert {row.replace("\\|", "").count("|") for row in rows} == {9}
    assert rows[1] == f"| {' | '.join(['---'] * 8)} |"
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
