"""When the store fails: one bounded wait, a clear answer, no silent loss, nobody is let in (H8 to H13, W2, R28)."""

from __future__ import annotations

import logging
import threading
import typing as t
from collections.abc import Callable

import pytest
from flask import Blueprint, Flask, Response, flash, get_flashed_messages, render_template_string, session
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from flask_stateful import StateConflict, StateError, Stateful, StoreError, StoreUnavailable, signals
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, Fault, FaultyStore
from tests.services import Launch, Redis

from .conftest import MakeApp, MakeVisitor
from .support import Visitor, session_cookies, stored_key, together

WRITE = {"reads": lambda: session["name"], "writes": lambda: session.update(name="Grace")}

#: Seconds that a real server gets to answer; enough for a busy machine.
TIMEOUT = 2


class RemoteStore(MemoryStore):
    """A store behind a network, as far as outages go."""

    remote = True


@pytest.fixture
def faulty() -> FaultyStore:
    """A remote store that fails when it is told to."""
    return FaultyStore(RemoteStore())


@pytest.fixture
def quick(make_app: MakeApp, faulty: FaultyStore) -> Flask:
    """An application with that store, which has not answered a request yet."""
    return make_app(faulty)


Introduce: t.TypeAlias = Callable[[Flask], Visitor]


@pytest.fixture
def introduce(make_visitor: MakeVisitor, faulty: FaultyStore) -> Introduce:
    """Make a visitor with a session; the store's calls are counted from then on."""

    def introduce(app: Flask) -> Visitor:
        visitor = make_visitor(app)
        visitor.visit(lambda: session.update(name="Ada"))
        faulty.reset()
        return visitor

    return introduce


@pytest.fixture
def ada(quick: Flask, introduce: Introduce) -> Visitor:
    """Such a visitor of that application."""
    return introduce(quick)


class Outages:
    """What the signals say about the store, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, t.Any]]] = []
        signals.store_down.connect(self._down)
        signals.store_up.connect(self._up)

    def _down(self, _: Flask, **details: t.Any) -> None:
        self.told.append(("down", details))

    def _up(self, _: Flask, **details: t.Any) -> None:
        self.told.append(("up", details))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


@pytest.fixture
def outages() -> Outages:
    """Listen to what the signals say about the store."""
    return Outages()


# H8: down when the session is read


def test_h08_pages_without_the_session_work(ada: Visitor, faulty: FaultyStore) -> None:
    """H8, W2: a page that does not use the session, and what Flask answers itself, know nothing of the outage."""
    faulty.fail("unavailable")
    assert ada.visit(lambda: "page").text == "page"
    assert ada.client.get("/static/missing.css").status_code == 404
    assert ada.client.options("/").status_code == 200
    assert not faulty.calls


@pytest.mark.parametrize(
    "use",
    [
        lambda _: session["name"],
        lambda _: session.get("name"),
        lambda _: session.update(name="Grace"),
        lambda _: flash("hello"),
        lambda _: session.clear(),
        lambda _: render_template_string("{{ session.name }}"),
        lambda state: state.user_id,
        lambda state: state.sessions.login("ada"),
        lambda state: state.sessions.logout(),
        lambda state: state.sessions.rotate(),
        lambda state: state.sessions.current,
        lambda state: state.sessions.lock().__enter__(),
    ],
    ids=["item", "get", "update", "flash", "clear", "template", "user", "login", "logout", "rotate", "current", "lock"],
)
def test_h08_pages_with_the_session_answer_503(
    ada: Visitor, faulty: FaultyStore, state: Stateful, use: Callable[[Stateful], object]
) -> None:
    """H8, R28: however the session is used, the answer is a 503 that says nothing of the store, after one call."""
    faulty.fail("unavailable")
    cookie = ada.cookie
    response = ada.visit(lambda: use(state))
    assert response.status_code == 503
    assert "The state store cannot be reached." in response.text
    assert "planned" not in response.text
    assert "Set-Cookie" not in response.headers
    assert ada.cookie == cookie
    assert faulty.calls == {"get": 1}


def test_h08_visitor_without_a_cookie_reads_without_the_store(quick: Flask, faulty: FaultyStore) -> None:
    """H8: who has no session is served while the store is down, as long as nothing is to be saved."""
    faulty.fail("unavailable")
    stranger = Visitor(quick)
    assert stranger.ask(lambda: dict(session)) == {}
    assert not faulty.calls
    response = stranger.visit(lambda: session.update(name="Eve"))
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    assert faulty.calls == {"add": 1}


HANDLED: dict[str, t.Any] = {
    "StoreUnavailable": StoreUnavailable,
    "StoreError": StoreError,
    "StateError": StateError,
    "503": 503,
    "ServiceUnavailable": ServiceUnavailable,
    "HTTPException": HTTPException,
    "Exception": Exception,
}


@pytest.mark.parametrize("kind", HANDLED.values(), ids=HANDLED)
@pytest.mark.parametrize("order", ["handler first", "extension first"])
@pytest.mark.parametrize("when", WRITE)
@pytest.mark.parametrize("status", [503, 200])
def test_h08_applications_answer_in_their_own_words(
    make_app: MakeApp, introduce: Introduce, faulty: FaultyStore, kind: t.Any, order: str, when: str, status: int
) -> None:
    """H8, H9, W2: the application's handler answers, for whichever of these errors it is, once, and as it likes."""
    handled: list[Exception] = []

    def handler(error: Exception) -> tuple[str, int]:
        handled.append(error)
        return "in a minute", status

    app = make_app(faulty, prepare=lambda app: order == "handler first" and app.register_error_handler(kind, handler))
    if order == "extension first":
        app.register_error_handler(kind, handler)
    ada = introduce(app)
    faulty.fail(Fault("unavailable", "get" if when == "reads" else "swap"))
    response = ada.visit(WRITE[when])
    assert (response.status_code, response.text) == (status, "in a minute")
    assert len(handled) == 1
    assert session_cookies(response) == []
    faulty.mend()


