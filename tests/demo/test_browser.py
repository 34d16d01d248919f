"""The shop in a browser: two tabs at once, signing in and out, the drawer, a strict content policy, no JavaScript."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.chromium import NewVisitor
from tests.demo.visitor import SLUGS, Shop, Visitor

PAGES = ["/", "/about", *(f"/things/{slug}" for slug in SLUGS), "/cart", "/sign-in", "/privacy", "/orders"]

#: Widths of a small phone, a tablet and a desk, in pixels.
WIDTHS = [360, 820, 1280]

#: Send a page's form many times at once, as an impatient visitor would. The shop's own policy forbids scripts to fetch
#: anything, so that these need a browser which does not mind.
STORM = """
(form, times) => {
    const send = () => fetch(form.action, {method: "POST", body: new URLSearchParams(new FormData(form))});
    window.sent = Promise.all(Array.from({length: times}, send)).then(all => all.map(one => one.status));
}
"""

#: Send every second form, from the first or from the second, with another quantity, all at once.
CHANGE = """
(forms, [first, quantity]) => {
    const send = form => {
        form.elements.quantity.value = quantity;
        return fetch(form.action, {method: "POST", body: new URLSearchParams(new FormData(form))});
    };
    const mine = forms.filter((_, number) => number % 2 === first);
    window.sent = Promise.all(mine.map(send)).then(all => all.map(one => one.status));
}
"""


def opened(context: BrowserContext, path: str) -> Page:
    """Open a page in a tab of its own."""
    page = context.new_page()
    page.goto(path)
    return page


def press(page: Page, name: str) -> None:
    """Press a button, and wait for the page that follows."""
    with page.expect_navigation():
        page.get_by_role("button", name=name).click()


def submit_together(*forms: Locator) -> None:
    """Send forms that lie in different tabs; none waits for the answer to another."""
    with contextlib.ExitStack() as stack:
        for form in forms:
            stack.enter_context(form.page.expect_navigation())
        for form in forms:
            form.evaluate("form => form.requestSubmit()")


def cart_of(context: BrowserContext) -> dict[str, int]:
    """Return how many of each product the cart page shows."""
    page = opened(context, "/cart")
    fields = page.locator("main input[type=number]").all()
    cart = {str(field.get_attribute("id")).removeprefix("quantity-"): int(field.input_value()) for field in fields}
    page.close()
    return cart


def session_cookie(context: BrowserContext) -> dict[str, t.Any]:
    """Return the session cookie as the browser keeps it."""
    [cookie] = [cookie for cookie in context.cookies() if cookie["name"] == "session"]
    return dict(cookie)


def test_two_tabs_that_add_different_products_keep_both(visitor: BrowserContext) -> None:
    """Two tabs put different products into the cart at the same time, four times over: all are there."""
    tabs = [opened(visitor, "/things/flask"), opened(visitor, "/things/diary")]
    for _ in range(4):
        submit_together(*(tab.locator("form.buy") for tab in tabs))
    assert cart_of(visitor) == {"flask": 4, "diary": 4}


def test_two_tabs_that_add_the_same_product_count_both(visitor: BrowserContext) -> None:
    """Two tabs put the same product into the cart at the same time, four times over: there are eight."""
    tabs = [opened(visitor, "/things/terrarium"), opened(visitor, "/things/terrarium")]
    for _ in range(4):
        submit_together(*(tab.locator("form.buy") for tab in tabs))
    assert cart_of(visitor) == {"terrarium": 8}


def test_two_tabs_that_change_the_cart_keep_all_changes(new_visitor: NewVisitor, shop: Shop) -> None:
    """One tab changes six lines of the cart while the other changes the other six: all are changed."""
    prepared = Visitor(shop.port).arrive()
    for slug in SLUGS:
        prepared.add(slug)
    visitor = new_visitor(bypass_csp=True)
    visitor.add_cookies([{"name": "session", "value": prepared.cookie, "url": shop.url}])
    tabs = [opened(visitor, "/cart"), opened(visitor, "/cart")]
    for quantity in range(2, 6):
        for number, tab in enumerate(tabs):
            tab.locator("main li form:first-of-type").evaluate_all(CHANGE, [number, quantity])
        for tab in tabs:
            assert tab.evaluate("window.sent") == [200] * 6
        assert cart_of(visitor) == dict.fromkeys(SLUGS, quantity)


def test_a_storm_of_adds_from_two_tabs_is_counted(new_visitor: NewVisitor) -> None:
    """Two tabs send twenty forms each without waiting: there are forty, and every form was answered."""
    visitor = new_visitor(bypass_csp=True)
    tabs = [opened(visitor, "/things/honey-jar"), opened(visitor, "/things/honey-jar")]
    for tab in tabs:
        tab.locator("form.buy").evaluate(STORM, 20)
    for tab in tabs:
        assert tab.evaluate("window.sent") == [200] * 20
    assert cart_of(visitor) == {"honey-jar": 40}


def test_nothing_is_kept_of_a_visitor_who_only_looks(visitor: BrowserContext) -> None:
    """The shelf sets no cookie, and the drawer says so."""
    page = opened(visitor, "/")
    expect(page.locator("#state")).to_contain_text("Nothing is kept about you yet")
    assert visitor.cookies() == []


def test_the_cookie_is_as_promised(visitor: BrowserContext) -> None:
    """The cookie is HttpOnly and SameSite=Lax, has no Secure on plain HTTP, and goes with the browser session."""
    page = opened(visitor, "/things/flask")
    cookie = session_cookie(visitor)
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"], cookie["expires"]) == (True, "Lax", False, -1)
    assert cookie["path"] == "/"
    assert page.evaluate("document.cookie") == ""


def test_a_login_changes_the_id_and_ends_the_old_one(visitor: BrowserContext, shop: Shop) -> None:
    """Signing in keeps the cart under a new id; the cookie from before opens nothing, and is not replaced."""
    page = opened(visitor, "/things/hourglass")
    press(page, "Add to cart")
    before = session_cookie(visitor)["value"]
    page.get_by_role("link", name="Sign in").click()
    press(page, "Sign in as Ada Lovelace")
    expect(page.get_by_role("status")).to_contain_text("Hello Ada Lovelace")
    assert cart_of(visitor) == {"hourglass": 1}
    assert session_cookie(visitor)["value"] != before
    stale = Visitor(shop.port, before)
    assert stale.cart() == {}
    answer = stale.get("/things/flask")
    assert "Ada" not in answer.text
    assert answer.cookie is None


def test_remembering_keeps_the_cookie(visitor: BrowserContext) -> None:
    """With the box ticked, the cookie outlives the browser."""
    page = opened(visitor, "/sign-in")
    page.get_by_label("Remember me").check()
    press(page, "Sign in as Grace Hopper")
    assert session_cookie(visitor)["expires"] > 0


def test_a_logout_ends_the_session(visitor: BrowserContext, shop: Shop) -> None:
    """After signing out nobody is signed in, the cart is empty, and the cookie from before opens nothing."""
    page = opened(visitor, "/sign-in")
    press(page, "Sign in as Grace Hopper")
    page.goto("/things/flask")
    press(page, "Add to cart")
    before = session_cookie(visitor)["value"]
    press(page, "Sign out")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    assert cart_of(visitor) == {}
    stale = Visitor(shop.port, before)
    assert stale.cart() == {}
    assert "Grace" not in stale.get("/").text


def test_the_drawer_shows_the_keys_and_no_secret(visitor: BrowserContext) -> None:
    """The drawer names each key with its type and size, the user and the store; no page holds the cookie's id."""
    page = opened(visitor, "/things/music-box")
    press(page, "Add to cart")
    page.goto("/sign-in")
    press(page, "Sign in as Ada Lovelace")
    drawer = page.locator("#state")
    panel = drawer.locator(".panel", has=page.get_by_role("heading", name="Session"))
    rows = [row.split() for row in panel.locator("tbody tr").all_inner_texts()]
    assert {(row[0], row[1]) for row in rows} == {("cart.items", "dict"), ("csrf_token", "str")}
    assert panel.locator("dd").all_inner_texts()[0] == "ada"
    expect(panel).to_contain_text("the database")
    _, token, tag = session_cookie(visitor)["value"].split(".")
    for path in PAGES:
        page.goto(path)
        assert token not in page.content()
        assert tag not in page.content()


