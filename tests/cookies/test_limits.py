"""Nothing is dropped silently: what exceeds a limit is an error that names the sizes, or lies in the store."""

from __future__ import annotations

import typing as t

import pytest

from flask_stateful import Stateful, ValueTooLarge
from flask_stateful.errors import BadSeal, CookieTooLarge
from flask_stateful.sealing import Keyring
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore

from .conftest import SECRET, Browser, make_app


@pytest.fixture
def roomy() -> Browser:
    """A browser of an application whose servers take large responses."""
    return Browser(make_app(STATEFUL_COOKIE_BUDGET=100_000))


def cookies_of(browser: Browser) -> t.Any:
    """Return the jars of a browser's application."""
    return t.cast("Stateful", browser.app.extensions["state"]).cookies


@pytest.mark.parametrize("name", ["x", "a_longer_name"])
def test_exactly_4096_octets_fit(roomy: Browser, name: str) -> None:
    """Name and value together may take 4,096 octets and not one more; attributes do not count."""
    plain = cookies_of(roomy).plain
    most = "v" * (4096 - len(name))
    roomy.visit(lambda: plain.set(name, most, max_age=100))
    assert roomy.lines[0].startswith(f"{name}={most}; ")
    assert roomy.ask(lambda: plain[name]) == most
    with roomy.app.test_request_context(), pytest.raises(CookieTooLarge) as caught:
        plain.set(name, most + "v")
    assert str(caught.value) == (
        f"state.cookies.plain['{name}'] takes 4,097 octets (name {len(name)}, value {4097 - len(name):,}) and browsers"
        " keep 4,096; store less"
    )


@pytest.mark.parametrize("kind", ["sealed", "signed"])
def test_what_is_sent_is_what_counts(roomy: Browser, kind: str) -> None:
    """A sealed or signed value is measured with its prefix, seal and base64, at the octet; what fits arrives."""
    jar = cookies_of(roomy) if kind == "sealed" else cookies_of(roomy).signed
    fits, too_large = 1000, 4096
    while too_large - fits > 1:
        size = (fits + too_large) // 2
        with roomy.app.test_request_context(base_url="https://shop.example"):
            try:
                jar["x"] = "v" * size
                fits = size
            except CookieTooLarge:
                too_large = size
    roomy.visit(lambda: jar.set("x", "v" * fits))
    octets = len(roomy.lines[0].partition(";")[0]) - 1
    assert 4096 - 2 <= octets <= 4096  # base64 grows by one or two characters for a byte
    assert roomy.ask(lambda: len(jar["x"])) == fits
    where = "state.cookies" if kind == "sealed" else "state.cookies.signed"
    with roomy.app.test_request_context(base_url="https://shop.example"), pytest.raises(CookieTooLarge) as caught:
        jar["x"] = "v" * too_large
    assert f"{where}['x'] takes 4,09" in str(caught.value)


def test_oversized_cookie(browser: Browser, state: Stateful) -> None:
    """The cookie that others drop silently: an error at assignment, and the cookie from before stays."""
    browser.visit(lambda: state.cookies.set("cart", [1]))

    def view() -> str:
        with pytest.raises(CookieTooLarge, match=r"state\.cookies\['cart'\] takes .* store less, or write overflow="):
            state.cookies["cart"] = list(range(3000))
        return "kept"

    assert browser.ask(view) == "kept"
    assert browser.lines == []
    assert browser.ask(lambda: state.cookies["cart"]) == [1]


def test_the_response_has_a_budget(browser: Browser, state: Stateful) -> None:
    """Cookies that are legal each, and together more than a proxy takes, are an error that names each and its size."""
    errors: list[CookieTooLarge] = []

    @browser.app.errorhandler(CookieTooLarge)
    def handle(error: CookieTooLarge) -> tuple[str, int]:
        errors.append(error)
        return "too much", 400

    def write(size: int) -> None:
        state.cookies.plain["a"] = "v" * 2000
        state.cookies.plain["b"] = "v" * size

    around = len("Set-Cookie: a=; Path=/; SameSite=Lax; Secure\r\n")
    room = 3584 - 2000 - 2 * around
    assert browser.visit(lambda: write(room)).status_code == 200
    assert sum(len(f"Set-Cookie: {line}\r\n") for line in browser.lines) == 3584
    response = browser.visit(lambda: write(room + 1))
    assert (response.text, browser.lines) == ("too much", [])
    assert str(errors[0]).startswith(
        f"the cookies of this response take 3,585 octets (state.cookies.plain['a'] {2000 + around:,},"
        f" state.cookies.plain['b'] {room + 1 + around:,}), and STATEFUL_COOKIE_BUDGET allows 3,584; store less"
    )