@pytest.mark.parametrize("kind", [StoreUnavailable, StoreError, Exception])
@pytest.mark.parametrize("when", WRITE)
def test_h08_blueprints_answer_in_their_own_words(
    quick: Flask, introduce: Introduce, faulty: FaultyStore, kind: t.Any, when: str
) -> None:
    """H8, H9: a blueprint's handler answers for the blueprint's views."""
    blueprint = Blueprint("shop", __name__)
    blueprint.register_error_handler(kind, lambda _: ("the shop is closed", 503))
    blueprint.add_url_rule("/shop", view_func=lambda: str(WRITE[when]()), endpoint="shop")
    quick.register_blueprint(blueprint)
    ada = introduce(quick)
    faulty.fail(Fault("unavailable", "get" if when == "reads" else "swap"))
    assert ada.client.get("/shop").text == "the shop is closed"


def test_h08_error_page_that_reads_the_session_renders(
    quick: Flask, introduce: Introduce, faulty: FaultyStore, state: Stateful
) -> None:
    """H8, R28, W2: for an error page the session is empty and nobody is logged in; asking costs no further call."""
    page = """{{ session.name or 'stranger' }}, {{ session.get('cart', []) }}, {{ 'name' in session }},
    {{ session|length }}, {{ get_flashed_messages() }}, {{ session.permanent }}, {{ user }}, {{ current }}"""

    @quick.errorhandler(503)
    def handler(_: Exception) -> tuple[str, int]:
        text = render_template_string(page, user=state.user_id, current=state.sessions.current)
        return " ".join(text.split()), 503

    ada = introduce(quick)
    ada.visit(lambda: state.sessions.login("ada"))
    faulty.reset()
    faulty.fail("unavailable")
    response = ada.visit(lambda: session["name"])
    assert response.text == "stranger, [], False, 0, [], False, None, None"
    assert response.headers["Vary"] == "Cookie"
    assert faulty.calls == {"get": 1}


