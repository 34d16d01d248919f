"""Pages that are answered before Flask is entered."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, Response, g, make_response, request, session
from flask.testing import FlaskClient
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse

from flask_stateful import Stateful
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock


class Site:
    """An application with a page in front, which counts what is asked of Flask."""

    def __init__(self, *, behind_proxy: bool = False, **config: t.Any) -> None:
        self.state = Stateful()
        self.app = Flask("shop")
        self.app.config.update(SECRET_KEY="a key for tests, long enough", TESTING=True, STATEFUL_STORE="memory://")
        self.app.config.update(config)
        if behind_proxy:
            self.app.wsgi_app = ProxyFix(self.app.wsgi_app, x_host=1)  # type: ignore[method-assign]
        self.state.init_app(self.app)
        #: How often Flask was entered.
        self.entered = 0
        self.app.before_request(self._count)

    def _count(self) -> None:
        self.entered += 1

    def page(self, view: t.Callable[[], t.Any], **options: t.Any) -> FlaskClient:
        """Serve a view at ``/page`` and return a client without cookies."""
        self.view = self.state.cache.view(60, front=True, **options)(view)
        self.app.add_url_rule("/page", view_func=self.view, endpoint="page")
        return self.app.test_client(use_cookies=False)

    def warm(self, client: FlaskClient, **options: t.Any) -> TestResponse:
        """Ask until the page is answered in front, as far as it ever is."""
        for _ in range(4):
            response = client.get("/page", **options)
        self.entered = 0
        return response


@pytest.fixture
def site() -> Site:
    """An application with a page in front."""
    return Site()


def hello() -> Response:
    """Answer a page with a header of its own."""
    response = make_response("hello")
    response.headers["X-Own"] = "kept"
    return response


def test_hit_does_not_enter_flask(site: Site) -> None:
    """A page that was asked for before is answered as Flask would, without Flask."""
    client = site.page(hello)
    site.app.after_request(lambda response: response.headers.add("X-After", "added") or response)
    before = site.warm(client)
    response = client.get("/page")
    assert site.entered == 0
    assert (response.status, response.text) == (before.status, "hello")
    assert dict(response.headers) == dict(before.headers)
    assert (response.headers["X-Own"], response.headers["X-After"]) == ("kept", "added")
    assert (response.headers["Age"], response.headers["Cache-Status"]) == ("0", "Flask-Stateful; hit")
    assert len(response.headers.getlist("Age")) == 1


def test_head_has_no_body(site: Site) -> None:
    """HEAD is answered with the headers alone."""
    client = site.page(hello)
    site.warm(client)
    response = client.head("/page")
    assert (site.entered, response.data, response.headers["Content-Length"]) == (0, b"", "5")


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "name=value"},
        {"Authorization": "Bearer token"},
        {"Range": "bytes=0-1"},
        {"If-None-Match": '"anything"'},
        {"If-Modified-Since": "Sun, 22 Nov 2026 00:00:00 GMT"},
        {"Forwarded": "host=other.example"},
    ],
)
def test_other_requests_enter_flask(site: Site, headers: dict[str, str]) -> None:
    """Whoever brings a cookie or a login, or asks for less than the whole page, is answered by Flask."""
    client = site.page(hello)
    site.warm(client)
    client.get("/page", headers=headers)
    assert site.entered == 1


def test_etag_of_a_front_page_is_answered_with_304(site: Site) -> None:
    """The ETag that the front has sent is known to Flask."""
    client = site.page(hello)
    etag = site.warm(client).headers["ETag"]
    assert client.get("/page", headers={"If-None-Match": etag}).status_code == 304


def test_other_addresses_are_other_pages(site: Site) -> None:
    """Query, host and scheme tell pages apart."""
    client = site.page(lambda: request.url)
    for url in (
        "http://a.example/page",
        "http://a.example/page?x=1",
        "http://b.example/page",
        "https://a.example/page",
    ):
        site.warm(client, base_url=url.partition("/page")[0], query_string=url.partition("?")[2])
        assert client.get("/page", base_url=url.partition("/page")[0], query_string=url.partition("?")[2]).text == url
        assert site.entered == 0


def test_proxy_behind_the_front() -> None:
    """Where a middleware behind the front takes the host from a proxy's header, hosts do not share a page."""
    site = Site(behind_proxy=True)
    client = site.page(lambda: request.host)
    site.warm(client, headers={"X-Forwarded-Host": "a.example"})
    assert client.get("/page", headers={"X-Forwarded-Host": "a.example"}).text == "a.example"
    assert site.entered == 0
    assert client.get("/page", headers={"X-Forwarded-Host": "evil.example"}).text == "evil.example"
    assert client.get("/page").text == "localhost"


