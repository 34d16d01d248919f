"""What the tests of declared state ask for: an application of its own for each, and requests to it."""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.stores.memory import MemoryStore
from tests.databases import emptied

MakeApp: t.TypeAlias = Callable[..., Flask]


class Site:
    """An application and one browser that visits it."""

    def __init__(self, **options: t.Any) -> None:
        self.app = Flask("shop")
        self.app.config.update(SECRET_KEY="x" * 32, TESTING=True, **options.pop("config", {}))
        options.setdefault("store", MemoryStore())
        self.state = Stateful(self.app, **options)
        self.browser = self.app.test_client()
        self._todo: Callable[[], t.Any] = lambda: None
        self._answer: t.Any = None

        @self.app.route("/", methods=["GET", "POST"])
        def page() -> t.Any:
            self._answer = self._todo()
            status = self._answer if isinstance(self._answer, int) and self._answer >= 500 else 200
            return "", status

    def visit(self, todo: Callable[[], t.Any], browser: t.Any = None, **request: t.Any) -> t.Any:
        """Let a view do something, and return what it returned."""
        self._todo, self._answer = todo, None
        self.response = (browser or self.browser).post("/", **request)
        return self._answer


@pytest.fixture
def make_site() -> Callable[..., Site]:
    """Makes sites."""
    return Site


@pytest.fixture
def site() -> Site:
    """One site whose state lives in memory."""
    return Site()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store, or a database of the application's, that several processes share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.sqlite3'}"
    return emptied(request.getfixturevalue(request.param).url)