def test_the_drawer_opens_on_a_narrow_screen(new_visitor: NewVisitor) -> None:
    """On a phone the drawer is closed until its link is followed, and the way back closes it."""
    page = opened(new_visitor(viewport={"width": 360, "height": 740}), "/things/flask")
    drawer = page.get_by_role("complementary")
    expect(drawer).to_be_hidden()
    page.get_by_role("link", name="State").click()
    expect(drawer).to_be_in_viewport()
    page.get_by_role("link", name="Close").click()
    expect(drawer).to_be_hidden()
    page.go_back()
    expect(drawer).to_be_in_viewport()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_is_clean(new_visitor: NewVisitor, width: int) -> None:
    """No page complains in the console, breaks its content policy, lacks a picture, or is wider than its screen."""
    visitor = new_visitor(viewport={"width": width, "height": 800})
    press(opened(visitor, "/things/message-bottle"), "Add to cart")
    page = visitor.new_page()
    for path in PAGES:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0


def test_a_broken_policy_would_be_noticed(visitor: BrowserContext, complaints: list[str]) -> None:
    """What the policy forbids is refused, and reaches the list of complaints."""
    page = opened(visitor, "/")
    page.evaluate("document.body.setAttribute('style', 'opacity: 0')")
    assert page.evaluate("getComputedStyle(document.body).opacity") == "1"
    assert [complaint for complaint in complaints if "Content Security Policy" in complaint]
    complaints.clear()


def test_everything_works_without_javascript(new_visitor: NewVisitor) -> None:
    """Without JavaScript a visitor fills the cart, changes it, signs in, orders, and signs out."""
    visitor = new_visitor(java_script_enabled=False, viewport={"width": 375, "height": 800})
    page = opened(visitor, "/")
    page.get_by_role("link", name="Bento Box").click()
    page.get_by_label("Quantity").fill("2")
    press(page, "Add to cart")
    page.get_by_role("link", name="2 in your cart").click()
    page.get_by_label("Quantity of Bento Box").fill("5")
    press(page, "Update")
    expect(page.locator(".total")).to_contain_text("€147.50")
    page.get_by_role("link", name="Sign in").click()
    press(page, "Sign in as Ada Lovelace")
    page.get_by_role("link", name="Cart").click()
    page.get_by_role("link", name="Check out").click()
    for label, text in {"Name": "Ada", "Street": "12 St James's Square", "Town": "London"}.items():
        page.get_by_label(label).fill(text)
    press(page, "Order")
    expect(page.get_by_role("status")).to_contain_text("€147.50")
    assert cart_of(visitor) == {}
    press(page, "Sign out")
    expect(page.get_by_role("status")).to_contain_text("You are signed out")
    page.get_by_role("link", name="State").click()
    expect(page.get_by_role("complementary")).to_be_in_viewport()
