"""Requests per second of real servers: gunicorn with 2 sync workers each, under 16 connections.

All servers run during the whole measurement and take turns at being asked, a few seconds each in every round. The
sessions of many visitors are asked for in turn, so that writers meet by chance and not always.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import re
import shutil
import subprocess
import sys
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.services import free_port

from .apps import CONTENDERS, Contender, Place
from .harness import Cell, Timings, measure
from .report import Gate, Panel, Part, Table

OPERATIONS: t.Final = ("read", "write")

_VISITORS: t.Final = 64
_CONNECTIONS: t.Final = 16

#: Seconds that each server is asked for before the first round, when it is still warming up.
_WARM_UP: t.Final = 1

#: Those that two workers can share.
_NAMES: t.Final = ("none", "cookie", "fs-redis", "fs-redis-still", "fs-files", "fs-sql", "sqlite", "redis")

_LIMITS: t.Final = (
    ("sqlite", "read", 0.90),
    ("sqlite", "write", 0.70),
    ("redis", "read", 0.70),
    ("redis", "write", 0.65),
)

#: What tells wrk to send the next visitor's cookie with each request.
_WRK_SCRIPT: t.Final = """
local cookies, turn = {}, 0
for line in io.lines(os.getenv("COOKIES")) do cookies[#cookies + 1] = line end
request = function()
    turn = turn % #cookies + 1
    wrk.headers["Cookie"] = cookies[turn]
    return wrk.format()
end
"""


def run(place: Place, *, rounds: int, seconds: int, tick: Callable[[], None]) -> Part:
    """Start the servers, ask them in turns, and judge."""
    contenders = [CONTENDERS[name] for name in _NAMES if CONTENDERS[name].installed]
    with contextlib.ExitStack() as stack:
        urls = {contender.name: stack.enter_context(served(contender, place)) for contender in contenders}
        load, turns = _load(place.folder), dict[Cell, _Turn]()
        for contender in contenders:
            url = urls[contender.name]
            cookies = _cookies_file(contender, url, place.folder)
            for operation in OPERATIONS:
                turns[Cell(contender.name, operation)] = _Turn(load, f"{url}/{operation}", cookies, seconds)
        for turn in turns.values():
            turn.warm_up()
        timings = measure(turns, rounds, tick)
    failed = {
        contender.name: sum(turns[Cell(contender.name, operation)].failed for operation in OPERATIONS)
        for contender in contenders
    }
    return Part([_table(contenders, timings, failed)], _gates(timings, failed), [_panel(contenders, timings)])


class Served(t.NamedTuple):
    """What a load generator saw."""

    per_second: float
    #: How many requests were answered with no success.
    failed: int


#: Asks for a URL, with the cookies in a file in turn, for so many seconds.
Load: t.TypeAlias = Callable[[str, Path, int], Served]


class _Turn:
    """One contender's turn at one operation."""

    def __init__(self, load: Load, url: str, cookies: Path, seconds: int) -> None:
        self._load, self._url, self._cookies, self._seconds = load, url, cookies, seconds
        self.failed = 0

    def __call__(self) -> float:
        per_second, failed = self._load(self._url, self._cookies, self._seconds)
        self.failed += failed
        return per_second

    def warm_up(self) -> None:
        self._load(self._url, self._cookies, _WARM_UP)


@contextlib.contextmanager
def served(contender: Contender, place: Place) -> Iterator[str]:
    """Serve a contender for the length of a block; the value is its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    folder = place.folder / contender.name
    folder.mkdir(exist_ok=True)
    # Flask-Session makes its table in every worker, and fails where two do so at once.
    contender.build(dataclasses.replace(place, folder=folder))
    environ = {
        **os.environ,
        "BENCH_CONTENDER": contender.name,
        "BENCH_FOLDER": str(folder),
        "BENCH_REDIS": place.redis_url,
        "BENCH_VALKEY": place.valkey_url,
    }
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--workers",
        "2",
        "--bind",
        urlsplit(url).netloc,
        "--log-level",
        "warning",
    ]
    # The workers' heartbeat is a file; in memory it waits for no disk.
    command += ["--worker-tmp-dir", "/dev/shm", "--no-control-socket", "benchmarks.served:app"]
    with subprocess.Popen(command, env=environ, cwd=Path(__file__).parents[1]) as server:
        try:
            _wait_for(url, server)
            yield url
        finally:
            server.terminate()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers.

    :raises RuntimeError: if it ends instead, or takes a minute.
    """
    for _ in range(600):
        with contextlib.suppress(OSError):
            _get(url, "/untouched")
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.1)
            break
    raise RuntimeError(f"the server {server.args!r} does not answer")


