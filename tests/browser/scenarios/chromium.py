"""The scenarios' Chromium, and the application behind gunicorn with two workers."""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, Error, Page, Route

from tests.browser.scenarios import driver
from tests.demo.visitor import PATIENCE, Shop

ROOT = Path(__file__).parents[3]

NO_STORAGE = """for (const name of ["localStorage", "sessionStorage"]) {
    Object.defineProperty(window, name, {get() { throw new DOMException("denied", "SecurityError"); }});
}"""

NO_COOKIES = 'Object.defineProperty(Document.prototype, "cookie", {get: () => "", set: () => {}});'

WRONG_CLOCK = "{ const now = Date.now; Date.now = () => now() + %d; }"


class Site(Shop):
    """gunicorn, serving the scenarios' application; each start may serve another one."""

    arguments_of_app: dict[str, t.Any] = {}

    def arguments(self) -> list[str]:
        given = {"database": str(self.folder / "state.sqlite3"), **self.arguments_of_app}
        call = ", ".join(f"{name}={value!r}" for name, value in given.items())
        serving = ["--chdir", str(ROOT), "--bind", f"127.0.0.1:{self.port}", "--workers", "2", "--threads", "4"]
        return [*serving, "--no-control-socket", f"tests.browser.scenarios.site:create_app({call})"]

    def answers(self) -> bool:
        """Tell whether it listens; the first request waits for a worker."""
        assert self.process is not None
        return f"Listening at: {self.url} ({self.process.pid})" in self.log


class Tab:
    """A tab, and what a scenario asks of it."""

    def __init__(self, page: Page, *, javascript: bool) -> None:
        #: Playwright's page.
        self.page = page
        self._javascript = javascript

    def _run(self, body: str, *values: t.Any) -> t.Any:
        names = "'use strict'; const {local, tab, flush, fetch} = module;"
        script = f"values => import('/_state/client.js').then(async module => {{ {names} {body} }})"
        return self.page.evaluate(script, list(values))

    def _started(self) -> None:
        """Wait until the page's script has done all that it has to do by itself."""
        if self._javascript:
            with contextlib.suppress(Error):
                self._run("await flush()")

    def open(self, path: str = "/") -> None:
        if self.page.url == "about:blank":
            self.page.goto(path)
        else:
            with self.page.expect_navigation():
                self.page.click(f"a[href='{path}']")
        self._started()

    def submit(self, path: str, **fields: str) -> None:
        form = self.page.locator(f"form[action='{path}']")
        for name, value in fields.items():
            form.locator(f"[name={name}]").fill(value)
        with self.page.expect_navigation():
            form.get_by_role("button").click()
        self._started()

    def fetch(self, values: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        found = self._run(f"return (await fetch('/fetched', {JSON_POST})).json()", values or {})
        return t.cast("dict[str, t.Any]", found)

    def ask(self, values: dict[str, t.Any]) -> None:
        self.page.evaluate(f"async values => {{ await window.fetch('/fetched', {JSON_POST}) }}", [values])

    def get(self, name: str) -> t.Any:
        return self._run(f"return {name}")

    def set(self, name: str, value: t.Any) -> None:
        self._run(f"{name} = values[0]", value)

    def delete(self, name: str) -> None:
        self._run(f"delete {name}")

    def flush(self) -> None:
        self._run("await flush()")

    def flush_fails(self) -> bool:
        return bool(self._run("return flush().then(() => false, () => true)"))

    def reload(self) -> None:
        self.page.reload()
        self._started()

    def back(self) -> None:
        with self.page.expect_navigation():
            self.page.evaluate("setTimeout(() => history.back()); 0")
        self._started()

    def duplicate(self) -> Tab:
        with self.page.expect_popup() as popup:
            self.page.evaluate("window.open(location.href); 0")
        popup.value.wait_for_load_state()
        copy = Tab(popup.value, javascript=self._javascript)
        copy._started()
        return copy

    def close(self) -> None:
        self.page.close()

    def seen(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads(self.page.inner_text("#seen")))

    def stored(self, name: str) -> str:
        area, key = _item(name)
        return t.cast("str", self.page.evaluate(f"{area}.getItem('{key}') ?? ''"))

    def plant(self, name: str, item: str) -> None:
        area, key = _item(name)
        self.page.evaluate(f"item => {area}.setItem('{key}', item)", item)


JSON_POST = '{method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(values[0])}'


def _item(name: str) -> tuple[str, str]:
    scope, _, label = name.partition(".")
    return ("localStorage" if scope == "local" else "sessionStorage"), f"fs:site:{label}"


class Browser:
    """A visitor's browser."""

    def __init__(self, context: BrowserContext, *, javascript: bool) -> None:
        self._context = context
        self._javascript = javascript

    def tab(self) -> Tab:
        return Tab(self._context.new_page(), javascript=self._javascript)

    def cookies(self) -> dict[str, str]:
        return {cookie["name"]: cookie["value"] for cookie in self._context.cookies()}

    def lose_answer(self) -> None:
        def lose(route: Route) -> None:
            route.fetch()
            route.abort()

        self._context.route("**/_state", lose, times=1)

    def offline(self, is_offline: bool) -> None:
        self._context.set_offline(is_offline)


class World:
    """The application, served."""

    def __init__(self, site: Site, chromium: Chromium) -> None:
        self._site = site
        self._chromium = chromium
        self._contexts: list[BrowserContext] = []
        #: What pages have complained about.
        self.complaints: list[str] = []
        self._served: dict[str, t.Any] = {}

    @property
    def log(self) -> str:
        """What the server has said."""
        return self._site.log

    def browser(self, *, csp: bool = True, **options: t.Unpack[driver.Options]) -> Browser:
        javascript = options.get("javascript", True)
        context = self._chromium.new_context(
            base_url=self._site.url, java_script_enabled=javascript, bypass_csp=not csp
        )
        context.set_default_timeout(PATIENCE * 1000)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("console", lambda message: self._note(message.text))
        if not options.get("storage", True):
            context.add_init_script(NO_STORAGE)
        if not options.get("cookies", True):
            context.add_init_script(NO_COOKIES)
            context.set_extra_http_headers({"X-Without-Cookies": "1"})
        if options.get("clock"):
            context.add_init_script(WRONG_CLOCK % round(options["clock"] * 1000))
        self._contexts.append(context)
        return Browser(context, javascript=javascript)

    def _note(self, text: str) -> None:
        if "Security Policy" in text or "Trusted" in text:
            self.complaints.append(text)

    def deploy(self, *, version: int = 1, secrets: t.Sequence[str] = ("s" * 32,), wipe: bool = False) -> None:
        served = {"version": version, "secrets": tuple(secrets)}
        if served == self._served and not wipe:
            return
        self._served = self._site.arguments_of_app = served  # type: ignore[misc]
        self._site.stop()
        if wipe:
            for file in self._site.folder.glob("state.sqlite3*"):
                file.unlink()
        self._site.start()

    def leave(self) -> None:
        """Close all browsers."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()
