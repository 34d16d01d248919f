"""What the shop's pages answer, also to forms that are stale, wrong or forged, and while the store is down."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from markupsafe import escape

from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeBrowser, FakeClock, Fault, FaultyStore
from shop import create_app
from shop.database import Stock
from shop.extensions import db, state
from tests.demo.visitor import SLUGS

STRICT = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)

#: Where an order goes.
ADDRESS = {"name": "Ada", "street": "1 Engine Row", "town": "London"}

#: Quantities that no form of the shop sends.
WRONG = ["", "0", "-1", "1000", "1e3", "two"]


@pytest.fixture
def store() -> FaultyStore:
    """Where the shop keeps everything."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def shop_with(tmp_path: Path) -> t.Callable[..., Flask]:
    """Return a shop; all of one test have one database, and are one if they have the same store."""
    own = {
        "INSTANCE_PATH": str(tmp_path),
        "TESTING": True,
        "SECRET_KEY": "a secret of the tests",
        "SHOP_THINKS_FOR": 0,
    }

    def make(store: t.Any, **config: object) -> Flask:
        return create_app({**own, "STATEFUL_STORE": store, **config})

    return make


@pytest.fixture
def app(store: FaultyStore, shop_with: t.Callable[..., Flask]) -> Flask:
    """The shop."""
    return shop_with(store, STATEFUL_LOCK_TIMEOUT=0.05)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A visitor who has not been here yet."""
    return app.test_client()


def token_of(client: FlaskClient) -> str:
    """Open a page with a form and return the token in it."""
    return t.cast("re.Match[str]", re.search(r'name="csrf_token" value="([^"]+)"', client.get("/things/flask").text))[1]


def post(client: FlaskClient, path: str, **fields: object) -> int:
    """Send a form of a page just opened, and return the status of the answer."""
    return client.post(path, data={"csrf_token": token_of(client), **fields}).status_code


def quantities(client: FlaskClient) -> list[int]:
    """Return the quantities that the cart page shows."""
    return [
        int(found) for found in re.findall(r'name="quantity" type="number" value="(\d+)"', client.get("/cart").text)
    ]


def test_the_shelf_holds_every_product(client: FlaskClient) -> None:
    """Each product with a picture is on the shelf, and has a page with its picture."""
    shelf = client.get("/").text
    for slug in SLUGS:
        assert f'href="/things/{slug}"' in shelf
        assert f"/static/pictures/{slug}.svg" in client.get(f"/things/{slug}").text
    assert shelf.count('class="card"') == len(SLUGS) == 12


def test_money_is_exact(client: FlaskClient) -> None:
    """Sums are those of the price tags, to the cent."""
    post(client, "/cart/honey-jar/add", quantity=7)
    post(client, "/cart/bento-box/add", quantity=3)
    assert "€87.50" in client.get("/cart").text
    assert "<strong>€176.00</strong>" in client.get("/cart").text


def test_an_order_empties_the_cart_once(client: FlaskClient) -> None:
    """The first order names what it comes to; a second one has nothing to order, and says nothing."""
    post(client, "/cart/diary/add", quantity=2)
    assert post(client, "/cart/check-out", **ADDRESS) == 302
    assert "€42.00, well pretended" in client.get("/").text
    assert quantities(client) == []
    assert post(client, "/cart/check-out", **ADDRESS) == 302
    assert 'role="status"' not in client.get("/").text


def test_a_cart_has_a_limit(client: FlaskClient) -> None:
    """However often a product is added, the cart holds no more of it than can be shown."""
    for _ in range(2):
        assert post(client, "/cart/flask/add", quantity=999) == 302
    assert quantities(client) == [999]


def test_a_line_is_removed_by_setting_it_to_nothing(client: FlaskClient) -> None:
    """The quantity 0 removes a line, also one that is gone already."""
    post(client, "/cart/flask/add", quantity=2)
    for _ in range(2):
        assert post(client, "/cart/flask/put", quantity=0) == 302
    assert quantities(client) == []


@pytest.mark.parametrize("quantity", WRONG)
def test_a_wrong_quantity_is_refused(client: FlaskClient, quantity: str) -> None:
    """What is no quantity, or not one that can be added, changes nothing."""
    post(client, "/cart/flask/add", quantity=2)
    assert post(client, "/cart/flask/add", quantity=quantity) == 400
    assert quantities(client) == [2]


@pytest.mark.parametrize("path", ["/nowhere", "/things/unicorn", "/static/unicorn.svg"])
def test_what_is_not_there_is_answered_politely(client: FlaskClient, path: str) -> None:
    """An address that leads nowhere has a page of its own, which looks at no state."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert "We do not keep that." in answer.text
    assert "Vary" not in answer.headers


