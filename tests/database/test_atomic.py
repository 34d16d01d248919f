"""``state.atomic()`` keeps everything or nothing, and is run again where that is safe."""

from __future__ import annotations

import io
import threading
import typing as t
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import sqlalchemy as sa
from flask import (
    Response,
    abort,
    after_this_request,
    flash,
    g,
    get_flashed_messages,
    render_template_string,
    request,
    session,
)
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import NotFound
from werkzeug.test import TestResponse

from flask_stateful import Stateful
from flask_stateful.errors import StateConflict, StateError
from flask_stateful.stores.sql import METADATA

from .conftest import Entry, MakeSite, Note, Site


class Shop:
    """An application whose view does what a test wants."""

    def __init__(self, site: Site) -> None:
        self.site, self.state, self.app = site, site.state, site.app
        self.browser = self.app.test_client()
        self._todo: Callable[[], t.Any] = lambda: None
        self.app.add_url_rule("/", "page", lambda: self._todo(), methods=["GET", "POST"])
        self.app.config["PROPAGATE_EXCEPTIONS"] = False
        with self.app.app_context():
            for engine in self.state.database.engines().values():
                self.state.database.tune_sqlite(engine)

    @property
    def db(self) -> t.Any:
        """The session at hand."""
        return self.state.database.session

    def visit(self, todo: Callable[[], t.Any], **options: t.Any) -> TestResponse:
        """Let the view do something."""
        self._todo = todo
        return self.browser.post("/", **options)

    def kept(self) -> tuple[int, t.Any, t.Any, t.Any]:
        """Return how many rows there are, and what session, cookie and cache hold."""
        found: list[t.Any] = []

        def look() -> str:
            found.extend([session.get("n"), self.state.cookies.get("n"), self.state.cache.get("n")])
            return ""

        self.visit(look)
        return (self.site.count(), *found)

    def change(self) -> None:
        """Change a bit of everything."""
        self.db.add(Note(text="x"))
        self.db.flush()
        session["n"] = 1
        self.state.cookies["n"] = 1
        self.state.cache.set("n", 1)


@pytest.fixture(params=["memory://", "db"])
def shop(request: pytest.FixtureRequest, make_site: MakeSite) -> Shop:
    """A shop on SQLite, with its state elsewhere, and in the same database."""
    return Shop(make_site("sessionmaker", "sqlite", store={"default": request.param, "cache": "memory://"}))


KEPT, NOTHING = (1, 1, 1, 1), (0, None, None, None)


@pytest.mark.parametrize("status", [200, 302, 404, 422])
def test_an_answer_keeps_everything(shop: Shop, status: int) -> None:
    """Rows, session, cookie and cache are kept whatever a view returns below 500."""

    @shop.state.atomic()
    def view() -> tuple[str, int]:
        shop.change()
        return "", status

    assert shop.visit(view).status_code == status
    assert shop.kept() == KEPT


def _fail() -> t.NoReturn:
    raise ZeroDivisionError


def _not_found() -> t.NoReturn:
    raise NotFound


def _template_that_fails() -> str:
    return render_template_string("{{ 1 / 0 }}")


@pytest.mark.parametrize("end", [_fail, _not_found, _template_that_fails, lambda: ("", 503), lambda: ("", "500 Oh")])
def test_a_failure_keeps_nothing(shop: Shop, end: Callable[[], t.Any]) -> None:
    """An exception that leaves the view, an HTTP one too, and a returned 5xx keep nothing."""

    @shop.state.atomic()
    def view() -> t.Any:
        shop.change()
        return end()

    assert shop.visit(view).status_code >= 400
    assert shop.kept() == NOTHING


def test_what_a_block_has_kept_is_sent_whatever_happens_later(shop: Shop) -> None:
    """The view fails after its block: everything of the block stands, its cookies included."""

    def view() -> None:
        with shop.state.atomic():
            shop.change()
        session["later"] = 1
        raise ZeroDivisionError

    assert shop.visit(view).status_code == 500
    assert shop.kept() == KEPT
    shop.visit(lambda: {"later": session.get("later")})
    assert shop.visit(lambda: {"later": session.get("later")}).json == {"later": None}


