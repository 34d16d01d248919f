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

from .. import clock
from ..errors import ConfigError
from .page import Json, Page

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
    :param storage: whether it has web storage; without, values live as long as their page.
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
        self.has_cookies, self.has_storage, self.has_javascript = cookies, storage, javascript
        #: Seconds by which this browser's clock is wrong.
        self.clock_offset = 0.0
        #: What ``localStorage`` holds.
        self.storage: dict[str, str] = {}
        config = t.cast("dict[str, t.Any]", app.config)
        self._url: str = config.get("STATEFUL_URL_PREFIX") or "/_state"

    def tab(self) -> FakeTab:
        """Return a new tab, in which no page is open yet."""
        return FakeTab(self)

    def open(self, path: str) -> FakeTab:
        """Return a new tab with a page."""
        tab = self.tab()
        tab.get(path)
        return tab

    def declarations(self) -> Json:
        """Return what the client module is told of the application."""
        module = self.client.get(f"{self._url}/client.js", base_url=self.base_url).text
        found = _DECLARATIONS.search(module)
        if found is None:
            raise ConfigError("this application has no Stateful; write `state = Stateful(app)`")
        return json.loads(found[1])

    def now(self) -> int:
        """Return the time in microseconds, as this browser has it."""
        return int((clock.now() + self.clock_offset) * 1000) * 1000


class FakeTab:
    """One tab of a :class:`FakeBrowser`."""

    def __init__(self, browser: FakeBrowser) -> None:
        self.browser: t.Final = browser
        #: What ``sessionStorage`` holds.
        self.storage: dict[str, str] = {}
        #: The answer that the tab shows.
        self.response: TestResponse | None = None
        #: The page's declared state, once its script has run.
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
            raise RuntimeError("no page with {{ stateful() }} is open in this tab; write tab.get('/')")
        return self.page

    @property
    def text(self) -> str:
        """The text of the page that is open."""
        return "" if self.response is None else self.response.text

    def get(self, path: str, **options: t.Any) -> TestResponse:
        """Follow a link."""
        return self._navigate("GET", path, options)

    def post(self, path: str, **options: t.Any) -> TestResponse:
        """Send a form, and follow where the answer leads.

        :param options: as of Flask's test client, such as ``data``.
        """
        return self._navigate("POST", path, options)

    def fetch(self, path: str, method: str = "GET", **options: t.Any) -> TestResponse:
        """Ask as the module's ``fetch()`` does; the page stays."""
        script = self._script
        headers = {"X-State": script.header(), "Sec-Fetch-Site": "same-origin", **options.pop("headers", {})}
        response = self._request(method, path, {**options, "headers": headers})
        script.answered(response.headers.get("X-State"))
        return response

    def flush(self) -> None:
        """Send what is pending, as the module's ``flush()`` does."""
        self._script.send()

    def back(self, response: TestResponse) -> None:
        """Show an earlier answer again, as a browser's history does without asking the server."""
        self._leave()
        self._show(response)

    def duplicate(self) -> FakeTab:
        """Return a copy of this tab, which begins with all that its ``sessionStorage`` holds."""
        other = FakeTab(self.browser)
        other.storage = dict(self.storage)
        if self.response is not None:
            other._show(self.response)
        return other

    def _navigate(self, method: str, path: str, options: dict[str, t.Any]) -> TestResponse:
        self._leave()
        headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", **options.pop("headers", {})}
        response = self._request(method, path, {"follow_redirects": True, **options, "headers": headers})
        self._show(response)
        return response

    def _request(self, method: str, path: str, options: dict[str, t.Any]) -> TestResponse:
        return self.browser.client.open(path, method=method, base_url=self.browser.base_url, **options)

    def _leave(self) -> None:
        if self.page is not None:
            self.page.leave()
            self.page = None

    def _show(self, response: TestResponse) -> None:
        self.response = response
        is_page = response.mimetype == "text/html" and "/client.js" in response.text
        if self.browser.has_javascript and is_page:
            island = _ISLAND.search(response.text)
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
        if not any(label.startswith(f"{model}.") and field.scope == scope for label, field in page.fields.items()):
            raise AttributeError(f"the page knows no {scope}.{model}")

    def _label(self, name: str) -> str:
        scope, model = self._where
        label = f"{model}.{name}"
        if label not in self._page.fields:
            raise AttributeError(f"the page knows no {scope}.{label}")
        return label

    def __getattr__(self, name: str) -> Json:
        return self._page.value(self._label(name))

    def __setattr__(self, name: str, value: Json) -> None:
        self._page.assign(self._label(name), value)

    def __delattr__(self, name: str) -> None:
        self._page.reset(self._label(name))
