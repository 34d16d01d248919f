"""Two worker processes with four threads each: nothing is lost to parallel requests, restarts and crashes."""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import threading
import typing as t
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.demo.conftest import PATIENT
from tests.demo.visitor import PATIENCE, SLUGS, Shop, Visitor
from tests.services import Launch, MariaDB, Postgres


def together(count: int, work: t.Callable[[int], None]) -> None:
    """Run some work in threads that begin at the same moment."""
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait(PATIENCE)
        work(number)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(run, number) for number in range(count)]:
            done.result()


def test_parallel_adds_of_one_product_all_count(shop: Shop) -> None:
    """Eight clients with one session add the same product 25 times each, through both workers: there are 200."""
    visitor = Visitor(shop.port).arrive()

    def add(_: int) -> None:
        tab = visitor.twin()
        for _ in range(25):
            assert tab.add("flask").status == 302

    together(8, add)
    assert visitor.cart() == {"flask": 200}
    assert shop.answered("POST /cart/flask/add 302") == shop.workers()


def test_parallel_changes_of_different_products_all_stay(shop: Shop) -> None:
    """Twelve clients with one session each set a product of their own: no change undoes another."""
    visitor = Visitor(shop.port).arrive()
    for quantity in range(1, 9):
        together(len(SLUGS), functools.partial(put, visitor, quantity))
        assert visitor.cart() == dict.fromkeys(SLUGS, quantity)


def put(visitor: Visitor, quantity: int, number: int) -> None:
    """Set the quantity of a product."""
    assert visitor.twin().post(f"/cart/{SLUGS[number]}/put", quantity=quantity).status == 302


def test_tabs_that_open_together_agree_on_the_token(shop: Shop) -> None:
    """After a login, which renews the form token, eight tabs that are opened at once can all send their forms."""
    visitor = Visitor(shop.port).arrive()
    assert visitor.post("/sign-in", user="ada").status == 302
    together(8, lambda _: add_one(visitor.twin()))
    assert visitor.cart() == {"flask": 8}


def add_one(visitor: Visitor) -> None:
    """Open a product and put it into the cart."""
    assert visitor.arrive().add("flask").status == 302


def test_new_workers_find_the_cart(own_shop: Shop) -> None:
    """Neither a reload of the workers nor a stop and start of the server costs anything of the session."""
    visitor = Visitor(own_shop.port).arrive()
    visitor.add("honey-jar", 3)
    visitor.post("/sign-in", user="grace")
    own_shop.reload()
    assert visitor.cart() == {"honey-jar": 3}
    own_shop.restart()
    assert visitor.arrive().add("diary").status == 302
    assert visitor.cart() == {"honey-jar": 3, "diary": 1}
    assert "Grace" in visitor.get("/").text


class Shopping:
    """A visitor's adds of some products, each of them counted as sent, and as confirmed when it was answered."""

    def __init__(self, visitor: Visitor, confirmed: t.Callable[[], None]) -> None:
        self.visitor = visitor
        self.sent: Counter[str] = Counter()
        self.confirmed: Counter[str] = Counter()
        self._on_confirmed = confirmed

    def add(self, slugs: t.Iterable[str]) -> None:
        """Add products, whatever becomes of the server."""
        tab = self.visitor.twin()
        for slug in slugs:
            self.sent[slug] += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = tab.add(slug).status
                assert status in (302, 503)
                if status == 302:
                    self.confirmed[slug] += 1
                    self._on_confirmed()


