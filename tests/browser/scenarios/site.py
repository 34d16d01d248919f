"""The application that the scenarios are played on: its pages show what Python reads, and its forms have it write."""

from __future__ import annotations

import json
import typing as t
from datetime import timedelta

from flask import Flask, Response, jsonify, redirect, render_template_string, request
from flask.typing import ResponseReturnValue

from flask_stateful import CookieState, LocalState, SessionState, Stateful, TabState, field, migrate
from flask_stateful.declared.classes import State

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'self';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)

#: Where a visitor can go.
PATHS = ("/", "/blind")

#: What a visitor can send, and with which fields.
FORMS = {
    "/write": ("name", "value", "then"),
    "/login": ("user",),
    "/logout": (),
    "/consent": ("answer",),
}

PAGE = """<!doctype html><html><head><title>site</title>{{ stateful() }}</head><body>
<pre id="seen">{{ seen }}</pre>
{% for path in paths %}<a href="{{ path }}">{{ path }}</a>{% endfor %}
{% for path, names in forms.items() %}<form method="post" action="{{ path }}">
{% for name in names %}<input name="{{ name }}">{% endfor %}<button>send</button></form>{% endfor %}
"""


#: Keeps the first page as it is when it is installed, and shows that from then on.
WORKER = """
addEventListener("install", event => {
    event.waitUntil(caches.open("pages").then(kept => kept.add("/")).then(() => skipWaiting()));
});
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => {
    if (event.request.mode === "navigate" && new URL(event.request.url).pathname === "/") {
        event.respondWith(caches.match("/"));
    }
});
"""


def union(server: list[str], browser: list[str]) -> list[str]:
    """Return what either has."""
    return sorted({*server, *browser})


def declare(version: int) -> dict[str, State]:
    """Declare the classes, one of them as it was or has become in a version."""

    class Prefs(LocalState):
        """What belongs to the user."""

        theme: t.Literal["auto", "light", "dark"] = "auto"
        draft: str = ""
        tags: list[str] = field(default_factory=list, conflict=union)
        title: str = field("", conflict="server")
        soon: str = field("", ttl=timedelta(hours=1))
        coupon: dict[str, int] | None = field(None, sealed=True)
        bonus: dict[str, int] | None = field(None, sealed=True)

    class Look(LocalState, shared=True):
        """What stays with the browser."""

        layout: str = ""

    class Wizard(TabState):
        """What belongs to one tab."""

        step: int = 1
        answers: dict[str, str] = field(default_factory=dict)

    class Visits(LocalState, purpose="analytics"):
        """What needs consent."""

        count: int = 0
        pages: list[str] = field(default_factory=list)

    class Notice(CookieState):
        """What is sealed in a cookie."""

        seen: int = 0
        text: str = ""

    class Basket(SessionState):
        """What the server keeps."""

        items: list[str] = field(default_factory=list)

    classes: list[type[State]] = [Prefs, Look, Wizard, Visits, Notice, Basket, declare_note(version)]
    return {cls.__name__.lower(): cls() for cls in classes}


def declare_note(version: int) -> type[State]:
    """Declare what was one text, and has become a list of words."""
    if version == 1:

        class Note(LocalState):
            """As it was."""

            text: str = ""

        return Note

    class Later(LocalState, name="note", version=2):
        """As it has become."""

        words: list[str] = field(default_factory=list)

    Later.__name__ = "Note"

    @migrate(Later, 1)
    def split(fields: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"words": fields["text"].split()}

    return Later


#: What every page shows, besides the note.
NAMES = (
    *("prefs.theme", "prefs.draft", "prefs.tags", "prefs.title", "prefs.soon", "prefs.coupon", "prefs.bonus"),
    *(
        "look.layout",
        "wizard.step",
        "wizard.answers",
        "visits.count",
        "visits.pages",
        "notice.seen",
        "notice.text",
        "basket.items",
    ),
)


def create_app(database: str, *, version: int = 1, secrets: t.Sequence[str] = ("s" * 32,)) -> Flask:
    """Make the application.

    :param database: the file of the store.
    :param version: which version of the class ``Note`` there is.
    :param secrets: the key that seals, and those from before.
    """
    app = Flask("site")
    app.config.update(SECRET_KEY=secrets[0], SECRET_KEY_FALLBACKS=list(secrets[1:]))
    app.config["STATEFUL_STORE"] = f"sqlite:///{database}"
    handles = declare(version)
    state = Stateful(app, declared=[type(handle) for handle in handles.values()])
    app.wsgi_app = WithoutCookies(app.wsgi_app)  # type: ignore[method-assign]
    names = (*NAMES, "note.text" if version == 1 else "note.words")

    def place(name: str) -> tuple[State, str]:
        model, _, key = name.partition(".")
        return handles[model], key

    def seen() -> dict[str, t.Any]:
        values = {name: getattr(*place(name)) for name in names}
        return {**values, "user": state.user_id, "status": state.browser_status}

    @app.get("/")
    def page() -> str:
        return render_template_string(PAGE, seen=json.dumps(seen()), paths=PATHS, forms=FORMS)

    @app.get("/blind")
    def blind() -> str:
        return render_template_string(PAGE, seen="null", paths=PATHS, forms=FORMS)

    @app.get("/worker.js")
    def worker() -> ResponseReturnValue:
        return WORKER, {"Content-Type": "text/javascript"}

    @app.post("/fetched")
    def fetched() -> Response:
        for name, value in (request.get_json() or {}).items():
            setattr(*place(name), value)
        return jsonify(seen())

    @app.post("/write")
    def write() -> ResponseReturnValue:
        setattr(*place(request.form["name"]), json.loads(request.form["value"]))
        return redirect(request.form["then"] or "/")

    @app.post("/login")
    def login() -> ResponseReturnValue:
        state.sessions.login(request.form["user"])
        return redirect("/")

    @app.post("/logout")
    def logout() -> ResponseReturnValue:
        state.sessions.logout()
        return redirect("/")

    @app.post("/consent")
    def consent() -> ResponseReturnValue:
        change = state.consent.grant if request.form["answer"] == "yes" else state.consent.withdraw
        change("analytics")
        return redirect("/")

    @app.after_request
    def secure(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return app


class WithoutCookies:
    """Takes the cookies from requests that ask for it, and from their answers, as a browser does that has none."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> t.Iterable[bytes]:
        if "HTTP_X_WITHOUT_COOKIES" not in environ:
            return self._app(environ, start_response)
        environ.pop("HTTP_COOKIE", None)

        def start(status: str, headers: list[tuple[str, str]], *rest: t.Any) -> t.Any:
            return start_response(status, [pair for pair in headers if pair[0] != "Set-Cookie"], *rest)

        return self._app(environ, start)
