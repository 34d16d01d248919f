"""The application factory: ``gunicorn --chdir examples "shop:create_app()"``."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, render_template
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from flask_stateful.errors import LockTimeout

from . import cart, kept, office, views
from .catalogue import money, new_rows, price
from .csrf import check_csrf_token, csrf_token
from .database import set_up
from .drawer import drawer
from .extensions import db, state

#: Scripts, styles and pictures are our own files; nothing is inline, and no text becomes a script.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the shop.

    The environment may set what Flask and Flask-Stateful read: with ``FLASK_STATEFUL_STORE=redis://localhost`` and a
    ``FLASK_SECRET_KEY``, sessions live in Redis. ``DATABASE_URL`` names the database, a file in the instance folder
    unless it says otherwise.

    :param config: settings that go before all others; ``INSTANCE_PATH`` is the folder for what the shop keeps, and
        ``SHOP_THINKS_FOR`` says how many seconds a recommendation takes.
    """
    config = dict(config or {})
    app = Flask(__name__, instance_path=config.pop("INSTANCE_PATH", None))
    # In the database, so that an order and the cart that it empties are one transaction.
    app.config["STATEFUL_STORE"] = {"default": "db", "cache": "sqlite:///cache.sqlite3"}
    app.config["SQLALCHEMY_ENGINES"] = {"default": os.environ.get("DATABASE_URL", "sqlite:///shop.sqlite3")}
    app.config["SHOP_THINKS_FOR"] = 0.4
    app.config.from_prefixed_env()
    app.config.update(config)
    # SQLite makes files that everybody on the machine may read; nobody else gets into this folder.
    Path(app.instance_path).mkdir(mode=0o700, parents=True, exist_ok=True)
    db.init_app(app)
    state.init_app(app)
    set_up(app, new_rows())
    app.before_request(check_csrf_token)
    app.after_request(_secure)
    app.register_blueprint(views.bp)
    app.register_blueprint(office.bp)
    _register_errors(app)
    app.jinja_env.filters.update(money=money, price=price, moment=_moment)
    # Functions, not values: a page that calls none of them does not look at the session.
    app.jinja_env.globals.update(
        state=state,
        users=views.USERS,
        csrf_token=csrf_token,
        cart_size=cart.size,
        drawer=drawer,
        prefs=kept.prefs,
        checkout=kept.checkout,
        banner=kept.banner,
        notice=kept.notice,
        keeper=office.KEEPER,
    )
    return app


def _register_errors(app: Flask) -> None:
    @app.errorhandler(400)
    @app.errorhandler(403)
    @app.errorhandler(404)
    @app.errorhandler(500)
    @app.errorhandler(503)  # what Flask-Stateful answers when the store cannot be reached
    def show_error(error: HTTPException) -> ResponseReturnValue:
        return render_template("error.html", status=error.code), error.code or 500

    @app.errorhandler(LockTimeout)
    def show_busy(error: LockTimeout) -> ResponseReturnValue:
        return show_error(ServiceUnavailable())


def _secure(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _moment(time: datetime) -> str:
    return f"{time:%-d %b %Y, %H:%M} UTC"
