"""What the shop sells, read from ``products.toml``."""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path


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


def _read() -> dict[str, Product]:
    text = Path(__file__).with_name("products.toml").read_text(encoding="utf-8")
    # Money is never a float, not even on its way in.
    entries = tomllib.loads(text, parse_float=Decimal)
    return {slug: Product(slug=slug, **entry) for slug, entry in entries.items()}


PRODUCTS = _read()
