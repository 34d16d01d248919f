"""Sessions and HTTP: streams, methods, statuses, caches on the way, the cookie's scope, hostile cookies (H31-H36)."""

from __future__ import annotations

import logging
import random
import threading
import typing as t
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    flash,
    get_flashed_messages,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    stream_template_string,
    stream_with_context,
)
from flask.typing import ResponseReturnValue
from werkzeug.http import parse_cookie
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, TestResponse

from flask_stateful import StateClosed, Stateful, signals
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore

from .conftest import MakeApp, MakeVisitor
from .support import Visitor, session_cookies, stored_key

HTTPS = "https://localhost"


@pytest.fixture
def counted() -> FaultyStore:
    """A store in memory that counts its calls."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def quick(make_app: MakeApp, counted: FaultyStore) -> Flask:
    """An application with that store, which has not answered a request yet."""
    return make_app(counted)


class Ada(t.Protocol):
    """Visit an application that is ready, and leave a session there."""

    def __call__(self, app: Flask) -> Visitor: ...


@pytest.fixture
def make_ada(make_visitor: MakeVisitor, counted: FaultyStore) -> Ada:
    """Make a visitor with a session; the store's calls are counted from then on."""

    def make_ada(app: Flask) -> Visitor:
        visitor = make_visitor(app)
        visitor.visit(lambda: session.update(name="Ada"))
        counted.reset()
        return visitor

    return make_ada


@pytest.fixture
def ada(make_ada: Ada, quick: Flask) -> Visitor:
    """Such a visitor of that application."""
    return make_ada(quick)


class Sender(Visitor):
    """A visitor whose browser sends a header of cookies, and keeps none.

    :param header: the header as a server hands it on.
    """

    def __init__(self, app: Flask, header: str) -> None:
        super().__init__(app)
        self.client = app.test_client(use_cookies=False)
        self.client.environ_base["HTTP_COOKIE"] = header


# H31: streams


def test_h31_what_was_written_before_a_stream_is_saved(visitor: Visitor, make_visitor: MakeVisitor) -> None:
    """H31: what the view has written is saved before the first byte of the body is made."""
    visitor.visit(lambda: session.update(name="nobody"))
    seen_meanwhile: list[object] = []

    def body() -> t.Iterator[str]:
        seen_meanwhile.append(make_visitor(visitor.app, cookies_of=visitor).ask(lambda: dict(session)))
        yield "body"

    response = visitor.visit(lambda: session.update(name="Ada") or Response(body()))
    assert response.text == "body"
    assert seen_meanwhile == [{"name": "Ada"}]


def test_h31_stream_reads_what_the_view_saw(visitor: Visitor) -> None:
    """H31: a streamed body reads the session as the view left it, though another request writes meanwhile."""
    visitor.visit(lambda: session.update(name="Ada", cart=[1]))

    def view() -> Response:
        session["cart"].append(2)

        @stream_with_context
        def body() -> t.Iterator[str]:
            visitor.visit(lambda: session.update(name="Grace"))
            yield f"{session['name']} {session['cart']}"

        return Response(body())

    response = visitor.visit(view)
    assert response.text == "Ada [1, 2]"
    assert response.headers["Vary"] == "Cookie"
    assert visitor.ask(lambda: dict(session)) == {"name": "Grace", "cart": [1, 2]}


@pytest.mark.parametrize(
    "write",
    [
        lambda _: session.update(late=1),
        lambda _: session.pop("name"),
        lambda _: session.clear(),
        lambda _: flash("late"),
        lambda _: setattr(session, "permanent", True),
        lambda _: setattr(session, "modified", True),
        lambda state: state.sessions.rotate(),
        lambda state: state.sessions.login("eve"),
        lambda state: state.sessions.logout(),
        lambda state: state.sessions.destroy(),
    ],
    ids=["update", "pop", "clear", "flash", "permanent", "modified", "rotate", "login", "logout", "destroy"],
)
@pytest.mark.parametrize("looked_before", [False, True], ids=["untouched", "looked before"])
def test_h31_every_write_in_a_stream_is_an_error(
    ada: Visitor, state: Stateful, write: Callable[[Stateful], object], looked_before: bool
) -> None:
    """H31: whatever changes the session while the body is streamed raises StateClosed and changes nothing."""

    def view() -> Response:
        _ = looked_before and session["name"]

        @stream_with_context
        def body() -> t.Iterator[str]:
            yield "first"
            write(state)

        return Response(body())

    response = ada.visit(view, buffered=False)
    with pytest.raises(StateClosed, match="write to it before the view returns"):
        response.get_data()
    assert ada.ask(lambda: (dict(session), state.user_id)) == ({"name": "Ada"}, None)


def test_h31_change_inside_a_list_while_streaming_is_not_saved(ada: Visitor) -> None:
    """H31: a list that is changed in place while the body is streamed is not saved half-way."""

    def view() -> Response:
        cart = session.setdefault("cart", [1])

        @stream_with_context
        def body() -> t.Iterator[str]:
            cart.append(2)
            yield "body"

        return Response(body())

    ada.visit(view)
    assert ada.ask(lambda: session["cart"]) == [1]