def test_a_teardown_that_fails_takes_nothing_back(shop: Shop) -> None:
    """What fails when the request is torn down comes after the answer: what was kept stays."""

    @shop.app.teardown_request
    def teardown(_error: BaseException | None) -> None:
        raise ZeroDivisionError

    @shop.state.atomic()
    def view() -> str:
        shop.change()
        return ""

    with pytest.raises(ZeroDivisionError):
        shop.visit(view)
    shop.app.teardown_request_funcs.clear()
    assert shop.site.count() == 1


def test_what_was_staged_before_a_failed_block_survives_it(shop: Shop) -> None:
    """A block that fails takes back its own changes, and leaves those from before it."""

    def view() -> str:
        session["before"] = 1

        @shop.state.atomic()
        def block() -> None:
            shop.change()
            session["before"] = 2
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            block()
        return ""

    shop.visit(view)
    assert shop.kept() == NOTHING
    assert shop.visit(lambda: {"before": session["before"]}).json == {"before": 1}


def test_keep_false_runs_everything_and_keeps_nothing(shop: Shop) -> None:
    """With keep=False the block runs to its end, sees its own changes, and leaves none."""

    def view() -> str:
        with shop.state.atomic(keep=False):
            shop.change()
            assert session["n"] == 1
        assert "n" not in session
        return ""

    assert shop.visit(view).status_code == 200
    assert shop.kept() == NOTHING


def test_a_function_can_be_decorated_without_parentheses(shop: Shop) -> None:
    """@state.atomic is @state.atomic(), and what is no function is told what to write."""

    @shop.state.atomic
    def view(fails: bool) -> str:
        shop.change()
        return "" if not fails else _fail()

    assert view.__name__ == "view"
    assert shop.visit(lambda: view(True)).status_code == 500
    assert shop.kept() == NOTHING
    assert shop.visit(lambda: view(False)).status_code == 200
    assert shop.kept() == KEPT
    for wrong in (3, Note):
        with pytest.raises(TypeError, match="atomic"):
            t.cast("t.Any", shop.state.atomic)(wrong)


def test_a_level_that_the_database_does_not_have(make_site: MakeSite, server: str) -> None:
    """An isolation level that is none is told which there are, and the session goes on to work."""
    shop = Shop(make_site("sessionmaker", server))
    match = r'isolation=\'nonsense\' is no level .* write .*atomic\(isolation="SERIALIZABLE"\)'
    with shop.app.app_context():
        with pytest.raises(ValueError, match=match), shop.state.atomic(isolation="nonsense"):
            pass
        assert not shop.db.in_transaction()
        with shop.state.atomic(isolation="SERIALIZABLE"):
            shop.db.add(Note(text="x"))
    assert shop.site.count() == 1


def test_isolation_for_tests_stands_around_a_block(shop: Shop) -> None:
    """test_isolation() inside a block, whose transaction it would take away, is refused."""
    with (
        shop.app.app_context(),
        shop.state.atomic(),
        pytest.raises(StateError, match="around atomic blocks"),
        shop.state.test_isolation(),
    ):
        pass


def test_a_nested_block_is_a_savepoint(shop: Shop) -> None:
    """T8: what failed inside is undone alone, and what was released goes with the outer block."""

    @shop.state.atomic()
    def inner() -> None:
        shop.db.add(Note(text="inner"))
        session["n"] = 2
        shop.state.cookies["n"] = 2
        shop.state.cache.set("n", 2)
        raise ZeroDivisionError

    def view() -> str:
        with shop.state.atomic():
            shop.change()
            with pytest.raises(ZeroDivisionError):
                inner()
        return ""

    assert shop.visit(view).status_code == 200
    assert shop.kept() == KEPT

    def view_that_fails() -> None:
        with shop.state.atomic():
            with shop.state.atomic():
                shop.db.add(Note(text="inner"))
                session["n"] = 2
            raise ZeroDivisionError

    assert shop.visit(view_that_fails).status_code == 500
    assert shop.kept() == KEPT


def test_untuned_sqlite_is_refused(make_site: MakeSite) -> None:
    """T8: on an engine whose driver begins when it pleases, atomic names what to write."""
    site = make_site("sessionmaker", "sqlite")
    with (
        site.app.app_context(),
        pytest.raises(StateError, match=r"state\.database\.tune_sqlite\(engine\)"),
        site.state.atomic(),
    ):
        pass


