"""Whose a browser's state is, what it cannot read, and what earlier versions have left in it."""

from __future__ import annotations

import typing as t

import pytest

from flask_stateful import ConfigError, LocalState, field, migrate
from flask_stateful.browser import wire
from flask_stateful.browser.registers import Register
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, Fault, FaultyStore
from tests.browser.support import NOW, Tab, encoded, make_app

# Owners


@pytest.fixture
def tab() -> Tab:
    """A tab of a browser that was never here."""
    return Tab(make_app().test_client())


def login(tab: Tab, user: str, **query: t.Any) -> None:
    """Sign a user in, and take the new owner's tag as the browser does."""
    tab.client.post(f"/login/{user}", query_string=query)
    tab.owner = tab.cookie("_u") or ""


def fill(tab: Tab) -> None:
    """Have Python write one value of each kind."""
    for model, name, value in (
        ("Prefs", "theme", "dark"),
        ("Prefs", "draft", "mine"),
        ("Wizard", "step", 5),
        ("Look", "dense", True),
        ("Look", "layout", "wide"),
    ):
        tab.write(model, name, value)
    tab.owner = tab.cookie("_u") or ""


def held(tab: Tab) -> list[t.Any]:
    """Return what Python reads of these."""
    names = (("Prefs", "theme"), ("Prefs", "draft"), ("Wizard", "step"), ("Look", "dense"), ("Look", "layout"))
    return [tab.read(*name) for name in names]


def test_login_takes_over_what_nobodys_user_has_left(tab: Tab) -> None:
    """As an anonymous visitor's session is taken over."""
    fill(tab)
    login(tab, "ada")
    assert len(tab.owner) == 8
    assert held(tab) == ["dark", "mine", 5, True, "wide"]


@pytest.mark.parametrize("status", [200, 500])
def test_logout_removes_what_belongs_to_the_user(tab: Tab, status: int) -> None:
    """Mirror cookies, records and tag go at once, whatever becomes of the request; what is shared stays."""
    login(tab, "ada")
    fill(tab)
    tab.client.post(f"/logout?status={status}")
    assert tab.cookie("_u") is None
    assert tab.cookie("prefs.theme") is None
    assert held(tab) == ["auto", "", 1, True, "wide"]
    login(tab, "ada")
    assert held(tab) == ["auto", "", 1, True, "wide"]


def test_another_user_gets_nothing_of_the_one_before(tab: Tab) -> None:
    """Also without a logout between, and although the page of the first still sends its entries."""
    login(tab, "ada")
    fill(tab)
    adas = tab.owner
    login(tab, "bob")
    assert tab.owner != adas
    assert held(tab) == ["auto", "", 1, True, "wide"]
    tab.owner = adas
    answer = tab.sync({"prefs.draft": ["ada's", 0, NOW], "wizard.step": [9, 0, NOW], "look.layout": ["w", 0, NOW]})
    assert answer["a"].keys() == {"look.layout"}
    assert answer["u"] == tab.cookie("_u")
    tab.outbox({"prefs.draft": ["ada's", 0, NOW]})
    assert tab.read("Prefs", "draft") == ""


def test_a_login_that_is_discarded_changes_no_owner(tab: Tab) -> None:
    """A 5xx keeps neither the session nor the tag."""
    fill(tab)
    login(tab, "ada", status=500)
    assert tab.owner == ""
    assert held(tab) == ["dark", "mine", 5, True, "wide"]


# Sealed fields


def _declare_sealed() -> t.Any:
    """Declare classes that belong to no other application of this process."""

    class Shop(LocalState):
        """What the browser holds and cannot read."""

        coupon: dict[str, int] = field(default_factory=dict, sealed=True)
        credit: int = field(0, sealed=True, fresh=True)
        trial: str = field("", sealed=True, ttl=60)

    return Shop


Shop = _declare_sealed()


def token_of(tab: Tab, name: str) -> tuple[str, int, int]:
    """Return what the browser holds of a sealed field."""
    return tuple(tab.sync({}, g=1)["p"][name])


def forget(tab: Tab) -> None:
    """Lose the server's copy, and keep what it knows of freshness."""
    store = t.cast("MemoryStore", tab.client.application.extensions["stateful"].default_store)
    for key in list(store.scan("")):
        if "fresh" not in key:
            store.delete(key)


@pytest.fixture
def shop() -> Tab:
    """A tab of a browser with sealed fields."""
    return Tab(make_app(Shop).test_client())


def test_a_sealed_field_is_read_by_python_and_by_nobody_else(shop: Tab) -> None:
    """The browser gets a token, and gives it back after the server has lost its copy."""
    shop.write("Shop", "coupon", {"summer": 20})
    token, revision, write = token_of(shop, "shop.coupon")
    assert "summer" not in token
    forget(shop)
    assert shop.read("Shop", "coupon") == {}
    assert "shop.coupon" in shop.sync({"shop.coupon": [token, revision, write]})["a"]
    assert shop.read("Shop", "coupon") == {"summer": 20}


