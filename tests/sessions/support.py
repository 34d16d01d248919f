"""What the tests of sessions are made with: visitors, requests that wait, stores that interrupt, a real server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import sys
import threading
import typing as t
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from http.cookies import SimpleCookie
from pathlib import Path

from flask import Flask, Response, request
from werkzeug.test import TestResponse

from flask_stateful.sessions import ids
from flask_stateful.stores.base import Store, Ttl
from flask_stateful.testing import FaultyStore
from tests.services import Missing, Service

ROOT = Path(__file__).parent.parent.parent

#: Seconds after which a test that waits for something gives up; nothing is decided by them.
PATIENCE = 60

#: Where a visitor's request carries what its view is to do.
_VIEW = "tests.view"

View: t.TypeAlias = Callable[[], t.Any]


def add_view(app: Flask) -> None:
    """Give an application the view at ``/`` that does what the visitor wants."""

    @app.route("/", methods=["GET", "POST"])
    def view() -> t.Any:
        result = request.environ[_VIEW]()
        # A lambda does several things in a tuple, which Flask would take for a response.
        return result if isinstance(result, (str, Response)) else ""


class Visitor:
    """A browser with its cookies, visiting an application of this process. It says itself what the view does::

        visitor = Visitor(app)
        visitor.visit(lambda: session.update(name="Ada"))
        assert visitor.ask(lambda: session["name"]) == "Ada"

    :param cookies_of: another visitor, whose cookies it has a copy of.
    """

    def __init__(self, app: Flask, *, cookies_of: Visitor | None = None) -> None:
        self.app = app
        self.client = app.test_client()
        self._late: list[Late] = []
        if cookies_of is not None and cookies_of.cookie is not None:
            self.client.set_cookie(self._cookie_name, cookies_of.cookie)

    def visit(self, view: View, **options: t.Any) -> TestResponse:
        """Send a request and return its response.

        :param view: what it does; if the result is text or a response, it is the response.
        :param options: as for :class:`werkzeug.test.EnvironBuilder`.
        """
        overrides = {_VIEW: view, **options.pop("environ_overrides", {})}
        return self.client.open("/", environ_overrides=overrides, **{"method": "POST", **options})

    def ask(self, view: View, **options: t.Any) -> t.Any:
        """Send a request that succeeds, and return what its view returned, be it no response at all."""
        results = []
        response = self.visit(lambda: results.append(view()), **options)
        assert response.status_code == 200, response.text
        return results[0]

    def start(self, view: Callable[[Callable[[], None]], t.Any], **options: t.Any) -> Late:
        """Send a request in a thread, and return once its view waits: it gets a ``pause`` to call. ::

        late = visitor.start(lambda pause: (session.get("seen"), pause(), session.update(late=True)))
        visitor.visit(...)                          # while the other one waits
        response = late.finish()
        """
        late = Late(lambda pause: self.visit(lambda: view(pause), **options))
        self._late.append(late)
        late.wait()
        return late

    @property
    def cookie(self) -> str | None:
        """The value of the session cookie."""
        cookie = self.client.get_cookie(self._cookie_name)
        return None if cookie is None else cookie.value

    @cookie.setter
    def cookie(self, value: str | None) -> None:
        if value is None:
            self.client.delete_cookie(self._cookie_name)
        else:
            self.client.set_cookie(self._cookie_name, value)

    @property
    def _cookie_name(self) -> str:
        return t.cast("str", self.app.config["SESSION_COOKIE_NAME"])

    def close(self) -> None:
        """Let every request that still waits come to its end."""
        for late in self._late:
            late.release()


class Late:
    """A request that waits inside its view, each time it calls ``pause()``, until the test lets it go on."""

    def __init__(self, send: Callable[[Callable[[], None]], TestResponse]) -> None:
        self._send = send
        self._stops: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._goes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._response: Future[TestResponse] = Future()
        self._released = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._response.set_result(self._send(self._pause))
        except BaseException as error:
            self._response.set_exception(error)
        finally:
            self._stops.put(False)

    def _pause(self) -> None:
        self._stops.put(True)
        if not self._released:
            self._goes.get(timeout=PATIENCE)

    def wait(self) -> None:
        """Block until the request waits."""
        if not self._stops.get(timeout=PATIENCE):
            raise AssertionError(f"the request came to its end without a pause: {self._response.result().text}")

    def resume(self) -> None:
        """Let the request go on, and block until it waits again."""
        self._goes.put(None)
        self.wait()

    def go(self) -> None:
        """Let the request go on, and do not wait for it."""
        self._goes.put(None)

    def finish(self) -> TestResponse:
        """Let the request go on to its end, and return its response."""
        self._goes.put(None)
        return self.response()

    def response(self) -> TestResponse:
        """Wait for the request's end, and return its response."""
        response = self._response.result(PATIENCE)
        self._thread.join(PATIENCE)
        return response

    def release(self) -> None:
        """Let the request go on to its end, whatever it does."""
        self._released = True
        self._goes.put(None)
        self._thread.join(PATIENCE)