def test_killed_workers_lose_nothing_confirmed(launch: Launch) -> None:
    """While workers are killed every ten adds, each add that was answered is in the cart, and none is there twice."""
    # A worker that dies with the lock blocks the others for as long as the lock may be held.
    shop = launch(Shop, "--env", f"FLASK_STATEFUL_STORE_TIMEOUT={PATIENCE}", "--env", "FLASK_STATEFUL_LOCK_TIMEOUT=1")
    first = shop.workers()
    tally, killed = itertools.count(1), list[int]()

    def confirmed() -> None:
        if next(tally) % 10 == 0:
            killed.extend(shop.kill_worker())

    visits = [Shopping(Visitor(shop.port).arrive(), confirmed) for _ in range(2)]
    # Each thread has products of its own, so that no two count the same one.
    together(6, lambda number: visits[number % 2].add(SLUGS[number // 2 :: 3] * 5))
    assert len(killed) >= 3
    assert first & set(killed)
    for visit in visits:
        cart = visit.visitor.cart()
        wrong = [slug for slug in SLUGS if not visit.confirmed[slug] <= cart.get(slug, 0) <= visit.sent[slug]]
        assert wrong == []


def test_static_files_touch_no_state(shop: Shop) -> None:
    """A file is answered without a cookie and without `Vary`, also to a visitor with a session."""
    visitor = Visitor(shop.port).arrive()
    for path in ("/static/shop.css", "/static/icon.svg", *(f"/static/pictures/{slug}.svg" for slug in SLUGS)):
        answer = visitor.get(path)
        assert answer.status == 200
        assert answer.headers.get_all("Set-Cookie") is None
        assert answer.headers.get_all("Vary") is None


def test_the_cookie_header_is_as_promised(shop: Shop) -> None:
    """The header names `HttpOnly`, `SameSite=Lax` and the path, and neither `Secure` nor an expiry."""
    cookie = Visitor(shop.port).get("/things/flask").cookie
    assert cookie is not None
    given = {name: value for name, value in cookie.items() if value}
    assert given == {"httponly": True, "samesite": "Lax", "path": "/"}


def test_all_files_lie_in_the_instance_folder(shop: Shop) -> None:
    """What the shop keeps lies in its instance folder, which nobody else may look into."""
    Visitor(shop.port).arrive()
    kept = {path.name: path.stat().st_mode & 0o077 for path in shop.instance.iterdir()}
    assert {"state.key", "cache.sqlite3", "shop.sqlite3"} <= kept.keys()
    assert shop.instance.stat().st_mode & 0o077 == 0
    assert {mode for name, mode in kept.items() if not name.startswith("shop")} == {0}


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def moved_shop(request: pytest.FixtureRequest, launch: Launch) -> Shop:
    """A shop with an empty database, on each server that it can move to."""
    environment = list(PATIENT)
    if request.param != "sqlite":
        server = launch({"postgres": Postgres, "mariadb": MariaDB}[request.param])
        environment += ["--env", f"DATABASE_URL={server.url}", "--env", "FLASK_SECRET_KEY=a secret of the tests"]
    return launch(Shop, *environment)


def test_orders_are_whole_on_every_database(moved_shop: Shop) -> None:
    """Visitors order at the same time, some in two tabs: each cart is ordered once, and taken from the stock once."""
    visitors = [sign_in(Visitor(moved_shop.port).arrive(), "ada") for _ in range(4)]
    for visitor in visitors:
        assert visitor.add("diary", 2).status == 302

    def order(number: int) -> None:
        address = {"name": "Ada", "street": "1 Engine Row", "town": "London"}
        assert visitors[number // 2].twin().post("/cart/check-out", **address).status == 302

    together(8, order)
    assert all(visitor.cart() == {} for visitor in visitors)
    assert visitors[0].get("/orders").text.count("<h2>") == 4
    keeper = sign_in(Visitor(moved_shop.port).arrive(), "grace")
    assert "9,992 left" in keeper.get("/office/").text


def test_a_new_price_reaches_every_worker(moved_shop: Shop) -> None:
    """After the answer that a price was changed, no worker serves a page with an old one."""
    keeper = sign_in(Visitor(moved_shop.port).arrive(), "grace")
    for cents in range(50):
        assert keeper.post("/office/price", slug="flask", price=f"35.{cents:02}").status == 302
        assert f"€35.{cents:02}" in Visitor(moved_shop.port).get("/").text


def sign_in(visitor: Visitor, user: str) -> Visitor:
    """Become somebody, and take up the new token."""
    assert visitor.post("/sign-in", user=user).status == 302
    return visitor.arrive()
