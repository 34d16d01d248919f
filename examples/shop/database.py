"""The shop's own tables. The models know nothing of Flask-Stateful."""

from collections.abc import Iterable
from datetime import UTC, datetime

from flask import Flask
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from flask_stateful.stores.sql import METADATA

from .extensions import db, state


class Base(DeclarativeBase):
    """All tables of the shop."""


class ProductRow(Base):
    """A product as it is sold now."""

    __tablename__ = "product"

    slug: Mapped[str] = mapped_column(String(40), primary_key=True)
    #: Its place on the shelf.
    place: Mapped[int]
    #: The price. Money is never a float.
    cents: Mapped[int]


class Stock(Base):
    """How many of a product are left: apart from the product, since it changes with every order, and prices seldom."""

    __tablename__ = "stock"

    slug: Mapped[str] = mapped_column(ForeignKey("product.slug"), primary_key=True)
    left: Mapped[int]


class Order(Base):
    """What somebody has ordered."""

    __tablename__ = "order"

    id: Mapped[int] = mapped_column(primary_key=True)
    #: Nobody's, where the visitor was not signed in.
    user_id: Mapped[str | None] = mapped_column(String(40), index=True)
    ordered_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC).replace(tzinfo=None))
    recipient: Mapped[str] = mapped_column(String(200))
    delivery: Mapped[str] = mapped_column(String(20))
    lines: Mapped[list["OrderLine"]] = relationship(lazy="selectin")

    @property
    def cents(self) -> int:
        """What it comes to."""
        return sum(line.cents * line.quantity for line in self.lines)


class OrderLine(Base):
    """A product in an order, at the price that it had then."""

    __tablename__ = "order_line"

    order_id: Mapped[int] = mapped_column(ForeignKey("order.id"), primary_key=True)
    slug: Mapped[str] = mapped_column(ForeignKey("product.slug"), primary_key=True)
    quantity: Mapped[int]
    cents: Mapped[int]


def set_up(app: Flask, rows: Iterable[Base]) -> None:
    """Make the tables, ours and Flask-Stateful's, and fill the shelf, where that is not done yet.

    A real application has migrations for this, or runs ``flask state db create``.
    """
    # Workers start together, and one of them does it.
    with app.app_context(), state.cache.lock("set up", ttl=60):
        state.database.tune_sqlite(db.engine)
        for metadata in (Base.metadata, METADATA):
            metadata.create_all(db.engine)
        if db.session.scalar(select(ProductRow.slug).limit(1)) is None:
            db.session.add_all(rows)
            db.session.commit()