def test_h31_streamed_template(visitor: Visitor) -> None:
    """H31: a template that is streamed shows what the view has written, and the response varies by cookie."""

    def view() -> Response:
        session["name"] = "Ada"
        return Response(stream_template_string("Hello {{ session.name }}{% for i in range(3) %}, {{ i }}{% endfor %}."))

    response = visitor.visit(view)
    assert response.text == "Hello Ada, 0, 1, 2."
    assert response.headers["Vary"] == "Cookie"
    assert visitor.ask(lambda: session["name"]) == "Ada"


def test_h31_flashed_messages_in_a_stream_are_shown_and_stay(ada: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    """H31: a page that is sent in parts shows flashed messages; that the next one shows them again is logged."""
    ada.visit(lambda: flash("one"))
    page = "{{ get_flashed_messages() | join }}"
    with caplog.at_level(logging.WARNING, "flask_stateful"):
        assert ada.visit(lambda: Response(stream_template_string(page))).text == "one"
    assert "call get_flashed_messages() before the view returns" in caplog.text
    assert ada.visit(lambda: Response(render_template_string(page))).text == "one"
    assert ada.visit(lambda: Response(stream_template_string(page))).text == ""


def test_flashed_messages_can_be_looked_at_after_the_request(ada: Visitor) -> None:
    """A test that keeps the request's context sees what was flashed in it, as tests of extensions do."""
    with ada.client:
        ada.visit(lambda: flash("one"))
        assert get_flashed_messages() == ["one"]
        with pytest.raises(StateClosed):
            session.pop("name")
    assert ada.ask(get_flashed_messages) == ["one"]


def test_h31_visitor_who_leaves_keeps_the_session(visitor: Visitor) -> None:
    """H31: when the visitor goes before the body is through, what the view has written is kept."""
    closed = threading.Event()

    def body() -> t.Iterator[str]:
        try:
            yield "first"
            yield "second"
        finally:
            closed.set()

    response = visitor.visit(
        lambda: session.update(name="Ada") or Response(stream_with_context(body())), buffered=False
    )
    assert next(t.cast("t.Iterator[bytes]", iter(response.response))) == b"first"
    response.close()
    assert closed.is_set()
    assert visitor.ask(lambda: session["name"]) == "Ada"


def test_h31_thread_that_outlives_the_request(ada: Visitor) -> None:
    """H31: a thread with the request's context reads the session after the response, and cannot write to it."""
    may_go = threading.Event()
    found: list[object] = []

    def view() -> None:
        session["name"] = "Grace"

        @copy_current_request_context
        def work() -> None:
            may_go.wait(60)
            found.append(session["name"])
            with pytest.raises(StateClosed):
                session["late"] = 1
            found.append("refused")

        threads.append(threading.Thread(target=work))
        threads[0].start()

    threads: list[threading.Thread] = []
    ada.visit(view)
    may_go.set()
    threads[0].join(60)
    assert found == ["Grace", "refused"]
    assert ada.ask(lambda: dict(session)) == {"name": "Grace"}


def test_h31_teardown_cannot_write(quick: Flask, make_ada: Ada) -> None:
    """H31: a function that runs when the request is torn down finds the session closed."""
    found: list[type[BaseException]] = []

    @quick.teardown_request
    def teardown(_: BaseException | None) -> None:
        try:
            session["late"] = 1
        except Exception as error:
            found.append(type(error))

    ada = make_ada(quick)
    assert ada.ask(lambda: dict(session)) == {"name": "Ada"}
    assert found == [StateClosed, StateClosed]


# H32: methods and statuses


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_h32_every_method_keeps_what_the_view_does(quick: Flask, make_ada: Ada, method: str) -> None:
    """H32: a view that changes the session does so by whatever method it is reached, and the body is unaffected."""
    quick.add_url_rule(
        "/any", view_func=lambda: session.update(by=request.method) or "x", methods=[method], endpoint="any"
    )
    ada = make_ada(quick)
    response = ada.client.open("/any", method=method)
    assert response.text == ("" if method == "HEAD" else "x")
    assert ada.ask(lambda: session["by"]) == method


@pytest.mark.parametrize("how", ["returned", "raised"])
@pytest.mark.parametrize(
    "status", [200, 201, 204, 206, 301, 302, 303, 304, 307, 400, 401, 403, 404, 409, 410, 418, 429]
)
def test_h32_change_is_kept_with_every_status_below_500(
    make_app: MakeApp, make_visitor: MakeVisitor, status: int, how: str
) -> None:
    """H32: what was changed is saved and the cookie sent, also with a redirect, a 304 or a refusal."""
    visitor = make_visitor(make_app("memory://"))

    def view() -> Response:
        session["name"] = "Ada"
        if how == "raised":
            abort(Response(status=status))
        return Response(status=status)

    response = visitor.visit(view)
    assert response.status_code == status
    assert len(session_cookies(response)) == 1
    assert response.headers["Vary"] == "Cookie"
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada"}


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504])
def test_h32_change_is_discarded_with_a_server_error(ada: Visitor, counted: FaultyStore, status: int) -> None:
    """H32: what was changed by a response of 5xx is forgotten: nothing is written, and no cookie sent."""
    response = ada.visit(lambda: session.update(name="Grace") or Response(status=status))
    assert response.status_code == status
    assert session_cookies(response) == []
    assert counted.calls == {"get": 1}
    assert ada.ask(lambda: dict(session)) == {"name": "Ada"}


