"""Cached views: stored only when everybody may have them."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import pytest
from flask import (
    Flask,
    Response,
    abort,
    flash,
    get_flashed_messages,
    make_response,
    request,
    session,
    stream_with_context,
)
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_stateful import Stateful
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, login


class Pages:
    """An application with one cached page, whose view the test says."""

    def __init__(self) -> None:
        self.state = Stateful()
        self.app = Flask("shop")
        self.app.config.update(SECRET_KEY="a key for tests, long enough", TESTING=True, STATEFUL_STORE="memory://")
        self.state.init_app(self.app)
        self.made = 0

    def page(self, view: Callable[[], t.Any], **options: t.Any) -> FlaskClient:
        def counted() -> t.Any:
            self.made += 1
            return view()

        counted.__qualname__ = f"page{len(self.app.view_functions)}"
        cached = self.state.cache.view(**options)(counted)
        self.app.add_url_rule("/page", view_func=cached, endpoint="page", methods=["GET", "POST"])
        self.cached = cached
        return self.app.test_client()


@pytest.fixture
def pages() -> Pages:
    """An application with one cached page."""
    return Pages()


def is_hit(response: TestResponse) -> bool:
    """Tell whether an answer came from the cache, as its header says."""
    return response.headers.get("Cache-Status") == "Flask-Stateful; hit"


def test_page_is_made_once(pages: Pages) -> None:
    """The second answer is the first one, with its headers, an age and a status."""

    def view() -> Response:
        response = make_response("hello")
        response.headers["X-Own"] = "kept"
        return response

    client = pages.page(view)
    first, second = client.get("/page"), client.get("/page")
    assert (pages.made, first.text, second.text) == (1, "hello", "hello")
    assert first.headers["Cache-Status"] == "Flask-Stateful; fwd=miss; stored"
    assert is_hit(second)
    assert (second.headers["X-Own"], second.headers["Age"]) == ("kept", "0")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("session", lambda: session.get("name")),
        ("session in", lambda: "name" in session),
        ("session all", lambda: dict(session)),
        ("flash", lambda: get_flashed_messages()),
        ("cookie", lambda: request.cookies.get("lang")),
        ("cookie item", lambda: "lang" in request.cookies),
        ("cookies all", lambda: list(request.cookies.items())),
        ("write", lambda: session.update(name="Ada")),
    ],
)
def test_personal_page_is_not_stored(pages: Pages, name: str, read: Callable[[], t.Any]) -> None:
    """L3, M10: what was made after looking at one visitor's state is made anew for each."""
    client = pages.page(lambda: f"{read()} {pages.made}")
    first, second = client.get("/page"), client.get("/page")
    assert first.text != second.text
    assert "vary= does not cover" in first.headers["Cache-Status"]
    assert not is_hit(second)


def test_what_a_before_request_function_reads_counts(pages: Pages) -> None:
    """L3: a page made after g.user was loaded is personal, though the view itself read nothing."""

    @pages.app.before_request
    def load_user() -> None:
        session.get("user")

    client = pages.page(lambda: "page")
    client.get("/page")
    assert not is_hit(client.get("/page"))


def test_page_varies_by_user(pages: Pages) -> None:
    """vary="user" gives each user a page, and all anonymous visitors one."""
    ada = pages.page(lambda: f"user {pages.state.user_id}", vary=["user"])
    anonymous, other, again = (pages.app.test_client() for _ in range(3))
    login(ada, "ada"), login(again, "ada")
    texts = [client.get("/page").text for client in (ada, anonymous, other, again, ada)]
    assert texts == ["user ada", "user None", "user None", "user ada", "user ada"]
    assert pages.made == 2
    assert "Cookie" in ada.get("/page").vary


def test_user_does_not_cover_other_keys(pages: Pages) -> None:
    """L3: a page that reads another session key is not stored, though it varies by user."""
    client = pages.page(lambda: f"{pages.state.user_id} {session.get('cart')}", vary=["user"])
    client.get("/page")
    assert not is_hit(client.get("/page"))


def test_page_varies_by_cookie(pages: Pages) -> None:
    """Each value of the cookie has a page of its own, and other caches are told."""
    client = pages.page(lambda: str(request.cookies.get("lang")), vary=["cookie:lang"])
    for lang in ("de", "en", "de", "en"):
        client.set_cookie("lang", lang)
        response = client.get("/page")
        assert response.text == lang
    assert pages.made == 2
    assert "Cookie" in response.vary


def test_what_a_vary_function_reads_is_covered(pages: Pages) -> None:
    """A page may show what a function in vary= has read; each value that it returns has a page of its own."""
    client = pages.page(lambda: str(request.cookies.get("theme")), vary=[lambda: request.cookies.get("theme")])
    for theme in ("dark", "light", "dark", "light"):
        client.set_cookie("theme", theme)
        assert client.get("/page").text == theme
    assert pages.made == 2


