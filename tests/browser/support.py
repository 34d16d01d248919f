"""An application with browser state, and Flask's test client in the place of a browser."""

from __future__ import annotations

import json
import typing as t
from datetime import timedelta

from flask import Flask, render_template_string, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_stateful import LocalState, Stateful, TabState, field
from flask_stateful.browser import wire
from flask_stateful.browser.registers import Register
from flask_stateful.declared.classes import State
from flask_stateful.serialization import url_safe
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FaultyStore

TAB = "0123abcd"
OTHER_TAB = "89abcdef"
NOW = 1_790_000_000_000_000


def _declare() -> t.Any:
    """Declare classes that belong to no other application of this process."""

    class Prefs(LocalState):
        """One mirrored field, and some that are not."""

        theme: t.Literal["auto", "light", "dark"] = "auto"
        draft: str = ""
        tags: list[str] = field(default_factory=list)
        soon: str = field("", ttl=timedelta(hours=1))

    class Look(LocalState, shared=True):
        """What stays with the browser."""

        dense: bool = False
        layout: str = ""

    class Wizard(TabState):
        """What belongs to one tab."""

        step: int = 1
        answers: dict[str, str] = field(default_factory=dict)

    return Prefs, Look, Wizard


Prefs, Look, Wizard = _declare()

DECLARED = (Prefs, Look, Wizard)


def make_app(
    *declared: type[State],
    store: Store | None = None,
    name: str = "shop",
    secret: str = "x" * 32,
    user_id: t.Callable[[], object] | None = None,
    **config: t.Any,
) -> Flask:
    """Return an application with a few pages."""
    app = Flask(name)
    app.config.update(SECRET_KEY=secret, TESTING=True, **config)
    # A dict, so that a test can look at what was called while a cache has a store of its own.
    stores = {"default": store or MemoryStore(), "cache": MemoryStore(), "sessions": MemoryStore()}
    app.state = Stateful(app, store=stores, declared=declared or DECLARED, user_id=user_id)  # type: ignore[attr-defined]

    @app.get("/plain")
    def plain() -> str:
        return render_template_string("<head>{{ stateful() }}</head>")

    @app.get("/read/<model>/<name>")
    def read(model: str, name: str) -> t.Any:
        handle = next(cls for cls in declared or DECLARED if cls.__name__ == model)()
        return {"value": getattr(handle, name), "known": app.state.known(handle, name)}  # type: ignore[attr-defined]

    @app.post("/write/<model>/<name>")
    def write(model: str, name: str) -> t.Any:
        handle = next(cls for cls in declared or DECLARED if cls.__name__ == model)()
        if request.data:
            setattr(handle, name, json.loads(request.data))
        else:
            app.state.reset(handle, name)  # type: ignore[attr-defined]
        status = request.args.get("status", 200, int)
        return render_template_string("<head>{{ stateful() }}</head>"), status

    @app.post("/login/<user>")
    def login(user: str) -> str:
        app.state.sessions.login(user)  # type: ignore[attr-defined]
        return "", int(request.args.get("status", 200))

    @app.post("/logout")
    def logout() -> t.Any:
        app.state.sessions.logout()  # type: ignore[attr-defined]
        return "", int(request.args.get("status", 200))

    return app


class Tab:
    """One tab of a browser, which says what client.js would say, and takes nothing by itself."""

    def __init__(self, client: FlaskClient, tab: str = TAB, *, https: bool = False) -> None:
        self.client = client
        self.tab = tab
        self.base = "https://localhost" if https else "http://localhost"
        namespace = client.application.config.get("STATEFUL_NAMESPACE", client.application.name)
        self.prefix = f"{'__Host-' if https else ''}fs.{namespace}."
        self.owner = ""

    def cookie(self, name: str) -> str | None:
        """Return one of our cookies."""
        cookie = self.client.get_cookie(self.prefix + name)
        return None if cookie is None else cookie.value

    def set_cookie(self, name: str, value: str) -> None:
        """Set one of our cookies, as a script does."""
        self.client.set_cookie(self.prefix + name, value)

    def mirror(self, name: str) -> Register | None:
        """Return what a mirror cookie holds."""
        cookie = self.cookie(name)
        return None if cookie is None else wire.parse_mirror(cookie)

    def push(self, writes: dict[str, t.Any], **flags: int) -> dict[str, t.Any]:
        """Return a push."""
        return {"t": self.tab, "u": self.owner, "p": writes, **flags}

    def outbox(self, writes: dict[str, t.Any], **flags: int) -> None:
        """Leave a push in the outbox."""
        self.set_cookie(f"_q.{self.tab}", encoded(self.push(writes, **flags)))

    def send(self, writes: dict[str, t.Any], *, headers: t.Any = None, **flags: int) -> TestResponse:
        """Post a push to the endpoint."""
        own = {"X-State": "1", "Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return self.client.post("/_state", json=self.push(writes, **flags), headers=own, base_url=self.base)

    def sync(self, writes: dict[str, t.Any], **flags: int) -> dict[str, t.Any]:
        """Post a push and return the answer."""
        response = self.send(writes, **flags)
        assert response.status_code == 200
        return t.cast("dict[str, t.Any]", response.json)

    def navigate(self, path: str, **options: t.Any) -> TestResponse:
        """Get a page, saying which tab it is for."""
        self.set_cookie("_t", self.tab)
        return self.client.get(path, base_url=self.base, **options)

    def read(self, model: str, name: str) -> t.Any:
        """Return what Python reads in the next page."""
        response = self.navigate(f"/read/{model}/{name}")
        assert response.status_code == 200
        return t.cast("dict[str, t.Any]", response.json)["value"]

    def write(self, model: str, name: str, value: t.Any, **options: t.Any) -> TestResponse:
        """Have Python write a value, or with ``...`` reset it."""
        self.set_cookie("_t", self.tab)
        data = b"" if value is ... else json.dumps(value)
        return self.client.post(f"/write/{model}/{name}", data=data, base_url=self.base, **options)


def encoded(message: t.Any) -> str:
    """Return a message as cookies and headers have it."""
    return url_safe(json.dumps(message).encode())


def island_of(response: TestResponse) -> dict[str, t.Any] | None:
    """Return what the page's island says; ``None`` where it has none."""
    _, found, rest = response.get_data(as_text=True).partition('<script type="application/json" id="fs-state">')
    return json.loads(rest.partition("</script>")[0]) if found else None


def counted() -> FaultyStore:
    """Return a store that counts its calls."""
    return FaultyStore(MemoryStore())
