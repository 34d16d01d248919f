"""Helpers around Flask's test client."""

from __future__ import annotations

import typing as t

from ..errors import ConfigError
from ..sessions.manager import require_user_id
from ..sessions.session import Session

if t.TYPE_CHECKING:
    from flask.testing import FlaskClient


def login(client: FlaskClient, user_id: str | int) -> None:
    """Log a user in, as ``state.sessions.login()`` does, without a login page.

    Where the application uses Flask-Login, that knows the user as well.

    :param client: what ``app.test_client()`` returned; it gets the session's cookie.
    :param user_id: the user to bind to the client's session.
    :raises ConfigError: if the application has no ``Stateful``.
    """
    with client.session_transaction() as session:
        if not isinstance(session, Session):
            raise ConfigError(
                "this application has no Stateful; write `state = Stateful(app)` or `state.init_app(app)`"
            )
        bound = require_user_id(user_id)
        session.login(bound)
        if hasattr(client.application, "login_manager"):
            session.update(_user_id=bound, _fresh=True)
