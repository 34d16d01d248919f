"""A small server that speaks to ``client.js``: pages, the endpoint, and registers in a dictionary."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import flask_stateful
from flask_stateful.browser.client import squeezed

SOURCE = Path(flask_stateful.__file__).parent / "browser" / "client.js"
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; frame-src 'self'; require-trusted-types-for 'script'"
)

#: What loads the module.
LOADED = '<script type="module" src="/_state/client.js"></script>'

Register = list[t.Any]

#: What the pages' application declares.
DECLARED: dict[str, t.Any] = {
    "ns": "app",
    "url": "/_state",
    "secure": False,
    "local": {
        "prefs": {
            "v": 1,
            "p": "necessary",
            "s": 0,
            "f": {
                "theme": {"d": "auto", "m": 1},
                "sidebar": {"d": True, "m": 1},
                "draft": {"d": "", "b": 65_536},
                "size": {"d": 10},
                "tags": {"d": []},
                "note": {"d": "", "s": 3600},
                "coupon": {"x": 1},
                "limit": {"d": None},
            },
        },
        "look": {"v": 2, "p": "necessary", "s": 1, "f": {"mode": {"d": "plain"}}},
        "stats": {"v": 1, "p": "analytics", "s": 1, "f": {"visits": {"d": 0}, "source": {"d": "", "m": 1}}},
    },
    "tab": {"wizard": {"v": 1, "p": "necessary", "s": 0, "f": {"step": {"d": 1}, "answers": {"d": {}}}}},
}


def encoded(value: t.Any) -> str:
    """Return a value as a cookie or a header carries it."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def decoded(text: str) -> t.Any:
    """Return what a cookie or a header carries."""
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def is_tab(name: str) -> bool:
    """Tell whether a register belongs to a tab."""
    return name.partition(".")[0] in DECLARED["tab"]


def is_mirrored(name: str) -> bool:
    """Tell whether a register's home is a cookie."""
    model, _, field = name.partition(".")
    return bool(DECLARED["local"].get(model, {}).get("f", {}).get(field, {}).get("m"))


class Seen(t.NamedTuple):
    """A request that has arrived."""

    method: str
    path: str
    header: dict[str, t.Any] | None
    cookies: dict[str, str]
    body: dict[str, t.Any] | None

    @property
    def outbox(self) -> dict[str, t.Any]:
        """What the outbox cookies carried, all tabs' together."""
        found = (decoded(value) for name, value in self.cookies.items() if name.startswith("fs.app._q."))
        return {name: wire for push in found for name, wire in push["p"].items()}