class Conflicts:
    """Fails so many times as another transaction would make it fail."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise StateConflict("another one came first")


def test_a_retry_finds_everything_as_it_was(shop: Shop) -> None:
    """Rows, session, flashes, g, after_this_request, the body and its files are as at the first attempt."""
    conflict, seen, called = Conflicts(2), list[t.Any](), list[str]()

    @shop.state.atomic(retry=2)
    def view() -> str:
        files = [file.read() for file in request.files.values()]
        seen.append((dict(g.__dict__), session.get("n"), files, request.form["a"], get_flashed_messages()))
        g.mine = 1
        flash("once")
        after_this_request(lambda response: (called.append("after"), response)[1])
        shop.change()
        conflict()
        return ""

    response = shop.visit(view, data={"a": "1", "file": (io.BytesIO(b"upload"), "a.txt")})
    assert response.status_code == 200
    assert [one[1:] for one in seen] == [(None, [b"upload"], "1", [])] * 3
    assert all("mine" not in one[0] for one in seen)
    assert called == ["after"]
    assert shop.visit(lambda: get_flashed_messages()).json == ["once"]
    assert shop.kept() == KEPT


def test_exhausted_retries_are_a_503(shop: Shop) -> None:
    """After as many attempts as allowed the answer is 503 with Retry-After, and nothing is kept."""
    attempts: list[int] = []

    @shop.state.atomic(retry=2)
    def view() -> str:
        attempts.append(1)
        shop.change()
        raise StateConflict("always")

    response = shop.visit(view)
    assert (response.status_code, response.headers["Retry-After"], len(attempts)) == (503, "1", 3)
    assert shop.kept() == NOTHING


@pytest.mark.parametrize("fence", ["commit", "external", "stream", "before"])
def test_what_cannot_be_undone_is_not_done_again(shop: Shop, fence: str) -> None:
    """No second attempt follows a commit inside, state.external(), a body read as a stream, or writes from before."""
    attempts: list[int] = []

    @shop.state.atomic(retry=2)
    def view() -> str:
        attempts.append(1)
        shop.change()
        if fence == "commit":
            shop.db.commit()
        if fence == "external":
            shop.state.external()
        if fence == "stream":
            request.stream.read()
        raise StateConflict("always")

    def outer() -> str:
        if fence == "before":
            shop.db.add(Note(text="before"))
            shop.db.flush()
        return view()

    assert shop.visit(outer, data=b"body", content_type="text/plain").status_code == 500
    assert len(attempts) == 1


@pytest.mark.parametrize(
    ("text", "attempts"),
    [
        ("CREATE TABLE other (id INTEGER)", 1),
        ("INSERT INTO state_version (tag, n) VALUES ('x', 1)", 1),
        ("WITH x (n) AS (SELECT 1) UPDATE note SET n = (SELECT n FROM x)", 1),
        ("PRAGMA foreign_keys", 3),
        ("WITH x (n) AS (SELECT 1) SELECT n FROM x", 3),
    ],
)
def test_only_what_reads_may_come_before_a_retry(shop: Shop, text: str, attempts: int) -> None:
    """T10: text that writes, our own tables and a new table count as uncommitted changes; what reads does not."""
    METADATA.create_all(shop.site.db.kw["bind"])
    counted: list[int] = []

    @shop.state.atomic(retry=2)
    def view() -> t.NoReturn:
        counted.append(1)
        raise StateConflict("always")

    def outer() -> t.NoReturn:
        shop.db.execute(sa.text(text))
        view()

    shop.visit(outer)
    assert len(counted) == attempts


def test_a_statement_meets_one_listener_of_ours(make_site: MakeSite) -> None:
    """Following, blocks and the cache share one listener for each statement, on every bind."""
    shop = Shop(make_site("sessionmaker", "sqlite", binds=True, store="db"))
    with shop.app.app_context(), shop.state.atomic():
        assert [
            len(list(engine.dispatch.before_cursor_execute)) for engine in shop.state.database.engines().values()
        ] == [1, 1]


@pytest.mark.parametrize("text", ["INSERT INTO entry (text) VALUES ('x')", "CREATE TABLE other (id INTEGER)"])
def test_text_that_writes_to_a_second_bind_is_refused(make_site: MakeSite, text: str) -> None:
    """T10: what is written to another database as text is refused as well; what is read there is not."""
    shop = Shop(make_site("sessionmaker", "sqlite", binds=True))

    def run(text: str) -> None:
        with shop.app.app_context(), shop.state.atomic():
            shop.db.execute(sa.text(text), bind_arguments={"mapper": Entry})

    run("SELECT text FROM entry")
    with pytest.raises(StateError, match="the bind 'AuditBase', which is not committed together"):
        run(text)


def test_a_write_to_a_second_bind_is_refused(make_site: MakeSite) -> None:
    """Two databases cannot be committed together: the block says which bind, and keeps neither."""
    shop = Shop(make_site("sessionmaker", "sqlite", binds=True))
    with (
        shop.app.app_context(),
        pytest.raises(StateError, match="the bind 'AuditBase', which is not committed together"),
        shop.state.atomic(),
    ):
        shop.db.add_all([Note(text="x"), Entry(text="x")])
    assert shop.site.count() == 0
    with shop.app.app_context():
        assert shop.db.scalar(sa.select(sa.func.count()).select_from(Entry)) == 0


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_a_swallowed_failure_is_not_committed_by_halves(make_site: MakeSite, server: str) -> None:
    """PostgreSQL answers COMMIT after a failed statement with a rollback: the block says so instead of 200."""
    shop = Shop(make_site("sessionmaker", server))

    def view() -> str:
        with shop.state.atomic():
            shop.change()
            with pytest.raises(DBAPIError):
                shop.db.execute(sa.text("SELECT nothing FROM nowhere"))
        return ""

    assert shop.visit(view).status_code == (500 if server == "postgres" else 200)
    assert shop.kept() == (NOTHING if server == "postgres" else KEPT)


@pytest.mark.parametrize(
    ("setting", "method", "kept"), [("writes", "GET", 1), ("writes", "POST", 0), ("all", "GET", 0)]
)
def test_every_view_can_be_atomic(make_site: MakeSite, setting: str, method: str, kept: int) -> None:
    """STATEFUL_ATOMIC wraps the views of unsafe methods, or of all, and leaves alone those that are atomic anyway."""
    site = make_site("sessionmaker", "sqlite", settings={"STATEFUL_ATOMIC": setting})
    shop = Shop(site)

    def view() -> None:
        shop.db.add(Note(text="x"))
        shop.db.flush()
        if method == "GET" and setting == "writes":
            shop.db.commit()
        raise ZeroDivisionError

    shop._todo = view
    assert shop.browser.open("/", method=method).status_code == 500
    assert site.count() == kept


# What acts at once elsewhere


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def joined(request: pytest.FixtureRequest, make_site: MakeSite) -> Shop:
    """A shop whose state and cache are all in its own database."""
    return Shop(make_site("sessionmaker", request.param, store="db", settings={"STATEFUL_CACHE_MEMORY": 0}))


@pytest.mark.parametrize("fails", [True, False])
def test_a_session_lock_goes_with_the_block(joined: Shop, fails: bool) -> None:
    """lock() inside a block saves nothing by itself, waits for nothing of ours, and is kept or lost with the block."""
    joined.visit(lambda: session.update(a=0) or "")

    def view() -> str:
        with joined.state.atomic():
            joined.change()
            with joined.state.sessions.lock(), joined.state.sessions.lock():
                session["a"] += 1
            if fails:
                raise ZeroDivisionError
        return ""

    assert joined.visit(view).status_code == (500 if fails else 200)
    assert joined.visit(lambda: {"a": session["a"]}).json == {"a": 0 if fails else 1}
    assert joined.kept() == (NOTHING if fails else KEPT)


@pytest.mark.parametrize("store", ["memory", "db"])
def test_a_session_lock_holds_until_the_block_ends(make_site: MakeSite, server: str, store: str) -> None:
    """Counters that several add to under lock() in a block lose nothing, wherever the session is kept."""
    shop = Shop(make_site("sessionmaker", server, store="db" if store == "db" else "memory://"))
    shop.visit(lambda: session.update(a=0) or "")
    cookie = t.cast("t.Any", shop.browser.get_cookie("session")).value
    barrier, statuses = threading.Barrier(2), list[int]()

    def view() -> str:
        assert session["a"] >= 0
        barrier.wait()
        with shop.state.atomic():
            with shop.state.sessions.lock():
                session["a"] += 1
            shop.change()
        return ""

    shop._todo = view

    def visit() -> None:
        browser = shop.app.test_client()
        browser.set_cookie("session", cookie)
        statuses.append(browser.get("/").status_code)

    threads = [threading.Thread(target=visit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
    assert shop.visit(lambda: {"a": session["a"]}).json == {"a": 2}


def test_a_cache_in_the_same_file_goes_with_the_block(joined: Shop) -> None:
    """add, incr, lock and what is memoized do not wait for the block's own transaction, which has written."""
    cache, calls = joined.state.cache, list[int]()
    cached = cache.memoize(60)(lambda n: calls.append(n) or n)

    def view() -> str:
        with joined.state.atomic():
            joined.change()
            assert cache.add("added", 1)
            assert cache.incr("count") == 1
            with cache.lock("name", timeout=0):
                assert cached(1) == 1
            with cache.lock("name", timeout=0):
                pass
        return ""

    assert joined.visit(view).status_code == 200
    assert joined.kept() == KEPT
    with joined.app.app_context():
        assert (cache.get("added"), cache.incr("count"), cached(1), calls) == (1, 2, 1, [1])