def test_what_a_vary_function_does_not_read_is_not_covered(pages: Pages) -> None:
    """L3: a page that reads another cookie than the function in vary= is not stored."""
    client = pages.page(lambda: str(request.cookies.get("cart")), vary=[lambda: request.cookies.get("theme")])
    client.get("/page")
    assert not is_hit(client.get("/page"))


def test_page_varies_by_header(pages: Pages) -> None:
    """Each value of the header has a page of its own, and other caches are told."""
    client = pages.page(lambda: str(request.headers.get("X-Lang")), vary=["header:X-Lang"])
    for lang in ("de", "en", "de", "en"):
        response = client.get("/page", headers={"X-Lang": lang})
        assert response.text == lang
    assert pages.made == 2
    assert "X-Lang" in response.vary


def test_vary_of_the_answer_is_learned(pages: Pages) -> None:
    """A header that the answer says it varies by tells pages apart without being named."""

    def view() -> Response:
        response = make_response(str(request.headers.get("Accept-Language")))
        response.vary.add("Accept-Language")
        return response

    client = pages.page(view)
    texts = [client.get("/page", headers={"Accept-Language": lang}).text for lang in ("de", "en", "de", "en", "de")]
    assert texts == ["de", "en", "de", "en", "de"]
    assert pages.made == 2


def test_page_overtaken_by_an_invalidation_is_not_served(pages: Pages) -> None:
    """S2: a page that was being made when its tag was invalidated is not stored, nor are its variants."""
    overtake: list[str] = ["tag"]

    def view() -> Response:
        response = make_response(str(pages.made))
        response.vary.add("Accept-Language")
        if overtake:
            pages.state.cache.invalidate_tags(overtake.pop())
        return response

    client = pages.page(view, tags=["tag"])
    assert [client.get("/page").text for _ in range(3)] == ["1", "2", "2"]


def answer(*, status: int = 200, **headers: str) -> Response:
    return Response("page", status, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    "make",
    [
        lambda: answer(Set_Cookie="a=b"),
        lambda: answer(Cache_Control="private"),
        lambda: answer(Cache_Control="no-store"),
        lambda: answer(Vary="*"),
        lambda: answer(Vary="Cookie"),
        lambda: answer(status=404),
        lambda: answer(status=500),
        lambda: answer(status=302),
        lambda: answer(status=206),
        lambda: Response(iter(["a", "b"])),
        lambda: Response(stream_with_context(iter(["a", "b"]))),
    ],
)
def test_unfit_answer_is_not_stored(pages: Pages, make: Callable[[], Response]) -> None:
    """M10, M13: cookies, private answers, other statuses than 200 and streams are not stored."""
    client = pages.page(make)
    client.get("/page")
    assert not is_hit(client.get("/page"))
    assert pages.made == 2


def test_denied_visitor_does_not_deny_others(pages: Pages) -> None:
    """M9: a 403 for one visitor is not what the next one gets."""

    def view() -> str:
        if not request.headers.get("X-Allowed"):
            abort(403)
        return "secret"

    client = pages.page(view)
    assert client.get("/page").status_code == 403
    assert client.get("/page", headers={"X-Allowed": "yes"}).text == "secret"


def test_authorised_request_is_neither_stored_nor_answered_from_the_cache(pages: Pages) -> None:
    """L3: a request with an Authorization header passes by the cache."""
    client = pages.page(lambda: f"{request.headers.get('Authorization')}")
    headers = {"Authorization": "Bearer secret"}
    assert client.get("/page", headers=headers).text == "Bearer secret"
    assert client.get("/page").text == "None"
    assert client.get("/page", headers=headers).text == "Bearer secret"


def test_address_tells_pages_apart(pages: Pages) -> None:
    """M12: query, host and scheme are part of the key; POST is never answered."""
    client = pages.page(lambda: f"{request.method} {request.url}")
    urls = ["http://a.example/page", "http://b.example/page", "https://a.example/page", "http://a.example/page?page=2"]
    assert len({client.get(url).text for url in urls * 2}) == 4
    assert client.post("/page").text.startswith("POST")
    assert client.get("/page?b=2&a=1").text == client.get("/page?a=1&b=2").text


def test_chosen_query_tells_pages_apart(pages: Pages) -> None:
    """query= names the arguments that count; others are ignored."""
    client = pages.page(lambda: str(request.args.get("page")), query=["page"])
    assert [client.get(f"/page?page={page}&utm=x{page}").text for page in (1, 2, 1)] == ["1", "2", "1"]
    client.get("/page?page=1&utm=other")
    assert pages.made == 2