def test_h32_change_is_discarded_with_an_exception(quick: Flask, make_ada: Ada, counted: FaultyStore) -> None:
    """H32: the same holds when the view raises; the error page reads what the view has left."""
    quick.register_error_handler(ZeroDivisionError, lambda _: (f"sorry, {session['name']}", 500))
    ada = make_ada(quick)
    response = ada.visit(lambda: session.update(name="Grace") or 1 / 0)
    assert (response.status_code, response.text) == (500, "sorry, Grace")
    assert counted.calls == {"get": 1}
    assert ada.ask(lambda: dict(session)) == {"name": "Ada"}


@pytest.mark.parametrize("status", [200, 204, 206, 302, 304, 404, 500])
def test_h32_reading_sends_no_cookie(ada: Visitor, counted: FaultyStore, status: int) -> None:
    """H32: a response that only read the session has no cookie and writes nothing, whatever its status."""
    response = ada.visit(lambda: session["name"] and Response(status=status))
    assert "Set-Cookie" not in response.headers
    assert response.headers["Vary"] == "Cookie"
    assert "Cache-Control" not in response.headers
    assert counted.calls == {"get": 1}


def test_h32_answer_that_has_not_changed(ada: Visitor) -> None:
    """H32: a conditional request that is answered with 304 varies by cookie like the full answer, and has no cookie."""

    def view() -> Response:
        response = Response(f"Hello {session['name']}")
        response.set_etag("a")
        return response.make_conditional(request)

    response = ada.visit(view, method="GET", headers={"If-None-Match": '"a"'})
    assert response.status_code == 304
    assert response.headers["Vary"] == "Cookie"
    assert session_cookies(response) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("OPTIONS", "/", 200),
        ("PUT", "/", 405),
        ("GET", "/nowhere", 404),
        ("HEAD", "/nowhere", 404),
        ("GET", "/slash", 308),
    ],
)
def test_h32_answers_of_flask_itself_leave_the_session_alone(
    quick: Flask, make_ada: Ada, counted: FaultyStore, method: str, path: str, status: int
) -> None:
    """H32: what Flask answers without a view, a preflight request too, costs no call and has no header of ours."""
    quick.add_url_rule("/slash/", view_func=lambda: "", endpoint="slash")
    ada = make_ada(quick)
    preflight = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    response = ada.client.open(path, method=method, headers=preflight)
    assert response.status_code == status
    assert not {"Set-Cookie", "Vary", "Cache-Control"} & set(response.headers.keys())
    assert not counted.calls


def test_h32_static_files_leave_the_session_alone(make_app: MakeApp, make_visitor: MakeVisitor, tmp_path: Path) -> None:
    """H32: a static file, whole, in part or not changed, costs no call and has no header of ours."""
    (tmp_path / "style.css").write_text("body {}")
    counted = FaultyStore(MemoryStore())
    visitor = make_visitor(make_app(counted, prepare=lambda app: setattr(app, "static_folder", str(tmp_path))))
    visitor.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", True)))
    counted.reset()
    whole = visitor.client.get("/static/style.css")
    part = visitor.client.get("/static/style.css", headers={"Range": "bytes=0-3"})
    same = visitor.client.get("/static/style.css", headers={"If-None-Match": whole.headers["ETag"]})
    assert [response.status_code for response in (whole, part, same)] == [200, 206, 304]
    for response in (whole, part, same):
        assert not {"Set-Cookie", "Vary"} & set(response.headers.keys())
        response.close()
    assert not counted.calls


def test_h32_file_that_is_sent_from_a_view_is_not_read_twice(ada: Visitor, tmp_path: Path) -> None:
    """H32: a download that counts itself is counted, and the file arrives whole and in part."""
    (tmp_path / "file").write_bytes(b"0123456789")

    def view() -> Response:
        session["downloads"] = session.get("downloads", 0) + 1
        return send_file(tmp_path / "file", conditional=True, mimetype="text/plain")

    whole = ada.visit(view, method="GET", buffered=True)
    part = ada.visit(view, method="GET", buffered=True, headers={"Range": "bytes=2-4"})
    assert (whole.status_code, whole.text) == (200, "0123456789")
    assert (part.status_code, part.text) == (206, "234")
    assert ada.ask(lambda: session["downloads"]) == 2


def test_h32_redirect_after_login(visitor: Visitor, state: Stateful) -> None:
    """H32: a login that ends in a redirect is a login: the cookie comes with the redirect."""
    response = visitor.visit(lambda: state.sessions.login("ada") or redirect("/"))
    assert response.status_code == 302
    assert len(session_cookies(response)) == 1
    assert visitor.ask(lambda: state.user_id) == "ada"


# H33, L5: Vary

