"""The shop's pages. Every form is a POST that answers with a redirect, so that reloading a page repeats nothing."""

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from . import cart, checkout, company, kept, orders
from .catalogue import Product, find, money, shelf
from .company import companions
from .extensions import state

#: Nobody here has a password: a real shop would ask for one before it calls ``state.sessions.login``.
USERS = {"ada": "Ada Lovelace", "grace": "Grace Hopper"}

#: How many of the products that a visitor has looked at are shown again.
_REMEMBERED = 6

bp = Blueprint("shop", __name__)


def _somebody_is_known() -> bool:
    return state.sessions.current is not None


def _look() -> tuple[object, ...]:
    """Return what the pages of visitors without a session differ in."""
    look = kept.prefs.theme, kept.prefs.drawer, kept.banner.answered, state.consent.has("preferences")
    return *look, kept.notice.text


# Whoever has no session gets the same page as all who have none and like the same look; whoever has one, their own.
@bp.get("/")
@state.cache.view(ttl=60, stale=600, vary=["session", _look], unless=_somebody_is_known, tags=["products"])
def index() -> ResponseReturnValue:
    """Show everything there is."""
    # The function itself: what is read while the template's fragment is made is what the fragment depends on.
    return render_template("index.html", shelf=shelf)


@bp.get("/about")
@state.cache.view(ttl=3600, front=True)
def about() -> ResponseReturnValue:
    """Say how the shop keeps things. The page looks at nobody, so it may be sent before Flask is entered."""
    return render_template("about.html")


@bp.get("/things/<slug>")
def product(slug: str) -> ResponseReturnValue:
    """Show one product, and what this visitor has looked at before."""
    found = _find(slug)
    before = [other for other in map(find, kept.seen.slugs) if other and other != found]
    kept.seen.slugs = [slug, *(product.slug for product in before)][:_REMEMBERED]
    return render_template(
        "product.html", product=found, quantity=cart.quantity_of(found), companions=companions, before=before
    )


@bp.get("/cart")
def show_cart() -> ResponseReturnValue:
    """Show the cart."""
    lines = cart.lines()
    return render_template("cart.html", lines=lines, total=cart.total(lines))


@bp.post("/cart/<slug>/add")
def add(slug: str) -> ResponseReturnValue:
    """Put some more of a product into the cart."""
    found = _find(slug)
    cart.add(found, _quantity(least=1))
    flash(f"{found.name} is in your cart.")
    return redirect(url_for(".product", slug=slug))


@bp.post("/cart/<slug>/put")
def put(slug: str) -> ResponseReturnValue:
    """Have just so many of a product in the cart."""
    cart.put(_find(slug), _quantity(least=0))
    return redirect(url_for(".show_cart"))


@bp.get("/check-out")
def show_checkout() -> ResponseReturnValue:
    """Show the step that this tab has come to."""
    lines = cart.lines()
    if not lines:
        return redirect(url_for(".show_cart"))
    checkout.begin()
    return render_template(
        "checkout.html", lines=lines, total=cart.total(lines), steps=checkout.STEPS, deliveries=checkout.DELIVERIES
    )


@bp.post("/check-out")
def go_on() -> ResponseReturnValue:
    """Keep what was filled in, and go to another step."""
    step = request.form.get("step", "")
    if step not in checkout.STEPS:
        abort(400)
    checkout.fill_in(request.form)
    checkout.go_to(step)
    return redirect(url_for(".show_checkout"))


# The order, the stock, the empty cart, the address and the greeting are kept together or not at all. Where another
# visitor has just bought the same, or another tab has changed the cart, it is done again with what is there then.
@bp.post("/cart/check-out")
@state.atomic(retry=10, isolation="SERIALIZABLE")
def check_out() -> ResponseReturnValue:
    """Order what is in the cart. As nothing here is real, nothing is sent and nothing is charged."""
    checkout.fill_in(request.form)
    if not checkout.is_complete():
        flash("Where shall it go? We need a name, a street and a town.")
        return redirect(url_for(".show_checkout"))
    ordered = cart.lines()
    if ordered:
        orders.place(ordered)
        state.on_commit(lambda: company.note(ordered))
        flash(f"Thank you! {money(cart.total(ordered))}, well pretended: this is a demo, and nothing will be sent.")
    state.reset(kept.cart)
    checkout.leave()
    return redirect(url_for(".index"))


@bp.errorhandler(orders.SoldOut)
def show_sold_out(error: orders.SoldOut) -> ResponseReturnValue:
    """Say what there is not enough of. The order had begun; as this error has left its view, nothing of it is kept."""
    flash(f"There are only {error.left} of {error.product.name} left.")
    return redirect(url_for(".show_cart"))


@bp.get("/orders")
def show_orders() -> ResponseReturnValue:
    """Show what this visitor has ordered."""
    if state.user_id is None:
        return redirect(url_for(".sign_in"))
    return render_template("orders.html", orders=orders.of_user(state.user_id))


@bp.post("/remember")
def remember() -> ResponseReturnValue:
    """Take the answer to our one question; what was remembered goes with a "no". It is asked at two places."""
    slug = request.form.get("slug")
    back = url_for(".privacy") if slug is None else url_for(".product", slug=_find(slug).slug)
    if request.form.get("answer") == "yes":
        state.consent.grant("preferences")
    else:
        state.consent.withdraw("preferences")
    kept.banner.answered = True
    return redirect(back)


@bp.get("/privacy")
def privacy() -> ResponseReturnValue:
    """Tell what is kept, as the classes in ``kept.py`` say it, and let the visitor think again."""
    items = state.inventory()
    return render_template("privacy.html", items=items, remembers=state.consent.has("preferences"))


@bp.get("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Let the visitor choose who to be."""
    return render_template("sign_in.html", users=USERS)


@bp.post("/sign-in")
def log_in() -> ResponseReturnValue:
    """Become somebody. The cart comes along, under a new session id that nobody can have planted."""
    user_id = request.form.get("user", "")
    if user_id not in USERS:
        abort(400)
    state.sessions.login(user_id, remember="remember" in request.form)
    flash(f"Hello {USERS[user_id]}. Your session has a new id, and your cart came along.")
    return redirect(url_for(".index"))


@bp.post("/sign-out")
def log_out() -> ResponseReturnValue:
    """Become nobody: the session is gone, here and in every other tab. The greeting already begins another one."""
    state.sessions.logout()
    flash("You are signed out. The session has ended, and the cart with it.")
    return redirect(url_for(".index"))


def _find(slug: str) -> Product:
    return find(slug) or abort(404)


def _quantity(*, least: int) -> int:
    quantity = request.form.get("quantity", type=int)
    return quantity if quantity is not None and least <= quantity <= cart.MOST else abort(400)