def test_the_budget_is_a_setting() -> None:
    """STATEFUL_COOKIE_BUDGET sets it."""
    browser = Browser(app := make_app(STATEFUL_COOKIE_BUDGET=300))
    assert browser.visit(lambda: app.extensions["state"].cookies.plain.set("a", "v" * 400)).status_code == 500
    browser = Browser(app := make_app(STATEFUL_COOKIE_BUDGET=9000))
    browser.visit(lambda: [app.extensions["state"].cookies.plain.set(name, "v" * 4000) for name in "ab"])
    assert browser.names == {"a", "b"}


# Spilled values


def keys(store: MemoryStore) -> list[str]:
    """Return the keys of what was spilled."""
    return list(store.scan("shop:cookie:"))


def spill(state: Stateful, value: t.Any, **options: t.Any) -> None:
    """Set a cookie that may be spilled."""
    state.cookies.set("cart", value, overflow="spill", **options)


LARGE: t.Final = [f"item {n}" for n in range(2000)]


def test_what_does_not_fit_is_spilled(browser: Browser, state: Stateful, store: MemoryStore) -> None:
    """The value lies in the store, the cookie is small, and reading tells no difference."""
    assert browser.ask(lambda: (spill(state, LARGE), state.cookies["cart"])) == (None, LARGE)
    assert len(browser.lines[0]) < 200
    assert browser.ask(lambda: state.cookies["cart"]) == LARGE
    assert browser.ask(lambda: "cart" in state.cookies)
    assert len(keys(store)) == 1


def test_what_fits_is_not_spilled(browser: Browser, state: Stateful, store: MemoryStore) -> None:
    """A small value costs no store call."""
    browser.visit(lambda: spill(state, [1]))
    assert browser.ask(lambda: state.cookies["cart"]) == [1]
    assert keys(store) == []


def test_several_that_do_not_fit_together_are_spilled(browser: Browser, state: Stateful, store: MemoryStore) -> None:
    """Where the response's budget is exceeded, those that may be are spilled, the largest first."""

    def view() -> None:
        state.cookies.set("a", "x" * 1000, overflow="spill")
        state.cookies.set("b", "x" * 1400, overflow="spill")
        state.cookies.set("c", "x" * 900)

    assert browser.visit(view).status_code == 200
    assert len(keys(store)) == 1
    assert len(browser.sent("__Host-b")) < 200
    assert browser.ask(lambda: [len(state.cookies[name]) for name in "abc"]) == [1000, 1400, 900]


def test_the_store_alone_opens_nothing(browser: Browser, state: Stateful, store: MemoryStore) -> None:
    """Neither key nor value shows anything, and the reference that opens it is nowhere but in the cookie."""
    browser.visit(lambda: spill(state, LARGE))
    (key,) = keys(store)
    sealed = store.get(key) or b""
    assert b"item" not in sealed
    # With the application's key and all that the store has, but without the reference, it does not open.
    for secret in (b"", key.encode(), key.rpartition(":")[2].encode()):
        with pytest.raises(BadSeal):
            Keyring(SECRET).seal_for("spilled cookie", name=key, secret=secret).unseal(sealed)


def test_a_spilled_value_expires_with_its_cookie(
    browser: Browser, state: Stateful, store: MemoryStore, clock: FakeClock
) -> None:
    """After its max_age nothing is left of it."""
    browser.visit(lambda: spill(state, LARGE, max_age=100))
    clock.advance(99)
    assert len(keys(store)) == 1
    clock.advance(2)
    assert keys(store) == []


def test_without_max_age_it_stays_for_a_month(
    browser: Browser, state: Stateful, store: MemoryStore, clock: FakeClock
) -> None:
    """Nobody tells when a browser session ends; after 31 days the value is gone and reads as absent."""
    browser.visit(lambda: spill(state, LARGE))
    copy = browser.lines[0].partition(";")[0]
    clock.advance(31 * 24 * 3600 - 1)
    assert browser.ask(lambda: state.cookies.get("cart"), cookie=copy) == LARGE
    clock.advance(2)
    assert browser.ask(lambda: state.cookies.get("cart"), cookie=copy) is None
    assert keys(store) == []


def test_a_spilled_value_that_is_gone_or_damaged_is_absent(
    browser: Browser, state: Stateful, store: MemoryStore
) -> None:
    """The store may evict; the application sees its default."""
    browser.visit(lambda: spill(state, LARGE))
    (key,) = keys(store)
    store.set(key, b"\x01damaged")
    assert browser.ask(lambda: state.cookies.get("cart", "none")) == "none"
    store.delete(key)
    assert browser.ask(lambda: state.cookies.get("cart", "none")) == "none"


