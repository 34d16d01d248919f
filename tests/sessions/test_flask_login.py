"""Flask-Login's users are bound to our sessions, and leave them, without a line of the application's."""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from datetime import timedelta

import flask_login
import pytest
from flask import Flask, flash, g, get_flashed_messages, session
from flask_login import current_user, login_user, logout_user
from werkzeug.test import TestResponse

from flask_stateful import Stateful
from flask_stateful.stores.base import Store
from flask_stateful.testing import login

from .conftest import MakeApp, MakeVisitor
from .support import Visitor, add_view, session_cookies

REMEMBER = "remember_token"


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, user_id: str) -> None:
        self.id = user_id


def add_login_manager(app: Flask) -> None:
    """Give an application users, all whose id does not begin with ``no``."""
    manager = flask_login.LoginManager(app)
    manager.user_loader(lambda user_id: None if user_id.startswith("no") else User(user_id))


@pytest.fixture
def app(make_app: MakeApp, store: Store) -> Flask:
    """An application with Flask-Login."""
    app = make_app(store)
    add_login_manager(app)
    return app


def who(visitor: Visitor, state: Stateful) -> tuple[str | None, str | None]:
    """Return who a visitor is for Flask-Login, and who for us."""
    found: tuple[str | None, str | None] = visitor.ask(lambda: (current_user.get_id(), state.user_id))
    return found


def browser_closed(visitor: Visitor) -> None:
    """Forget what a browser forgets when it is closed."""
    visitor.cookie = None


def remember_headers(response: TestResponse) -> list[str]:
    return [header for header in response.headers.getlist("Set-Cookie") if header.startswith(REMEMBER)]


# Logging in


