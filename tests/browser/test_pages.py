"""``{{ stateful() }}``, the module and the endpoint."""

from __future__ import annotations

import io
import json
import random
import typing as t

import pytest
from flask import Flask, Response, render_template_string, request

from flask_stateful import LocalState, Stateful
from flask_stateful.testing import FaultyStore
from tests.browser.support import NOW, TAB, Prefs, Tab, counted, encoded, island_of, make_app

OWN = {"X-State": "1", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def store() -> FaultyStore:
    """A store that counts its calls."""
    return counted()


@pytest.fixture
def tab(store: FaultyStore) -> Tab:
    """A tab of a browser that was never here."""
    return Tab(make_app(store=store).test_client())


# The page


def test_w1_the_tags_are_the_same_for_every_visitor_and_cost_nothing(tab: Tab, store: FaultyStore) -> None:
    """No store call, no header, the same bytes: for a new browser and for one that has an outbox and an id."""
    first = tab.client.get("/plain")
    tab.sync({"prefs.draft": ["x", 0, NOW]})
    store.calls.clear()
    tab.outbox({"prefs.draft": ["y", 1, NOW + 1]})
    second = tab.client.get("/plain")
    assert first.data == second.data == b'<head><script type="module" src="/_state/client.js"></script></head>'
    assert not store.calls
    for page in (first, second):
        assert {name for name, _ in page.headers} == {"Content-Type", "Content-Length"}


def test_w1_a_cached_view_with_the_tags_is_stored_for_those_without_news(tab: Tab) -> None:
    """It is served to everybody; for whom a patch is waiting it is made anew, and not stored."""
    app = tab.client.application
    state: Stateful = app.state  # type: ignore[attr-defined]

    @app.get("/cached")
    @state.cache.view(ttl=60)
    def cached() -> str:
        return render_template_string("{{ stateful() }}")

    @app.get("/personal")
    @state.cache.view(ttl=60)
    def personal() -> str:
        return render_template_string("{{ stateful() }}{{ prefs.theme }}", prefs=Prefs())

    def status(path: str) -> str:
        return tab.client.get(path).headers["Cache-Status"]

    assert "stored" in status("/cached")
    assert "hit" in status("/cached")
    assert "stored" not in status("/personal")
    assert "prefs.theme" in status("/personal")


def test_w1_a_page_with_an_island_is_not_stored_by_the_cache(tab: Tab) -> None:
    """What is waiting for one browser goes to no other."""
    app = tab.client.application

    @app.get("/cached")
    @app.state.cache.view(ttl=60)  # type: ignore[attr-defined]
    def cached() -> str:
        return render_template_string("{{ stateful() }}")

    tab.write("Prefs", "draft", "secret")
    mine = tab.navigate("/cached")
    theirs = app.test_client().get("/cached")
    assert "secret" in mine.text
    assert mine.headers["Cache-Control"] == "private"
    assert "secret" not in theirs.text


def test_the_island_is_filled_after_the_page_is_made(tab: Tab) -> None:
    """What a template changes behind the tags is in it, too, as it was saved."""

    @tab.client.application.get("/late")
    def late() -> str:
        prefs = Prefs()
        prefs.tags.append("head")
        page = render_template_string("{{ stateful() }}")
        prefs.tags.append("body")
        return page

    island = island_of(tab.navigate("/late"))
    assert island is not None
    assert island["p"]["prefs.tags"][0] == ["head", "body"]


def test_a_page_that_nobody_can_fill_in_has_the_browser_ask(tab: Tab) -> None:
    """A streamed page keeps an island that says so."""

    @tab.client.application.get("/stream")
    def stream() -> Response:
        Prefs().draft = "py"
        head = render_template_string("{{ stateful() }}")
        return Response(iter([head, "more"]), mimetype="text/html")

    assert island_of(tab.navigate("/stream")) == {"x": ["*"]}


def test_an_island_is_at_most_8_kib(tab: Tab) -> None:
    """What is too large is named, and the browser asks for it."""
    tab.sync({"prefs.tags": [["x" * 5_000], 0, NOW]})
    page = tab.write("Prefs", "draft", "y" * 5_000)
    island = island_of(page)
    assert island is not None
    assert island["x"]
    assert len(page.data) < 8 * 1024 + 200
    assert {name: v[0] for name, v in tab.sync({}, g=1)["p"].items()} == {
        "prefs.tags": ["x" * 5_000],
        "prefs.draft": "y" * 5_000,
    }


def test_nothing_in_a_value_leaves_the_island(tab: Tab) -> None:
    """Whatever a value holds, the page has one script of data, and it says just that."""
    chance = random.Random(3)
    parts = ["</script>", "<!--", "-->", "<script>", "\u2028", "\u2029", "]]>", "&lt;", '"', "\\", "'", "</", "<", ">"]
    for _ in range(200):
        value = "".join(chance.choices(parts, k=chance.randrange(1, 12)))
        page = tab.write("Prefs", "draft", value)
        island = island_of(page)
        assert island is not None
        assert island["p"]["prefs.draft"][0] == value
        assert page.text.count("<script") == page.text.count("</script>") == 2
        assert not set(page.text) & {"\u2028", "\u2029"}
        assert "<!--" not in page.text


def test_the_tags_know_where_the_application_lies() -> None:
    """Prefix and root are part of both addresses."""
    client = make_app(STATEFUL_URL_PREFIX="/app/state").test_client()
    page = client.get("/plain", base_url="http://localhost/shop")
    assert 'src="/shop/app/state/client.js"' in page.text
    assert '"url":"/shop/app/state"' in client.get("/app/state/client.js", base_url="http://localhost/shop").text


@pytest.mark.parametrize("early", [True, False])
def test_imported_templates_have_the_tags(early: bool) -> None:
    """Also where Jinja's environment was made before, and without context."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY="x" * 32, STATEFUL_STORE="memory://")
    if early:
        assert app.jinja_env
    Stateful(app, declared=[Prefs])
    macro = app.jinja_env.from_string("{% macro head() %}{{ stateful() }}{% endmacro %}")
    app.add_url_rule("/", view_func=lambda: render_template_string("{% import m as m %}{{ m.head() }}", m=macro))
    assert "client.js" in app.test_client().get("/").text


# The module


def test_the_module_is_served_without_comments_with_what_is_declared(tab: Tab) -> None:
    """It says what each field is, asks to be checked each time, and is sent once."""
    answer = tab.client.get("/_state/client.js")
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert not any(line.startswith(("//", " ")) or not line for line in answer.text.splitlines())
    declared = json.loads(answer.text.partition("const D = ")[2].partition(";\n")[0])
    assert declared == {
        "ns": "shop",
        "url": "/_state",
        "secure": False,
        "local": {
            "prefs": {
                "v": 1,
                "p": "necessary",
                "s": 0,
                "f": {
                    "theme": {"d": "auto", "m": 1},
                    "draft": {"d": ""},
                    "tags": {"d": []},
                    "soon": {"d": "", "s": 3600},
                },
            },
            "look": {"v": 1, "p": "necessary", "s": 1, "f": {"dense": {"d": False, "m": 1}, "layout": {"d": ""}}},
        },
        "tab": {"wizard": {"v": 1, "p": "necessary", "s": 0, "f": {"step": {"d": 1}, "answers": {"d": {}}}}},
    }
    again = tab.client.get("/_state/client.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert "Set-Cookie" not in answer.headers
    assert "Vary" not in answer.headers


def test_the_module_of_https_has_its_own_tag(tab: Tab) -> None:
    """Cookies are called otherwise there."""
    plain, https = (
        tab.client.get("/_state/client.js", base_url=f"{scheme}://localhost") for scheme in ("http", "https")
    )
    assert '"secure":true' in https.text
    assert plain.headers["ETag"] != https.headers["ETag"]


# The endpoint


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "same-origin"}, id="no-header"),
        pytest.param({"X-State": "1"}, id="no-origin"),
        pytest.param({"X-State": "1", "Sec-Fetch-Site": "cross-site"}, id="cross-site"),
        pytest.param({"X-State": "1", "Sec-Fetch-Site": "same-site"}, id="same-site"),
        pytest.param({"X-State": "1", "Sec-Fetch-Site": "none"}, id="none"),
        pytest.param({"X-State": "1", "Origin": "https://evil.example"}, id="other-origin"),
        pytest.param({"X-State": "1", "Origin": "null"}, id="null-origin"),
        pytest.param({"X-State": "1", "Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, id="both"),
        pytest.param({**OWN, "Content-Type": "text/plain"}, id="text"),
        pytest.param({**OWN, "Content-Type": "application/x-www-form-urlencoded"}, id="form"),
    ],
)
def test_whoever_is_not_our_own_script_is_refused(tab: Tab, store: FaultyStore, headers: dict[str, str]) -> None:
    """Another site, a form and a script without the header change nothing."""
    body = json.dumps(tab.push({"prefs.draft": ["x", 0, NOW]}))
    answer = tab.client.post("/_state", data=body, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == 403
    assert answer.headers["Cache-Control"] == "no-store"
    assert not store.calls


def test_an_older_browser_is_known_by_its_origin(tab: Tab) -> None:
    """Where Sec-Fetch-Site is not sent, Origin must be our own host."""
    assert tab.send({}, headers={"X-State": "1", "Origin": "http://localhost"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"t":"x"}', 400),
        (b'{"t":"0123abcd","p":{"prefs.draft":[1]}}', 400),
        (b"[" * 60_000, 400),
        (b" " * 65_537, 413),
    ],
)
def test_what_is_no_push_is_refused(tab: Tab, store: FaultyStore, body: bytes, status: int) -> None:
    """Malformed is 400, too large is 413, and neither reaches the store."""
    answer = tab.client.post("/_state", data=body, headers={**OWN, "Content-Type": "application/json"})
    assert answer.status_code == status
    assert not store.calls


def test_a_body_of_unknown_length_is_read_no_further_than_allowed(tab: Tab) -> None:
    """What says nothing of its length is cut off."""
    environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = tab.client.post(
        "/_state",
        input_stream=io.BytesIO(b" " * 70_000),
        headers={**OWN, "Content-Type": "application/json"},
        environ_overrides=environ,
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_the_endpoint_takes_post_only(tab: Tab, method: str) -> None:
    """Anything else is not allowed."""
    assert tab.client.open("/_state", method=method).status_code == 405


def test_the_answer_is_for_nobody_else(tab: Tab) -> None:
    """It is JSON that no cache keeps."""
    answer = tab.send({"prefs.draft": ["x", 0, NOW]})
    assert (answer.mimetype, answer.headers["Cache-Control"]) == ("application/json", "no-store")
    assert "X-State" not in answer.headers


def test_flask_wtf_leaves_the_endpoint_alone(tab: Tab) -> None:
    """It has a check of its own; the extension is told before it looks."""
    exempted: list[t.Any] = []

    class Protect:
        def exempt(self, view: t.Any) -> None:
            exempted.append(view)

    app = tab.client.application
    app.extensions["csrf"] = Protect()
    app.before_request(lambda: None if exempted else ("no token", 400))
    assert tab.send({}).status_code == 200
    assert exempted[0] is app.view_functions["stateful.sync"]


def test_a_mirror_is_set_again_for_400_days(tab: Tab) -> None:
    """Browsers that forget what scripts have set keep what a server has set."""
    answer = tab.send({"prefs.theme": ["dark", 0, NOW]})
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("fs.shop.prefs.theme=")
    assert "Max-Age=34560000" in cookie
    mirror = tab.mirror("prefs.theme")
    message = t.cast("t.Any", answer.json)
    assert mirror is not None
    assert (mirror.value, mirror.write) == (b'"dark"', NOW)
    assert message["a"] == {"prefs.theme": [mirror.revision, NOW]}


def test_a_mirror_that_javascript_has_written_is_confirmed_once(tab: Tab) -> None:
    """Cookie and push say the same: it stands, under a revision of ours."""
    tab.set_cookie("prefs.theme", encoded(["dark", 0, NOW]))
    revision, write = tab.sync({"prefs.theme": ["dark", 0, NOW]})["a"]["prefs.theme"]
    assert (revision > 0, write) == (True, NOW)
    assert tab.sync({"prefs.theme": ["dark", 0, NOW]})["p"]["prefs.theme"] == ["dark", revision, NOW]


def test_a_poisoned_counter_locks_nothing(tab: Tab) -> None:
    """After the largest counters that can be sent, writes of either side still arrive."""
    for name, model, field in (("prefs.draft", "Prefs", "draft"), ("prefs.soon", "Prefs", "soon")):
        most = 10**20
        tab.sync({name: ["poison", most, most]})
        tab.write(model, field, "py")
        assert tab.read(model, field) == "py"
        tab.sync({name: ["js", most, most]})
        assert tab.read(model, field) == "js"


def test_defaults_are_data_of_the_module() -> None:
    """They are JSON in a script of its own, which no page's HTML can end."""

    class Odd(LocalState):
        text: str = "</script>"

    answer = make_app(Odd).test_client().get("/_state/client.js")
    assert json.loads(answer.text.partition("const D = ")[2].partition(";\n")[0])["local"]["odd"]["f"]["text"]["d"] == (
        "</script>"
    )
    assert TAB not in answer.text


@pytest.mark.parametrize("status", [302, 400, 403])
def test_an_application_that_answers_for_us_is_told_so(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A login or CSRF check of its own stops the endpoint, which nobody would look for; it is said once a minute."""
    app = make_app()

    @app.before_request
    def check() -> t.Any:
        return ("", status) if request.method == "POST" else None

    tab = Tab(app.test_client())
    for _ in range(3):
        assert tab.send({"prefs.theme": ["dark", 0, NOW]}).status_code == status
    tab.client.get("/_state/client.js")
    assert [record.getMessage() for record in caplog.records] == [
        f"POST /_state was answered {status} before it reached Flask-Stateful, so nothing arrives that browsers write;"
        ' let your before_request functions pass what has request.blueprint == "stateful"'
    ]


def test_what_the_endpoint_itself_refuses_is_not_the_applications(tab: Tab, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is a request of another method."""
    assert tab.send({}, headers={}).status_code == 403
    assert tab.client.get("/_state").status_code == 405
    assert tab.client.options("/_state").status_code == 200
    assert not caplog.records