def stored_key(visitor: Visitor) -> str:
    """Return the key under which the store keeps a visitor's session."""
    assert visitor.cookie is not None
    _, token, _ = visitor.cookie.split(".")
    return ids.store_key("tests", token)


def session_cookies(response: TestResponse) -> list[str]:
    """Return every Set-Cookie header of a response that is about the session cookie."""
    return [header for header in response.headers.getlist("Set-Cookie") if header.startswith("session=")]


def together(*actions: Callable[[], t.Any]) -> list[t.Any]:
    """Do several things at the same time, each in a thread of its own, and return their results.

    They begin together, and the exception of the first that failed is raised.
    """
    barrier = threading.Barrier(len(actions))
    futures: list[Future[t.Any]] = [Future() for _ in actions]

    def run(action: Callable[[], t.Any], future: Future[t.Any]) -> None:
        try:
            barrier.wait(PATIENCE)
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(actions, futures, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [future.result() for future in futures]


class InterruptedStore(FaultyStore):
    """A store in which something happens right before a call, or right after it. ::

        store.before("swap", lambda: visitor.visit(...))           # the next swap, once
        store.before("swap", lambda: visitor.visit(...), times=3)  # the next three

    What happens there may use the store itself, without being interrupted again.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._before: dict[str, list[Callable[[], t.Any]]] = defaultdict(list)
        self._after: dict[str, list[Callable[[], t.Any]]] = defaultdict(list)
        self._busy = threading.local()

    def before(self, operation: str, action: Callable[[], t.Any], *, times: int = 1) -> None:
        self._before[operation] += [action] * times

    def after(self, operation: str, action: Callable[[], t.Any], *, times: int = 1) -> None:
        self._after[operation] += [action] * times

    @property
    def left(self) -> int:
        """How many of the interruptions have not happened."""
        return sum(map(len, [*self._before.values(), *self._after.values()]))

    def get(self, key: str) -> bytes | None:
        return self._interrupted("get", lambda: super(InterruptedStore, self).get(key))

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        self._interrupted("set", lambda: super(InterruptedStore, self).set(key, value, ttl))

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return self._interrupted("add", lambda: super(InterruptedStore, self).add(key, value, ttl))

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return self._interrupted("swap", lambda: super(InterruptedStore, self).swap(key, old, new, ttl))

    def delete(self, key: str) -> None:
        self._interrupted("delete", lambda: super(InterruptedStore, self).delete(key))

    def _interrupted(self, operation: str, call: Callable[[], t.Any]) -> t.Any:
        self._run(self._before[operation])
        result = call()
        self._run(self._after[operation])
        return result

    def _run(self, actions: list[Callable[[], t.Any]]) -> None:
        if actions and not getattr(self._busy, "now", False):
            action = actions.pop(0)
            self._busy.now = True
            try:
                action()
            finally:
                self._busy.now = False


class Gunicorn(Service):
    """Two worker processes with four threads each, serving :mod:`tests.sessions.served`.

    :param application: which one, as ``create_app("redis://...", STATEFUL_LOCK_TIMEOUT=1)``.
    """

    workers = 2

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        self._browsers: list[Browser] = []

    @classmethod
    def find(cls) -> Path:
        program = Path(sys.executable).with_name("gunicorn")
        if not program.exists():
            raise Missing("gunicorn is not installed: make setup")
        return program

    def arguments(self) -> list[str]:
        processes = [f"--workers={self.workers}", "--worker-class=gthread", "--threads=4"]
        # A frozen worker is not to be killed, and a connection that stays open stays with its worker.
        patience = [f"--timeout={PATIENCE * 5}", f"--keep-alive={PATIENCE * 5}", "--graceful-timeout=1"]
        place = [
            f"--chdir={ROOT}",
            f"--worker-tmp-dir={self.folder}",
            f"--env=PIPES={self.pipes}",
            "--no-control-socket",
        ]
        return [*processes, *patience, *place, f"--bind=127.0.0.1:{self.port}"]

    @property
    def extra(self) -> list[str]:
        return [f"tests.sessions.served:{self.options[0]}"]

    @property
    def pipes(self) -> Path:
        """Where the pipes of requests that wait are."""
        return self.folder / "pipes"

    def prepare(self) -> None:
        self.pipes.mkdir()

    def answers(self) -> bool:
        assert self.process is not None
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/pids")
            answer = json.loads(connection.getresponse().read())
        return bool(answer["parent"] == self.process.pid and len(self.pids()) == self.workers)

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(map(int, children))

    def browser(self, worker: int, *, cookies_of: Browser | None = None) -> Browser:
        """Return a new browser whose connection one of the workers serves.

        :param worker: 0 or 1.
        :param cookies_of: another browser, with which it shares its cookies, like a second tab.
        """
        pids = self.pids()
        served_by = pids.pop(worker)
        # Whoever accepts a connection keeps it, and who is frozen accepts none.
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            browser = Browser(self.port, None if cookies_of is None else cookies_of.cookies)
            self._browsers.append(browser)
            answer = browser.get("/pids").json
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert answer["worker"] == served_by
        return browser

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()
        super().close()

    def make_pause(self, name: str) -> Pause:
        """Return a place for a request to wait at, with the step ``pause:NAME``."""
        return Pause(self.pipes / name)


class Pause:
    """A place in a request of another process, where it waits until the test lets it go on."""

    def __init__(self, path: Path) -> None:
        self._arrived = path.with_suffix(".arrived")
        self._go = path.with_suffix(".go")
        os.mkfifo(self._arrived)
        os.mkfifo(self._go)

    def wait(self) -> None:
        """Block until the request waits."""
        self._arrived.read_bytes()

    def go(self) -> None:
        """Let the request go on."""
        self._go.write_bytes(b"")

    @staticmethod
    def here(path: Path) -> None:
        """Wait; this is what the request does."""
        path.with_suffix(".arrived").write_bytes(b"")
        path.with_suffix(".go").read_bytes()


class Answer(t.NamedTuple):
    """What a server answered."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> t.Any:
        return json.loads(self.text)

    @property
    def session_cookies(self) -> list[str]:
        """Every Set-Cookie header that is about the session cookie."""
        return [header for header in self.headers.get_all("Set-Cookie", []) if header.startswith("session=")]


class Browser:
    """A browser with its cookies, on one connection to a real server, which stays with one worker.

    :param cookies: those that it begins with; browsers that are given the same dict share them.
    """

    def __init__(self, port: int, cookies: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.cookies = {} if cookies is None else cookies

    def do(self, *steps: str) -> Answer:
        """Send a request that takes some steps, those of :mod:`tests.sessions.served`."""
        return self.get("/do/" + "/".join(steps))

    def get(self, path: str) -> Answer:
        self.send(path)
        return self.receive()

    def send(self, path: str) -> None:
        """Send a request; :meth:`receive` waits for its answer."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self._connection.request("GET", path, headers={"Cookie": cookies} if cookies else {})

    def receive(self) -> Answer:
        response = self._connection.getresponse()
        answer = Answer(response.status, response.headers, response.read().decode())
        for header in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(header).items():
                if morsel.value and morsel["max-age"] != "0":
                    self.cookies[name] = morsel.value
                else:
                    self.cookies.pop(name, None)
        return answer

    def close(self) -> None:
        """Close the connection, whatever has not arrived."""
        self._connection.close()