# The edges of a request


def test_an_exception_with_an_answer_of_its_own_keeps_nothing(shop: Shop) -> None:
    """abort(response) sends that response, and as an exception that leaves the block it keeps nothing."""

    @shop.state.atomic()
    def view() -> t.NoReturn:
        shop.change()
        abort(Response("own", 200))

    answer = shop.visit(view)
    assert (answer.status_code, answer.text) == (200, "own")
    assert shop.kept() == NOTHING


def test_an_error_after_the_view_takes_nothing_back(shop: Shop) -> None:
    """What a view has kept stands, also if an after_request function fails; once, and in full where it is looked at."""

    @shop.state.atomic()
    def view() -> str:
        shop.change()
        return ""

    failing = [1]

    def fail(response: Response) -> Response:
        if failing:
            failing.pop()
            raise ZeroDivisionError
        return response

    shop.app.after_request(fail)
    assert shop.visit(view).status_code == 500
    assert shop.kept() == KEPT


@pytest.mark.parametrize("begins", ["inside", "before", "nested"])
def test_a_logout_holds_although_the_block_fails(joined: Shop, begins: str) -> None:
    """logout() is not undone with the block, or one inside it: the old cookie opens nothing, and the rest is gone."""
    state = joined.state

    def log_in() -> str:
        session["secret"] = 1
        state.sessions.login("7")
        return ""

    joined.visit(log_in)
    old = t.cast("t.Any", joined.browser.get_cookie("session")).value

    @state.atomic()
    def leave() -> t.NoReturn:
        joined.db.add(Note(text="x"))
        joined.db.flush()
        state.sessions.logout()
        raise ZeroDivisionError

    def view() -> str:
        if begins != "inside":
            assert session["secret"] == 1
        if begins != "nested":
            leave()
        with state.atomic(), pytest.raises(ZeroDivisionError):
            leave()
        return ""

    def look() -> dict[str, t.Any]:
        return {"user": state.sessions.user_id, "secret": session.get("secret")}

    assert joined.visit(view).status_code == (200 if begins == "nested" else 500)
    assert joined.site.count() == 0
    assert joined.visit(look).json == {"user": None, "secret": None}
    joined.browser.set_cookie("session", old)
    assert joined.visit(look).json == {"user": None, "secret": None}