@pytest.mark.parametrize("forged", ["", "x", "AAAA" * 20, 5, None, {"a": 1}])
def test_a_forged_token_is_refused(shop: Tab, forged: t.Any) -> None:
    """The browser is told what stands."""
    shop.write("Shop", "coupon", {"summer": 20})
    token, revision, _ = token_of(shop, "shop.coupon")
    answer = shop.sync({"shop.coupon": [forged, revision, NOW * 2]})
    assert answer["p"]["shop.coupon"][0] == token
    assert shop.read("Shop", "coupon") == {"summer": 20}


def test_a_token_opens_in_no_other_field_browser_or_account(shop: Tab) -> None:
    """It is bound to all of these."""
    shop.write("Shop", "credit", 5)
    token, revision, _ = token_of(shop, "shop.credit")
    assert len(shop.sync({"shop.coupon": [token, revision, NOW]})["p"]["shop.coupon"]) == 2
    other = Tab(shop.client.application.test_client())
    assert len(other.sync({"shop.credit": [token, revision, NOW]})["p"]["shop.credit"]) == 2
    login(shop, "ada")
    assert shop.read("Shop", "credit") == 0


def test_a_fresh_field_refuses_what_was_sealed_before(shop: Tab) -> None:
    """Whoever restores an earlier token, after the server has lost its copy, gets nothing for it."""
    shop.write("Shop", "credit", 100)
    rich, revision, _ = token_of(shop, "shop.credit")
    shop.write("Shop", "credit", 1)
    poor, later, _ = token_of(shop, "shop.credit")
    forget(shop)
    assert shop.sync({"shop.credit": [poor, later, NOW * 2]})["a"]
    assert shop.read("Shop", "credit") == 1
    forget(shop)
    assert len(shop.sync({"shop.credit": [rich, revision, NOW * 3]})["p"]["shop.credit"]) == 2
    shop.write("Shop", "credit", ...)
    forget(shop)
    assert len(shop.sync({"shop.credit": [poor, later, NOW * 4]})["p"]["shop.credit"]) == 2


def test_a_sealed_value_expires_inside(shop: Tab, clock: FakeClock) -> None:
    """A browser that keeps the token for longer has nothing of it."""
    shop.write("Shop", "trial", "yes")
    token, revision, _, _ = t.cast("t.Any", token_of(shop, "shop.trial"))
    clock.advance(61)
    assert len(shop.sync({"shop.trial": [token, revision, NOW * 2]})["p"]["shop.trial"]) == 2


def test_sealed_fields_outlive_a_rotation_of_keys(clock: FakeClock) -> None:
    """A fallback key still opens them, and what was read is sealed anew, for as long as it was to live."""
    store = MemoryStore()
    old = Tab(make_app(Shop, store=store).test_client())
    old.write("Shop", "coupon", {"a": 1})
    old.write("Shop", "trial", "yes")
    old.write("Shop", "credit", 7)
    before = old.sync({}, g=1)["p"]
    clock.advance(30)
    new = Tab(make_app(Shop, store=store, secret="y" * 32, SECRET_KEY_FALLBACKS=["x" * 32]).test_client())
    new.set_cookie("_b", old.cookie("_b") or "")
    assert new.read("Shop", "coupon") == {"a": 1}
    assert new.read("Shop", "trial") == "yes"
    assert new.cookie("_p") is not None
    bare = Tab(make_app(Shop, store=store, secret="y" * 32).test_client())
    bare.set_cookie("_b", new.cookie("_b") or "")
    after = bare.sync({}, g=1)["p"]
    assert after["shop.coupon"][0] != before["shop.coupon"][0]
    assert after["shop.coupon"][1] > before["shop.coupon"][1]
    assert after["shop.coupon"][2] == before["shop.coupon"][2]
    assert [bare.read("Shop", name) for name in ("coupon", "trial", "credit")] == [{"a": 1}, "yes", 0]
    assert bare.cookie("_p") is None
    clock.advance(31)
    token = after["shop.trial"][0]
    assert len(bare.sync({"shop.trial": [token, 0, NOW * 2]})["p"]["shop.trial"]) == 2


def test_a_page_does_not_fail_because_a_key_was_changed(caplog: pytest.LogCaptureFixture) -> None:
    """Where the store refuses the seal made anew, the next request tries again."""
    store = FaultyStore(MemoryStore())
    old = Tab(make_app(Shop, store=store).test_client())
    old.write("Shop", "coupon", {"a": 1})
    new = Tab(make_app(Shop, store=store, secret="y" * 32, SECRET_KEY_FALLBACKS=["x" * 32]).test_client())
    new.set_cookie("_b", old.cookie("_b") or "")
    store.fail(Fault("unavailable", "swap"))
    assert new.read("Shop", "coupon") == {"a": 1}
    assert new.cookie("_p") is None