def test_login_binds_the_user(visitor: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """Logging in with Flask-Login binds the user, under a new id, and keeps what the anonymous visitor had."""
    visitor.visit(lambda: session.update(cart=[1]))
    before = make_visitor(visitor.app, cookies_of=visitor)
    visitor.visit(lambda: login_user(User("ada")))
    assert visitor.cookie not in (None, before.cookie)
    assert who(visitor, state) == ("ada", "ada")
    assert visitor.ask(lambda: session["cart"]) == [1]
    assert before.ask(lambda: (dict(session), state.user_id)) == ({}, None)


def test_first_request_can_log_in(visitor: Visitor, state: Stateful) -> None:
    """A visitor without a session can log in, and has one then."""
    response = visitor.visit(lambda: login_user(User("ada")))
    assert len(session_cookies(response)) == 1
    assert who(visitor, state) == ("ada", "ada")


def test_login_drops_the_csrf_token(visitor: Visitor) -> None:
    """A CSRF token from before the login is not good after it."""

    def view() -> bool:
        g.csrf_token = session["csrf_token"]
        login_user(User("ada"))
        return "csrf_token" in g or "csrf_token" in session

    visitor.visit(lambda: session.update(csrf_token="old"))
    assert visitor.ask(view) is False
    assert visitor.ask(lambda: "csrf_token" in session) is False


def test_user_switch(visitor: Visitor, state: Stateful) -> None:
    """Another user who logs in finds nothing of the one before."""
    visitor.visit(lambda: (session.update(cart=[1]), login_user(User("ada"))))
    visitor.visit(lambda: session.update(secret="ada's"))
    visitor.visit(lambda: (session.update(message="welcome"), login_user(User("grace"))))
    assert who(visitor, state) == ("grace", "grace")
    assert visitor.ask(lambda: set(session)) == {"message", "_user_id", "_fresh", "_id"}


def test_same_user_logs_in_again(visitor: Visitor, state: Stateful) -> None:
    """The user who is logged in already, and logs in again, gets a new id and keeps the data."""
    visitor.visit(lambda: (session.update(cart=[1]), login_user(User("ada"))))
    cookie = visitor.cookie
    visitor.visit(lambda: login_user(User("ada")))
    assert visitor.cookie not in (None, cookie)
    assert visitor.ask(lambda: session["cart"]) == [1]


def test_user_ids_that_are_numbers(visitor: Visitor, state: Stateful) -> None:
    """A user whose id is a number is bound by its text."""
    visitor.visit(lambda: login_user(User(t.cast("t.Any", 7))))
    assert who(visitor, state) == ("7", "7")


def test_refused_login(visitor: Visitor, state: Stateful) -> None:
    """A user who is not active is not logged in, and the visitor has no session."""

    class Inactive(User):
        is_active = False

    assert visitor.ask(lambda: login_user(Inactive("ada"))) is False
    assert visitor.cookie is None
    assert who(visitor, state) == (None, None)


def test_login_of_a_failed_request(visitor: Visitor, state: Stateful) -> None:
    """A login in a request that fails does not take place."""
    visitor.visit(lambda: session.update(cart=[1]))
    cookie = visitor.cookie
    assert visitor.visit(lambda: (login_user(User("ada")), 1 / 0)).status_code == 500
    assert visitor.cookie == cookie
    assert who(visitor, state) == (None, None)


def test_confirmed_login_has_a_new_id(visitor: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """A user who confirms the login, by the password again, gets a new id (OWASP ASVS 5.0, 7.2.4)."""
    visitor.visit(lambda: (session.update(cart=[1]), login_user(User("ada"), fresh=False)))
    before = make_visitor(visitor.app, cookies_of=visitor)
    visitor.visit(lambda: flask_login.confirm_login())
    assert visitor.cookie not in (None, before.cookie)
    assert visitor.ask(lambda: (session["cart"], flask_login.login_fresh(), state.user_id)) == ([1], True, "ada")
    assert who(before, state) == (None, None)


def test_confirmed_login_of_nobody(visitor: Visitor, state: Stateful) -> None:
    """A confirmation without a login binds nobody."""
    visitor.visit(lambda: flask_login.confirm_login())
    assert who(visitor, state) == (None, None)


# Logging out


def test_logout_ends_the_session(visitor: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """Logging out with Flask-Login ends the whole session at once, for every copy of its cookie."""
    visitor.visit(lambda: (session.update(cart=[1]), login_user(User("ada"))))
    copy = make_visitor(visitor.app, cookies_of=visitor)
    response = visitor.visit(lambda: logout_user())
    assert len(session_cookies(response)) == 1
    assert visitor.cookie is None
    assert who(copy, state) == (None, None)
    assert copy.ask(lambda: dict(session)) == {}


def test_logout_keeps_what_the_request_says(visitor: Visitor, state: Stateful) -> None:
    """What a request flashes before and after the logout is shown on the next page."""
    visitor.visit(lambda: (session.update(secret=1), login_user(User("ada"))))
    visitor.visit(lambda: (flash("before"), logout_user(), flash("after")))
    assert who(visitor, state) == (None, None)
    assert visitor.ask(lambda: (get_flashed_messages(), "secret" in session)) == (["before", "after"], False)


def test_logout_of_nobody(visitor: Visitor) -> None:
    """A visitor who is not logged in and opens the logout page keeps the cart and the id."""
    visitor.visit(lambda: session.update(cart=[1]))
    cookie = visitor.cookie
    visitor.visit(lambda: logout_user())
    assert visitor.cookie == cookie
    assert visitor.ask(lambda: session["cart"]) == [1]


def test_logout_of_a_failed_request(visitor: Visitor, state: Stateful) -> None:
    """A logout is a logout, also when the request fails."""
    visitor.visit(lambda: login_user(User("ada")))
    assert visitor.visit(lambda: (logout_user(), 1 / 0)).status_code == 500
    assert visitor.cookie is None
    assert who(visitor, state) == (None, None)


def test_logout_while_a_request_is_in_flight(visitor: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """A request in flight, which knows the user from before, does not undo a logout."""
    visitor.visit(lambda: login_user(User("ada")))
    copy = make_visitor(visitor.app, cookies_of=visitor)
    seen: list[str | None] = []
    late = visitor.start(lambda pause: (seen.append(current_user.get_id()), pause(), session.update(late=1)))
    visitor.visit(lambda: logout_user())
    assert session_cookies(late.finish()) == []
    assert seen == ["ada"]
    assert who(copy, state) == (None, None)


# The remember cookie


def test_remembered_user_comes_back(visitor: Visitor, state: Stateful) -> None:
    """A remembered user whose session has gone is bound to a new one, which is not fresh."""
    assert len(remember_headers(visitor.visit(lambda: login_user(User("ada"), remember=True)))) == 1
    assert "_remember" not in visitor.ask(lambda: dict(session))
    browser_closed(visitor)
    response = visitor.visit(lambda: current_user.get_id())
    assert response.text == "ada"
    assert len(session_cookies(response)) == 1
    assert who(visitor, state) == ("ada", "ada")
    assert visitor.ask(lambda: flask_login.login_fresh()) is False


def test_remembered_user_is_bound_at_once(visitor: Visitor, state: Stateful) -> None:
    """In the very request in which a remembered user comes back, we know the user too."""
    visitor.visit(lambda: login_user(User("ada"), remember=True))
    browser_closed(visitor)
    assert who(visitor, state) == ("ada", "ada")


def test_remembered_user_takes_an_anonymous_cart(visitor: Visitor, state: Stateful) -> None:
    """A remembered user who comes back with an anonymous session keeps what is in it."""
    visitor.visit(lambda: login_user(User("ada"), remember=True))
    browser_closed(visitor)
    visitor.app.config["REMEMBER_COOKIE_NAME"] = "another"
    visitor.visit(lambda: session.update(cart=[1]))
    visitor.app.config["REMEMBER_COOKIE_NAME"] = REMEMBER
    anonymous = visitor.cookie
    assert who(visitor, state) == ("ada", "ada")
    assert visitor.cookie not in (None, anonymous)
    assert visitor.ask(lambda: session["cart"]) == [1]


def test_remembered_user_is_gone(visitor: Visitor, state: Stateful) -> None:
    """A remembered user who does not exist any more is nobody."""
    visitor.visit(lambda: login_user(User("nobody"), remember=True))
    browser_closed(visitor)
    assert who(visitor, state) == (None, None)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_logout_forgets_the_user(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, state: Stateful, first: str
) -> None:
    """Logging out removes both cookies, whichever extension was set up first."""
    if first == "ours":
        app = make_app(store)
        add_login_manager(app)
    else:
        app = make_app(store, prepare=add_login_manager)
    visitor = make_visitor(app)
    visitor.visit(lambda: login_user(User("ada"), remember=True, duration=timedelta(days=3)))
    response = visitor.visit(lambda: logout_user())
    assert len(remember_headers(response)) == 1
    assert len(session_cookies(response)) == 1
    assert (visitor.cookie, visitor.client.get_cookie(REMEMBER)) == (None, None)
    assert who(visitor, state) == (None, None)
    assert visitor.cookie is None


# Session protection


def elsewhere(visitor: Visitor, view: Callable[[], object]) -> t.Any:
    """Send a request with the same cookies from another address and browser."""
    return visitor.ask(view, environ_overrides={"REMOTE_ADDR": "192.0.2.1", "HTTP_USER_AGENT": "Another/1.0"})


def test_basic_protection_ends_freshness(visitor: Visitor, state: Stateful) -> None:
    """With basic protection a user who appears elsewhere is still the user, but not fresh."""
    visitor.visit(lambda: login_user(User("ada")))
    assert elsewhere(visitor, lambda: (current_user.get_id(), flask_login.login_fresh(), state.user_id)) == (
        "ada",
        False,
        "ada",
    )


def test_strong_protection_ends_the_session(visitor: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """With strong protection a user who appears elsewhere is nobody, for us too, and the session has ended."""
    visitor.app.config["SESSION_PROTECTION"] = "strong"
    visitor.visit(lambda: (session.update(secret=1), login_user(User("ada"))))
    thief = make_visitor(visitor.app, cookies_of=visitor)
    assert elsewhere(thief, lambda: (current_user.get_id(), state.user_id, dict(session))) == (
        None,
        None,
        {"_remember": "clear"},
    )
    assert who(thief, state) == (None, None)
    assert who(visitor, state) == (None, None)


def test_protection_leaves_the_anonymous_alone(visitor: Visitor, state: Stateful) -> None:
    """With strong protection an anonymous visitor keeps the cart."""
    visitor.app.config["SESSION_PROTECTION"] = "strong"
    visitor.visit(lambda: session.update(cart=[1]))
    assert elsewhere(visitor, lambda: (current_user.get_id(), session["cart"])) == (None, [1])
    assert visitor.ask(lambda: session["cart"]) == [1]


# Users who are told in another way


def test_user_id_of_ones_own(make_visitor: MakeVisitor, store: Store) -> None:
    """With user_id= the application says who the user is, and that goes before the session's user."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY="a secret of 32 characters at least")
    users: list[object] = ["grace", 7, None]
    state = Stateful(app, store=store, user_id=lambda: users.pop(0))
    with app.test_request_context():
        state.sessions.login("ada")
        assert [state.user_id, state.user_id, state.user_id] == ["grace", "7", None]
        assert state.sessions.user_id == "ada"


def test_user_id_of_flask_login(make_visitor: MakeVisitor, store: Store) -> None:
    """The user id can be taken from Flask-Login's current user, also where nobody is logged in."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY="a secret of 32 characters at least")
    state = Stateful(app, store=store, user_id=lambda: current_user.get_id())
    add_login_manager(app)
    with app.test_request_context():
        assert state.user_id is None
        login_user(User("ada"))
        assert state.user_id == "ada"


def test_testing_login(visitor: Visitor, state: Stateful) -> None:
    """A test that logs its client in is known to Flask-Login, too."""
    login(visitor.client, "ada")
    assert who(visitor, state) == ("ada", "ada")


def test_login_of_ours_is_left_alone(visitor: Visitor, state: Stateful) -> None:
    """A user whom the application has logged in with us alone stays, though Flask-Login sees nobody."""
    visitor.visit(lambda: (session.update(cart=[1]), state.sessions.login("ada")))
    assert elsewhere(visitor, lambda: (current_user.get_id(), state.user_id)) == (None, "ada")
    assert visitor.ask(lambda: state.user_id) == "ada"


def test_two_applications(make_app: MakeApp, make_visitor: MakeVisitor, state: Stateful, store: Store) -> None:
    """Of two applications in one process each binds its own users."""
    visitors = []
    for name in ("one", "two"):
        app = make_app(store, STATEFUL_NAMESPACE=name)
        add_login_manager(app)
        visitors.append(make_visitor(app))
    visitors[0].visit(lambda: login_user(User("ada")))
    visitors[1].visit(lambda: login_user(User("grace")))
    assert [who(visitor, state) for visitor in visitors] == [("ada", "ada"), ("grace", "grace")]
    visitors[0].visit(lambda: logout_user())
    assert [who(visitor, state) for visitor in visitors] == [(None, None), ("grace", "grace")]


def test_application_without_us(app: Flask) -> None:
    """An application of the same process that has Flask-Login, but not us, goes its own way."""
    other = Flask(__name__)
    other.config.update(SECRET_KEY="a secret of 32 characters at least")
    add_login_manager(other)
    add_view(other)
    visitor = Visitor(other)
    assert visitor.visit(lambda: (login_user(User("ada")), flask_login.confirm_login())).status_code == 200
    assert visitor.visit(lambda: current_user.get_id()).text == "ada"
    assert visitor.visit(lambda: logout_user()).status_code == 200
