"""A browser without a window: cookies, web storage and tabs that speak the protocol of ``client.js``.

What a real browser does by itself after a while, :class:`FakeBrowser` does at once: when a page has loaded, its script
has run, and what was pending has been sent. What JavaScript would assign, a test assigns::

    browser = FakeBrowser(app)
    tab = browser.open("/")
    tab.local.prefs.theme = "dark"
    assert 'data-theme="dark"' in tab.get("/").text

The rules are those of :mod:`flask_stateful.browser.registers`; what differs from a real browser is only that no other
script runs, and that nothing is on its way.
"""

from __future__ import annotations

import json
import re
import typing as t
from urllib.parse import urlsplit

from .. import clock
from ..errors import ConfigError
from .entries import Json
from .page import Page

if t.TYPE_CHECKING:
    from flask import Flask
    from werkzeug.test import TestResponse

_ISLAND: t.Final = re.compile(r'<script type="application/json" id="fs-state">(.*?)</script>', re.DOTALL)
_DECLARATIONS: t.Final = re.compile(r"^const D = (.*);$", re.MULTILINE)


class FakeBrowser:
    """One visitor's browser.

    :param app: the application, which has a :class:`~flask_stateful.Stateful`.
    :param base_url: where it is; with ``https`` the cookies have the names that they have there.
    :param cookies: whether the browser takes cookies.
    :param storage: whether it has web storage; without, values live as long as their page, and on the server.
    :param javascript: whether scripts run.
    """

    def __init__(
        self,
        app: Flask,
        *,
        base_url: str = "http://localhost",
        cookies: bool = True,
        storage: bool = True,
        javascript: bool = True,
    ) -> None:
        #: Flask's test client, which keeps the cookies.
        self.client: t.Final = app.test_client(use_cookies=cookies)
        self.base_url = base_url
        self.host: t.Final = urlsplit(base_url).hostname or "localhost"
        self.has_cookies, self.has_storage, self.has_javascript = cookies, storage, javascript
        #: Whether it is connected; a test may set it. Without, what is assigned stays pending.
        self.is_online = True
        #: Seconds by which this browser's clock is wrong.
        self.clock_offset = 0.0
        #: What ``localStorage`` holds.
        self.storage: dict[str, str] = {}
        self._declared: Json = None

    def tab(self) -> FakeTab:
        """Return a new tab, in which no page is open yet."""
        return FakeTab(self)

    def open(self, path: str) -> FakeTab:
        """Return a new tab with a page."""
        tab = self.tab()
        tab.get(path)
        return tab

    def declarations(self) -> Json:
        """Return what the client module is told of the application.

        :raises ConfigError: if the application has no :class:`~flask_stateful.Stateful`.
        """
        config = t.cast("dict[str, t.Any]", self.client.application.config)
        response = self.request("GET", f"{config.get('STATEFUL_URL_PREFIX') or '/_state'}/client.js")
        if response is not None:
            found = _DECLARATIONS.search(response.text)
            if found is None:
                raise ConfigError("this application has no Stateful; write `state = Stateful(app)`")
            self._declared = json.loads(found[1])
        return self._declared

    def request(self, method: str, path: str, **options: t.Any) -> TestResponse | None:
        """Ask the application; there is no answer while the browser is not connected.

        :param options: as of Flask's test client.
        """
        if not self.is_online:
            return None
        return self.client.open(path, method=method, base_url=self.base_url, **options)

    def now(self) -> int:
        """Return the time in microseconds, as this browser has it."""
        return int((clock.now() + self.clock_offset) * 1000) * 1000