def test_adding_what_is_not_sold_is_not_found(client: FlaskClient) -> None:
    """A product that does not exist cannot be put into the cart."""
    assert post(client, "/cart/unicorn/add") == 404
    assert quantities(client) == []


def test_a_form_without_our_token_is_refused(client: FlaskClient) -> None:
    """A form from elsewhere, with no token, an empty one or a guessed one, changes nothing."""
    assert client.post("/cart/flask/add", data={"quantity": 1}).status_code == 400
    token_of(client)
    for guess in ({}, {"csrf_token": ""}, {"csrf_token": "é"}, {"csrf_token": "guess"}):
        answer = client.post("/cart/flask/add", data={"quantity": 1, **guess})
        assert answer.status_code == 400
        assert "grown stale" in answer.text
    assert quantities(client) == []


def test_a_login_renews_the_token(client: FlaskClient) -> None:
    """A form that was opened before signing in is refused afterwards."""
    before = token_of(client)
    assert post(client, "/sign-in", user="ada") == 302
    assert client.post("/cart/flask/add", data={"csrf_token": before, "quantity": 1}).status_code == 400
    assert token_of(client) != before


def test_nobody_else_can_sign_in(client: FlaskClient) -> None:
    """A name that the shop does not know is refused, and nobody is signed in."""
    assert post(client, "/sign-in", user="mallory") == 400
    assert "Sign out" not in client.get("/").text


def test_another_user_does_not_get_the_cart(client: FlaskClient) -> None:
    """Who signs in over somebody else's session finds an empty cart."""
    post(client, "/sign-in", user="ada")
    post(client, "/cart/diary/add", quantity=1)
    post(client, "/sign-in", user="grace")
    assert quantities(client) == []


def test_an_outage_has_its_page(client: FlaskClient, store: FaultyStore) -> None:
    """While the store is down, pages that need it say so, in the shop's own words; then everything is as before."""
    post(client, "/sign-in", user="ada")
    post(client, "/cart/diary/add", quantity=1)
    token = token_of(client)
    store.fail("unavailable")
    for answer in (
        client.get("/"),
        client.get("/cart"),
        client.post("/cart/diary/add", data={"csrf_token": token, "quantity": 1}),
    ):
        assert answer.status_code == 503
        assert "Back in a moment." in answer.text
    with client.get("/static/shop.css") as file:
        assert file.status_code == 200
    assert client.get("/nowhere").status_code == 404
    store.mend()
    assert quantities(client) == [1]


def test_an_outage_that_begins_while_saving_has_its_page(client: FlaskClient, store: FaultyStore) -> None:
    """A change that cannot be saved is answered as an outage, not as a success."""
    post(client, "/cart/diary/add", quantity=1)
    token = token_of(client)
    store.fail(Fault("unavailable", "swap"))
    answer = client.post("/cart/diary/put", data={"csrf_token": token, "quantity": 5})
    assert answer.status_code == 503
    assert "Back in a moment." in answer.text
    store.mend()
    assert quantities(client) == [1]


def test_a_cart_that_stays_locked_is_answered_politely(
    client: FlaskClient, store: FaultyStore, shop_with: t.Callable[..., Flask]
) -> None:
    """A request that gets no turn to count is told to come back, and counts nothing."""
    token = token_of(client)
    cookie = client.get_cookie("session")
    assert cookie is not None
    patient = shop_with(store, STATEFUL_LOCK_TIMEOUT=60)
    with patient.test_request_context(headers={"Cookie": f"session={cookie.value}"}), state.sessions.lock():
        answer = client.post("/cart/diary/add", data={"csrf_token": token, "quantity": 1})
    assert answer.status_code == 503
    assert "Back in a moment." in answer.text
    assert quantities(client) == []


def test_a_fault_of_ours_has_its_page(app: Flask, client: FlaskClient) -> None:
    """An exception that nobody expected is answered in the shop's own words."""

    def broken() -> str:
        raise RuntimeError("nobody expected this")

    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.view_functions["shop.show_cart"] = broken
    answer = client.get("/cart")
    assert answer.status_code == 500
    assert "Something broke." in answer.text