TOUCHES: dict[str, Callable[[Stateful], object]] = {
    "get": lambda _: session.get("name"),
    "get of nothing": lambda _: session.get("missing"),
    "item": lambda _: session["name"] if session else None,
    "in": lambda _: "name" in session,
    "len": lambda _: len(session),
    "iter": lambda _: list(session),
    "reversed": lambda _: list(reversed(session)),
    "bool": lambda _: bool(session),
    "keys": lambda _: list(session.keys()),
    "values": lambda _: list(session.values()),
    "items": lambda _: list(session.items()),
    "dict": lambda _: dict(session),
    "copy": lambda _: session.copy(),
    "or": lambda _: session | {},
    "equal": lambda _: session == {},
    "pop with a default": lambda _: session.pop("missing", None),
    "setdefault": lambda _: session.setdefault("name", ""),
    "update with nothing": lambda _: session.update(),
    "permanent": lambda _: session.permanent,
    "new": lambda _: session.new,
    "modified": lambda _: session.modified,
    "flash": lambda _: flash("hello"),
    "flashed messages": lambda _: get_flashed_messages(),
    "template": lambda _: render_template_string("{{ session.name }}"),
    "template condition": lambda _: render_template_string("{% if session %}{% endif %}"),
    "write": lambda _: session.update(name="Grace"),
    "delete": lambda _: session.pop("name", None),
    "clear": lambda _: session.clear(),
    "user": lambda state: state.user_id,
    "current": lambda state: state.sessions.current,
    "rotate": lambda state: state.sessions.rotate(),
    "login": lambda state: state.sessions.login("ada"),
    "logout": lambda state: state.sessions.logout(),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
@pytest.mark.parametrize("where", ["view", "before", "after", "error handler"])
def test_h33_whatever_touches_the_session_varies_by_cookie(
    quick: Flask, make_ada: Ada, state: Stateful, touch: Callable[[Stateful], object], where: str
) -> None:
    """H33, L5: however the session is looked at or changed, and wherever, the response varies by cookie."""

    def act(response: Response | None = None) -> t.Any:
        touch(state)
        return response

    view: Callable[[], ResponseReturnValue] = lambda: ""  # noqa: E731
    match where:
        case "view":
            view = lambda: act() or ""  # noqa: E731
        case "before":
            quick.before_request(act)
        case "after":
            quick.after_request(act)
        case _:
            quick.register_error_handler(404, lambda error: act() or ("gone", 404))
            view = lambda: abort(404)  # noqa: E731
    assert Visitor(quick).visit(view).headers.getlist("Vary") == ["Cookie"]
    assert make_ada(quick).visit(view).headers.getlist("Vary") == ["Cookie"]


@pytest.mark.parametrize(
    "view",
    [
        lambda: "",
        lambda: render_template_string("{{ request.path }} {{ config.DEBUG }} {{ g }}"),
        lambda: Response("x", headers={"Vary": "Accept-Language"}),
        lambda: redirect("/elsewhere"),
    ],
    ids=["nothing", "template", "header", "redirect"],
)
def test_w1_untouched_session_costs_nothing(ada: Visitor, counted: FaultyStore, view: Callable[[], t.Any]) -> None:
    """W1: a request that does not touch the session costs no call of the store and no header."""
    response = ada.visit(view)
    assert "Cookie" not in response.headers.get("Vary", "")
    assert "Set-Cookie" not in response.headers
    assert "Cache-Control" not in response.headers
    assert not counted.calls


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Accept-Language", ["accept-language", "cookie"]),
        ("Accept, Accept-Language", ["accept", "accept-language", "cookie"]),
        ("cookie", ["cookie"]),
        ("Accept, COOKIE", ["accept", "cookie"]),
        ("*", ["*", "cookie"]),
    ],
)
def test_h33_other_vary_headers_stay(ada: Visitor, before: str, after: list[str]) -> None:
    """H33: what a view says it varies by is kept, and Cookie is said once."""
    response = ada.visit(lambda: session["name"] and Response("x", headers={"Vary": before}))
    assert sorted(name.lower() for name in response.vary) == after


# H33: a shared cache on the way


class SharedCache:
    """A cache between many visitors and an application, which keeps whatever :rfc:`9111` lets a shared cache keep.

    It is as eager as the rules allow: it keeps what has no lifetime as well, and answers with Set-Cookie and all.

    :param app: the application.
    """

    def __init__(self, app: Flask) -> None:
        self._origin = Client(app, use_cookies=False)
        self._kept: list[tuple[str, dict[str, str | None], TestResponse]] = []

    def get(self, path: str, cookie: str | None) -> tuple[TestResponse, bool]:
        """Answer a request.

        :return: the response, and whether it was kept from another request.
        """
        sent = {"cookie": cookie}
        for kept_path, varied, response in self._kept:
            if path == kept_path and all(sent.get(name) == value for name, value in varied.items()):
                return response, True
        headers = {"Cookie": cookie} if cookie else {}
        response = self._origin.get(path, headers=headers)
        control = response.cache_control
        names = {name.lower() for name in response.vary}
        if response.status_code == 200 and not control.private and not control.no_store and "*" not in names:
            self._kept.append((path, {name: sent.get(name) for name in names}, response))
        return response, False


CACHED_PAGES: dict[str, tuple[Callable[[Stateful], object], str | None]] = {
    "/untouched": (lambda _: "same for all", "public, max-age=600"),
    "/read": (lambda _: session.get("name", "nobody"), "public, max-age=600"),
    "/silent": (lambda _: session.get("name", "nobody"), None),
    "/write": (lambda _: session.update(name=request.args["name"]) or session["name"], "public, s-maxage=600"),
    "/count": (lambda _: session.update(n=session.get("n", 0) + 1) or session.get("name", "nobody"), "max-age=600"),
    "/login": (lambda state: state.sessions.login(request.args["name"]) or state.user_id, "public"),
    "/who": (lambda state: str(state.user_id), "public, max-age=600"),
    "/rotate": (lambda state: state.sessions.rotate() or session.get("name", "nobody"), "max-age=600"),
    "/logout": (lambda state: state.sessions.logout() or "bye", "public, max-age=600"),
    "/permanent": (lambda _: setattr(session, "permanent", True) or session.get("name", "nobody"), None),
}