def test_an_old_spilled_value_goes(browser: Browser, state: Stateful, store: MemoryStore, clock: FakeClock) -> None:
    """One that was replaced stays 10 s for requests that are under way; one that was removed goes at once."""
    browser.visit(lambda: spill(state, LARGE))
    old = browser.lines[0].partition(";")[0]
    browser.visit(lambda: spill(state, [*LARGE, "new"]))
    assert len(keys(store)) == 2
    assert browser.ask(lambda: state.cookies["cart"], cookie=old) == LARGE
    clock.advance(11)
    assert len(keys(store)) == 1
    browser.visit(lambda: state.cookies.set("cart", ["small"]))
    clock.advance(11)
    assert keys(store) == []
    browser.visit(lambda: spill(state, LARGE))
    browser.visit(lambda: state.cookies.delete("cart"))
    assert keys(store) == []


def test_another_path_keeps_its_spilled_value(browser: Browser, state: Stateful, clock: FakeClock) -> None:
    """What is written for another path is another cookie."""
    insecure = Browser(browser.app, https=False)
    insecure.visit(lambda: spill(state, LARGE))
    insecure.visit(lambda: state.cookies.set("cart", [1], path="/a"))
    clock.advance(11)
    assert insecure.ask(lambda: state.cookies["cart"]) == LARGE


def test_a_failed_request_spills_nothing(browser: Browser, state: Stateful, store: MemoryStore) -> None:
    """Nothing is written before the response is saved."""
    browser.visit(lambda: (spill(state, LARGE), 1 / 0))
    assert (browser.lines, keys(store)) == ([], [])


def test_a_spilled_value_moves_to_the_new_key(
    browser: Browser, state: Stateful, store: MemoryStore, clock: FakeClock
) -> None:
    """After a rotation, cookie and value are both sealed anew, and the old key is not needed any more."""
    browser.visit(lambda: spill(state, LARGE, max_age=100))
    old = browser.lines[0].partition(";")[0]
    later = Browser(make_app(store, SECRET_KEY="next", SECRET_KEY_FALLBACKS=[SECRET]))
    assert later.ask(lambda: cookies_of(later)["cart"], cookie=old) == LARGE
    new = later.lines[0].partition(";")[0]
    clock.advance(11)
    last = Browser(make_app(store, SECRET_KEY="next"))
    assert last.ask(lambda: cookies_of(last)["cart"], cookie=new) == LARGE
    assert len(keys(store)) == 1


def test_a_store_that_is_down_is_not_taken_for_absence(store: MemoryStore) -> None:
    """Reading a spilled value is StoreUnavailable, a 503; other cookies are read all the same."""
    faulty = FaultyStore(store)
    browser = Browser(app := make_app(faulty))
    state = t.cast("Stateful", app.extensions["state"])
    browser.visit(lambda: (spill(state, LARGE), state.cookies.set("small", 1)))
    faulty.fail("unavailable")
    assert browser.visit(lambda: state.cookies.get("cart")).status_code == 503
    assert browser.ask(lambda: state.cookies["small"]) == 1
    assert browser.visit(lambda: spill(state, LARGE)).status_code == 503
    assert browser.lines == []
    faulty.mend()
    assert browser.ask(lambda: state.cookies["cart"]) == LARGE


def test_what_the_store_does_not_take_is_an_error_at_assignment() -> None:
    """The store's own limit is named."""
    browser = Browser(app := make_app(MemoryStore(max_value_bytes=5000)))
    state = t.cast("Stateful", app.extensions["state"])
    with browser.app.test_request_context(), pytest.raises(ValueTooLarge, match="exceeds the 5,000"):
        spill(state, LARGE)


def test_4096_octets_are_the_limit_whatever_the_budget(roomy: Browser) -> None:
    """A cookie that browsers drop is spilled also where the response has room for it."""
    roomy.visit(lambda: cookies_of(roomy).set("cart", LARGE, overflow="spill"))
    assert len(roomy.lines[0]) < 200
    assert roomy.ask(lambda: cookies_of(roomy)["cart"]) == LARGE


def test_a_removal_has_nothing_to_spill(browser: Browser, state: Stateful) -> None:
    """Where the budget is exceeded, it is left as it is."""
    caught: list[CookieTooLarge] = []
    browser.app.register_error_handler(CookieTooLarge, lambda error: (caught.append(error), ("too much", 400))[1])

    def view() -> None:
        state.cookies.with_options(overflow="spill").delete("cart")
        state.cookies.plain["a"] = "v" * 3600

    assert browser.visit(view).status_code == 400
    assert "state.cookies['cart']" in str(caught[0])


def test_a_name_that_leaves_no_room_is_an_error(roomy: Browser) -> None:
    """Where not even the reference fits, spilling does not help."""
    with roomy.app.test_request_context(), pytest.raises(CookieTooLarge, match="name 4,070"):
        cookies_of(roomy).set("n" * 4070, 1, overflow="spill")
