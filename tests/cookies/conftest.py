"""What the tests of cookies ask for: an application, and a browser that visits it and says itself what the view does::

def test_something(browser: Browser, state: Stateful) -> None:
    browser.visit(lambda: state.cookies.set("seen", 1))
    assert browser.ask(lambda: state.cookies["seen"]) == 1
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterator

import pytest
from flask import Flask, Response
from werkzeug.test import TestResponse

from flask_stateful import Stateful
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock

SECRET = "correct horse battery staple"


class Browser:
    """Visits an application and keeps its cookies.

    :param https: whether it comes by HTTPS.
    """

    def __init__(self, app: Flask, *, https: bool = True) -> None:
        self.app = app
        self._client = app.test_client()
        self._base_url = "https://shop.example" if https else "http://shop.example"
        #: What the last view returned.
        self.answer: t.Any = None
        #: The lines of ``Set-Cookie`` in the last response.
        self.lines: list[str] = []

    def visit(self, does: Callable[[], t.Any], *, cookie: str | None = None, path: str = "/") -> TestResponse:
        """Let a view do something.

        :param cookie: sent in place of the browser's own cookies.
        """
        client = self._client if cookie is None else self.app.test_client(use_cookies=False)

        def view() -> Response | str:
            self.answer = does()
            return self.answer if isinstance(self.answer, Response) else "ok"

        self.answer = None
        self.app.extensions["does"] = view
        headers = {} if cookie is None else {"Cookie": cookie}
        response = client.get(path, base_url=self._base_url, headers=headers)
        self.lines = response.headers.getlist("Set-Cookie")
        return response

    def ask(self, question: Callable[[], t.Any], *, cookie: str | None = None, path: str = "/") -> t.Any:
        """Return what a view finds, which must answer well."""
        assert self.visit(question, cookie=cookie, path=path).status_code == 200
        return self.answer

    def sent(self, name: str) -> str:
        """Return the value of a cookie that the last response has set."""
        (line,) = [line for line in self.lines if line.startswith(f"{name}=")]
        return line.partition("=")[2].partition(";")[0]

    @property
    def names(self) -> set[str]:
        """The names of the cookies that the last response has set."""
        return {line.partition("=")[0] for line in self.lines}


def make_app(store: Store | None = None, name: str = "shop", **config: t.Any) -> Flask:
    """Return an application whose only view does what the browser says."""
    app = Flask(name)
    app.config.update({"SECRET_KEY": SECRET} | config)
    app.extensions["state"] = Stateful(app, store=store or MemoryStore())

    @app.route("/", defaults={"path": ""})
    @app.route("/<path:path>")
    def view(path: str) -> t.Any:
        return app.extensions["does"]()

    return app


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """The time of the whole package, which stands still until the test moves it."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def store() -> MemoryStore:
    """The store that values are spilled to."""
    return MemoryStore()


@pytest.fixture
def app(store: MemoryStore) -> Flask:
    """The application."""
    return make_app(store)


@pytest.fixture
def state(app: Flask) -> Stateful:
    """What the application has of us."""
    return t.cast("Stateful", app.extensions["state"])


@pytest.fixture
def browser(app: Flask) -> Browser:
    """A browser that comes by HTTPS."""
    return Browser(app)