@pytest.mark.parametrize("seed", range(20))
def test_h33_shared_cache_mixes_no_visitors(make_app: MakeApp, state: Stateful, clock: FakeClock, seed: int) -> None:
    """H33, R25: through a shared cache nobody sees a page, or gets a cookie, that was made for another visitor."""
    app = make_app("memory://", STATEFUL_SESSION_IDLE_TIMEOUT=3600)
    for path, (page, control) in CACHED_PAGES.items():
        app.add_url_rule(path, endpoint=path, view_func=_page(page, state, control))
    cache, choose = SharedCache(app), random.Random(seed)
    visitors = ["ada", "bob", "eve", "zoe"]
    cookies: dict[str, str | None] = dict.fromkeys(visitors)
    made_for: dict[str, str] = {}
    hits = 0
    for _ in range(300):
        name = choose.choice(visitors)
        path = choose.choice(list(CACHED_PAGES))
        if path in ("/write", "/login"):
            path += f"?name={name}"
        clock.advance(choose.choice([0, 1, 200]))
        response, was_kept = cache.get(path, cookies[name])
        hits += was_kept
        others = set(visitors) - {name}
        assert not others & set(response.text.split()), f"{name} sees {response.text} at {path}"
        for header in session_cookies(response):
            value = parse_cookie(header.partition(";")[0])["session"]
            if value:
                assert made_for.setdefault(value, name) == name, f"{name} gets another's cookie at {path}"
            cookies[name] = f"session={value}" if value else None
    assert hits > 20


def _page(page: Callable[[Stateful], object], state: Stateful, control: str | None) -> Callable[[], Response]:
    def view() -> Response:
        return Response(str(page(state)), headers={"Cache-Control": control} if control else {})

    return view


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, {"private"}),
        ("public", {"private"}),
        ("max-age=60", {"max-age=60", "private"}),
        ("public, max-age=60, s-maxage=60", {"max-age=60", "private"}),
        ("public, s-maxage=600, immutable", {"immutable", "private"}),
        ("no-store", {"no-store"}),
        ("no-cache, private", {"no-cache", "private"}),
        ("private, max-age=60", {"private", "max-age=60"}),
    ],
)
@pytest.mark.parametrize("ends", [False, True], ids=["set", "removed"])
def test_r25_response_with_a_cookie_is_private(ada: Visitor, said: str | None, expected: set[str], ends: bool) -> None:
    """R25: a response that sets or removes the cookie is kept by no shared cache, whatever the view says."""

    def view() -> Response:
        session.clear()
        if not ends:
            session["name"] = "Grace"
        return Response("x", headers={"Cache-Control": said} if said else {})

    response = ada.visit(view)
    assert len(session_cookies(response)) == 1
    assert {part.strip() for part in response.headers["Cache-Control"].split(",")} == expected


def test_h33_page_without_a_cookie_stays_as_public_as_it_says(ada: Visitor) -> None:
    """H33: what a view says about caching is left alone where the session was only read, or not at all."""
    public = {"Cache-Control": "public, max-age=60"}
    assert ada.visit(lambda: Response("x", headers=public)).headers["Cache-Control"] == "public, max-age=60"
    read = ada.visit(lambda: session["name"] and Response("x", headers=public))
    assert (read.headers["Cache-Control"], read.headers["Vary"]) == ("public, max-age=60", "Cookie")


# H34: touched after the view


@pytest.mark.parametrize("when", ["before the extension", "after the extension", "this request", "blueprint"])
@pytest.mark.parametrize("viewed", [False, True], ids=["untouched by the view", "touched by the view"])
def test_h34_session_that_is_touched_after_the_view(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, when: str, viewed: bool
) -> None:
    """H34: what a function after the view writes is saved with the rest, however and whenever it was registered."""

    def touch(response: Response) -> Response:
        if request.method == "GET":
            session["after"] = session.get("after", 0) + 1
        return response

    app = make_app(store, prepare=lambda app: when == "before the extension" and app.after_request(touch))
    blueprint = Blueprint("shop", __name__)
    blueprint.add_url_rule("/shop", view_func=lambda: str(viewed and session.get("name")), endpoint="shop")
    if when == "after the extension":
        app.after_request(touch)
    if when == "blueprint":
        blueprint.after_request(touch)
    if when == "this request":
        blueprint.before_request(lambda: after_this_request(touch) and None)
    app.register_blueprint(blueprint)
    visitor = make_visitor(app)
    response = visitor.client.get("/shop")
    assert response.headers["Vary"] == "Cookie"
    assert len(session_cookies(response)) == 1
    assert visitor.ask(lambda: session["after"]) == 1


# H35: the cookie's scope