@pytest.mark.parametrize("path", ["/", "/cart", "/nowhere", "/static/shop.css", "/static/pictures/flask.svg"])
def test_every_answer_is_secured(client: FlaskClient, path: str) -> None:
    """Every answer, also of a file and of an error, forbids scripts, frames and what comes from elsewhere."""
    with client.get(path) as answer:
        assert answer.headers["Content-Security-Policy"] == STRICT
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/", *(f"/things/{slug}" for slug in SLUGS), "/cart", "/sign-in", "/privacy", "/nowhere"]
)
def test_pages_have_nothing_inline(client: FlaskClient, path: str) -> None:
    """No page holds a script of its own, a style or an event handler, nor names another server."""
    post(client, "/cart/flask/add", quantity=1)
    page = client.get(path).text
    assert (
        re.findall(
            r"<script(?! type=\"module\" src=\"/| type=\"application/json\")|<style|\sstyle=|\son\w+=|https?://", page
        )
        == []
    )


# What the browser keeps


def test_an_order_without_an_address_is_not_taken(client: FlaskClient) -> None:
    """Who has not said where things shall go is asked, and keeps the cart."""
    post(client, "/cart/diary/add", quantity=1)
    for fields in ({}, {**ADDRESS, "town": " "}):
        assert post(client, "/cart/check-out", **fields) == 302
        assert "Where shall it go?" in client.get("/check-out").text
    assert quantities(client) == [1]


def test_a_step_that_does_not_exist_is_refused(client: FlaskClient) -> None:
    """Nobody is led astray by a form that names no step."""
    post(client, "/cart/diary/add", quantity=1)
    for step in ("", "heaven", "address' or 1"):
        assert post(client, "/check-out", step=step) == 400


def test_nobody_checks_out_with_nothing(client: FlaskClient) -> None:
    """An empty cart leads back to the cart."""
    assert client.get("/check-out").location == "/cart"


def test_the_question_is_asked_once(client: FlaskClient) -> None:
    """A product's page asks whether it may be remembered, until that is answered, whatever the answer is."""
    for answer in ("yes", "no"):
        visitor = client.application.test_client()
        assert "One question." in visitor.get("/things/flask").text
        assert post(visitor, "/remember", answer=answer, slug="flask") == 302
        assert "One question." not in visitor.get("/things/flask").text


# Privacy


def test_every_page_leads_to_the_one_about_privacy(client: FlaskClient) -> None:
    """The footer of each page has a link to it, also where something went wrong."""
    for path in ("/", "/about", "/cart", "/sign-in", "/things/flask", "/nowhere"):
        assert '<a href="/privacy">' in client.get(path).text


def test_the_page_about_privacy_lists_everything(app: Flask, client: FlaskClient) -> None:
    """Each declared class and each cookie of ours is there, with how long it is kept."""
    page = client.get("/privacy").text
    with app.app_context():
        items = state.inventory()
    names = {"account", "banner", "cart", "checkout", "notice", "prefs", "seen", "session"}
    assert names < {item.name for item in items}
    for item in items:
        assert f"<code>{escape(item.name)}</code>" in page
        assert f"<dd>{item.lifetime}</dd>" in page
    assert page.count("<li>") >= len(items)


def test_every_cookie_that_the_shop_sets_is_listed(app: Flask) -> None:
    """A visit that does all there is to do meets no cookie that the page about privacy does not name."""
    browser = FakeBrowser(app)
    tab = browser.open("/things/flask")
    token = t.cast("re.Match[str]", re.search(r'name="csrf_token" value="([^"]+)"', tab.text))[1]
    tab.post("/remember", data={"csrf_token": token, "answer": "yes", "slug": "flask"})
    tab.local.prefs.theme, tab.tab.checkout.name = "dark", "Ada"
    tab.post("/cart/flask/add", data={"csrf_token": token, "quantity": 1})
    tab.post("/sign-in", data={"csrf_token": token, "user": "ada"})
    with app.app_context():
        listed = {item.name for item in state.inventory() if item.place == "cookie"}
    found = {name for _, _, name in browser.client._cookies}  # type: ignore[attr-defined]
    assert {"session", "banner", "fs.shop-app._c", "fs.shop-app._b", "fs.shop-app.prefs.theme"} <= found
    assert {re.sub(r"\.[0-9a-f]{8}$", ".<tab>", name) for name in found} <= listed


