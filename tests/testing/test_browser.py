"""The browser without a window: what it promises besides what the scenarios of the real one show."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, render_template_string

from flask_stateful import LocalState, Stateful, TabState, field
from flask_stateful.errors import ConfigError
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeBrowser, FaultyStore

PAGE = "<head>{{ stateful() }}</head><p>{{ theme }}|{{ draft }}|{{ step }}</p>"


class Prefs(LocalState):
    """What belongs to the browser."""

    theme: t.Literal["auto", "dark"] = "auto"
    draft: str = field("", max_bytes=1000)
    coupon: str = field("", sealed=True)


class Wizard(TabState):
    """What belongs to a tab."""

    step: int = 1


@pytest.fixture
def app() -> Flask:
    """An application whose page shows what Python reads."""
    app = Flask("shop")
    app.config["SECRET_KEY"] = "x" * 32
    app.extensions["store"] = store = FaultyStore(MemoryStore())
    stores = {"default": store, "cache": MemoryStore(), "sessions": MemoryStore()}
    Stateful(app, store=stores, declared=[Prefs, Wizard])
    prefs, wizard = Prefs(), Wizard()

    @app.route("/", methods=["GET", "POST"])
    def page() -> str:
        return render_template_string(PAGE, theme=prefs.theme, draft=prefs.draft, step=wizard.step)

    @app.get("/write/<draft>")
    def write(draft: str) -> str:
        prefs.draft = draft
        return page()

    @app.get("/text")
    def text() -> t.Any:
        return "no page", {"Content-Type": "text/plain"}

    return app


def test_what_is_assigned_is_in_the_next_page(app: Flask) -> None:
    """The example of the documentation holds, for links and for forms."""
    tab = FakeBrowser(app).open("/")
    tab.local.prefs.theme = "dark"
    tab.tab.wizard.step = 2
    assert "dark||2" in tab.get("/").text
    assert "dark||2" in tab.post("/").text
    del tab.local.prefs.theme
    assert "auto||2" in tab.get("/").text


@pytest.mark.parametrize(
    ("assign", "text"),
    [
        (lambda tab: tab.local.pref, "the page knows no local.pref, only prefs"),
        (lambda tab: tab.tab.prefs, "the page knows no tab.prefs, only wizard"),
        (lambda tab: tab.local.prefs.them, "knows no local.prefs.them, only prefs.theme, prefs.draft, prefs.coupon"),
        (lambda tab: setattr(tab.local.prefs, "them", "dark"), "the page knows no local.prefs.them"),
        (lambda tab: delattr(tab.local.prefs, "them"), "the page knows no local.prefs.them"),
    ],
)
def test_unknown_names(app: Flask, assign: t.Callable[[t.Any], t.Any], text: str) -> None:
    """A name that nobody declared is an error that says what there is."""
    with pytest.raises(AttributeError, match=text):
        assign(FakeBrowser(app).open("/"))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("coupon", "x", TypeError),
        ("draft", float("nan"), TypeError),
        ("draft", object(), TypeError),
        ("draft", "x" * 999, ValueError),
        ("theme", "x" * 155, ValueError),
    ],
)
def test_values_that_javascript_would_not_take(app: Flask, name: str, value: object, error: type[Exception]) -> None:
    """What is sealed, no JSON or too large is refused, and changes nothing."""
    tab = FakeBrowser(app).open("/")
    with pytest.raises(error, match=f"prefs.{name}"):
        setattr(tab.local.prefs, name, value)
    assert tab.get("/").text.endswith("auto||1</p>")


def test_without_javascript(app: Flask) -> None:
    """Where no script runs there is no page to ask, which is said; pages still come."""
    tab = FakeBrowser(app, javascript=False).open("/")
    assert "auto||1" in tab.text
    with pytest.raises(RuntimeError, match="javascript=False"):
        _ = tab.local


def test_what_is_no_page(app: Flask) -> None:
    """A text that is no page with our script has no state either."""
    tab = FakeBrowser(app).open("/text")
    with pytest.raises(RuntimeError, match=r"write tab\.get\('/'\)"):
        tab.flush()


def test_without_cookies(app: Flask) -> None:
    """Without cookies pages know nothing, and storage keeps what was assigned."""
    tab = FakeBrowser(app, cookies=False).open("/")
    tab.local.prefs.draft = "mine"
    tab.flush()
    assert "auto||1" in tab.get("/").text
    assert tab.local.prefs.draft == "mine"


def test_without_storage(app: Flask) -> None:
    """Without storage a page's values are the server's to give back."""
    browser = FakeBrowser(app, storage=False)
    tab = browser.open("/")
    tab.local.prefs.draft = "mine"
    tab.flush()
    assert browser.storage == tab.storage == {}
    tab.get("/")
    assert tab.local.prefs.draft == "mine"


def test_wrong_clock(app: Flask) -> None:
    """A clock that is set back between two writes does not undo the second."""
    browser = FakeBrowser(app)
    tab = browser.open("/")
    tab.local.prefs.draft = "one"
    browser.clock_offset = -86_400
    tab.local.prefs.draft = "two"
    assert "auto|two|1" in tab.get("/").text


def test_duplicate(app: Flask) -> None:
    """A copied tab has the same values under an id of its own."""
    tab = FakeBrowser(app).open("/")
    tab.tab.wizard.step = 2
    copy = tab.duplicate()
    copy.tab.wizard.step = 3
    assert copy.page is not None
    assert tab.page is not None
    assert copy.page.id != tab.page.id
    assert ["||2" in tab.get("/").text, "||3" in copy.get("/").text] == [True, True]


def test_back(app: Flask) -> None:
    """An earlier page is shown as it was, and what is stored stays; before the first page there is nothing."""
    tab = FakeBrowser(app).open("/write/old")
    tab.get("/")
    tab.local.prefs.draft = "new"
    tab.back()
    assert "old" in tab.text
    assert tab.local.prefs.draft == "new"
    with pytest.raises(IndexError, match="only one page"):
        tab.back()


def test_closed_tab(app: Flask) -> None:
    """A closed tab's values are gone, and the next tab is not taken for it."""
    browser = FakeBrowser(app)
    tab = browser.open("/")
    tab.tab.wizard.step = 2
    tab.flush()
    tab.close()
    assert tab.storage == {}
    assert "||1" in browser.open("/").text