def said_by(response: TestResponse) -> tuple[str, set[str]]:
    """Return the value of the one Set-Cookie header about a session, and its attributes."""
    [header] = response.headers.getlist("Set-Cookie")
    value, *attributes = (part.strip() for part in header.split(";"))
    return value, set(attributes)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"Path=/", "HttpOnly", "SameSite=Lax"}),
        (
            {"SESSION_COOKIE_DOMAIN": "localhost.example"},
            {"Domain=localhost.example", "Path=/", "HttpOnly", "SameSite=Lax"},
        ),
        ({"SESSION_COOKIE_PATH": "/shop"}, {"Path=/shop", "HttpOnly", "SameSite=Lax"}),
        ({"APPLICATION_ROOT": "/shop"}, {"Path=/shop", "HttpOnly", "SameSite=Lax"}),
        ({"SESSION_COOKIE_HTTPONLY": False}, {"Path=/", "SameSite=Lax"}),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, {"Path=/", "HttpOnly", "SameSite=Strict"}),
        ({"SESSION_COOKIE_SECURE": True}, {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"}),
        (
            {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_PARTITIONED": True, "SESSION_COOKIE_SAMESITE": "None"},
            {"Path=/", "HttpOnly", "SameSite=None", "Secure", "Partitioned"},
        ),
    ],
    ids=lambda value: " ".join(value) or "default" if isinstance(value, dict) else "",
)
def test_h35_cookie_has_the_scope_that_was_set(
    make_app: MakeApp, make_visitor: MakeVisitor, config: dict[str, t.Any], expected: set[str]
) -> None:
    """H35: each of Flask's settings for the cookie has its effect, when it is set and when it is removed."""
    visitor = make_visitor(make_app("memory://", **config))
    response = visitor.visit(lambda: session.update(name="Ada"))
    value, attributes = said_by(response)
    assert attributes == expected
    _, removed = said_by(Sender(visitor.app, value).visit(lambda: session.clear()))
    assert removed == expected | {"Max-Age=0", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"}


@pytest.mark.parametrize("name", ["id", "__Secure-id", "__Host-id"])
def test_h35_cookie_has_the_name_that_was_set(make_app: MakeApp, make_visitor: MakeVisitor, name: str) -> None:
    """H35: the cookie keeps the name that it was given, and only what has that name is looked at."""
    visitor = make_visitor(make_app("memory://", SESSION_COOKIE_NAME=name, SESSION_COOKIE_SECURE=True))
    value, _ = said_by(visitor.visit(lambda: session.update(name="Ada"), base_url=HTTPS))
    assert value.startswith(f"{name}=")
    assert visitor.ask(lambda: dict(session), base_url=HTTPS) == {"name": "Ada"}
    assert Sender(visitor.app, value).ask(lambda: dict(session)) == {"name": "Ada"}
    assert Sender(visitor.app, value.replace(name, "session", 1)).ask(lambda: dict(session)) == {}


def test_h35_https_makes_the_cookie_secure(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H35: on https the cookie is Secure without a setting, also when a proxy says so, and its removal too."""
    app = make_app("memory://")
    direct = make_visitor(app).visit(lambda: session.update(name="Ada"), base_url=HTTPS)
    assert "Secure" in said_by(direct)[1]
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    proxied = {"X-Forwarded-Proto": "https"}
    visitor = make_visitor(app)
    assert "Secure" in said_by(visitor.visit(lambda: session.update(name="Ada"), headers=proxied))[1]
    assert "Secure" not in said_by(make_visitor(app).visit(lambda: session.update(name="Ada")))[1]


@pytest.mark.parametrize("base_url", ["http://localhost", HTTPS])
def test_r29_secure_cookie_never_travels_on_http(
    make_app: MakeApp, make_visitor: MakeVisitor, state: Stateful, base_url: str
) -> None:
    """R29: with SESSION_COOKIE_SECURE no response sets or removes the cookie without Secure, on plain http neither."""
    visitor = make_visitor(make_app("memory://", SESSION_COOKIE_SECURE=True))
    for view in (
        lambda: session.update(name="Ada"),
        lambda: setattr(session, "permanent", True),
        lambda: state.sessions.login("ada"),
        lambda: state.sessions.logout(),
    ):
        assert "Secure" in said_by(visitor.visit(view, base_url=base_url))[1]


TWINS: dict[str, Callable[[str], str]] = {
    "stranger first": lambda ours: f"session=stranger; session={ours}",
    "stranger last": lambda ours: f"session={ours}; session=stranger",
    "another extension's": lambda ours: f"session=eyJ1IjoxfQ.aaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb; session={ours}",
    "empty first": lambda ours: f"session=; session={ours}",
    "twice": lambda ours: f"session={ours}; session={ours}",
    "quoted": lambda ours: f'session="{ours}"',
    "spaces": lambda ours: f"  session={ours}  ;x=y",
    "tab": lambda ours: f"a=b;\tsession={ours}",
    "no spaces": lambda ours: f"a=b;session={ours};c=d",
    "similar names": lambda ours: f"xsession=1; session.x=2; session={ours}; session2=3",
}


@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS)
def test_h35_session_is_found_among_twins(ada: Visitor, twins: Callable[[str], str]) -> None:
    """H35: whatever else the browser sends, under the same name too, the cookie that we have issued is found."""
    assert ada.cookie
    assert Sender(ada.app, twins(ada.cookie)).ask(lambda: dict(session)) == {"name": "Ada"}


@pytest.mark.parametrize("how", ["unknown", "logged out", "alive elsewhere"])
@pytest.mark.parametrize("order", [1, -1])
def test_h35_twin_of_our_own_making(
    ada: Visitor, state: Stateful, counted: FaultyStore, make_visitor: MakeVisitor, how: str, order: int
) -> None:
    """H35: of two cookies that we have both issued, the one with a living session counts: nobody is locked out."""
    other = make_visitor(ada.app)
    other.visit(lambda: session.update(name="Old"))
    assert other.cookie
    assert ada.cookie
    stale = other.cookie
    match how:
        case "unknown":
            counted.delete(stored_key(other))
        case "logged out":
            other.visit(lambda: state.sessions.logout())
    header = "; ".join(f"session={value}" for value in (stale, ada.cookie)[::order])
    expected = "Old" if how == "alive elsewhere" and order == 1 else "Ada"
    assert Sender(ada.app, header).ask(lambda: session["name"]) == expected


def test_h35_dead_twins_do_not_come_back(
    clock: FakeClock, ada: Visitor, state: Stateful, make_visitor: MakeVisitor
) -> None:
    """H35: where no cookie has a living session, what is written begins a new one, or nothing if one was just ended."""
    other = make_visitor(ada.app)
    other.visit(lambda: session.update(name="Old"))
    header = f"session={ada.cookie}; session={other.cookie}"
    ada.visit(lambda: state.sessions.logout())
    other.visit(lambda: state.sessions.logout())
    assert session_cookies(Sender(ada.app, header).visit(lambda: session.update(name="New"))) == []
    clock.advance(11)
    assert len(session_cookies(Sender(ada.app, header).visit(lambda: session.update(name="New")))) == 1


def test_h35_many_twins_cost_four_calls_at_most(ada: Visitor, counted: FaultyStore) -> None:
    """H35: however many cookies of one name there are, four are looked at."""
    assert ada.cookie
    counted.delete(stored_key(ada))
    counted.reset()
    header = "; ".join([f"session={ada.cookie}"] * 50)
    assert Sender(ada.app, header).ask(lambda: dict(session)) == {}
    assert counted.calls["get"] <= 4


def test_h35_path_below_which_the_cookie_is_sent(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H35: a request outside the cookie's path has no session, and one below it has."""
    app = make_app("memory://", SESSION_COOKIE_PATH="/shop")
    app.add_url_rule("/shop/read", view_func=lambda: session.get("name", "nobody"), endpoint="read")
    visitor = make_visitor(app)
    visitor.visit(lambda: session.update(name="Ada"))
    assert visitor.client.get("/shop/read").text == "Ada"
    assert visitor.ask(lambda: dict(session)) == {}


@pytest.mark.parametrize("same_store", [True, False])
def test_h35_two_applications_on_one_host(make_app: MakeApp, store: Store, same_store: bool) -> None:
    """H35: applications under two paths of one host each keep their own session, in one store too."""

    def make(name: str) -> Flask:
        app = make_app(store if same_store else MemoryStore(), STATEFUL_NAMESPACE=name, SESSION_COOKIE_PATH=f"/{name}")
        app.add_url_rule("/write", view_func=lambda: session.update(name=name) or "", endpoint="write")
        app.add_url_rule("/read", view_func=lambda: dict(session), endpoint="read")
        return app

    client = Client(DispatcherMiddleware(Flask("root"), {"/shop": make("shop"), "/blog": make("blog")}))
    assert client.get("/shop/write").status_code == 200
    assert client.get("/blog/read").json == {}
    client.get("/blog/write")
    assert client.get("/shop/read").json == {"name": "shop"}
    assert client.get("/blog/read").json == {"name": "blog"}


def test_h35_applications_that_share_a_cookie_do_not_lock_each_other_out(make_app: MakeApp, store: Store) -> None:
    """H35: under one path, with one key, two applications overwrite each other's cookie but never share a session."""
    apps = [make_app(store, STATEFUL_NAMESPACE=name) for name in ("shop", "blog")]
    shop, blog = (Visitor(app) for app in apps)
    shop.visit(lambda: session.update(name="shop"))
    blog.cookie = shop.cookie
    assert blog.ask(lambda: dict(session)) == {}
    blog.visit(lambda: session.update(name="blog"))
    both = f"session={shop.cookie}; session={blog.cookie}"
    assert Sender(apps[0], both).ask(lambda: dict(session)) == {"name": "shop"}
    assert Sender(apps[1], both).ask(lambda: dict(session)) == {"name": "blog"}


# H36, R4, L4: hostile cookies

HOSTILE: dict[str, str] = {
    "empty": "",
    "one character": "a",
    "300 characters": "a" * 300,
    "8 KiB": "a" * 8192,
    "64 KiB": "a" * 65536,
    "the right length": "a" * 69,
    "the right shape": f"{'0' * 8}.{'a' * 43}.{'0' * 16}",
    "NUL": "\0" * 69,
    "line break": "a\r\nSet-Cookie: x=y",
    "UTF-8": "ä€😀".encode().decode("latin-1"),
    "not UTF-8": "\xff\xfe",
    "quotes": '"a"b"',
    "open quote": '"aaaa',
    "spaces": " " * 300 + 'a"b',
    "percent": "%00%0d%0a%ff",
    "path": "../../../../etc/passwd",
    "wildcard": "*",
    "brackets": "{session}[0]$(id)`id`",
    "a store's key": "tests:session:" + "a" * 43,
    "format": "{0}{1!r}%s%n",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("wrap", ["session={}", "a=b; session={}; c=d", "session={}; session={}"])
def test_h36_hostile_cookie_costs_nothing(ada: Visitor, counted: FaultyStore, value: str, wrap: str) -> None:
    """H36, R4, L4: a cookie that is not of our making costs no call, is not adopted, and is reported once."""
    told: list[object] = []
    eve = Sender(ada.app, wrap.replace("{}", value))
    with signals.session_id_invalid.connected_to(lambda _, **details: told.append(details)):
        assert eve.ask(lambda: dict(session)) == {}
        assert not counted.calls
        response = eve.visit(lambda: session.update(name="Eve"))
    assert told == [{"reason": "forged"}] * 2
    value_sent, _ = said_by(response)
    assert len(value_sent) == len("session=") + 69
    assert value_sent != f"session={value}"


def test_h36_hostile_header_is_no_session(ada: Visitor, counted: FaultyStore) -> None:
    """H36: a header of nothing but separators, or of a thousand cookies, is no session and costs no call."""
    for header in (";" * 5000, "=" * 5000, "; ".join(f"c{number}=v" for number in range(1000)), "session", "\0"):
        assert Sender(ada.app, header).ask(lambda: dict(session)) == {}
    assert not counted.calls


def test_h36_forged_cookie_is_removed_only_when_a_session_begins(ada: Visitor) -> None:
    """H36: a forged cookie is left where it is by a request that only reads."""
    response = Sender(ada.app, "session=forged").visit(lambda: dict(session))
    assert "Set-Cookie" not in response.headers


# What Flask promises about its cookie


def expiry_of(response: TestResponse) -> datetime | None:
    """Return when the session's cookie expires, ``None`` if with the browser."""
    _, attributes = said_by(response)
    dates = [part.removeprefix("Expires=") for part in attributes if part.startswith("Expires=")]
    return parsedate_to_datetime(dates[0]) if dates else None


def test_permanent_cookie_lasts_as_long_as_flask_says(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, clock: FakeClock
) -> None:
    """A permanent session's cookie expires after PERMANENT_SESSION_LIFETIME; another one goes with the browser."""
    clock.set(1_800_000_000)
    visitor = make_visitor(make_app(store, PERMANENT_SESSION_LIFETIME=timedelta(days=5)))
    assert expiry_of(visitor.visit(lambda: session.update(name="Ada"))) is None
    response = visitor.visit(lambda: setattr(session, "permanent", True))
    assert expiry_of(response) == datetime.fromtimestamp(1_800_000_000, UTC) + timedelta(days=5)
    assert visitor.ask(lambda: (session["name"], session.permanent)) == ("Ada", True)
    assert expiry_of(visitor.visit(lambda: setattr(session, "permanent", False))) is None


@pytest.mark.parametrize("refresh", [True, False])
def test_refresh_moves_the_expiry_of_a_permanent_cookie(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, clock: FakeClock, refresh: bool
) -> None:
    """SESSION_REFRESH_EACH_REQUEST decides whether reading renews the cookie; it does when the session was renewed."""
    visitor = make_visitor(make_app(store, PERMANENT_SESSION_LIFETIME=1000, SESSION_REFRESH_EACH_REQUEST=refresh))
    first = visitor.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", True)))
    assert session_cookies(visitor.visit(lambda: session["name"])) == []
    clock.advance(500)
    response = visitor.visit(lambda: session["name"])
    if not refresh:
        assert session_cookies(response) == []
        return
    moved, before = expiry_of(response), expiry_of(first)
    assert moved is not None
    assert before is not None
    assert moved - before == timedelta(seconds=500)


def test_cookie_of_an_unchanged_session_is_not_sent_again(visitor: Visitor) -> None:
    """A session that goes with the browser sends its cookie once, however often it is written to."""
    assert len(session_cookies(visitor.visit(lambda: session.update(n=1)))) == 1
    for number in range(3):
        assert session_cookies(visitor.visit(lambda: session.update(n=number))) == []  # noqa: B023


def test_session_that_was_never_written_has_no_cookie(visitor: Visitor, store: Store) -> None:
    """Looking at a session that does not exist makes none: no cookie, nothing in the store."""
    for view in (lambda: dict(session), lambda: session.get("a"), lambda: setattr(session, "permanent", True)):
        assert session_cookies(visitor.visit(view)) == []
    assert list(store.scan("tests:")) == []


def test_session_that_was_emptied_is_removed(visitor: Visitor, store: Store) -> None:
    """Taking out the last key ends the session and removes the cookie, as Flask does."""
    visitor.visit(lambda: session.update(name="Ada"))
    response = visitor.visit(lambda: session.pop("name"))
    assert "Max-Age=0" in said_by(response)[1]
    assert visitor.cookie is None
    assert visitor.ask(lambda: dict(session)) == {}


def test_modified_can_be_set_by_hand(visitor: Visitor, store: Store) -> None:
    """Setting ``modified`` saves the session though nothing differs, as code for Flask's own session does."""
    visitor.visit(lambda: session.update(name="Ada"))
    before = store.get(stored_key(visitor))
    visitor.visit(lambda: session["name"])
    assert store.get(stored_key(visitor)) == before
    visitor.visit(lambda: setattr(session, "modified", True))
    assert store.get(stored_key(visitor)) != before
    assert visitor.ask(lambda: (session["name"], session.modified, session.new, session.accessed)) == (
        "Ada",
        False,
        False,
        True,
    )


def test_flashes_are_shown_once(visitor: Visitor) -> None:
    """A flashed message is shown by the next page that asks, with its category, and then is gone."""
    visitor.visit(lambda: (flash("one"), flash("two", "error")))
    visitor.visit(lambda: "page")
    assert visitor.ask(lambda: get_flashed_messages(with_categories=True)) == [("message", "one"), ("error", "two")]
    assert visitor.ask(lambda: get_flashed_messages()) == []