def test_head_is_answered_from_the_page_and_never_stored(pages: Pages) -> None:
    """M12: HEAD first leaves GET its body; after it, HEAD is a hit."""
    client = pages.page(lambda: "body")
    client.head("/page")
    assert client.get("/page").text == "body"
    response = client.head("/page")
    assert is_hit(response)
    assert (response.text, response.headers["Content-Length"]) == ("", "4")


def test_full_page_is_stored_and_304_answered_from_it(pages: Pages) -> None:
    """M11: a conditional request does not leave a page without body behind."""
    client = pages.page(lambda: make_response("body").make_conditional(request))
    etag = client.get("/page").headers["ETag"]
    assert client.get("/page", headers={"If-None-Match": etag}).status_code == 304
    assert client.get("/page").text == "body"


def test_cookies_of_later_handlers_still_go_out(pages: Pages) -> None:
    """What an after_request function adds belongs to each visitor, and is not stored."""

    @pages.app.after_request
    def add(response: Response) -> Response:
        response.set_cookie("visitor", request.headers["X-Visitor"])
        return response

    client = pages.page(lambda: "page")
    for visitor in ("a", "b"):
        response = client.get("/page", headers={"X-Visitor": visitor})
        assert response.headers.getlist("Set-Cookie")[-1].startswith(f"visitor={visitor}")
    assert is_hit(response)


def test_page_expires_and_is_refreshed_behind(pages: Pages) -> None:
    """A stale page is served at once, and the next one is fresh."""
    with FakeClock() as clock:
        client = pages.page(lambda: str(pages.made), ttl=60, stale=30)
        assert client.get("/page").text == "1"
        clock.advance(61)
        stale = client.get("/page")
        assert (stale.text, stale.headers["Age"]) == ("1", "61")
        stale.close()
        assert client.get("/page").text == "2"
        clock.advance(100)
        assert client.get("/page").text == "3"


def test_pages_are_forgotten(pages: Pages) -> None:
    """forget_all(), a tag and clear() leave no page."""
    client = pages.page(lambda: str(pages.made), tags=["posts"])
    for number, forget in enumerate((pages.cached.forget_all, lambda: pages.state.cache.invalidate_tags("posts")), 1):
        assert client.get("/page").text == str(number)
        with pages.app.app_context():
            forget()
    with pages.app.test_request_context("/page"):
        client.get("/page")
        pages.cached.forget()
    assert client.get("/page").text == "4"