@pytest.mark.parametrize("url", ["https://localhost", "https://shop.example", "http://shop.example:8080"])
def test_addresses(app: Flask, url: str) -> None:
    """Wherever the application is, cookies have the names that they have there."""
    browser = FakeBrowser(app, base_url=url)
    tab = browser.open("/")
    tab.local.prefs.theme = "dark"
    name = "__Host-fs.shop.prefs.theme" if url.startswith("https") else "fs.shop.prefs.theme"
    assert browser.client.get_cookie(name, browser.host) is not None
    assert "dark||1" in tab.get("/").text


def test_offline(app: Flask) -> None:
    """Without a connection nothing is asked, values wait, and what could not be confirmed is said."""
    browser = FakeBrowser(app)
    tab = browser.open("/")
    browser.is_online = False
    tab.local.prefs.draft = "mine"
    with pytest.raises(ConnectionError, match=r"not confirmed prefs\.draft"):
        tab.flush()
    for ask in (tab.fetch, tab.get):
        with pytest.raises(ConnectionError, match="is_online = True"):
            ask("/")
    browser.is_online = True
    assert "auto|mine|1" in tab.get("/").text


def test_flush_that_is_not_confirmed(app: Flask) -> None:
    """Where the server's store fails, a flush raises; once it is back, it does not."""
    tab = FakeBrowser(app).open("/")
    tab.local.prefs.draft = "mine"
    app.extensions["store"].fail("unavailable")
    with pytest.raises(ConnectionError, match=r"prefs\.draft"):
        tab.flush()
    app.extensions["store"].mend()
    tab.flush()
    assert "auto|mine|1" in tab.get("/").text


def test_application_without_stateful() -> None:
    """An application that has no Stateful is told so."""
    with pytest.raises(ConfigError, match=r"state = Stateful\(app\)"):
        FakeBrowser(Flask("bare")).declarations()
