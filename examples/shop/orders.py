"""Orders: rows in the shop's own database."""

from sqlalchemy import func, select

from . import kept
from .cart import Line
from .catalogue import Product
from .database import Order, OrderLine, ProductRow, Stock
from .extensions import db, state


class SoldOut(Exception):
    """There is not enough of a product.

    :param left: how many there are.
    """

    def __init__(self, product: Product, left: int) -> None:
        super().__init__(product.slug)
        self.product = product
        self.left = left


def place(lines: list[Line]) -> Order:
    """Order what is in some lines, and send it where this tab says.

    :raises SoldOut: if there is not enough of a product.
    """
    order = Order(user_id=state.user_id, recipient=_recipient(), delivery=kept.checkout.delivery)
    db.session.add(order)
    for line in lines:
        product = db.session.get_one(ProductRow, line.product.slug)
        stock = db.session.get_one(Stock, line.product.slug)
        if stock.left < line.quantity:
            raise SoldOut(line.product, stock.left)
        stock.left -= line.quantity
        order.lines.append(OrderLine(slug=product.slug, quantity=line.quantity, cents=product.cents))
    return order


def of_user(user_id: str) -> list[Order]:
    """Return what somebody has ordered, the newest first."""
    return list(db.session.scalars(select(Order).where(Order.user_id == user_id).order_by(Order.id.desc())))


@state.cache.memoize()
def count() -> int:
    """Return how many orders there are. It is counted again after the next one, and not before."""
    return db.session.scalar(select(func.count(Order.id))) or 0


def _recipient() -> str:
    return ", ".join((kept.checkout.name, kept.checkout.street, kept.checkout.town))
