"""Keys that change, applications that share, and all the ways in which Flask runs a request (H38 to H41)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import typing as t
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, Response, current_app, g, request, session
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, run_wsgi_app

from flask_stateful import ConfigError, StateClosed, Stateful, signals
from flask_stateful.errors import EncodeError
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FaultyStore, login

from .conftest import MakeApp, MakeVisitor
from .support import Visitor, session_cookies, together

OLDEST, OLD, NEW = (
    "the oldest secret of them all, long",
    "an old secret of this application",
    "a new secret of this application",
)


# H38: keys that change


class Rotation(t.Protocol):
    """Make an application with a key and fallbacks, on the store that all of them share."""

    def __call__(self, key: str, *fallbacks: str) -> Flask: ...


@pytest.fixture
def rotate_to(make_app: MakeApp, store: Store) -> Rotation:
    """Make applications as they are deployed one after the other."""
    return lambda key, *fallbacks: make_app(store, SECRET_KEY=key, SECRET_KEY_FALLBACKS=list(fallbacks))


def key_of(cookie: str | None) -> str:
    """Return the id of the key that a cookie was tagged with."""
    assert cookie
    return cookie.split(".")[0]


@pytest.mark.parametrize("fallbacks", [(OLD,), (OLD, OLDEST), (OLDEST, OLD)], ids=["one", "first", "last"])
@pytest.mark.parametrize("use", [lambda: session["name"], lambda: session.update(more=1)], ids=["reads", "writes"])
def test_h38_old_key_is_accepted_and_replaced(
    rotate_to: Rotation, make_visitor: MakeVisitor, fallbacks: tuple[str, ...], use: Callable[[], object]
) -> None:
    """H38: a session of an old key goes on; one use makes cookie and record the new key's, and the old key can go."""
    before = make_visitor(rotate_to(OLD))
    before.visit(lambda: session.update(name="Ada"))
    ada = make_visitor(rotate_to(NEW, *fallbacks), cookies_of=before)
    ada.visit(use)
    assert key_of(ada.cookie) != key_of(before.cookie)
    assert ada.cookie
    assert before.cookie
    assert ada.cookie.split(".")[1] == before.cookie.split(".")[1]
    after = make_visitor(rotate_to(NEW), cookies_of=ada)
    assert after.ask(lambda: session["name"]) == "Ada"


def test_h38_removed_key_is_refused(rotate_to: Rotation, make_visitor: MakeVisitor, store: Store) -> None:
    """H38: a session of a key that is no longer listed does not open, and the visitor can begin another."""
    before = make_visitor(rotate_to(OLD))
    before.visit(lambda: session.update(name="Ada"))
    ada = make_visitor(rotate_to(NEW, OLDEST), cookies_of=before)
    told: list[object] = []
    with signals.session_id_invalid.connected_to(lambda _, **details: told.append(details)):
        assert ada.ask(lambda: dict(session)) == {}
    assert told == [{"reason": "forged"}]
    ada.visit(lambda: session.update(name="Grace"))
    assert ada.ask(lambda: dict(session)) == {"name": "Grace"}


def test_h38_unused_session_survives_two_rotations(rotate_to: Rotation, make_visitor: MakeVisitor) -> None:
    """H38: as long as its key is listed, a session opens, however many keys came after it."""
    before = make_visitor(rotate_to(OLDEST))
    before.visit(lambda: session.update(name="Ada"))
    ada = make_visitor(rotate_to(NEW, OLD, OLDEST), cookies_of=before)
    assert ada.ask(lambda: session["name"]) == "Ada"


@pytest.mark.parametrize("fallbacks", [(NEW,), (NEW, OLD), (OLD, NEW)])
def test_h38_current_key_among_the_fallbacks_changes_nothing(
    make_app: MakeApp, make_visitor: MakeVisitor, fallbacks: tuple[str, ...]
) -> None:
    """H38: a current key that is listed as a fallback as well is no reason to write or to send a cookie."""
    store = FaultyStore(MemoryStore())
    ada = make_visitor(make_app(store, SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=list(fallbacks)))
    ada.visit(lambda: session.update(name="Ada"))
    store.reset()
    assert session_cookies(ada.visit(lambda: session["name"])) == []
    assert store.calls == {"get": 1}