@pytest.mark.parametrize(
    "write",
    [
        lambda _: session.update(a=1),
        lambda _: session.clear(),
        lambda _: flash("sorry"),
        lambda state: state.sessions.login("root"),
        lambda state: state.sessions.logout(),
    ],
    ids=["update", "clear", "flash", "login", "logout"],
)
def test_h08_session_that_could_not_be_read_is_read_only(
    ada: Visitor, faulty: FaultyStore, state: Stateful, write: Callable[[Stateful], object]
) -> None:
    """H8, R28: who goes on after the failure cannot write: that raises again, without asking the store."""
    faulty.fail(Fault("unavailable", nth=1))

    def view() -> str:
        with pytest.raises(StoreUnavailable, match="planned"):
            session.get("name")
        with pytest.raises(StoreUnavailable, match="for the rest of this request it is empty and read-only"):
            write(state)
        return str(dict(session))

    response = ada.visit(view)
    assert (response.status_code, response.text) == (200, "{}")
    assert "Set-Cookie" not in response.headers
    assert faulty.calls == {"get": 1}
    assert faulty.inner.get(stored_key(ada)) is not None


def test_h08_session_that_is_looked_at_before_the_view(quick: Flask, introduce: Introduce, faulty: FaultyStore) -> None:
    """H8: where a function before the view needs the session, that is what fails, and the view is not run."""
    quick.before_request(lambda: session.get("name") and None)
    ada = introduce(quick)
    ran: list[bool] = []
    faulty.fail("unavailable")
    assert ada.visit(lambda: ran.append(True)).status_code == 503
    assert ran == []


def test_h08_function_after_the_view_that_looks_first(quick: Flask, introduce: Introduce, faulty: FaultyStore) -> None:
    """H8: where only a function after the view needs the session, the answer is an error too, after one call."""

    @quick.after_request
    def after(response: Response) -> Response:
        response.headers["X-Name"] = session.get("name", "nobody")
        return response

    ada = introduce(quick)
    faulty.fail("unavailable")
    response = ada.visit(lambda: "page")
    assert response.status_code >= 500
    assert response.headers["X-Name"] == "nobody"
    assert faulty.calls == {"get": 1}


# H9: down when the session is written


@pytest.mark.parametrize(
    ("write", "fails", "calls"),
    [
        (lambda _: session.update(name="Grace"), "swap", {"get": 1, "swap": 1}),
        (lambda _: setattr(session, "permanent", True), "swap", {"get": 1, "swap": 1}),
        (lambda state: state.sessions.rotate(), "set", {"get": 1, "set": 1}),
        (lambda state: state.sessions.rotate(), "swap", {"get": 1, "set": 1, "swap": 1}),
        (lambda state: state.sessions.login("ada"), "swap", {"get": 1, "set": 1, "swap": 1}),
        (lambda state: state.sessions.logout(), "set", {"get": 1, "set": 1}),
        (lambda _: session.clear(), "swap", {"get": 1, "swap": 1}),
    ],
    ids=["update", "permanent", "rotate early", "rotate late", "login", "logout", "clear"],
)
@pytest.mark.parametrize("kind", ["unavailable", "lost_reply"])
def test_h09_write_that_fails_is_tried_once(
    clock: FakeClock,
    ada: Visitor,
    faulty: FaultyStore,
    state: Stateful,
    write: Callable[[Stateful], object],
    fails: str,
    calls: dict[str, int],
    kind: t.Any,
) -> None:
    """H9, N4: after a view that went well the answer is 503, with no cookie, no second attempt and no waiting."""
    faulty.fail(Fault(kind, fails))
    cookie, began = ada.cookie, clock.monotonic()
    response = ada.visit(lambda: write(state))
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    assert ada.cookie == cookie
    assert faulty.calls == calls
    assert clock.monotonic() == began


@pytest.mark.parametrize("write", ["update", "rotate", "login", "logout", "clear"])
def test_h09_visitor_whose_write_failed_goes_on_as_before(
    clock: FakeClock, ada: Visitor, faulty: FaultyStore, state: Stateful, write: str
) -> None:
    """H9: what could not be saved has not happened: when the store is back the visitor has the old session."""
    writes: dict[str, Callable[[], object]] = {
        "update": lambda: session.update(name="Grace"),
        "rotate": lambda: state.sessions.rotate(),
        "login": lambda: state.sessions.login("ada"),
        "logout": lambda: state.sessions.logout(),
        "clear": lambda: session.clear(),
    }
    faulty.fail(Fault("unavailable", ("set", "swap")))
    assert ada.visit(writes[write]).status_code == 503
    faulty.mend()
    clock.advance(2)
    assert ada.ask(lambda: (session["name"], state.user_id)) == ("Ada", None)