@pytest.mark.parametrize("fails", [True, False])
def test_a_rotation_goes_with_the_block(shop: Shop, fails: bool) -> None:
    """rotate() inside a block ends the old id if the block is kept; otherwise the old one goes on."""
    shop.visit(lambda: session.update(a=1) or "")
    old = t.cast("t.Any", shop.browser.get_cookie("session")).value

    @shop.state.atomic()
    def view() -> str:
        shop.change()
        shop.state.sessions.rotate()
        if fails:
            raise ZeroDivisionError
        return ""

    assert shop.visit(view).status_code == (500 if fails else 200)
    new = t.cast("t.Any", shop.browser.get_cookie("session")).value
    assert (new == old) is fails
    assert shop.visit(lambda: {"a": session.get("a")}).json == {"a": 1}
    assert shop.kept() == (NOTHING if fails else KEPT)
    shop.browser.set_cookie("session", old)
    assert shop.visit(lambda: {"a": session.get("a")}).json == {"a": 1 if fails else None}


def test_an_untouched_block_asks_the_database_nothing(shop: Shop) -> None:
    """A block that touches neither rows nor state makes no statement, no connection and no header."""
    statements: list[str] = []
    with shop.app.app_context():
        engine = shop.state.database.engines()["default"]
    sa.event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    sa.event.listen(engine, "checkout", lambda *args: statements.append("checkout"))
    answer = shop.visit(shop.state.atomic(retry=3)(lambda: "untouched"))
    assert (answer.text, statements) == ("untouched", [])
    assert "Set-Cookie" not in answer.headers


