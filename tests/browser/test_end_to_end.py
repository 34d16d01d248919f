"""Python and ``client.js`` together: one application, served, in Chromium."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, redirect, render_template_string
from playwright.sync_api import Page, sync_playwright
from werkzeug.serving import make_server

from flask_stateful import Stateful
from flask_stateful.stores.memory import MemoryStore
from tests.browser.support import Look, Prefs, Wizard

HEAD = """<head>{{ stateful() }}<script type="module" src="/page.js"></script></head><a href="/">again</a>"""
PAGE = (
    '<!doctype html><html data-theme="{{ prefs.theme }}">'
    + HEAD
    + '<p id="seen">{{ prefs.draft }}|{{ wizard.step }}|{{ look.layout }}</p>'
)


def make_app(store: MemoryStore) -> Flask:
    """Return an application whose pages show what Python reads, or do not look."""
    app = Flask("shop")
    app.config["SECRET_KEY"] = "x" * 32
    state = Stateful(app, store=store, declared=[Prefs, Look, Wizard])
    prefs, look, wizard = Prefs(), Look(), Wizard()

    @app.get("/")
    def page() -> str:
        return render_template_string(PAGE, prefs=prefs, look=look, wizard=wizard)

    @app.get("/blind")
    def blind() -> str:
        return render_template_string(HEAD)

    @app.get("/page.js")
    def script() -> t.Any:
        return 'import * as S from "/_state/client.js"; window.S = S;', {"Content-Type": "text/javascript"}

    @app.get("/python/<value>")
    def python(value: str) -> t.Any:
        prefs.draft = look.layout = value
        prefs.theme, wizard.step = "light", 9
        return redirect("/blind")

    @app.get("/fetched/<value>")
    def fetched(value: str) -> str:
        prefs.draft = value
        return ""

    @app.get("/login/<user>")
    def login(user: str) -> t.Any:
        state.sessions.login(user)
        return redirect("/")

    @app.get("/logout")
    def logout() -> t.Any:
        state.sessions.logout()
        return redirect("/")

    return app


class Tab:
    """A tab of Chromium on the served application."""

    def __init__(self, page: Page, url: str, store: MemoryStore) -> None:
        self.page, self.url, self.store = page, url, store

    def open(self, path: str = "/") -> None:
        """Open a page and wait for its script."""
        self.page.goto(self.url + path)
        self.page.wait_for_function("window.S")

    def run(self, script: str) -> t.Any:
        """Run JavaScript; a promise is waited for."""
        return self.page.evaluate(script)

    def seen(self) -> str:
        """Return what Python has read for this page."""
        return self.page.inner_text("#seen")


@pytest.fixture(scope="module")
def page(chromium: Path) -> Iterator[Page]:
    """A page of Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


@pytest.fixture
def tab(page: Page) -> Iterator[Tab]:
    """A tab without cookies and storage, which its origin's new port keeps apart from earlier ones."""
    store = MemoryStore()
    page.context.clear_cookies()
    server = make_server("127.0.0.1", 0, make_app(store), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Tab(page, f"http://127.0.0.1:{server.port}", store)
    page.goto("about:blank")
    server.shutdown()
    thread.join()


WRITE = "S.local.prefs.theme = 'dark'; S.local.prefs.draft = 'js'; S.tab.wizard.step = 3; S.local.look.layout = 'wide'"


def test_n5_write_then_click_is_read_by_the_next_page(tab: Tab) -> None:
    """Also the theme, in the very first byte; and still after everything was confirmed."""
    tab.open()
    tab.run(WRITE)
    tab.page.click("a")
    tab.page.wait_for_function("window.S")
    assert tab.seen() == "js|3|wide"
    assert tab.page.get_attribute("html", "data-theme") == "dark"
    tab.run("S.flush()")
    tab.open()
    assert tab.seen() == "js|3|wide"


def test_g4_a_write_of_python_and_a_redirect_arrive_with_the_next_page(tab: Tab) -> None:
    """In web storage and the mirror; and no cookie says that anything waits any more."""
    tab.open("/python/py")
    tab.page.wait_for_function("S.local.prefs.draft === 'py'")
    held = tab.run("[S.local.prefs.theme, S.local.look.layout, S.tab.wizard.step]")
    assert held == ["light", "py", 9]
    tab.page.wait_for_function("!document.cookie.includes('._p')")
    tab.open()
    assert tab.seen() == "py|9|py"


def test_g4_a_fetch_brings_what_python_wrote(tab: Tab) -> None:
    """The answer's header has it."""
    tab.open()
    tab.run("S.fetch('/fetched/py')")
    tab.page.wait_for_function("S.local.prefs.draft === 'py'")


def test_g7_a_lost_replica_is_healed_by_the_browser(tab: Tab) -> None:
    """After any exchange the server has again what it had forgotten."""
    tab.open()
    tab.run(WRITE)
    tab.run("S.flush()")
    for key in list(tab.store.scan("")):
        tab.store.delete(key)
    tab.run("S.local.look.layout = 'narrow'")
    with tab.page.expect_response(lambda response: '"prefs.draft"' in (response.request.post_data or "")):
        tab.run("S.flush()")
    tab.run("S.flush()")
    tab.open()
    assert tab.seen() == "js|3|narrow"


def test_login_keeps_and_logout_removes_what_is_the_users(tab: Tab) -> None:
    """On both sides; what is shared stays."""
    tab.open()
    tab.run(WRITE)
    tab.run("S.flush()")
    tab.open("/login/ada")
    assert tab.seen() == "js|3|wide"
    tab.open("/logout")
    assert tab.seen() == "|1|wide"
    held = tab.run("[S.local.prefs.draft, S.local.prefs.theme, S.tab.wizard.step, S.local.look.layout]")
    assert held == ["", "auto", 1, "wide"]
