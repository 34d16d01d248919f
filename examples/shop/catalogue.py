"""What the shop sells: what is said of it is in ``products.toml``, what changes is in the database."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import select

from .database import Base, ProductRow, Stock
from .extensions import db, state

#: How many of each product there are at first.
_STOCK = 10_000


@dataclass(frozen=True, kw_only=True)
class Product:
    """One thing on the shelf; its picture is ``static/pictures/SLUG.svg``."""

    slug: str
    name: str
    price: Decimal
    tint: str
    line: str
    text: str
    keeps: str
    lasts: str
    made_of: str


def money(amount: Decimal) -> str:
    """Write an amount as on a price tag."""
    return f"€{amount:,.2f}"


def price(cents: int) -> Decimal:
    """Return cents as an amount."""
    return Decimal(cents).scaleb(-2)


# The table that it reads is noticed: from a commit on that changes a price, every worker makes it anew.
@state.cache.memoize(ttl=timedelta(days=1))
def shelf() -> tuple[Product, ...]:
    """Return all products, in the order of the shelf."""
    rows = db.session.scalars(select(ProductRow).order_by(ProductRow.place))
    return tuple(
        Product(slug=row.slug, price=price(row.cents), **_TEXTS[row.slug]) for row in rows if row.slug in _TEXTS
    )


def find(slug: str) -> Product | None:
    """Return a product, if there is such a one."""
    return next((product for product in shelf() if product.slug == slug), None)


def left() -> dict[str, int]:
    """Return how many of each product there are."""
    return {row.slug: row.left for row in db.session.scalars(select(Stock))}


def new_rows() -> Iterator[Base]:
    """Yield the rows that an empty database begins with."""
    for place, (slug, amount) in enumerate(_PRICES.items()):
        yield ProductRow(slug=slug, place=place, cents=int(amount.scaleb(2)))
        yield Stock(slug=slug, left=_STOCK)


def _read() -> tuple[dict[str, dict[str, Any]], dict[str, Decimal]]:
    text = Path(__file__).with_name("products.toml").read_text(encoding="utf-8")
    # Money is never a float, not even on its way in.
    entries = tomllib.loads(text, parse_float=Decimal)
    return entries, {slug: entry.pop("price") for slug, entry in entries.items()}


_TEXTS, _PRICES = _read()
