"""Real processes that share a cache: who computes, who waits, and what becomes of one that is killed or stopped."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import typing as t
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.services import Redis

from .conftest import PATIENCE
from .players import ROOT
from .worker import Options

#: Keeps what other tests may find in the shared servers apart from ours.
_REDIS_DATABASE = 7

#: A lease that is soon over, in seconds.
SHORT = 1.0

THREADS = 16

#: What all clocks show that stand still.
START = 1_800_000_000.0


class Process:
    """A :mod:`tests.cache.worker`, and what it tells."""

    def __init__(self, options: Options, hear: Callable[[Process, str, t.Any], None]) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.cache.worker", msgspec.json.encode(options).decode()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._popen.pid
        self._listener = threading.Thread(target=self._listen, args=(hear,))
        self._listener.start()

    def _listen(self, hear: Callable[[Process, str, t.Any], None]) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            hear(self, *json.loads(line))

    def do(self, *command: t.Any) -> None:
        """Tell it to do something."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(command) + "\n")
        self._popen.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self._listener.join()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Team:
    """Processes that share a store, and everything that they tell."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.processes: list[Process] = []
        self._heard: defaultdict[str, queue.SimpleQueue[tuple[Process, t.Any]]] = defaultdict(queue.SimpleQueue)

    def start(self, **options: t.Any) -> Process:
        """Start another one."""
        process = Process(Options(url=self.url, **options), self._hear)
        self.processes.append(process)
        self.hear("ready")
        return process

    def _hear(self, who: Process, event: str, what: t.Any) -> None:
        self._heard[event].put((who, what))

    def hear(self, event: str) -> tuple[Process, t.Any]:
        """Wait until any of them tells of an event; return who, and what of it."""
        return self._heard[event].get(timeout=PATIENCE * 2)

    def answers(self, count: int) -> list[tuple[Process, t.Any]]:
        """Wait for so many values that were asked for."""
        return [self.hear("got") for _ in range(count)]

    def ask(self, process: Process, *command: t.Any, event: str) -> t.Any:
        """Tell one to do something, and wait for what it tells then."""
        process.do(*command)
        who, what = self.hear(event)
        assert who is process
        return what

    def assert_nobody_computes(self) -> None:
        """No computation was begun besides those that were heard of."""
        assert self._heard["computes"].empty()

    def until_all_have(self, value: t.Any) -> None:
        """Wait until a value is there for each process."""
        pause = threading.Event()
        for process in self.processes:
            for _ in range(int(PATIENCE / 0.01)):
                if self.ask(process, "get", event="has") == value:
                    break
                pause.wait(0.01)
            else:
                pytest.fail("the value did not come")


#: The stores that processes share.
SHARED = ["sqlite", "redis_server", "valkey"]


@pytest.fixture(params=["memory", *SHARED])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One store after the other."""
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cache.sqlite3'}"
    server: Redis = request.getfixturevalue(request.param)
    server.ask(f"SELECT {_REDIS_DATABASE}\r\nFLUSHDB")
    return f"{server.url.removesuffix('0')}{_REDIS_DATABASE}"


@pytest.fixture
def team(url: str) -> Iterator[Team]:
    team = Team(url)
    yield team
    for process in team.processes:
        process.close()


def computing(team: Team) -> list[Process]:
    """Wait for the processes that compute: one of all, or each where nothing is shared."""
    count = len(team.processes) if team.url == "memory://" else 1
    return [team.hear("computes")[0] for _ in range(count)]


def test_cold_key_is_computed_once(team: Team) -> None:
    """M2, S3: of two processes with sixteen threads each that miss a key, one thread computes; all get its value."""
    for _ in range(2):
        team.start()
    for process in team.processes:
        process.do("ask", THREADS, {})
    computes = computing(team)
    for process in team.processes:
        team.ask(process, "line_up", THREADS - 1, event="lined up")
    for process in team.processes:
        process.do("open")
    values = {value for _, value in team.answers(2 * THREADS)}
    assert values == {f"by {process.pid}" for process in computes}
    team.assert_nobody_computes()


def test_nobody_waits_at_expiry(team: Team) -> None:
    """S3: of two processes with sixteen threads each, one refreshes, and all have the old value before it is done."""
    options = {"ttl": 60, "stale": 600}
    for _ in range(2):
        team.start(fake_clock=START)
    for process in team.processes:
        team.ask(process, "set", "old", options, event="set")
    for process in team.processes:
        team.ask(process, "advance", 61, event="advanced")
    for process in team.processes:
        process.do("ask", THREADS, options)
    # The gate is closed: whoever waited for the refresh would wait for ever.
    assert {value for _, value in team.answers(2 * THREADS)} == {"old"}
    refreshes = computing(team)
    for process in team.processes:
        process.do("open")
    if team.url == "memory://":
        assert len(set(refreshes)) == 2
    else:
        team.until_all_have(f"by {refreshes[0].pid}")
    team.assert_nobody_computes()


@pytest.mark.parametrize("url", SHARED, indirect=True)
def test_killed_holder_is_replaced_by_one(team: Team) -> None:
    """When who computes is killed with -9, one of those who wait takes over, and one alone."""
    holder = team.start(lease=SHORT)
    holder.do("ask", 1, {})
    assert team.hear("computes")[0] is holder
    survivors = [team.start() for _ in range(2)]
    for process in survivors:
        process.do("ask", 4, {})
    for process in survivors:
        team.ask(process, "line_up", 3, event="lined up")
    holder.signal(signal.SIGKILL)
    heir, _ = team.hear("computes")
    assert heir in survivors
    for process in survivors:
        process.do("open")
    assert {value for _, value in team.answers(8)} == {f"by {heir.pid}"}
    team.assert_nobody_computes()


@pytest.mark.parametrize("url", SHARED, indirect=True)
def test_killed_refresher_is_replaced(team: Team) -> None:
    """When who refreshes is killed with -9, another does once the mark has run out; all get the old value."""
    options = {"ttl": 60, "stale": 600}
    one, other = (team.start(fake_clock=START, lease=10) for _ in range(2))
    team.ask(one, "set", "old", options, event="set")
    for process in (one, other):
        team.ask(process, "advance", 61, event="advanced")
    assert team.ask(one, "ask", 1, options, event="got") == "old"
    assert team.hear("computes")[0] is one
    one.signal(signal.SIGKILL)
    team.processes.remove(one)
    assert team.ask(other, "ask", 1, options, event="got") == "old"
    team.assert_nobody_computes()
    team.ask(other, "advance", 11, event="advanced")
    assert team.ask(other, "ask", 1, options, event="got") == "old"
    assert team.hear("computes")[0] is other
    other.do("open")
    team.until_all_have(f"by {other.pid}")
    one.close()


@pytest.mark.parametrize("url", SHARED, indirect=True)
def test_stopped_holder_is_refused_when_it_comes_back(team: Team) -> None:
    """A holder that is stopped, and goes on when another has taken over, does not write its late result."""
    late, heir = team.start(lease=SHORT), team.start()
    late.do("ask", 1, {})
    assert team.hear("computes")[0] is late
    late.signal(signal.SIGSTOP)
    heir.do("ask", 1, {})
    assert team.hear("computes")[0] is heir
    heir.do("open")
    assert team.hear("got") == (heir, f"by {heir.pid}")
    late.signal(signal.SIGCONT)
    late.do("open")
    assert team.hear("got") == (late, f"by {late.pid}")
    for process in (late, heir):
        assert team.ask(process, "get", event="has") == f"by {heir.pid}"
    assert team.ask(late, "stats", event="stats")["overtaken"] == 1