def test_unless_passes_by(pages: Pages) -> None:
    """M24: whatever true value unless= returns, the view answers."""
    client = pages.page(lambda: str(pages.made), unless=lambda: 1)
    assert [client.get("/page").text for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize("vary", ["users", "cookie:", "header", 5])
def test_wrong_vary_is_an_error(pages: Pages, vary: t.Any) -> None:
    """What view() does not know is refused with what it knows."""
    with pytest.raises(ValueError, match="vary= takes"):
        pages.state.cache.view(vary=[vary])


def test_flash_is_shown_once_and_to_one(pages: Pages) -> None:
    """A page that shows a message to one visitor is not shown to others."""

    @pages.app.get("/flash")
    def give() -> str:
        flash("for you")
        return "done"

    client = pages.page(lambda: str(get_flashed_messages()))
    client.get("/flash")
    assert client.get("/page").text == "['for you']"
    assert pages.app.test_client().get("/page").text == "[]"
    assert client.get("/page").text == "[]"


def test_page_is_answered_while_the_store_is_down() -> None:
    """W2: a cached view still answers when its store does not."""
    from flask_stateful.testing import FaultyStore

    faulty = FaultyStore(MemoryStore())
    state, app = Stateful(), Flask("shop")
    app.config.update(
        SECRET_KEY="a key for tests, long enough", STATEFUL_STORE={"default": "memory://", "cache": faulty}
    )
    state.init_app(app)
    app.add_url_rule("/page", view_func=state.cache.view()(lambda: "page"), endpoint="page")
    faulty.fail("unavailable")
    assert [app.test_client().get("/page").text for _ in range(2)] == ["page", "page"]


# Pages that are missing


def gone() -> t.Any:
    """Answer 410 without an exception."""
    return "gone", 410


def missing() -> t.Any:
    """Answer 404 as most views do."""
    abort(404)


@pytest.mark.parametrize(("view", "status"), [(missing, 404), (gone, 410)])
def test_missing_page_is_stored_on_request(pages: Pages, view: Callable[[], t.Any], status: int) -> None:
    """With ``missing_ttl``, an answer that there is no such page is made once, and lasts for that time."""
    with FakeClock() as clock:
        client = pages.page(view, ttl=300, stale=300, missing_ttl=5)
        first, second = client.get("/page"), client.get("/page")
        assert (first.status_code, second.status_code, pages.made) == (status, status, 1)
        assert first.text == second.text
        assert is_hit(second)
        assert client.get("/page", headers={"If-None-Match": second.headers["ETag"]}).status_code == status
        clock.advance(5)
        assert (client.get("/page").status_code, pages.made) == (status, 2)


@pytest.mark.parametrize("view", [missing, gone])
def test_missing_page_is_not_stored_by_default(pages: Pages, view: Callable[[], t.Any]) -> None:
    """Without ``missing_ttl`` an answer that there is no such page is made each time."""
    client = pages.page(view, ttl=300)
    client.get("/page")
    assert client.get("/page").status_code in (404, 410)
    assert pages.made == 2


def test_missing_page_has_the_applications_own_face(pages: Pages) -> None:
    """What is stored is what the application's error handler made of it."""
    pages.app.register_error_handler(404, lambda error: ("nothing here", 404))
    client = pages.page(missing, missing_ttl=5)
    assert [client.get("/page").text for _ in range(2)] == ["nothing here"] * 2
    assert pages.made == 1


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_other_errors_are_never_stored(pages: Pages, status: int) -> None:
    """``missing_ttl`` is about pages that are missing, not about other errors."""
    client = pages.page(lambda: abort(status), missing_ttl=5)
    client.get("/page")
    assert client.get("/page").status_code == status
    assert pages.made == 2


def test_missing_page_that_was_personal_is_not_stored(pages: Pages) -> None:
    """A page that is missing for one visitor may be there for another."""
    client = pages.page(lambda: "secret" if session.get("name") == "ada" else abort(404), missing_ttl=5)
    assert [client.get("/page").status_code for _ in range(2)] == [404, 404]
    assert pages.made == 2


def test_missing_page_that_comes_is_seen_after_an_invalidation(pages: Pages) -> None:
    """Whoever makes the page invalidates its tag, as with every other answer."""
    there: list[str] = []
    client = pages.page(lambda: there[0] if there else abort(404), missing_ttl=60, tags=["posts"])
    assert client.get("/page").status_code == 404
    there.append("now")
    with pages.app.app_context():
        pages.state.cache.invalidate_tags("posts")
    assert client.get("/page").text == "now"


@pytest.mark.parametrize("wrong", [0, -1, "60"])
def test_wrong_missing_ttl_is_an_error(pages: Pages, wrong: t.Any) -> None:
    """A time that is none is refused when the view is decorated."""
    with pytest.raises((TypeError, ValueError), match="ttl must be"):
        pages.page(missing, missing_ttl=wrong)


# What caches further on are told


@pytest.mark.parametrize(
    ("vary", "control"),
    [
        ([], "no-cache"),
        (["header:Accept-Language"], "no-cache"),
        (["user"], "private, no-cache"),
        (["cookie:lang"], "private, no-cache"),
        ([lambda: 1], "private, no-cache"),
    ],
)
def test_browsers_ask_again(pages: Pages, vary: list[t.Any], control: str) -> None:
    """By default no cache further on answers by itself, since no invalidation reaches it; asking again costs a 304."""
    client = pages.page(lambda: "hello", vary=vary)
    first, second = client.get("/page"), client.get("/page")
    assert is_hit(second)
    assert first.headers["Cache-Control"] == second.headers["Cache-Control"] == control
    assert client.get("/page", headers={"If-None-Match": second.headers["ETag"]}).status_code == 304


def test_cache_control_of_the_view_is_kept(pages: Pages) -> None:
    """A view that says how long others may keep its answer has the last word."""

    def view() -> Response:
        response = make_response("hello")
        response.cache_control.max_age = 60
        response.cache_control.public = True
        return response

    client = pages.page(view, vary=["user"])
    assert [client.get("/page").headers["Cache-Control"] for _ in range(2)] == ["max-age=60, public"] * 2


def test_page_that_changed_the_session_is_not_stored(pages: Pages) -> None:
    """L3: what goes with a change of the session, such as a flashed message, is shown once, also with ``vary``."""

    def view() -> str:
        return f"{get_flashed_messages()} {session.get('name')}"

    client = pages.page(view, vary=["session"])
    with client.session_transaction() as stored:
        stored["name"] = "Ada"
        stored["_flashes"] = [("message", "Hello")]
    answers = [client.get("/page") for _ in range(3)]
    assert [answer.text for answer in answers] == ["['Hello'] Ada", "[] Ada", "[] Ada"]
    assert "(written)" in answers[0].headers["Cache-Status"]


def test_page_whose_vary_is_known_is_two_hits(pages: Pages) -> None:
    """A page that varies by a request header is found by way of its signpost, and each is looked up once."""

    def view() -> Response:
        response = make_response("hello")
        response.vary.add("Accept-Language")
        return response

    client = pages.page(view)
    for _ in range(3):
        client.get("/page")
    with pages.app.app_context():
        before = pages.state.cache.stats["hits_memory"]
        assert is_hit(client.get("/page"))
        assert pages.state.cache.stats["hits_memory"] - before == 2