@pytest.mark.parametrize(
    "change",
    [
        lambda response: response.set_cookie("visited", "1"),
        lambda response: response.headers.add("Vary", "Accept-Language"),
        lambda response: response.set_data("another body"),
        lambda response: (response.set_data("hallo"), response.headers.set("Content-Encoding", "x")),
        lambda response: setattr(response, "status_code", 202),
    ],
    ids=["cookie", "vary", "body", "encoding", "status"],
)
def test_what_goes_out_differently_is_left_to_flask(site: Site, change: t.Callable[[Response], object]) -> None:
    """A page that the application still changes on its way out is never answered in front."""
    client = site.page(hello)
    site.app.after_request(lambda response: (change(response), response)[1])
    site.warm(client)
    client.get("/page")
    assert site.entered == 1


def test_personal_pages_are_refused(site: Site) -> None:
    """A page that reads the session is stored nowhere, so it is not in front either."""
    client = site.page(lambda: str(session.get("name")))
    site.warm(client)
    client.get("/page")
    assert site.entered == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda site: site.state.cache.invalidate_tags("posts"),
        lambda site: site.state.cache.clear(),
        lambda site: site.view.forget_all(),
    ],
    ids=["tag", "clear", "forget_all"],
)
def test_invalidated_page_is_not_answered(site: Site, change: t.Callable[[Site], None]) -> None:
    """What was invalidated is made anew, and then answered in front again."""
    bodies = iter(["old", "new"])
    client = site.page(lambda: next(bodies), tags=["posts"])
    assert site.warm(client).text == "old"
    with site.app.app_context():
        change(site)
    assert client.get("/page").text == "new"
    assert site.warm(client).text == "new"
    client.get("/page")
    assert site.entered == 0


def test_expired_page_is_not_answered(site: Site) -> None:
    """A page is answered in front as long as it is fresh, with its age."""
    with FakeClock() as clock:
        client = site.page(hello)
        site.warm(client)
        clock.advance(59)
        assert (client.get("/page").headers["Age"], site.entered) == ("59", 0)
        clock.advance(1)
        client.get("/page")
        assert site.entered == 1


def test_other_views_are_not_answered(site: Site) -> None:
    """A view without ``front`` is answered by Flask, also where another one has it."""
    client = site.page(hello)
    site.app.add_url_rule("/other", view_func=site.state.cache.view(60)(lambda: "other"), endpoint="other")
    site.warm(client)
    for _ in range(4):
        client.get("/other")
    assert site.entered == 4


def test_page_that_another_process_made_is_answered() -> None:
    """A process that finds the page in the store has never made it, and answers it in front all the same."""
    store = MemoryStore()
    made: list[int] = []
    for site in (Site(STATEFUL_STORE=store), Site(STATEFUL_STORE=store)):
        client = site.page(lambda: str(made.append(1)))
        site.warm(client)
        assert (client.get("/page").text, site.entered, made) == ("None", 0, [1])


def test_two_applications_have_two_fronts() -> None:
    """One application's pages are not another's, though they share a store."""
    store = MemoryStore()
    sites = [Site(STATEFUL_STORE=store, STATEFUL_NAMESPACE=name) for name in ("one", "two")]
    for site, text in zip(sites, ("one", "two"), strict=True):
        client = site.page(lambda text=text: text)
        site.warm(client)
        assert (client.get("/page").text, site.entered) == (text, 0)


def test_without_memory_flask_answers() -> None:
    """Where nothing is held in memory, nothing is answered in front."""
    site = Site(STATEFUL_CACHE_MEMORY=0)
    client = site.page(hello)
    site.warm(client)
    assert (client.get("/page").text, site.entered) == ("hello", 1)


def test_many_addresses_do_not_fill_the_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many addresses are known at once; the page is answered in any case."""
    monkeypatch.setattr("flask_stateful.cache.front._MOST_PLACES", 3)
    client = site.page(hello, query=())
    for number in range(10):
        site.warm(client, query_string=f"n={number}")
    front: t.Any = site.app.wsgi_app
    assert len(front._known) <= 3


@pytest.mark.parametrize("options", [{"vary": ["user"]}, {"vary": ["header:Accept-Language"]}, {"unless": lambda: g}])
def test_front_takes_nothing_that_only_flask_can_tell(site: Site, options: dict[str, t.Any]) -> None:
    """``front`` beside ``vary`` or ``unless`` is an error that says so."""
    with pytest.raises(ValueError, match="front=True answers before vary= and unless= can be asked"):
        site.page(hello, **options)
