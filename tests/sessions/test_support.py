"""The things that the tests of sessions are made with."""

from __future__ import annotations

from flask import session

from flask_stateful.stores.base import Store

from .conftest import MakeApp, MakeVisitor, Serve
from .support import InterruptedStore, Visitor, session_cookies, together


def test_visitor_keeps_the_cookie(visitor: Visitor) -> None:
    """A visitor brings the cookie of one visit along to the next."""
    response = visitor.visit(lambda: session.update(name="Ada"))
    assert len(session_cookies(response)) == 1
    assert visitor.cookie
    assert visitor.ask(lambda: session["name"]) == "Ada"


def test_late_request_waits(visitor: Visitor) -> None:
    """What a test does while a request waits lies between the request's two halves."""
    order = []
    late = visitor.start(lambda pause: (order.append(1), pause(), order.append(3), pause(), order.append(5)))
    order.append(2)
    late.resume()
    order.append(4)
    assert late.finish().status_code == 200
    assert order == [1, 2, 3, 4, 5]


def test_together_returns_every_result() -> None:
    """Several things done at the same time give their results in their order."""
    assert together(lambda: 1, lambda: 2, lambda: 3) == [1, 2, 3]


def test_interruptions_happen_once(interrupted: InterruptedStore) -> None:
    """An interruption happens before or after the next call, in which calls are not interrupted."""
    interrupted.before("set", lambda: interrupted.set("a", b"before"))
    interrupted.after("set", lambda: interrupted.set("b", b"after"))
    interrupted.set("a", b"1")
    assert (interrupted.get("a"), interrupted.get("b"), interrupted.left) == (b"1", b"after", 0)


def test_interrupted_store_serves_sessions(
    make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore
) -> None:
    """An application can be given a store that is interrupted."""
    visitor = make_visitor(make_app(interrupted))
    visitor.visit(lambda: session.update(name="Ada"))
    assert interrupted.calls["add"] == 1
    assert make_visitor(visitor.app, cookies_of=visitor).ask(lambda: session["name"]) == "Ada"


def test_server_has_two_processes(serve: Serve) -> None:
    """A test can choose which process serves a browser; a second tab shares the first one's cookies."""
    server = serve()
    first = server.browser(0)
    second = server.browser(1, cookies_of=first)
    assert first.get("/pids").json["worker"] != second.get("/pids").json["worker"]
    first.do("set:name=Ada")
    assert second.do("show").json == [{"name": "Ada"}]


def test_request_of_a_process_waits(serve: Serve) -> None:
    """A request to a real process waits where it is told to."""
    server = serve()
    browser = server.browser(0)
    pause = server.make_pause("here")
    browser.send("/do/set:name=Ada/pause:here/show")
    pause.wait()
    pause.go()
    assert browser.receive().json == [{"name": "Ada"}]


def test_store_is_real(store: Store) -> None:
    """The store of a test works by itself."""
    store.set("key", b"value", 60)
    assert store.get("key") == b"value"