def test_a_seal_made_anew_replaces_nothing_that_was_written_meanwhile() -> None:
    """It stands for the token that was opened, and for no other."""

    class Racing(MemoryStore):
        race: t.Callable[[], object] | None = None

        def swap(self, *args: t.Any, **named: t.Any) -> bool:
            race, self.race = self.race, None
            if race is not None:
                race()
            return super().swap(*args, **named)

    store = Racing()
    old = Tab(make_app(Shop, store=store).test_client())
    old.write("Shop", "coupon", {"a": 1})
    new = Tab(make_app(Shop, store=store, secret="y" * 32, SECRET_KEY_FALLBACKS=["x" * 32]).test_client())
    new.set_cookie("_b", old.cookie("_b") or "")
    store.race = lambda: old.write("Shop", "coupon", {"b": 2})
    assert new.read("Shop", "coupon") == {"a": 1}
    assert new.read("Shop", "coupon") == {"b": 2}


def test_what_does_not_open_is_logged_once_a_minute(
    shop: Tab, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As a value that was sealed before the user signed in, in each page from then on."""
    shop.write("Shop", "coupon", {"a": 1})
    login(shop, "ada")
    for _ in range(5):
        assert shop.read("Shop", "coupon") == {}
    assert caplog.text.count("shop.coupon") == 1
    clock.advance(61)
    shop.read("Shop", "coupon")
    assert caplog.text.count("shop.coupon") == 2


def test_a_fresh_field_needs_a_store_that_forgets_nothing() -> None:
    """A store that evicts would let old tokens be new again."""

    class Forgetful(MemoryStore):
        durable = False  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"Shop.credit is fresh"):
        make_app(Shop, store=Forgetful()).test_client().get("/_state/client.js")


# Earlier versions


def _declare_versions() -> t.Any:
    """Declare classes that belong to no other application of this process."""

    class Theme(LocalState, version=3):
        """Version 1 had ``dark: bool``, version 2 ``colour: str``."""

        theme: t.Literal["auto", "light", "dark"] = "auto"
        note: str = ""

    @migrate(Theme, 1)
    def _dark_became_colour(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return {**old, "colour": "black" if old.pop("dark", False) else "white"}

    @migrate(Theme, 2)
    def _colour_became_theme(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return {**old, "theme": "dark" if old.pop("colour", "") == "black" else "light"}

    return Theme


Theme = _declare_versions()


@pytest.fixture
def versions() -> Tab:
    """A tab of a browser that was here before."""
    return Tab(make_app(Theme).test_client())


def test_a_mirror_of_an_earlier_version_is_migrated(versions: Tab) -> None:
    """The result is written, and the old cookie reset, so that it happens once."""
    versions.set_cookie("theme.dark", encoded([True, 1, 1]))
    assert versions.read("Theme", "theme") == "dark"
    assert versions.mirror("theme.theme~3") is not None
    assert t.cast("Register", versions.mirror("theme.dark")).value is None
    assert versions.read("Theme", "theme") == "dark"


@pytest.mark.parametrize("carrier", ["outbox", "endpoint"])
def test_what_an_earlier_version_has_sent_is_migrated(versions: Tab, carrier: str) -> None:
    """The latest of several versions counts; the others are only reset."""
    writes = {"theme.dark": [False, 0, NOW], "theme.colour~2": ["black", 0, NOW], "theme.note~2": ["n", 0, NOW]}
    if carrier == "endpoint":
        versions.sync(writes)
    else:
        versions.outbox(writes)
    assert (versions.read("Theme", "theme"), versions.read("Theme", "note")) == ("dark", "n")


def test_names_of_a_later_version_are_left_alone(versions: Tab) -> None:
    """As after a deploy that was taken back."""
    cookie = wire.encode_mirror(Register(b'"x"', 1, 1))
    versions.set_cookie("theme.theme~4", cookie)
    assert versions.read("Theme", "theme") == "auto"
    versions.write("Theme", "theme", "light")
    assert versions.cookie("theme.theme~4") == cookie


def test_what_a_failed_migration_was_given_is_left_alone(versions: Tab, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged without values, the default holds, and nothing is lost."""
    cookie = encoded(["x", 1, 1])

    class Fails(LocalState, version=2):
        theme: str = "auto"

    @migrate(Fails, 1)
    def fail(old: dict[str, t.Any]) -> dict[str, t.Any]:
        raise KeyError("secret")

    tab = Tab(make_app(Fails).test_client())
    tab.set_cookie("fails.theme", cookie)
    assert tab.read("Fails", "theme") == "auto"
    assert tab.cookie("fails.theme") == cookie
    assert tab.read("Fails", "theme") == "auto"
    assert caplog.text.count("could not be migrated") == 1
    assert "secret" not in caplog.text