class FakeTab:
    """One tab of a :class:`FakeBrowser`."""

    def __init__(self, browser: FakeBrowser) -> None:
        self.browser: t.Final = browser
        #: What ``sessionStorage`` holds.
        self.storage: dict[str, str] = {}
        #: The answers that the tab has shown; the last one it shows now.
        self.history: list[TestResponse] = []
        #: The page's script, once it has run.
        self.page: Page | None = None

    @property
    def local(self) -> t.Any:
        """The page's ``local``: ``tab.local.prefs.theme = "dark"`` is what JavaScript would write."""
        return _Scope(self._script, "local")

    @property
    def tab(self) -> t.Any:
        """The page's ``tab``."""
        return _Scope(self._script, "tab")

    @property
    def _script(self) -> Page:
        if self.page is None:
            raise RuntimeError(
                "no page with {{ stateful() }} is open in this tab, or the browser runs no scripts;"
                " write tab.get('/'), and FakeBrowser(app) without javascript=False"
            )
        return self.page

    @property
    def response(self) -> TestResponse | None:
        """The answer that the tab shows."""
        return self.history[-1] if self.history else None

    @property
    def text(self) -> str:
        """The text of the page that is open."""
        return "" if self.response is None else self.response.text

    def get(self, path: str, **options: t.Any) -> TestResponse:
        """Follow a link.

        :raises ConnectionError: if the browser is not connected.
        """
        return self._navigate("GET", path, options)

    def post(self, path: str, **options: t.Any) -> TestResponse:
        """Send a form, and follow where the answer leads.

        :param options: as of Flask's test client, such as ``data``.
        :raises ConnectionError: if the browser is not connected.
        """
        return self._navigate("POST", path, options)

    def fetch(self, path: str, method: str = "GET", **options: t.Any) -> TestResponse:
        """Ask as the module's ``fetch()`` does; the page stays.

        :raises ConnectionError: if the browser is not connected.
        """
        script = self._script
        headers = {"X-State": script.header(), "Sec-Fetch-Site": "same-origin", **options.pop("headers", {})}
        response = self._ask(method, path, {**options, "headers": headers})
        script.answered(response.headers.get("X-State"))
        return response

    def flush(self) -> None:
        """Send what is pending, as the module's ``flush()`` does.

        :raises ConnectionError: if the server has not answered, or has not confirmed all of it.
        """
        written = self._script.unconfirmed()
        answered = self._script.send()
        left = [label for label in self._script.unconfirmed() if label in written]
        if left or not answered:
            raise ConnectionError(f"the server has not confirmed {', '.join(left) or 'that it has received anything'}")

    def back(self) -> None:
        """Show the page before as it was, as a browser's history does without asking the server.

        :raises IndexError: if there is none.
        """
        if len(self.history) < 2:
            raise IndexError("this tab has shown only one page; open another one before going back")
        self._leave()
        self.history.pop()
        self._show()

    def duplicate(self) -> FakeTab:
        """Return a copy of this tab, which begins with all that its ``sessionStorage`` holds."""
        other = FakeTab(self.browser)
        other.storage, other.history = dict(self.storage), list(self.history)
        other._show()
        return other

    def close(self) -> None:
        """Close the tab: its ``sessionStorage`` is gone."""
        leaving = self.page
        self._leave()
        if leaving is not None:
            leaving.arrived()
        self.storage, self.history = {}, []

    def _navigate(self, method: str, path: str, options: dict[str, t.Any]) -> TestResponse:
        leaving = self.page
        self._leave()
        headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", **options.pop("headers", {})}
        response = self._ask(method, path, {"follow_redirects": True, **options, "headers": headers})
        if leaving is not None:
            leaving.arrived()
        self.history.append(response)
        self._show()
        return response

    def _ask(self, method: str, path: str, options: dict[str, t.Any]) -> TestResponse:
        response = self.browser.request(method, path, **options)
        if response is None:
            raise ConnectionError("this browser is not connected; set browser.is_online = True")
        return response

    def _leave(self) -> None:
        if self.page is not None:
            self.page.leave()
            self.page = None

    def _show(self) -> None:
        response = self.response
        is_page = response is not None and response.mimetype == "text/html" and "/client.js" in response.text
        if self.browser.has_javascript and is_page:
            island = _ISLAND.search(self.text)
            self.page = Page(self, island and island[1])


class _Scope:
    """``local`` or ``tab`` of a page."""

    def __init__(self, page: Page, scope: str) -> None:
        self._page, self._scope = page, scope

    def __getattr__(self, model: str) -> _Model:
        return _Model(self._page, self._scope, model)


class _Model:
    """One declared class, as a page's script sees it."""

    def __init__(self, page: Page, scope: str, model: str) -> None:
        object.__setattr__(self, "_page", page)
        object.__setattr__(self, "_where", (scope, model))
        known = sorted({label.partition(".")[0] for label, field in page.fields.items() if field.scope == scope})
        if model not in known:
            raise AttributeError(f"the page knows no {scope}.{model}, only {', '.join(known)}")

    def _label(self, name: str) -> str:
        scope, model = self._where
        label = f"{model}.{name}"
        if label not in self._page.fields:
            known = [field.label for field in self._page.fields.values() if field.scope == scope]
            raise AttributeError(f"the page knows no {scope}.{label}, only {', '.join(known)}")
        return label

    def __getattr__(self, name: str) -> Json:
        return self._page.value(self._label(name))

    def __setattr__(self, name: str, value: Json) -> None:
        self._page.assign(self._label(name), value)

    def __delattr__(self, name: str) -> None:
        self._page.reset(self._label(name))
