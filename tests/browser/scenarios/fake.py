"""The scenarios' browser without a window."""

from __future__ import annotations

import json
import re
import typing as t
from html import unescape
from pathlib import Path

from flask_stateful.testing import FakeBrowser, FakeTab
from tests.browser.scenarios import driver
from tests.browser.scenarios.site import create_app

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class LosingAnswers:
    """Lets the application answer, and the answer be lost."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self.is_losing = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> t.Iterable[bytes]:
        if not self.is_losing or environ["PATH_INFO"] != "/_state":
            return self._app(environ, start_response)
        self.is_losing = False

        def start(status: str, headers: list[tuple[str, str]], *_: t.Any) -> t.Any:
            return start_response("502 Bad Gateway", [])

        return self._app(environ, start)


class Tab:
    """A tab, and what a scenario asks of it."""

    def __init__(self, tab: FakeTab) -> None:
        self._tab = tab

    def open(self, path: str = "/") -> None:
        self._tab.get(path)

    def submit(self, path: str, **fields: str) -> None:
        self._tab.post(path, data={"then": "", **fields})

    def fetch(self, values: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self._tab.fetch("/fetched", "POST", json=values or {}).json)

    def ask(self, values: dict[str, t.Any]) -> None:
        assert self._tab.browser.request("POST", "/fetched", json=values)

    def get(self, name: str) -> t.Any:
        model, field = self._place(name)
        return getattr(model, field)

    def set(self, name: str, value: t.Any) -> None:
        model, field = self._place(name)
        setattr(model, field, value)

    def delete(self, name: str) -> None:
        model, field = self._place(name)
        delattr(model, field)

    def _place(self, name: str) -> tuple[t.Any, str]:
        scope, model, field = name.split(".")
        return getattr(getattr(self._tab, scope), model), field

    def flush(self) -> None:
        self._tab.flush()

    def flush_fails(self) -> bool:
        try:
            self._tab.flush()
        except ConnectionError:
            return True
        return False

    def reload(self) -> None:
        shown = self._tab.response
        assert shown is not None
        self._tab.get(shown.request.path)

    def back(self) -> None:
        self._tab.back()

    def duplicate(self) -> Tab:
        return Tab(self._tab.duplicate())

    def close(self) -> None:
        self._tab.close()

    def seen(self) -> dict[str, t.Any]:
        found = re.search('<pre id="seen">(.*?)</pre>', self._tab.text)
        assert found is not None, self._tab.text
        return t.cast("dict[str, t.Any]", json.loads(unescape(found[1])))

    def stored(self, name: str) -> str:
        area, key = self._item(name)
        return area.get(key, "")

    def plant(self, name: str, item: str) -> None:
        area, key = self._item(name)
        area[key] = item

    def _item(self, name: str) -> tuple[dict[str, str], str]:
        scope, _, label = name.partition(".")
        return (self._tab.browser.storage if scope == "local" else self._tab.storage), f"fs:site:{label}"


class Browser:
    """A browser, and what a scenario asks of it."""

    def __init__(self, browser: FakeBrowser, network: LosingAnswers) -> None:
        self._browser = browser
        self._network = network

    def tab(self) -> Tab:
        return Tab(self._browser.tab())

    def cookies(self) -> dict[str, str]:
        if not self._browser.has_cookies:
            return {}
        return {cookie.key: cookie.value for cookie in self._browser.client._cookies.values()}  # type: ignore[union-attr]

    def lose_answer(self) -> None:
        self._network.is_losing = True

    def offline(self, is_offline: bool) -> None:
        self._browser.is_online = not is_offline


class World:
    """The application in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stores = 0
        self._browsers: list[FakeBrowser] = []
        self.deploy()

    def browser(self, **options: t.Unpack[driver.Options]) -> Browser:
        offset = options.pop("clock", 0.0)
        browser = FakeBrowser(self._app, **options)
        browser.clock_offset = offset
        self._browsers.append(browser)
        return Browser(browser, self._network)

    def deploy(self, *, version: int = 1, secrets: t.Sequence[str] = ("s" * 32,), wipe: bool = False) -> None:
        self._stores += wipe
        self._app = create_app(str(self._folder / f"{self._stores}.sqlite3"), version=version, secrets=secrets)
        self._network = LosingAnswers(self._app.wsgi_app)
        self._app.wsgi_app = self._network  # type: ignore[method-assign]
        for browser in self._browsers:
            browser.client.application = self._app
