"""The cart: quantities by product, in the visitor's session.

Every change depends on what is in the cart already, and another tab may change that at the same moment. So each is
made under the session's lock, which reads the cart anew: both changes are kept.
"""

from dataclasses import dataclass
from decimal import Decimal

from . import kept
from .catalogue import Product, shelf
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
    with state.sessions.lock():
        kept.cart.items[product.slug] = min(quantity_of(product) + quantity, MOST)


def put(product: Product, quantity: int) -> None:
    """Have just so many of a product in the cart."""
    with state.sessions.lock():
        if quantity:
            kept.cart.items[product.slug] = quantity
        else:
            kept.cart.items.pop(product.slug, None)


def quantity_of(product: Product) -> int:
    """Return how many of a product are in the cart."""
    return kept.cart.items.get(product.slug, 0)


def lines() -> list[Line]:
    """Return what is in the cart, in the order of the shelf."""
    quantities = ((product, quantity_of(product)) for product in shelf())
    return [Line(product, quantity) for product, quantity in quantities if quantity]


def size() -> int:
    """Return how many things are in the cart."""
    return sum(line.quantity for line in lines())


def total(ordered: list[Line]) -> Decimal:
    """Return what some lines cost together."""
    return sum((line.price for line in ordered), Decimal())