def _get(url: str, path: str, cookie: str = "") -> tuple[bytes, str]:
    """Return the body and the cookie of an answer.

    :raises RuntimeError: if it is no success.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{url}{path} was answered with {answer.status}")
        return body, answer.getheader("Set-Cookie", cookie).partition(";")[0]


def _cookies_file(contender: Contender, url: str, folder: Path) -> Path:
    """Let visitors come, each with a session, and return the file with their cookies.

    :raises RuntimeError: if one worker does not know the sessions of the other.
    """
    path = folder / f"{contender.name}.cookies"
    if contender.name == "none":
        path.write_text("visited=2026-05-17\n")
        return path
    cookies = [_get(url, "/start")[1] for _ in range(_VISITORS)]
    for cookie in cookies:
        if _get(url, "/read", cookie)[0] != b"4711":
            raise RuntimeError(f"{contender.title} does not keep its sessions")
    path.write_text("".join(f"visited=2026-05-17; {cookie}\n" for cookie in cookies))
    return path


def _load(folder: Path) -> Load:
    """Return what asks: wrk where it is installed, otherwise the one in Python."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return _load_in_python
    script = folder / "cookies.lua"
    script.write_text(_WRK_SCRIPT)

    def load(url: str, cookies: Path, seconds: int) -> Served:
        command = [wrk, "--threads", "1", "--connections", str(_CONNECTIONS), "--duration", str(seconds)]
        said = _output([*command, "--script", str(script), url], COOKIES=str(cookies))
        failed = [
            *re.findall(r"Non-2xx or 3xx responses: (\d+)", said),
            *re.findall(r"(?:timeout|connect) (\d+)", said),
        ]
        return Served(float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]), sum(map(int, failed)))

    return load


def _load_in_python(url: str, cookies: Path, seconds: int) -> Served:
    command = [sys.executable, "-m", "benchmarks.load", url, str(cookies), str(seconds), str(_CONNECTIONS)]
    per_second, failed = _output(command).split()
    return Served(float(per_second), int(failed))


def _output(command: list[str], **environ: str) -> str:
    folder = Path(__file__).parents[1]
    done = subprocess.run(
        command, env={**os.environ, **environ}, cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def _table(contenders: list[Contender], timings: Timings, failed: dict[str, int]) -> Table:
    rows = [
        [
            contender.title,
            *(f"{timings.median(Cell(contender.name, op)):,.0f}" for op in OPERATIONS),
            *(f"{timings.ratio(Cell(contender.name, op), Cell('none', op)):.2f} x" for op in OPERATIONS),
            str(failed[contender.name]),
        ]
        for contender in contenders
    ]
    note = "Requests per second, median; the ratio to the application without sessions; requests that were no success."
    return Table("Two gunicorn workers", ("", "read/s", "write/s", "read", "write", "failed"), rows, note)


def _gates(timings: Timings, failed: dict[str, int]) -> list[Gate]:
    gates = [
        Gate(
            "S8",
            f"{name}, {operation}: requests/s under gunicorn against no sessions",
            timings.ratio(Cell(name, operation), Cell("none", operation)),
            limit,
            at_least=True,
        )
        for name, operation, limit in _LIMITS
    ]
    return [*gates, *(Gate("S8", f"{name}: failed requests", failed[name], 0, "") for name in ("sqlite", "redis"))]


def _panel(contenders: list[Contender], timings: Timings) -> Panel:
    bars = [(c.title, [timings.median(Cell(c.name, op)) for op in OPERATIONS]) for c in contenders]
    return Panel("Requests per second, two gunicorn workers", OPERATIONS, bars)