def test_h38_replacing_a_key_takes_one_write(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H38: a session of an old key is written once when it is read, and not again."""
    store = FaultyStore(MemoryStore())
    before = make_visitor(make_app(store, SECRET_KEY=OLD))
    before.visit(lambda: session.update(name="Ada"))
    ada = make_visitor(make_app(store, SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=[OLD]), cookies_of=before)
    store.reset()
    responses = [ada.visit(lambda: session["name"]) for _ in range(3)]
    assert [len(session_cookies(response)) for response in responses] == [1, 0, 0]
    assert store.calls == {"get": 3, "swap": 1}


def test_h38_workers_that_know_both_keys_share_sessions(rotate_to: Rotation, make_visitor: MakeVisitor) -> None:
    """H38: while a new key is rolled out to workers that know it as a fallback already, nothing is lost."""
    waiting, switched = rotate_to(OLD, NEW), rotate_to(NEW, OLD)
    ada = make_visitor(waiting)
    ada.visit(lambda: session.update(n=0))
    for number in range(6):
        other = make_visitor((switched, waiting)[number % 2], cookies_of=ada)
        other.visit(lambda: session.update(n=session["n"] + 1))
        ada = other
    assert ada.ask(lambda: session["n"]) == 6


def test_h38_key_is_read_at_first_use(make_app: MakeApp, make_visitor: MakeVisitor, store: Store) -> None:
    """H38: a key that is set after the extension, and before the first request, is the one that is used."""
    app = make_app(store, SECRET_KEY=None)
    app.secret_key = NEW
    ada = make_visitor(app)
    ada.visit(lambda: session.update(name="Ada"))
    assert make_visitor(make_app(store, SECRET_KEY=NEW), cookies_of=ada).ask(lambda: session["name"]) == "Ada"


def test_h38_application_without_a_key_keeps_sessions_over_a_restart(
    make_app: MakeApp, make_visitor: MakeVisitor
) -> None:
    """H38: with the embedded store and no key, one is made, and a restarted application finds it and the sessions."""
    before = make_visitor(make_app(SECRET_KEY=None))
    before.visit(lambda: session.update(name="Ada"))
    after = make_visitor(make_app(SECRET_KEY=None), cookies_of=before)
    assert after.ask(lambda: session["name"]) == "Ada"
    assert sorted(os.listdir(after.app.instance_path))[0] == "state.key"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"SECRET_KEY": 7}, "SECRET_KEY"),
        ({"SECRET_KEY_FALLBACKS": "old"}, "SECRET_KEY_FALLBACKS"),
        ({"SESSION_COOKIE_SAMESITE": "lux"}, "SESSION_COOKIE_SAMESITE"),
        ({"SESSION_COOKIE_NAME": "__Host-x"}, "SESSION_COOKIE_SECURE"),
        ({"PERMANENT_SESSION_LIFETIME": "long"}, "PERMANENT_SESSION_LIFETIME"),
    ],
)
def test_wrong_setting_of_flask_is_an_error_of_the_page_that_needs_it(
    make_app: MakeApp, make_visitor: MakeVisitor, config: dict[str, t.Any], words: str
) -> None:
    """What is wrong in Flask's own settings fails the first page that uses a session, each time, and no other page."""
    app = make_app("memory://", prepare=lambda app: app.register_error_handler(ConfigError, lambda e: (str(e), 500)))
    app.config.update(config)
    ada = make_visitor(app)
    assert ada.visit(lambda: "page").text == "page"
    for _ in range(2):
        response = ada.visit(lambda: session.update(name="Ada"))
        assert response.status_code == 500
        assert words in response.text


# H39, H40: several applications


@pytest.mark.parametrize("key", [OLD, NEW], ids=["one key", "two keys"])
def test_h39_namespaces_keep_applications_apart(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, key: str
) -> None:
    """H39: two applications on one store, with one key even, see nothing of each other's sessions."""
    shop = make_visitor(make_app(store, STATEFUL_NAMESPACE="shop", SECRET_KEY=OLD))
    shop.visit(lambda: session.update(name="shop"))
    blog = make_visitor(make_app(store, STATEFUL_NAMESPACE="blog", SECRET_KEY=key), cookies_of=shop)
    assert blog.ask(lambda: dict(session)) == {}
    blog.visit(lambda: session.clear())
    blog.visit(lambda: session.update(name="blog"))
    assert shop.ask(lambda: dict(session)) == {"name": "shop"}
    assert [len(list(store.scan(f"{name}:"))) for name in ("shop", "blog")] == [1, 1]


def test_h39_one_namespace_and_key_is_one_application(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """H39: two applications with one store, namespace and key share their sessions."""
    apps = [make_app(store) for _ in range(2)]
    one = make_visitor(apps[0])
    one.visit(lambda: session.update(name="Ada"))
    assert make_visitor(apps[1], cookies_of=one).ask(lambda: session["name"]) == "Ada"


def test_h39_namespace_is_the_applications_name(store: Store, make_visitor: MakeVisitor, tmp_path: Path) -> None:
    """H39: without a setting the namespace is the application's name."""
    app = Flask("corner-shop", instance_path=str(tmp_path))
    app.secret_key = NEW
    app.add_url_rule("/", view_func=lambda: session.update(name="Ada") or "")
    Stateful(app, store=store)
    app.test_client().get("/")
    assert len(list(store.scan("corner-shop:session:"))) == 1


def test_h40_one_extension_serves_every_application_of_a_factory(make_app: MakeApp, state: Stateful) -> None:
    """H40: a factory that is called twice makes two applications, each with settings and sessions of its own."""
    one, other = (
        make_app(MemoryStore(), SESSION_COOKIE_NAME="one"),
        make_app(MemoryStore(), SESSION_COOKIE_NAME="other"),
    )
    ada, bob = Visitor(one), Visitor(other)
    ada.visit(lambda: (session.update(name="Ada"), state.sessions.login("ada")))
    bob.visit(lambda: (session.update(name="Bob"), state.sessions.login("bob")))
    assert ada.ask(lambda: (session["name"], state.user_id)) == ("Ada", "ada")
    assert bob.ask(lambda: (session["name"], state.user_id)) == ("Bob", "bob")


def test_h40_application_is_set_up_once(make_app: MakeApp, state: Stateful) -> None:
    """H40: setting an application up a second time is an error that says so."""
    app = make_app("memory://")
    for again in (state.init_app, Stateful):
        with pytest.raises(ConfigError, match="already has a Stateful; call init_app"):
            again(app)


def test_h40_application_that_was_not_set_up(state: Stateful) -> None:
    """H40: using the extension in an application that it was not set up for is an error that names the fix."""
    app = Flask(__name__)
    app.secret_key = NEW
    with app.test_request_context(), pytest.raises(ConfigError, match=r"served by SecureCookieSessionInterface"):
        state.sessions.login("ada")
    with pytest.raises(ConfigError, match=r"write `state = Stateful\(app\)`"):
        login(app.test_client(), "ada")


def test_h40_another_extension_took_the_session_over(make_app: MakeApp, state: Stateful) -> None:
    """H40: where something else was put in place of our interface, the error names it and says what to remove."""

    class Elsewhere(type(Flask(__name__).session_interface)):  # type: ignore[misc]
        """Another extension's sessions."""

    app = make_app("memory://")
    app.session_interface = Elsewhere()
    with app.test_request_context(), pytest.raises(ConfigError, match="served by Elsewhere; remove what sets"):
        _ = state.user_id


def test_h40_no_store_is_touched_before_the_first_session(make_app: MakeApp, state: Stateful, tmp_path: Path) -> None:
    """H40: setting up an application makes no file and asks no store, and neither does a page without a session."""
    counted = FaultyStore(MemoryStore())
    Visitor(make_app(counted)).visit(lambda: "page")
    assert not counted.calls
    app = make_app()
    Visitor(app).visit(lambda: "page")
    assert not Path(app.instance_path).exists()


@pytest.mark.parametrize("same_store", [True, False])
def test_h39_dispatched_applications(make_app: MakeApp, state: Stateful, store: Store, same_store: bool) -> None:
    """H39: applications that a dispatcher puts under one host serve each request with the right session."""

    def make(name: str) -> Flask:
        where = store if same_store else MemoryStore()
        app = make_app(where, STATEFUL_NAMESPACE=name, SESSION_COOKIE_NAME=f"{name}-session")
        app.add_url_rule("/login", view_func=lambda: state.sessions.login(name) or "", endpoint="login")
        app.add_url_rule("/who", view_func=lambda: str(state.user_id), endpoint="who")
        return app

    client = Client(DispatcherMiddleware(make("root"), {"/shop": make("shop")}))
    client.get("/login")
    assert (client.get("/who").text, client.get("/shop/who").text) == ("root", "None")
    client.get("/shop/login")
    assert (client.get("/who").text, client.get("/shop/who").text) == ("root", "shop")


# H41: ways to run


def test_h41_threads_do_not_mix_visitors(app: Flask, make_visitor: MakeVisitor) -> None:
    """H41: eight threads that serve eight visitors at the same time give each their own session."""
    visitors = [make_visitor(app) for _ in range(8)]

    def use(number: int) -> list[int]:
        visitor = visitors[number]
        visitor.visit(lambda: session.update(number=number, seen=[]))
        for step in range(10):
            visitor.visit(lambda: session["seen"].append(step))  # noqa: B023
        found = visitor.ask(lambda: dict(session))
        assert found == {"number": number, "seen": list(range(10))}
        return t.cast("list[int]", found["seen"])

    assert together(*(lambda number=number: use(number) for number in range(8))) == [list(range(10))] * 8


def in_child(action: Callable[[], t.Any]) -> t.Any:
    """Do something in a forked process, and return what it returned, as JSON."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is what is tested
        child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            os.write(writing, json.dumps(action()).encode())
            status = 0
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(text)


def test_h41_forked_workers_share_sessions(make_app: MakeApp, make_visitor: MakeVisitor, shared_url: str) -> None:
    """H41: an application that has served requests before the fork serves them in every worker, and in the parent."""
    store = open_store(shared_url, timeout=60)
    ada = make_visitor(make_app(store))
    ada.visit(lambda: session.update(visits=[0]))

    def visit(number: int) -> t.Any:
        ada.visit(lambda: session["visits"].append(number))
        return ada.ask(lambda: session["visits"])

    assert in_child(lambda: visit(1)) == [0, 1]
    assert visit(2) == [0, 1, 2]
    assert in_child(lambda: visit(3)) == [0, 1, 2, 3]
    assert visit(4) == [0, 1, 2, 3, 4]
    store.close()


def test_h41_forked_workers_make_different_ids(make_app: MakeApp, make_visitor: MakeVisitor, shared_url: str) -> None:
    """H41: workers that were forked from one application issue ids that differ."""
    store = open_store(shared_url, timeout=60)
    app = make_app(store)
    make_visitor(app).visit(lambda: session.update(name="Ada"))

    def begin() -> list[str | None]:
        visitors = [make_visitor(app) for _ in range(3)]
        for visitor in visitors:
            visitor.visit(lambda: session.update(name="Eve"))
        return [visitor.cookie for visitor in visitors]

    cookies = [*in_child(begin), *in_child(begin), *begin()]
    assert len(set(cookies)) == 9
    store.close()


class AsyncFlask(Flask):
    """An application that runs its asynchronous views in a loop of their own, without another package."""

    def async_to_sync(self, func: Callable[..., t.Coroutine[t.Any, t.Any, t.Any]]) -> Callable[..., t.Any]:
        return lambda *args, **kwargs: asyncio.run(func(*args, **kwargs))


@pytest.mark.parametrize("kind", [AsyncFlask, Flask], ids=["asyncio", "asgiref"])
def test_h41_asynchronous_views(store: Store, kind: type[Flask]) -> None:
    """H41: asynchronous views, their tasks, and functions before and after them use the session as others do."""
    if kind is Flask:
        pytest.importorskip("asgiref")
    app = kind(__name__)
    app.secret_key = NEW
    Stateful(app, store=store)

    @app.before_request
    async def before() -> None:
        session["seen"] = [*session.get("seen", []), "before"]

    @app.after_request
    async def after(response: Response) -> Response:
        session["seen"].append("after")
        return response

    @app.get("/")
    async def view() -> dict[str, t.Any]:
        met = asyncio.Event()

        async def wait() -> None:
            await met.wait()
            session["a"] = True

        async def meet() -> None:
            session["b"] = True
            met.set()

        await asyncio.gather(wait(), meet())
        session["seen"].append("view")
        return dict(session)

    client = app.test_client()
    assert client.get("/").json == {"seen": ["before", "view"], "a": True, "b": True}
    found = client.get("/").json
    assert found
    assert found["seen"] == ["before", "view", "after", "before", "view"]


def test_h41_command_line_has_no_session(app: Flask, state: Stateful) -> None:
    """H41: a command runs with the application and without a request; the session says so as Flask's own does."""

    @app.cli.command("touch")
    def touch() -> None:
        assert current_app.extensions["stateful"]
        with pytest.raises(RuntimeError, match="outside of request context"):
            session["a"] = 1
        with pytest.raises(RuntimeError, match="outside of request context"):
            state.sessions.login("ada")

    result = app.test_cli_runner().invoke(args=["touch"])
    assert result.exit_code == 0, result.exception


def test_h41_session_is_read_without_a_context(visitor: Visitor) -> None:
    """H41: a session that was taken along can be looked at for the first time when the request is over."""
    visitor.visit(lambda: session.update(name="Ada"))
    taken = visitor.ask(lambda: t.cast("t.Any", session)._get_current_object())
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(taken["name"]))
    thread.start()
    thread.join(60)
    assert found == ["Ada"]
    with pytest.raises(StateClosed):
        taken["name"] = "Grace"


# session_transaction and test clients


def test_session_transaction_begins_changes_and_ends_a_session(visitor: Visitor) -> None:
    """Flask's own way to prepare a session in a test works: it makes one, changes it, and removes it."""
    client = visitor.client
    with client.session_transaction() as prepared:
        prepared["name"] = "Ada"
        prepared["cart"] = [1]
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada", "cart": [1]}
    cookie = visitor.cookie
    with client.session_transaction() as prepared:
        assert prepared["name"] == "Ada"
        prepared["cart"].append(2)
    assert visitor.cookie == cookie
    assert visitor.ask(lambda: session["cart"]) == [1, 2]
    with client.session_transaction() as prepared:
        prepared.clear()
    assert visitor.cookie is None
    assert visitor.ask(lambda: dict(session)) == {}


def test_session_transaction_that_only_reads_changes_nothing(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """A transaction that only looks writes nothing and keeps the cookie; one that does not look asks no store."""
    store = FaultyStore(MemoryStore())
    visitor = make_visitor(make_app(store))
    visitor.visit(lambda: session.update(name="Ada"))
    cookie = visitor.cookie
    store.reset()
    with visitor.client.session_transaction():
        pass
    assert not store.calls
    with visitor.client.session_transaction() as prepared:
        assert prepared["name"] == "Ada"
        assert not prepared.new
    assert store.calls == {"get": 1}
    assert visitor.cookie == cookie


def test_session_transaction_that_fails_saves_nothing(visitor: Visitor) -> None:
    """A transaction that ends by an exception, or holds what cannot be stored, leaves the session as it was."""
    visitor.visit(lambda: session.update(name="Ada"))
    with pytest.raises(ZeroDivisionError), visitor.client.session_transaction() as prepared:
        prepared["name"] = 1 / 0
    with pytest.raises(EncodeError), visitor.client.session_transaction() as prepared:
        prepared["name"] = object()
    visitor.visit(lambda: session.update(cart=[]))
    with pytest.raises(EncodeError), visitor.client.session_transaction() as prepared:
        prepared["cart"].append(object())
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada", "cart": []}


def test_session_transaction_is_closed_afterwards(visitor: Visitor) -> None:
    """What is written to the session of a transaction that has ended raises, instead of being lost."""
    with visitor.client.session_transaction() as prepared:
        prepared["name"] = "Ada"
    with pytest.raises(StateClosed):
        prepared["name"] = "Grace"


@pytest.mark.parametrize("inside", ["app_context", "test_request_context", "request of another application", "client"])
def test_test_client_inside_a_context(make_app: MakeApp, visitor: Visitor, inside: str, store: Store) -> None:
    """H41: a test client works the same inside a pushed application or request context, its own or another's."""
    other = make_app(MemoryStore())
    contexts: dict[str, Callable[[], t.Any]] = {
        "app_context": visitor.app.app_context,
        "test_request_context": visitor.app.test_request_context,
        "request of another application": other.test_request_context,
        "client": visitor.app.test_client,
    }
    with contexts[inside]():
        visitor.visit(lambda: session.update(name="Ada"))
        assert visitor.ask(lambda: session["name"]) == "Ada"
        with visitor.client.session_transaction() as prepared:
            prepared["more"] = 1
        assert visitor.ask(lambda: dict(session)) == {"name": "Ada", "more": 1}
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada", "more": 1}


def test_context_that_a_client_keeps_can_be_read(visitor: Visitor) -> None:
    """In ``with client:`` the session of the last request can be read after it, and not written."""
    with visitor.client:
        visitor.visit(lambda: session.update(name="Ada"))
        assert session["name"] == "Ada"
        with pytest.raises(StateClosed):
            session["name"] = "Grace"
        visitor.visit(lambda: session.update(name="Grace"))
        assert session["name"] == "Grace"


def test_request_context_by_hand(visitor: Visitor) -> None:
    """A function that needs a session can be tested in a request context; processing the response saves it."""
    app = visitor.app
    with app.test_request_context():
        session["name"] = "Ada"
        response = app.process_response(app.response_class())
    [header] = response.headers.getlist("Set-Cookie")
    visitor.cookie = header.partition("=")[2].partition(";")[0]
    assert visitor.ask(lambda: session["name"]) == "Ada"
    with app.test_request_context():
        session["name"] = "nobody"
    assert visitor.ask(lambda: session["name"]) == "Ada"


def test_errors_reach_the_test(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """With TESTING, what goes wrong while the session is saved is raised in the test, as Flask's own errors are."""
    visitor = make_visitor(make_app("memory://", TESTING=True))
    visitor.visit(lambda: session.update(cart=[]))
    with pytest.raises(EncodeError, match=r"session\['cart'\]\[0\]"):
        visitor.visit(lambda: session["cart"].append(object()))
    assert visitor.ask(lambda: session["cart"]) == []


def test_client_without_cookies_has_no_session(app: Flask, visitor: Visitor) -> None:
    """A test client that keeps no cookies has a new session with each request."""
    visitor.client = app.test_client(use_cookies=False)
    visitor.visit(lambda: session.update(name="Ada"))
    assert visitor.ask(lambda: dict(session)) == {}


# Requests in requests


@pytest.fixture
def nested(app: Flask) -> Flask:
    """An application with a second view, that other requests ask for."""
    app.add_url_rule(
        "/inner", view_func=lambda: session.update(inner=session.get("inner", 0) + 1) or "inner", endpoint="i"
    )
    return app


@pytest.mark.parametrize("cookies", ["same visitor", "another visitor"])
@pytest.mark.parametrize("look", ["before", "after", "both"])
def test_h41_request_inside_a_request(nested: Flask, make_visitor: MakeVisitor, cookies: str, look: str) -> None:
    """H41: a view that sends a request of its own to the application keeps its session, and so does the other one."""
    outer = make_visitor(nested)
    outer.visit(lambda: session.update(outer=0))

    def view() -> None:
        if look != "after":
            session["outer"] += 1
        inner = make_visitor(nested, **({"cookies_of": outer} if cookies == "same visitor" else {}))
        assert inner.client.get("/inner").text == "inner"
        if look != "before":
            session["outer"] += 1

    assert outer.visit(view).status_code == 200
    inner_is_mine = {"inner": 1} if cookies == "same visitor" else {}
    assert outer.ask(lambda: dict(session)) == {"outer": 2 if look == "both" else 1, **inner_is_mine}


@pytest.mark.parametrize("look", ["before", "after"])
def test_h41_request_that_is_handed_on(nested: Flask, make_visitor: MakeVisitor, look: str) -> None:
    """H41: a view that hands its own request on to another view of the application loses nothing in silence."""
    outer = make_visitor(nested)
    outer.visit(lambda: session.update(outer=0))

    def view() -> str:
        if look == "before":
            session["outer"] += 1
        environ = {**request.environ, "PATH_INFO": "/inner", "REQUEST_METHOD": "GET"}
        body, _, _ = run_wsgi_app(nested, environ, buffered=True)
        if look == "after":
            session["outer"] += 1
        return b"".join(body).decode()

    assert outer.visit(view).text == "inner"
    assert outer.ask(lambda: dict(session)) == {"outer": 1, "inner": 1}


def test_h41_request_that_is_handed_on_to_another_application(
    make_app: MakeApp, make_visitor: MakeVisitor, nested: Flask
) -> None:
    """H41: a view that hands its own request on to another application goes on with its own session."""
    other = make_app(MemoryStore(), SESSION_COOKIE_NAME="other")
    other.add_url_rule("/inner", view_func=lambda: session.update(other=1) or "other", endpoint="inner")
    outer = make_visitor(nested)

    def view() -> str:
        session["before"] = 1
        environ = {**request.environ, "PATH_INFO": "/inner", "REQUEST_METHOD": "GET"}
        body, _, headers = run_wsgi_app(other, environ, buffered=True)
        assert [header.partition("=")[0] for header in headers.getlist("Set-Cookie")] == ["other"]
        session["after"] = 1
        return b"".join(body).decode()

    assert outer.visit(view).text == "other"
    assert outer.ask(lambda: dict(session)) == {"before": 1, "after": 1}


def test_h41_what_is_kept_in_g_is_not_shared_by_sessions(app: Flask, make_visitor: MakeVisitor) -> None:
    """H41: inside one application context, where requests share ``g``, each has its own session all the same."""
    ada, bob = make_visitor(app), make_visitor(app)
    with app.app_context():
        g.csrf_token = "shared"
        ada.visit(lambda: session.update(name="Ada"))
        bob.visit(lambda: session.update(name="Bob"))
        assert (ada.ask(lambda: session["name"]), bob.ask(lambda: session["name"])) == ("Ada", "Bob")


# Test helpers


@pytest.mark.parametrize("user", ["ada", 7])
def test_testing_login_logs_a_client_in(visitor: Visitor, state: Stateful, user: str | int) -> None:
    """``flask_stateful.testing.login`` does what ``state.sessions.login()`` does, and keeps what there was."""
    visitor.visit(lambda: session.update(cart=[1]))
    cookie = visitor.cookie
    login(visitor.client, user)
    assert visitor.cookie != cookie
    assert visitor.ask(lambda: (state.user_id, session["cart"])) == (str(user), [1])


def test_testing_login_of_a_client_without_a_session(app: Flask, state: Stateful) -> None:
    """A client without a session is logged in as well."""
    client: FlaskClient = app.test_client()
    app.add_url_rule("/who", view_func=lambda: str(state.user_id), endpoint="who")
    login(client, "ada")
    assert client.get("/who").text == "ada"
