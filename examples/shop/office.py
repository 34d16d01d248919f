"""The shopkeeper's office: prices, and what everybody is told."""

from decimal import Decimal, InvalidOperation

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from . import kept
from .catalogue import left, money, shelf
from .database import ProductRow
from .extensions import db, state

#: Who keeps the shop.
KEEPER = "grace"

_HIGHEST = Decimal(10_000)

bp = Blueprint("office", __name__, url_prefix="/office")


@bp.before_request
def let_in() -> None:
    """Keep everybody else out."""
    if state.user_id != KEEPER:
        abort(403)


@bp.get("/")
def show() -> ResponseReturnValue:
    """Show what can be changed."""
    return render_template("office.html", products=shelf(), left=left())


@bp.post("/notice")
def put_up() -> ResponseReturnValue:
    """Tell everybody something; nothing takes it down."""
    kept.notice.text = request.form.get("text", "").strip()[:100]
    return redirect(url_for(".show"))


# A commit is all that it takes: no page that shows the old price is served after it, by any worker.
@bp.post("/price")
def change_price() -> ResponseReturnValue:
    """Give a product another price."""
    row = db.session.get(ProductRow, request.form.get("slug", "")) or abort(404)
    amount = _amount(request.form.get("price", ""))
    row.cents = int(amount.scaleb(2))
    db.session.commit()
    flash(f"It costs {money(amount)} now.")
    return redirect(url_for(".show"))


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text).quantize(Decimal("0.01"))
        return amount if 0 < amount < _HIGHEST else abort(400)
    except InvalidOperation:
        abort(400)
