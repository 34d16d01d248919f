"""The cart: one session key for each product, ``session["cart:flask"] = 2``.

Flask-Stateful saves what a request changed, key by key. Two tabs that change different products at the same time
change different keys, and both changes are kept. Were the whole cart one dict under one key, the later would win.
"""

from dataclasses import dataclass
from decimal import Decimal

from flask import session

from .catalogue import PRODUCTS, Product
from .extensions import state

#: How many of one product a cart holds.
MOST = 999


@dataclass(frozen=True)
class Line:
    """A product in the cart."""

    product: Product
    quantity: int

    @property
    def price(self) -> Decimal:
        """What all of it costs."""
        return self.product.price * self.quantity


def add(product: Product, quantity: int) -> None:
    """Put some more of a product into the cart."""
    # The new quantity depends on the old one. Without the lock two requests could both read 1 and both write 2.
    with state.sessions.lock():
        session[_key(product)] = min(quantity_of(product) + quantity, MOST)


def put(product: Product, quantity: int) -> None:
    """Have just so many of a product in the cart."""
    # No lock: whatever the quantity was, this is what it shall be. Another product is another key, and not disturbed.
    if quantity:
        session[_key(product)] = quantity
    else:
        session.pop(_key(product), None)


def quantity_of(product: Product) -> int:
    """Return how many of a product are in the cart."""
    return int(session.get(_key(product), 0))


def lines() -> list[Line]:
    """Return what is in the cart, in the order of the shelf."""
    quantities = ((product, quantity_of(product)) for product in PRODUCTS.values())
    return [Line(product, quantity) for product, quantity in quantities if quantity]


def size() -> int:
    """Return how many things are in the cart."""
    return sum(line.quantity for line in lines())


def total(ordered: list[Line]) -> Decimal:
    """Return what some lines cost together."""
    return sum((line.price for line in ordered), Decimal())


def check_out() -> list[Line]:
    """Empty the cart, and return what was in it."""
    # With the lock, what another tab adds is either ordered or still in the cart afterwards, and never neither.
    with state.sessions.lock():
        ordered = lines()
        for line in ordered:
            del session[_key(line.product)]
    return ordered


def _key(product: Product) -> str:
    return f"cart:{product.slug}"