@pytest.mark.parametrize("kind", ["unavailable", "lost_reply"])
def test_h09_new_session_that_was_not_saved_has_no_cookie(quick: Flask, faulty: FaultyStore, kind: t.Any) -> None:
    """H9: a first visit whose session could not be saved sends no cookie, also when it was saved and we do not know."""
    faulty.fail(Fault(kind, "add"))
    response = Visitor(quick).visit(lambda: session.update(name="Eve"))
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    assert faulty.calls == {"add": 1}


def test_h09_error_page_after_a_failed_write_shows_what_is_stored(
    quick: Flask, introduce: Introduce, faulty: FaultyStore
) -> None:
    """H9: an error page that is shown because the session could not be saved reads what is stored."""
    quick.register_error_handler(503, lambda _: (f"sorry, {session['name']} {get_flashed_messages()}", 503))
    ada = introduce(quick)
    faulty.fail(Fault("unavailable", "swap"))
    assert ada.visit(lambda: session.update(name="Grace")).text == "sorry, Ada []"


def test_h09_renewal_that_fails_does_not_spoil_the_page(
    clock: FakeClock, make_app: MakeApp, introduce: Introduce, faulty: FaultyStore
) -> None:
    """H9: a page that only read the session is shown, though renewing it failed; the next request renews."""
    ada = introduce(make_app(faulty, STATEFUL_SESSION_IDLE_TIMEOUT=100))
    clock.advance(60)
    faulty.fail(Fault("unavailable", "swap"))
    response = ada.visit(lambda: session["name"])
    assert (response.status_code, response.text) == (200, "Ada")
    assert faulty.calls == {"get": 1, "swap": 1}
    faulty.mend()
    clock.advance(20)
    assert ada.visit(lambda: session["name"]).text == "Ada"
    clock.advance(90)
    assert ada.visit(lambda: session["name"]).text == "Ada"


def test_h09_store_error_that_is_no_outage(quick: Flask, introduce: Introduce, faulty: FaultyStore) -> None:
    """H9: a store that answers with an error is not down: the application's handler answers, and each request asks."""
    quick.register_error_handler(StoreError, lambda _: ("broken", 500))
    ada = introduce(quick)
    faulty.fail(Fault("error", "get"))
    for _ in range(3):
        assert ada.visit(lambda: session["name"]).text == "broken"
    assert faulty.calls == {"get": 3}


# H10, H13, W2: what an outage costs, and that it ends


def test_w2_outage_costs_one_call(clock: FakeClock, ada: Visitor, faulty: FaultyStore, outages: Outages) -> None:
    """W2: after the first failure no request asks the store, until a second has passed; then one asks."""
    faulty.fail("unavailable")
    for _ in range(10):
        assert ada.visit(lambda: session["name"]).status_code == 503
    assert faulty.calls == {"get": 1}
    clock.advance(0.9)
    ada.visit(lambda: session["name"])
    assert faulty.calls == {"get": 1}
    clock.advance(0.2)
    for _ in range(10):
        ada.visit(lambda: session["name"])
    assert faulty.calls == {"get": 2}
    assert outages.told == [("down", {"store": "sessions", "error": "StoreUnavailable"})]


