"""Binds Flask-Login's user to the session, where Flask-Login is installed."""

from __future__ import annotations

import typing as t

from flask import session

from .manager import SessionManager

if t.TYPE_CHECKING:
    from flask import Flask


def bind_flask_login(app: Flask, sessions: SessionManager) -> None:
    """Log in and out whoever Flask-Login logs in and out.

    What Flask-Login itself puts into the session in that moment is kept, like all that a request has assigned.
    """
    try:
        import flask_login  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return

    def logged_in(_app: Flask, **_: t.Any) -> None:
        if "_user_id" in session:
            sessions.login(session["_user_id"])

    def logged_out(_app: Flask, **_: t.Any) -> None:
        # An anonymous visitor who opens the logout page keeps the cart.
        if sessions.user_id is not None:
            sessions.logout()

    def protected(app: Flask) -> None:
        # This is how Flask-Login marks a session that its "strong" protection has just emptied.
        if session.get("_remember") == "clear":
            logged_out(app)

    flask_login.user_logged_in.connect(logged_in, app, weak=False)
    flask_login.user_loaded_from_cookie.connect(logged_in, app, weak=False)
    # A user who gives the password again gets a new id as well (OWASP ASVS 5.0, 7.2.4).
    flask_login.user_login_confirmed.connect(logged_in, app, weak=False)
    flask_login.user_logged_out.connect(logged_out, app, weak=False)
    flask_login.session_protected.connect(protected, app, weak=False)
