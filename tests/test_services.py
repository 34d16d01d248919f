"""The servers that other tests rely on start, answer, and can be taken away and given back."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import services
from tests.services import Launch, MariaDB, Memcached, Missing, Postgres, Redis, Sentinel, Service, Valkey

EACH = [Redis, Valkey, Sentinel, Memcached, MariaDB, Postgres]


def connects(service: Service) -> bool:
    """Tell whether somebody listens on the server's port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", service.port), 5):
        return True
    return False


@pytest.mark.parametrize("kind", EACH)
def test_server_starts_and_ends(kind: type[Service], launch: Launch) -> None:
    """A server answers on a loopback port, also after a stop, a crash and a restart, and leaves nothing behind."""
    service = launch(kind)
    port, folder = service.port, service.folder
    assert service.answers()
    assert connects(service)
    service.stop()
    assert not service.running
    assert not connects(service)
    service.start()
    assert service.answers()
    service.kill()
    assert not connects(service)
    service.start()
    service.restart()
    assert service.answers()
    assert service.port == port
    service.close()
    assert not connects(service)
    assert not folder.exists()


@pytest.mark.parametrize("kind", [Redis, Memcached, Postgres])
def test_frozen_server_accepts_and_does_not_answer(kind: type[Service], launch: Launch) -> None:
    """A frozen server still has its port, answers nothing, and goes on when it is thawed."""
    service = launch(kind)
    service.freeze()
    assert service.process is not None
    os.waitid(os.P_PID, service.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert connects(service)
    service.thaw()
    assert service.answers()
    service.freeze()
    service.close()
    assert not service.running


def test_shared_servers_answer(
    redis_server: Redis, valkey: Valkey, memcached: Memcached, mariadb: MariaDB, postgres: Postgres
) -> None:
    """The servers that the whole run shares are there at once, each on its own port."""
    shared = [redis_server, valkey, memcached, mariadb, postgres]
    assert all(service.answers() for service in shared)
    assert len({service.port for service in shared}) == len(shared)


def test_browser_runs(chromium: Path) -> None:
    """The browser's program tells its version."""
    done = subprocess.run([chromium, "--version"], capture_output=True, text=True, check=True)
    assert "Chromium" in done.stdout


def test_taken_port_is_replaced(monkeypatch: pytest.MonkeyPatch, redis_server: Redis, launch: Launch) -> None:
    """A server that finds its port taken starts on another one, and is not mistaken for the one that has it."""
    chosen = [redis_server.port, redis_server.port, services.free_port()]
    free = chosen[-1]
    monkeypatch.setattr(services, "free_port", lambda: chosen.pop(0))
    service = launch(Redis)
    assert service.port == free
    assert service.process is not None
    assert b"process_id:%d\r" % service.process.pid in service.ask("INFO server")


def test_server_that_cannot_start_says_why(launch: Launch) -> None:
    """A server that refuses its options raises, with what it said."""
    with pytest.raises(RuntimeError, match="no-such-option"):
        launch(Redis, "--no-such-option", "1")


@pytest.mark.parametrize("kind", EACH)
def test_missing_server_names_the_command(kind: type[Service], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is named with the command that brings it."""
    monkeypatch.setattr(services.shutil, "which", lambda *args, **kwargs: None)
    monkeypatch.setattr(services.importlib.util, "find_spec", lambda *args: None)
    with pytest.raises(Missing, match=r"is not installed: make (services|setup)"):
        kind()


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("all", pytest.fail.Exception)])
def test_missing_server_is_skipped_unless_required(
    required: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test whose server is missing is skipped; where all are required, it fails."""
    monkeypatch.setenv("STATEFUL_REQUIRE", required)
    monkeypatch.setattr(services.shutil, "which", lambda *args, **kwargs: None)
    with pytest.raises(outcome, match="redis-server is not installed: make services"), services.launched(Redis):
        pass


def test_servers_die_with_a_killed_run() -> None:
    """Servers of a run that is killed are ended all the same."""
    script = textwrap.dedent("""
        import os, signal
        from tests.services import Redis
        server = Redis().start()
        server.freeze()
        print(server.process.pid, server.folder, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, folder = done.stdout.split()
    with contextlib.suppress(ProcessLookupError), os.fdopen(os.pidfd_open(int(pid)), "rb", 0) as process:
        assert select.select([process], [], [], 30)[0], "still running"
    shutil.rmtree(folder)


def test_closed_folders_are_opened_only_meanwhile(tmp_path: Path) -> None:
    """Folders above a program that others cannot pass are opened for them, and have their old modes afterwards."""
    program = tmp_path / "closed" / "open" / "program"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "closed" / "open").chmod(0o755)
    before = {folder: folder.stat().st_mode for folder in program.parents}
    with services.open_to_others(program):
        assert all(folder.stat().st_mode & stat.S_IXOTH for folder in program.parents)
        assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0o701
    assert {folder: folder.stat().st_mode for folder in program.parents} == before
