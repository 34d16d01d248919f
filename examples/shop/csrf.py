"""A token in every form, and in the session: another site can send our forms, but cannot know what to put in."""

import secrets

from flask import abort, request, session

from .extensions import state


def csrf_token() -> str:
    """Return this visitor's token, made when the first form is shown."""
    if "csrf_token" not in session:
        # Two tabs that open at once agree on one token: inside the lock the second one sees that of the first.
        with state.sessions.lock():
            session.setdefault("csrf_token", secrets.token_urlsafe(16))
    return str(session["csrf_token"])


def check_csrf_token() -> None:
    """Refuse a form that we did not make for this visitor. A login renews the token, so older forms are refused too."""
    # Flask-Stateful's own endpoint sees to that itself: a script of another site cannot send what it asks for.
    if request.method == "POST" and request.blueprint != "stateful":
        token, given = session.get("csrf_token"), request.form.get("csrf_token", "")
        if token is None or not secrets.compare_digest(token.encode(), given.encode()):
            abort(400)
