"""The shop, served as ``make demo`` serves it, and a visitor without a browser."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import signal
import sys
import typing as t
import urllib.parse
from http.cookies import Morsel, SimpleCookie
from pathlib import Path

from flask_stateful import clock
from tests.services import Missing, Service

EXAMPLES = Path(__file__).parents[2] / "examples"

#: Every product of the shop.
SLUGS = [path.stem for path in sorted((EXAMPLES / "shop" / "static" / "pictures").glob("*.svg"))]
SLUGS = [slug for slug in SLUGS if slug not in ("ada", "grace", "empty")]

#: Seconds that a loaded machine may take to answer, or to start a process.
PATIENCE = 60.0

_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
_LINE = re.compile(r'<input id="quantity-([a-z-]+)" name="quantity" type="number" value="(\d+)"')


class Shop(Service):
    """gunicorn with two workers of four threads each, and an instance folder of its own.

    Each line of its log that begins with a process id is a request which that worker answered.
    """

    @classmethod
    def find(cls) -> Path:
        found = Path(sys.executable).with_name("gunicorn")
        if not found.exists():
            raise Missing("gunicorn is not installed: make setup")
        return found

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def instance(self) -> Path:
        return self.folder / "instance"

    def arguments(self) -> list[str]:
        serving = ["--chdir", str(EXAMPLES), "--bind", f"127.0.0.1:{self.port}", "--workers", "2", "--threads", "4"]
        logging = ["--access-logfile", "-", "--access-logformat", "%(p)s %(m)s %(U)s %(s)s", "--no-control-socket"]
        return [*serving, *logging, f"shop:create_app({{'INSTANCE_PATH': {str(self.instance)!r}}})"]

    def answers(self) -> bool:
        """Tell whether it listens, and a worker answers."""
        assert self.process is not None
        is_ours = f"Listening at: {self.url} ({self.process.pid})" in self.log
        return is_ours and Visitor(self.port).get("/static/shop.css").status == 200

    def workers(self) -> set[int]:
        """Return the process ids of the workers that run now."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def answered(self, request: str) -> set[int]:
        """Return the process ids of the workers that have answered a request; it is given as in the log."""
        return {int(pid) for pid in re.findall(rf"^<?(\d+)>? {request}", self.log, re.M)}

    def kill_worker(self) -> list[int]:
        """End one of the workers as a crash does, and return its process id; none, where another is just gone."""
        with contextlib.suppress(IndexError, ProcessLookupError):
            victim = random.choice(sorted(self.workers()))
            os.kill(victim, signal.SIGKILL)
            return [victim]
        return []

    def reload(self) -> None:
        """Have both workers replaced by new ones, and wait until the old ones are gone."""
        assert self.process is not None
        before = self.workers()
        os.kill(self.process.pid, signal.SIGHUP)
        until(lambda: len(self.workers()) == 2 and not self.workers() & before)


def until(condition: t.Callable[[], bool]) -> None:
    """Wait for something that a process of ours is about to do."""
    deadline = clock.monotonic() + PATIENCE
    while not condition():
        assert clock.monotonic() < deadline, "it did not happen"
        clock.wait(0.01)


class Answer(t.NamedTuple):
    """What the shop answered."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def cookie(self) -> Morsel[str] | None:
        """The session cookie that it sets."""
        jar: SimpleCookie = SimpleCookie()
        for header in self.headers.get_all("Set-Cookie", []):
            jar.load(header)
        return jar.get("session")


class Visitor:
    """Keeps the session cookie, and fills in forms."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self.port = port
        self.cookie = cookie
        self.token = ""

    def twin(self) -> Visitor:
        """Return another tab of the same browser."""
        other = Visitor(self.port, self.cookie)
        other.token = self.token
        return other

    def arrive(self) -> t.Self:
        """Open a page with a form, which begins a session."""
        self.token = t.cast("re.Match[str]", _TOKEN.search(self.get("/things/flask").text))[1]
        return self

    def get(self, path: str) -> Answer:
        """Open a page."""
        return self._request("GET", path, None)

    def post(self, path: str, **fields: object) -> Answer:
        """Send a form."""
        return self._request("POST", path, urllib.parse.urlencode({"csrf_token": self.token, **fields}))

    def add(self, slug: str, quantity: int = 1) -> Answer:
        """Put something into the cart."""
        return self.post(f"/cart/{slug}/add", quantity=quantity)

    def cart(self) -> dict[str, int]:
        """Return how many of each product the cart page shows."""
        return {slug: int(quantity) for slug, quantity in _LINE.findall(self.get("/cart").text)}

    def _request(self, method: str, path: str, body: str | None) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": f"session={self.cookie}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()
        if answer.cookie is not None:
            self.cookie = answer.cookie.value
        return answer
