"""A browser without a network: it calls an application as a WSGI server does, and keeps its cookies."""

from __future__ import annotations

import io
import sys
import typing as t
from http.cookies import SimpleCookie

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from flask import Flask

USER_AGENT: t.Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

_ENVIRON: t.Final[WSGIEnvironment] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.17",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": USER_AGENT,
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "de,en;q=0.5",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": io.BytesIO(),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


class Answer(t.NamedTuple):
    """What an application answered."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of the headers with a name."""
        return [value for header, value in self.headers if header.lower() == name.lower()]


class Visitor:
    """A browser that visits one application.

    :param app: called directly, without Werkzeug's test client, which costs more than a request.
    """

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}

    def environ(self, path: str) -> WSGIEnvironment:
        """Return what a server would hand to the application for one request."""
        environ = {**_ENVIRON, "PATH_INFO": path}
        if self.cookies:
            # The cookie of a web analysis, say: a session cookie seldom comes alone.
            environ["HTTP_COOKIE"] = "; ".join(["visited=2026-05-17", *(f"{k}={v}" for k, v in self.cookies.items())])
        return environ

    def get(self, path: str) -> Answer:
        """Make one request and keep the cookies of the answer.

        :raises RuntimeError: if the answer is no success: a broken application must not look fast.
        """
        head: list[t.Any] = []
        body = b"".join(self.app.wsgi_app(self.environ(path), lambda *args: head.extend(args)))  # type: ignore[arg-type]
        answer = Answer(head[0], head[1], body)
        if not answer.status.startswith("2"):
            raise RuntimeError(f"{path} was answered with {answer.status}:\n{body.decode(errors='replace')}")
        for header in answer.values("Set-Cookie"):
            self.cookies.update((name, morsel.value) for name, morsel in SimpleCookie(header).items())
        return answer


def call(app: WSGIApplication, environ: WSGIEnvironment) -> None:
    """Make one request whose answer nobody looks at."""
    body = app(environ, _ignore)
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()


def _ignore(*_args: object) -> t.Any: ...