def test_consent_is_given_and_withdrawn_on_the_page_about_privacy(app: Flask) -> None:
    """Its form leads back to it; what was remembered goes when the visitor changes their mind."""
    browser = FakeBrowser(app)
    tab = browser.open("/privacy")
    token = t.cast("re.Match[str]", re.search(r'name="csrf_token" value="([^"]+)"', tab.text))[1]
    for answer, said in (("yes", "You have agreed"), ("no", "You have not agreed"), ("yes", "You have agreed")):
        assert said in tab.post("/remember", data={"csrf_token": token, "answer": answer}).text
        tab.get("/things/flask")
        assert tab.local.seen.slugs == (["flask"] if answer == "yes" else [])
        assert "One question." not in tab.text
        assert any("seen.slugs" in key for key in browser.storage) == (answer == "yes")


# What is cached


def test_the_shelf_is_made_once_for_visitors_nobody_knows(app: Flask, client: FlaskClient) -> None:
    """Whoever has no session gets the stored page; whoever has one, a page of their own that nobody else gets."""
    assert [client.get("/").headers["Cache-Status"] for _ in range(2)] == [
        "Flask-Stateful; fwd=miss; stored",
        "Flask-Stateful; hit",
    ]
    other = app.test_client()
    assert post(other, "/sign-in", user="ada") == 302
    for _ in range(2):
        page = other.get("/")
        assert "Cache-Status" not in page.headers
        assert "Sign out" in page.text
    assert "Sign out" not in app.test_client().get("/").text


def test_a_greeting_is_shown_once(client: FlaskClient) -> None:
    """A message that was flashed is in one page, and in no stored one."""
    post(client, "/sign-in", user="ada")
    assert "Hello Ada" in client.get("/").text
    post(client, "/sign-out")
    assert "You are signed out" in client.get("/").text
    assert "You are signed out" not in client.get("/").text


def test_the_page_about_the_shop_is_answered_in_front(app: Flask, client: FlaskClient) -> None:
    """Once it is made, the page goes out with all its headers before the application is asked."""
    for _ in range(2):
        assert "How this shop keeps things" in client.get("/about").text
    del app.view_functions["shop.about"]
    answer = client.get("/about")
    assert "How this shop keeps things" in answer.text
    assert answer.headers["Content-Security-Policy"] == STRICT


def companions(client: FlaskClient, path: str) -> list[str]:
    """Return the slugs of what goes well with a product, as its page says."""
    with client.get(path) as page:  # closing it is what lets a worker go on behind the response
        _, _, rest = page.text.partition("Goes well with")
    return re.findall(r'class="card" href="/things/([^"]+)"', rest)


def test_what_was_ordered_together_goes_well(store: FaultyStore, shop_with: t.Callable[..., Flask]) -> None:
    """The company of a product follows the orders; the old one is shown until a worker has made a new one."""
    with FakeClock() as clock:
        client = shop_with(store).test_client()
        first = companions(client, "/things/flask")
        assert len(first) == 3
        assert "terrarium" not in first
        for slug in ("flask", "terrarium"):
            assert post(client, f"/cart/{slug}/add", quantity=1) == 302
        assert post(client, "/cart/check-out", **ADDRESS) == 302
        assert companions(client, "/things/flask") == first
        clock.advance(61)
        assert companions(client, "/things/flask") == first
        assert companions(client, "/things/flask")[0] == "terrarium"


def test_an_order_is_taken_although_it_cannot_be_counted(client: FlaskClient, store: FaultyStore) -> None:
    """That the cache fails keeps nobody from ordering."""
    for slug in ("flask", "terrarium"):
        post(client, f"/cart/{slug}/add", quantity=1)
    token = token_of(client)
    store.fail(Fault("unavailable", on="incr"))
    assert client.post("/cart/check-out", data={"csrf_token": token, **ADDRESS}).status_code == 302
    assert quantities(client) == []


def test_the_drawer_counts_what_was_made_for_everybody(client: FlaskClient) -> None:
    """The drawer says how often this worker had to make something for everybody."""
    post(client, "/cart/flask/add", quantity=1)
    assert re.search(r"<dt>Not there</dt><dd>[1-9]", client.get("/").text)


# What is in the database


def signed_in(client: FlaskClient, user: str) -> FlaskClient:
    """Return a visitor who has signed in."""
    assert post(client, "/sign-in", user=user) == 302
    return client


def order(client: FlaskClient, slug: str, quantity: int = 1) -> None:
    """Order something."""
    assert post(client, f"/cart/{slug}/add", quantity=quantity) == 302
    assert post(client, "/cart/check-out", **ADDRESS) == 302