# Callbacks


def test_callbacks_follow_the_root_commit_alone(shop: Shop) -> None:
    """T1: a released savepoint calls nothing; a rolled back one drops its callbacks; the rest run in order, once."""
    called: list[str] = []

    def view() -> str:
        db, on_commit = shop.db, shop.state.on_commit
        db.add(Note(text="x"))
        on_commit(lambda: called.append("first"))
        with db.begin_nested():
            on_commit(lambda: called.append("released"))
        nested = db.begin_nested()
        on_commit(lambda: called.append("rolled back"))
        nested.rollback()
        assert called == []
        db.commit()
        assert called == ["first", "released"]
        on_commit(lambda: called.append("now"))
        assert called[2:] == ["now"]
        db.add(Note(text="x"))
        on_commit(lambda: called.append("never"))
        db.rollback()
        db.add(Note(text="x"))
        with db.begin_nested():
            on_commit(lambda: called.append("never"))
        db.close()
        return ""

    assert shop.visit(view).status_code == 200
    assert called == ["first", "released", "now"]


def test_callbacks_can_use_the_session(shop: Shop) -> None:
    """T7: in a callback SQL works, also after a plain commit, and what it raises is logged and stops nobody."""
    counts: list[int] = []

    def count() -> None:
        counts.append(shop.db.scalar(sa.select(sa.func.count()).select_from(Note)))

    def view() -> str:
        shop.db.add(Note(text="x"))
        shop.state.on_commit(_fail)
        shop.state.on_commit(count)
        shop.db.commit()
        with shop.state.atomic():
            shop.db.add(Note(text="x"))
            shop.state.on_commit(count)
            inner = shop.state.atomic()(lambda: (shop.state.on_commit(count), _fail()))
            with pytest.raises(ZeroDivisionError):
                inner()
        return ""

    assert shop.visit(view).status_code == 200
    assert counts == [1, 2]


@pytest.mark.parametrize("options", [{"retry": -1}, {"retry": "3"}, {"retry": True}, {"retry": None}])
def test_a_number_of_retries_that_is_none_is_refused(options: dict[str, t.Any]) -> None:
    """What could not be compared when others come first is refused when the function is decorated."""
    with pytest.raises(TypeError, match="retry=3"):
        Stateful().atomic(**options)


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "autocommit", "", 3])
def test_a_level_that_keeps_each_statement_is_refused(level: t.Any) -> None:
    """With AUTOCOMMIT nothing could be rolled back, so it is no level of a block."""
    with pytest.raises(ValueError, match="SERIALIZABLE"):
        Stateful().atomic(isolation=level)


def _generator() -> Iterator[str]:
    yield ""


async def _async_generator() -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize("function", [_generator, _async_generator, Shop, 5])
def test_what_runs_after_it_was_called_is_refused(function: t.Any) -> None:
    """A generator's body would run outside of its block, and a class is no function."""
    with pytest.raises(TypeError, match="atomic"):
        Stateful().atomic()(function)


async def _callback() -> None: ...


@pytest.mark.parametrize("function", [None, 5, _callback])
def test_a_callback_is_a_function(function: t.Any) -> None:
    """What could not be called after the commit is refused before it."""
    with pytest.raises(TypeError, match="on_commit"):
        Stateful().on_commit(function)