class App:
    """What the server does, and what it has seen."""

    def __init__(self) -> None:
        self.url = ""
        self.registers: dict[tuple[str, str], Register] = {}
        self.pages: dict[str, str] = {}
        self.cookies: list[str] = []
        self.headers: dict[str, str] = {}
        self.seen: list[Seen] = []
        self.lost_answers = 0
        self.owner = ""
        self.last_revision = 0
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def revision(self, *above: int) -> int:
        """Return the next revision."""
        self.last_revision = max(int(time.time() * 1e6), self.last_revision + 1, *(count + 1 for count in above))
        return self.last_revision

    def key(self, name: str, tab: str) -> tuple[str, str]:
        return (tab if is_tab(name) else "", name)

    def write(self, name: str, value: t.Any, tab: str = "") -> Register:
        """Write as Python would, and return the register."""
        held = self.registers.get(self.key(name, tab), [0, 0])
        self.registers[self.key(name, tab)] = [value, self.revision(held[-2]), held[-1]]
        return self.registers[self.key(name, tab)]

    def value(self, name: str, tab: str = "") -> t.Any:
        """Return what Python would see."""
        held = self.registers.get(self.key(name, tab), [0, 0])
        return held[0] if len(held) == 3 else None

    def wait_for(self, condition: t.Callable[[], bool]) -> None:
        """Wait until what a request changes is so."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=20)

    def posts(self) -> list[dict[str, t.Any]]:
        """Return the bodies that have been posted."""
        with self.lock:
            return [seen.body for seen in self.seen if seen.body is not None]

    def last(self, path: str) -> Seen:
        """Return the last request for a path."""
        with self.lock:
            return [seen for seen in self.seen if seen.path == path][-1]

    def island(self, tab: str, **more: t.Any) -> str:
        """Return a patch of all that is held, as a page has it."""
        return f'<script type="application/json" id="fs-state">{json.dumps(self.patch(tab) | more)}</script>'

    def patch(self, tab: str) -> dict[str, t.Any]:
        held = {name: wire for (home, name), wire in self.registers.items() if home in ("", tab)}
        held = {name: wire for name, wire in held.items() if not is_mirrored(name)}
        return {"t": tab, "p": held, "h": {name: wire[-2] for name, wire in held.items()}}

    def receive(self, push: dict[str, t.Any], cookies: dict[str, str]) -> tuple[dict[str, t.Any], list[str]]:
        """Answer a push: the patch, and the mirrors to set."""
        tab, owner = push["t"], cookies.get("fs.app._u", "")
        if self.owner not in ("", owner):
            self.registers.clear()
        self.owner = owner
        if push.get("u", "") != owner:
            push = push | {"p": {}}
        answer: dict[str, t.Any] = {"t": tab, "u": owner, "a": {}, "p": {}}
        mirrors = []
        for name, wire in push.get("p", {}).items():
            *value, base, write = wire
            held = self.registers.get(self.key(name, tab), [0, 0])
            if write < held[-1] or (write == held[-1] and base < held[-2]):
                answer["p"][name] = held
                continue
            revision = self.revision(held[-2], base)
            self.registers[self.key(name, tab)] = [*value, revision, write]
            answer["a"][name] = [revision, write]
            if is_mirrored(name):
                mirrors.append(f"fs.app.{name}={encoded([*value, revision, write])}; Path=/; Max-Age=34560000")
        whole = self.patch(tab)
        if push.get("g"):
            answer["p"] = whole["p"] | answer["p"]
        return answer | {"h": whole["h"]}, mirrors


class Handler(BaseHTTPRequestHandler):
    """One request."""

    app: App
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: t.Any) -> None:
        """Say nothing."""

    def note(self, body: dict[str, t.Any] | None = None) -> Seen:
        pairs = [pair.split("=", 1) for pair in self.headers.get("Cookie", "").split("; ") if "=" in pair]
        header = self.headers.get("X-State")
        path = self.path.partition("?")[0]
        seen = Seen(self.command, path, decoded(header) if header else None, dict(pairs), body)
        with self.app.changed:
            self.app.seen.append(seen)
            self.app.changed.notify_all()
        return seen

    def answer(self, text: str, kind: str = "text/html", cookies: t.Iterable[str] = ()) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", POLICY)
        for cookie in cookies:
            self.send_header("Set-Cookie", cookie)
        if kind == "text/javascript":
            self.send_header("Access-Control-Allow-Origin", "*")  # a sandboxed frame has no origin
        if kind == "text/plain":
            for name, value in self.app.headers.items():
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        seen = self.note()
        if seen.path == "/_state/client.js":
            module = squeezed(SOURCE.read_text()).replace("const D={};", f"const D = {json.dumps(DECLARED)};\n")
            self.answer(module, "text/javascript")
            return
        if seen.path == "/favicon.ico":
            self.answer("")
            return
        cookies, self.app.cookies = self.app.cookies, []
        if seen.path.startswith("/api"):
            self.answer("", "text/plain", cookies)
        else:
            body = self.app.pages.get(seen.path, "")
            self.answer(
                f"<!doctype html><title>{seen.path}</title>{LOADED}{body}",
                cookies=cookies,
            )

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/_state":
            self.note()
            return self.answer("", "text/plain")
        assert "X-State" in self.headers
        assert self.headers["Content-Type"] == "application/json"
        assert len(text) <= 65_536
        seen = self.note(json.loads(text))
        assert seen.body is not None
        with self.app.changed:
            patch, mirrors = self.app.receive(seen.body, seen.cookies)
            self.app.changed.notify_all()
        if self.app.lost_answers:
            self.app.lost_answers -= 1
            self.close_connection = True
            return None
        return self.answer(json.dumps(patch), "application/json", mirrors)


@contextlib.contextmanager
def serving() -> t.Iterator[App]:
    """Serve on a free port of this machine."""
    app = App()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"app": app}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    app.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield app
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