def test_h13_store_that_is_back_is_used_again(
    clock: FakeClock, ada: Visitor, faulty: FaultyStore, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    """H13, W2: when the store answers again, sessions work without a restart; each change is told and logged once."""
    with caplog.at_level(logging.WARNING, "flask_stateful"):
        for _ in range(2):
            faulty.fail("unavailable")
            assert ada.visit(lambda: session["name"]).status_code == 503
            assert ada.visit(lambda: session["name"]).status_code == 503
            faulty.mend()
            clock.advance(2)
            assert ada.visit(lambda: session["name"]).text == "Ada"
            assert ada.visit(lambda: session["name"]).text == "Ada"
    assert outages.names == ["down", "up", "down", "up"]
    lines = [record.getMessage().split(":")[0] for record in caplog.records]
    changes = [line for line in lines if line != "answered 503"]
    assert changes == ["the sessions store is down", "the sessions store is up again"] * 2


def test_w2_threads_that_come_during_an_outage_do_not_wait(
    clock: FakeClock, ada: Visitor, faulty: FaultyStore, outages: Outages, make_visitor: MakeVisitor
) -> None:
    """W2: eight threads with a hundred requests during an outage cost no call and no wait; the outage is told once."""
    faulty.fail(Fault("slow", seconds=0.25), "unavailable")
    ada.visit(lambda: session["name"])
    began = clock.monotonic()
    visitors = [make_visitor(ada.app, cookies_of=ada) for _ in range(8)]

    def visit_often(visitor: Visitor) -> set[int]:
        return {visitor.visit(lambda: session["name"]).status_code for _ in range(12)}

    results = together(*(lambda visitor=visitor: visit_often(visitor) for visitor in visitors))
    assert results == [{503}] * 8
    assert faulty.calls == {"get": 1}
    assert clock.monotonic() == began
    assert outages.names == ["down"]


def test_w2_each_application_minds_its_own_store(
    make_app: MakeApp, introduce: Introduce, faulty: FaultyStore, outages: Outages
) -> None:
    """W2: of two applications, each with a store, only the one whose store is down fails."""
    sick, well = introduce(make_app(faulty)), Visitor(make_app(MemoryStore()))
    well.visit(lambda: session.update(name="Bob"))
    faulty.fail("unavailable")
    assert sick.visit(lambda: session["name"]).status_code == 503
    assert well.ask(lambda: session["name"]) == "Bob"


@pytest.mark.parametrize("act", WRITE.values(), ids=WRITE)
def test_h10_slow_store_is_waited_for(
    clock: FakeClock, ada: Visitor, faulty: FaultyStore, act: Callable[[], object]
) -> None:
    """H10: a store that is slow but answers in its own time is waited for; what is bounded is the store's matter."""
    faulty.fail(Fault("slow", seconds=0.2))
    began = clock.monotonic()
    assert ada.visit(act).status_code == 200
    assert clock.monotonic() - began == pytest.approx(0.2 * sum(faulty.calls.values()))


# H11, H12: stores that forget or drop


def test_h11_evicted_session_is_over(ada: Visitor, faulty: FaultyStore) -> None:
    """H11: a session that the store has thrown out is treated as unknown, told as such, and begun anew."""
    faulty.delete(stored_key(ada))
    told: list[dict[str, t.Any]] = []
    cookie = ada.cookie
    with signals.session_id_invalid.connected_to(lambda _, **details: told.append(details)):
        assert ada.ask(lambda: dict(session)) == {}
    assert told == [{"reason": "unknown"}]
    ada.visit(lambda: session.update(name="Grace"))
    assert ada.cookie != cookie
    assert ada.ask(lambda: dict(session)) == {"name": "Grace"}


def test_h11_session_that_is_evicted_in_mid_request_is_not_revived(ada: Visitor, faulty: FaultyStore) -> None:
    """H11: a request in whose middle the store throws the session out saves nothing."""
    late = ada.start(lambda pause: (session["name"], pause(), session.update(late=1)))
    faulty.inner.delete(stored_key(ada))
    late.finish()
    assert ada.ask(lambda: dict(session)) == {}


def test_h11_redis_that_evicts(launch: Launch, make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H11: with a Redis that evicts, early visitors lose their session and get another; nobody gets an error."""
    server = launch(Redis, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru", "--save", "")
    app = make_app(server.url, STATEFUL_STORE_TIMEOUT=TIMEOUT)
    visitors = [make_visitor(app) for _ in range(60)]
    for visitor in visitors:
        assert visitor.visit(lambda: session.update(data=bytes(50_000))).status_code == 200
    found = [visitor.ask(lambda: len(session)) for visitor in visitors]
    assert 0 in found
    assert found[-1] == 1
    lost = visitors[found.index(0)]
    lost.visit(lambda: session.update(name="again"))
    assert lost.ask(lambda: dict(session)) == {"name": "again"}


def test_h12_redis_that_is_full(launch: Launch, make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H12: with a Redis that takes no more, a session that cannot be saved is an error, without a cookie."""
    server = launch(Redis, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction", "--save", "")
    app = make_app(server.url, STATEFUL_STORE_TIMEOUT=TIMEOUT)
    first = make_visitor(app)
    first.visit(lambda: session.update(name="Ada"))
    statuses: list[int] = []
    while not statuses or (statuses[-1] == 200 and len(statuses) < 100):
        response = make_visitor(app).visit(lambda: session.update(data=bytes(100_000)))
        statuses.append(response.status_code)
        assert len(session_cookies(response)) == (response.status_code == 200)
    assert statuses[-1] in (500, 503)
    assert first.ask(lambda: session["name"]) == "Ada"


@pytest.mark.parametrize(
    ("operation", "write"),
    [("add", None), ("swap", "update"), ("swap", "rotate"), ("swap", "clear")],
)
def test_h12_store_that_does_nothing_and_does_not_say_so(
    quick: Flask, introduce: Introduce, faulty: FaultyStore, state: Stateful, operation: str, write: str | None
) -> None:
    """H12: a store that answers no without reason is found out: the answer is an error, and no cookie is sent."""
    found: list[Exception] = []

    @quick.errorhandler(StateConflict)
    def handler(error: StateConflict) -> tuple[str, int]:
        found.append(error)
        return "try again", 409

    writes: dict[str | None, Callable[[], object]] = {
        None: lambda: session.update(name="Eve"),
        "update": lambda: session.update(name="Grace"),
        "rotate": lambda: state.sessions.rotate(),
        "clear": lambda: session.clear(),
    }
    visitor = introduce(quick) if write else Visitor(quick)
    faulty.fail(Fault("dropped", operation))
    response = visitor.visit(writes[write])
    assert (response.status_code, response.text) == (409, "try again")
    assert session_cookies(response) == []
    assert len(found) == 1
    faulty.mend()
    assert visitor.ask(lambda: dict(session)) == ({"name": "Ada"} if write else {})


def test_h12_reply_that_is_cut_is_damage(ada: Visitor, faulty: FaultyStore) -> None:
    """H12: a store that hands out half a record is found out, and the visitor is nobody."""
    faulty.fail(Fault("truncated", "get"))
    assert ada.ask(lambda: dict(session)) == {}


def test_h12_write_that_is_done_twice_is_done_once(ada: Visitor, faulty: FaultyStore) -> None:
    """H12: a client that sends a command again does no harm: the change is there, once."""
    faulty.fail(Fault("duplicated", "swap", nth=1))
    ada.visit(lambda: session.update(n=session.get("n", 0) + 1))
    assert ada.ask(lambda: session["n"]) == 1


# A real server

TAKE_AWAY: dict[str, Callable[[Redis], None]] = {
    "stopped": lambda server: server.stop(),
    "killed": lambda server: server.kill(),
    "hung": lambda server: server.freeze(),
}


def bring_back(server: Redis, how: str) -> None:
    """Undo what was done to a server."""
    if how == "hung":
        server.thaw()
    else:
        server.start()


@pytest.fixture
def server(launch: Launch) -> Redis:
    """A Redis that this test may take away, and that keeps its data over a crash."""
    return launch(Redis, "--appendonly", "yes", "--appendfsync", "always")


@pytest.mark.parametrize("how", TAKE_AWAY)
@pytest.mark.parametrize("when", ["before the read", "before the write"])
def test_h08_h09_redis_that_goes_away(
    clock: FakeClock,
    server: Redis,
    make_app: MakeApp,
    make_visitor: MakeVisitor,
    outages: Outages,
    how: str,
    when: str,
) -> None:
    """H8, H9, H13, W2: a Redis that is stopped, killed or hung is one wait and clear answers; then all is as before."""
    ada = make_visitor(make_app(server.url, STATEFUL_STORE_TIMEOUT=TIMEOUT))
    ada.visit(lambda: session.update(name="Ada"))
    cookie = ada.cookie

    def view() -> None:
        if when == "before the write":
            assert session["name"] == "Ada"
            TAKE_AWAY[how](server)
        session["name"] = "Grace"

    if when == "before the read":
        TAKE_AWAY[how](server)
    response = ada.visit(view)
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    assert str(server.port) not in response.text
    for _ in range(20):
        assert ada.visit(lambda: session["name"]).status_code == 503
    assert ada.visit(lambda: "page").text == "page"
    assert outages.names == ["down"]
    bring_back(server, how)
    found = ""
    while found not in ("Ada", "Grace"):
        clock.advance(60)
        found = ada.visit(lambda: session["name"]).text
    # What a hung server had been sent it may still have done, though nobody heard of it.
    assert found == "Ada" or (how, when) == ("hung", "before the write")
    assert ada.cookie == cookie
    assert outages.names == ["down", "up"]


def test_w2_hung_redis_is_waited_for_once(
    clock: FakeClock, server: Redis, make_app: MakeApp, make_visitor: MakeVisitor, outages: Outages
) -> None:
    """W2: of threads that all meet a server that hangs, none waits again afterwards."""
    app = make_app(server.url, STATEFUL_STORE_TIMEOUT=TIMEOUT)
    visitors = [make_visitor(app) for _ in range(4)]
    for visitor in visitors:
        visitor.visit(lambda: session.update(name="Ada"))
    server.freeze()
    assert together(*(lambda v=v: v.visit(lambda: session["name"]).status_code for v in visitors)) == [503] * 4
    assert outages.names == ["down"]
    done = threading.Event()

    def visit_often() -> None:
        for _ in range(200):
            assert visitors[0].visit(lambda: session["name"]).status_code == 503
        done.set()

    thread = threading.Thread(target=visit_often)
    thread.start()
    # 200 waits would take longer than this.
    assert done.wait(TIMEOUT * 100)
    thread.join()


def test_h13_redis_at_another_start_has_forgotten(
    clock: FakeClock, launch: Launch, make_app: MakeApp, make_visitor: MakeVisitor
) -> None:
    """H13: a Redis that comes back empty is used at once; its visitors have no session and can begin one."""
    server = launch(Redis, "--save", "")
    ada = make_visitor(make_app(server.url, STATEFUL_STORE_TIMEOUT=TIMEOUT))
    ada.visit(lambda: session.update(name="Ada"))
    server.restart()
    while ada.visit(lambda: str(dict(session))).text != "{}":
        clock.advance(60)
    ada.visit(lambda: session.update(name="again"))
    assert ada.ask(lambda: dict(session)) == {"name": "again"}


def test_r21_failures_name_no_secrets(
    launch: Launch, make_app: MakeApp, make_visitor: MakeVisitor, caplog: pytest.LogCaptureFixture, outages: Outages
) -> None:
    """R21, R28: neither the answer nor the log nor a signal holds the password, the id or the session's place."""
    server = launch(Redis, "--requirepass", "s3cret")
    url = server.url.replace("redis://", "redis://:s3cret@")
    ada = make_visitor(make_app(url, STATEFUL_STORE_TIMEOUT=TIMEOUT))
    ada.visit(lambda: session.update(name="Ada"))
    assert ada.cookie
    secrets = ["s3cret", *ada.cookie.split(".")[1:], stored_key(ada).rpartition(":")[2]]
    server.kill()
    with caplog.at_level(logging.DEBUG):
        response = ada.visit(lambda: session["name"])
    assert response.status_code == 503
    assert caplog.text
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in response.text
        assert secret not in repr(outages.told)


def test_local_store_that_fails_is_asked_each_time(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """W2: a store of this machine costs no timeout, so each request tries it, and the first that can goes on."""
    faulty = FaultyStore(MemoryStore())
    ada = make_visitor(make_app(faulty))
    ada.visit(lambda: session.update(name="Ada"))
    faulty.reset()
    faulty.fail(Fault("unavailable", "get", nth=(1, 2)))
    assert [ada.visit(lambda: session["name"]).status_code for _ in range(3)] == [503, 503, 200]