def test_an_order_is_listed_for_its_user_alone(app: Flask) -> None:
    """Whoever was signed in finds the order again; nobody else does."""
    ada, grace = signed_in(app.test_client(), "ada"), signed_in(app.test_client(), "grace")
    order(ada, "diary", 2)
    assert "€42.00" in ada.get("/orders").text
    assert "Nothing ordered yet" in grace.get("/orders").text
    assert app.test_client().get("/orders").status_code == 302


def test_an_order_of_too_much_leaves_nothing_behind(app: Flask, client: FlaskClient) -> None:
    """Neither the order nor what it took from the shelf is kept, and the cart and the address are as they were."""
    signed_in(client, "ada")
    with app.app_context():
        db.session.get_one(Stock, "terrarium").left = 3
        db.session.commit()
    for slug, quantity in (("flask", 2), ("terrarium", 4)):
        post(client, f"/cart/{slug}/add", quantity=quantity)
    assert post(client, "/cart/check-out", **ADDRESS) == 302
    assert "only 3 of Terrarium left" in client.get("/cart").text
    assert quantities(client) == [2, 4]
    assert "Nothing ordered yet" in client.get("/orders").text
    assert "9,998 left" not in signed_in(app.test_client(), "grace").get("/office/").text


def test_the_stock_follows_the_orders(app: Flask, client: FlaskClient) -> None:
    """What was ordered is no longer there for others."""
    grace = signed_in(app.test_client(), "grace")
    assert "10,000 left" in grace.get("/office/").text
    order(client, "flask", 3)
    assert "9,997 left" in grace.get("/office/").text


def test_a_new_price_is_on_the_next_page(app: Flask, client: FlaskClient) -> None:
    """A changed price shows at once: on the stored shelf, on the product's page and in a cart."""
    for _ in range(2):
        assert "€34.00" in client.get("/").text
    grace = signed_in(app.test_client(), "grace")
    assert post(grace, "/office/price", slug="flask", price="35.50") == 302
    page = client.get("/").text
    assert "€35.50" in page
    assert "€34.00" not in page
    assert "€35.50" in client.get("/things/flask").text


@pytest.mark.parametrize("price", ["", "0", "-1", "1e9", "NaN", "Infinity", "0.001", "two", "10000"])
def test_a_wrong_price_is_refused(app: Flask, price: str) -> None:
    """A price that is none changes nothing."""
    grace = signed_in(app.test_client(), "grace")
    assert post(grace, "/office/price", slug="flask", price=price) == 400
    assert 'value="34.00"' in grace.get("/office/").text


def test_the_price_of_nothing_is_not_found(app: Flask) -> None:
    """A product that is not sold has no price."""
    assert post(signed_in(app.test_client(), "grace"), "/office/price", slug="nothing", price="1") == 404


def test_the_office_is_for_the_shopkeeper(app: Flask, client: FlaskClient) -> None:
    """Everybody else is kept out, with a page that says so."""
    for visitor in (client, signed_in(app.test_client(), "ada")):
        assert visitor.get("/office/").status_code == 403
        assert post(visitor, "/office/notice", text="Free for all") == 403


def test_a_notice_is_on_every_next_page(app: Flask, client: FlaskClient) -> None:
    """A notice shows at once, also where the page is stored, and goes when it is taken down."""
    client.get("/")
    grace = signed_in(app.test_client(), "grace")
    post(grace, "/office/notice", text="Closed <on> Sunday")
    assert "Closed &lt;on&gt; Sunday" in client.get("/").text
    post(grace, "/office/notice", text="")
    assert "Closed" not in client.get("/").text


def test_the_address_is_filled_in_the_next_time(app: Flask) -> None:
    """A user's last address is there in a new session; another visitor's form is empty."""
    order(signed_in(app.test_client(), "ada"), "diary")
    again = signed_in(app.test_client(), "ada")
    post(again, "/cart/flask/add", quantity=1)
    assert 'value="1 Engine Row"' in again.get("/check-out").text
    other = app.test_client()
    post(other, "/cart/flask/add", quantity=1)
    assert "Engine Row" not in other.get("/check-out").text


def test_everything_may_lie_in_the_database(shop_with: t.Callable[..., Flask]) -> None:
    """As it comes, the shop keeps its sessions where its orders are."""
    client = signed_in(shop_with({"default": "db", "cache": "memory://"}).test_client(), "ada")
    order(client, "diary")
    assert "€21.00" in client.get("/orders").text
    assert "the database" in client.get("/cart").text
