"""The SQLite store keeps the contract, between processes and through their deaths, and leaves other files alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest

from flask_stateful import clock
from flask_stateful.errors import StoreError, StoreUnavailable, ValueTooLarge
from flask_stateful.stores.sqlite import SQLiteStore, writer_lock
from flask_stateful.stores.sqlite import file as sqlite_file
from flask_stateful.stores.sqlite import maintenance as sqlite_maintenance
from flask_stateful.stores.sqlite import purge as sqlite_purge
from flask_stateful.stores.sqlite import store as sqlite_module
from flask_stateful.stores.sqlite.errors import store_error
from flask_stateful.testing import FakeClock, StoreConformance

WORKER = Path(__file__).with_name("sqlite_worker.py")
LONG = os.environ.get("STATEFUL_LONG") == "1"
MONTH = 31 * 86400

#: Real seconds after which something that should happen is taken not to.
PATIENCE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file will be."""
    return tmp_path / "state.sqlite3"


@pytest.fixture
def make(path: Path) -> t.Iterator[t.Callable[..., SQLiteStore]]:
    """Return a function that opens a store, which is closed after the test."""
    with contextlib.ExitStack() as stores:

        def make(**options: t.Any) -> SQLiteStore:
            store = SQLiteStore(options.pop("path", path), **{"timeout": 30, **options})
            stores.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(make: t.Callable[..., SQLiteStore]) -> SQLiteStore:
    """Return a store."""
    return make()


@pytest.fixture
def fake() -> t.Iterator[FakeClock]:
    """Let time stand still, and give up on other threads soon."""
    with FakeClock(patience=0.02) as fake:
        yield fake


def rows(path: Path, query: str, options: str = "mode=ro") -> list[t.Any]:
    """Return what a query finds in the file, past the store."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?{options}", uri=True)) as connection:
        return connection.execute(query).fetchall()


def carried_over(path: Path) -> int:
    """Return how many rows are in the database itself, without its log."""
    try:
        return rows(path, "SELECT count(*) FROM entries", "immutable=1")[0][0]
    except sqlite3.DatabaseError:  # read amid a copy
        return 0


def log_pages(store: SQLiteStore) -> int:
    """Return how many pages the log has, after carrying them over."""
    with store._lent() as connection:
        return connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]


def until(condition: t.Callable[[], object]) -> bool:
    """Wait until something holds; tell whether it ever did."""
    pause, end = threading.Event(), clock.Clock().monotonic() + PATIENCE
    while not (held := condition()) and clock.Clock().monotonic() < end:
        pause.wait(0.01)
    return bool(held)


def background_threads() -> list[threading.Thread]:
    """Return the background threads of all stores."""
    return [thread for thread in threading.enumerate() if thread.name == "flask-stateful-sqlite"]


class Worker:
    """A process of :mod:`tests.stores.sqlite_worker`."""

    def __init__(self, task: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", str(WORKER), task, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def begin(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> list[str]:
        """Return the other lines that it prints, when it has ended well."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, err) == (0, "")
        return out.splitlines()

    def kill(self) -> list[str]:
        """Kill it; return the whole lines that it had printed."""
        self.process.kill()
        out, _ = self.process.communicate(timeout=PATIENCE)
        return out.split("\n")[:-1]


@pytest.fixture
def work() -> t.Iterator[t.Callable[..., Worker]]:
    """Return a function that starts a worker, which is gone after the test."""
    workers: list[Worker] = []

    def work(*arguments: object) -> Worker:
        workers.append(Worker(*map(str, arguments)))
        return workers[-1]

    yield work
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


class TestContract(StoreConformance):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _closing(self) -> t.Iterator[None]:
        self.opened: list[SQLiteStore] = []
        yield
        for store in self.opened:
            store.close()

    def make_store(self, tmp_path: Path) -> SQLiteStore:
        """Return a store with a file of its own."""
        return SQLiteStore(tmp_path / "state.sqlite3", timeout=self.patience)

    def reopen(self, store: t.Any) -> SQLiteStore:
        """Return another store with the same file."""
        self.opened.append(SQLiteStore(store.path, timeout=self.patience))
        return self.opened[-1]


class TestContractWithoutFlock(TestContract):
    """The contract where the system has no flock, as on Windows: SQLite's own locks have to do."""

    @pytest.fixture(autouse=True)
    def _no_flock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer_lock, "try_lock", lambda descriptor: True)
        monkeypatch.setattr(writer_lock, "unlock", lambda descriptor: None)


class TestMaking:
    """Making the file."""

    def test_nothing_is_made_before_it_is_needed(self, tmp_path: Path) -> None:
        """A store that is made and closed without a call leaves the disk as it is."""
        SQLiteStore(tmp_path / "deep" / "state.sqlite3").close()
        assert list(tmp_path.iterdir()) == []

    def test_missing_folders_are_private(self, tmp_path: Path, make: t.Callable[..., SQLiteStore]) -> None:
        """The first call makes every missing folder, for this user alone."""
        make(path=tmp_path / "a" / "b" / "state.sqlite3").get("key")
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]

    @pytest.mark.parametrize("mask", [0, 0o277])
    def test_files_are_private(self, tmp_path: Path, store: SQLiteStore, mask: int) -> None:
        """All four files can be read and written by this user alone, whatever the umask."""
        before = os.umask(mask)
        try:
            store.set("key", b"x")
        finally:
            os.umask(before)
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
        names = ["state.sqlite3", "state.sqlite3-lock", "state.sqlite3-shm", "state.sqlite3-wal"]
        assert modes == dict.fromkeys(names, "0o600")

    @pytest.fixture
    def without_log(self, path: Path, make: t.Callable[..., SQLiteStore]) -> t.Iterator[sqlite3.Connection]:
        """Return a connection that writes to a file of ours which has no log yet, as between two steps of making it."""
        first = make()
        first.set("key", b"x")
        first.close()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("PRAGMA journal_mode = delete")
            other.execute("BEGIN IMMEDIATE")
            yield other

    def test_log_waits_for_others(
        self, make: t.Callable[..., SQLiteStore], without_log: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file whose log is to be switched on while another process writes is waited for, which SQLite does not."""
        monkeypatch.setattr(clock, "wait", lambda seconds: without_log.execute("COMMIT"))
        store = make()
        assert store.get("key") == b"x"

    def test_log_waits_no_longer_than_the_timeout(
        self, make: t.Callable[..., SQLiteStore], without_log: sqlite3.Connection
    ) -> None:
        """Where the other one never ends, the call fails with what to do."""
        with FakeClock(), pytest.raises(StoreUnavailable, match="locked by another program"):
            make(timeout=0.1).get("key")

    def test_path_does_not_follow_the_working_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is meant from where the store was made."""
        monkeypatch.chdir(tmp_path)
        store = SQLiteStore("state.sqlite3")
        monkeypatch.chdir("/")
        assert store.path == str(tmp_path / "state.sqlite3")

    @pytest.mark.parametrize("name", ["a b", "a%20b", "a?mode=memory", "a#b", "ä", "a'b"])
    def test_odd_names_are_names(self, tmp_path: Path, make: t.Callable[..., SQLiteStore], name: str) -> None:
        """No character of a path is taken for anything but part of it."""
        make(path=tmp_path / name).set("key", b"x")
        assert (tmp_path / name).exists()
        assert make(path=tmp_path / name).get("key") == b"x"

    @pytest.mark.parametrize(
        ("wrong", "fix"),
        [
            ({"path": ":memory:"}, "MemoryStore"),
            ({"path": ""}, "MemoryStore"),
            ({"timeout": 0}, "timeout"),
            ({"timeout": float("nan")}, "timeout"),
            ({"timeout": float("inf")}, "timeout"),
            ({"durability": "off"}, '"normal" or "full"'),
        ],
    )
    def test_wrong_options_are_refused(self, wrong: dict[str, t.Any], fix: str) -> None:
        """A path or option that cannot work raises ValueError that says what to write."""
        with pytest.raises(ValueError, match=fix):
            SQLiteStore(**{"path": "state.sqlite3", **wrong})

    @pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
    def test_settings(self, make: t.Callable[..., SQLiteStore], durability: str, level: int) -> None:
        """There is a log, no request ever copies it, and each write waits for the disk exactly if asked to."""
        with make(durability=durability)._lent() as connection:
            found = [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "wal_autocheckpoint")
            ]
        assert found == ["wal", level, 0]

    def test_file_says_whose_it_is(self, path: Path, store: SQLiteStore) -> None:
        """The header carries our application id and the layout's number."""
        store.get("key")
        header = path.read_bytes()[:72]
        assert int.from_bytes(header[68:72], "big") == sqlite_file.APPLICATION_ID
        assert int.from_bytes(header[60:64], "big") == sqlite_file.LAYOUT

    def test_file_is_made_in_turn(self, path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the file is made nobody else has it open: closing what made it would drop their locks."""
        free: list[bool] = []

        def create(name: str) -> None:
            with open(f"{path}-lock", "rb") as lock:
                free.append(writer_lock.try_lock(lock.fileno()))
            writer_lock.create_private(name)

        monkeypatch.setattr(sqlite_file, "create_private", create)
        store.set("key", b"x")
        assert free == [False]

    def test_first_start_of_many(self, tmp_path: Path, work: t.Callable[..., Worker]) -> None:
        """Processes and threads that make the same file at the same time all find it whole."""
        for attempt in range(3):
            path = tmp_path / f"{attempt}" / "state.sqlite3"
            crew = [work("first_start", path) for _ in range(4)]
            assert [worker.line() for worker in crew] == ["ready"] * 4
            for worker in crew:
                worker.begin()
            assert [worker.finish() for worker in crew] == [["done"]] * 4
            store = SQLiteStore(path)
            assert store.get("count") == b"8"
            store.close()
            assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def text_file(path: Path) -> None:
    """Make a file that is no database."""
    path.write_text("dear diary, " * 1000)


def short_file(path: Path) -> None:
    """Make a file that is shorter than a header."""
    path.write_bytes(b"x")


def foreign_database(path: Path) -> None:
    """Make another program's database."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.execute("INSERT INTO users VALUES ('ada')")
        connection.commit()


def foreign_log(path: Path) -> None:
    """Make another program's database whose log was not carried over, as after a crash."""
    with contextlib.closing(sqlite3.connect(path.with_name("other"))) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO users VALUES ('ada')")
        connection.commit()
        for end in ("", "-wal"):
            shutil.copy(path.with_name(f"other{end}"), f"{path}{end}")
    for file in path.parent.glob("other*"):
        file.unlink()


def foreign_journal(path: Path) -> None:
    """Make another program's database with a journal that an opening for writing would play back."""
    foreign_database(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO users VALUES (?)", [("x" * 3000,)] * 100)
        for end in ("", "-journal"):
            shutil.copy(f"{path}{end}", path.with_name(f"copy{end}"))
    for end in ("", "-journal"):
        path.with_name(f"copy{end}").rename(f"{path}{end}")
    assert path.with_name(f"{path.name}-journal").stat().st_size > 512


def newer_layout(path: Path) -> None:
    """Make a file of a later release."""
    store = SQLiteStore(path)
    store.set("key", b"x")
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {sqlite_file.LAYOUT + 1}")


def damaged_header(path: Path) -> None:
    """Make a file of ours whose first bytes were overwritten."""
    store = SQLiteStore(path)
    store.set("key", b"x")
    store.close()
    path.write_bytes(b"\0" * 16 + path.read_bytes()[16:])


def damaged_pages(path: Path) -> None:
    """Make a file of ours of which everything but the first page was overwritten."""
    store = SQLiteStore(path)
    store.set_many({f"key:{number}": b"x" * 100 for number in range(1000)})
    store.close()
    path.write_bytes(path.read_bytes()[:4096] + b"\xaa" * (path.stat().st_size - 4096))


class TestForeignFiles:
    """Files that are not ours, or not whole."""

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            (text_file, "no SQLite database: write another path"),
            (short_file, "belongs to another program: write another path"),
            (foreign_database, "belongs to another program: write another path"),
            (foreign_log, "belongs to another program: write another path"),
            (foreign_journal, "belongs to another program: write another path"),
            (newer_layout, "newer Flask-Stateful: upgrade"),
            (damaged_header, "no SQLite database: write another path"),
            (damaged_pages, "is damaged: stop the application"),
        ],
    )
    def test_it_is_refused_and_left_alone(
        self, path: Path, make: t.Callable[..., SQLiteStore], spoil: t.Callable[[Path], None], says: str
    ) -> None:
        """Every call says what is wrong with which file, and neither it nor what lies beside it is changed."""
        spoil(path)
        lock = path.with_name(f"{path.name}-lock")
        before = {file: file.read_bytes() for file in path.parent.iterdir() if file != lock}
        store = make()
        for call in (
            lambda: store.get("key"),
            lambda: store.set("key:1", b"y"),
            lambda: store.add("key:1", b"y"),
            lambda: store.swap("key:1", b"x" * 100, b"y"),
            lambda: list(store.scan("")),
            store.purge_expired,
        ):
            with pytest.raises(StoreError, match=says) as raised:
                call()
            assert not isinstance(raised.value, StoreUnavailable)
            assert str(path) in str(raised.value)
        store.close()
        assert {file: file.read_bytes() for file in path.parent.iterdir() if file != lock} == before

    def test_folder_is_refused(self, tmp_path: Path) -> None:
        """A path that is a folder raises StoreError with a path that would work, and stays empty."""
        (tmp_path / "folder").mkdir()
        with pytest.raises(StoreError, match=r"folder/state\.sqlite3"):
            SQLiteStore(tmp_path / "folder").get("key")
        assert [file.name for file in tmp_path.iterdir()] == ["folder"]

    def test_file_in_place_of_a_folder_is_refused(self, tmp_path: Path) -> None:
        """A path that leads through a file raises StoreError."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="write another path"):
            SQLiteStore(tmp_path / "file" / "state.sqlite3").get("key")

    def test_folder_of_others_is_refused(self, work: t.Callable[..., Worker]) -> None:
        """Where this user may not write the folder, StoreError says whose right is missing."""
        (line,) = work("as_nobody", "/usr/state.sqlite3").finish()
        assert line.startswith("StoreError: /usr/state.sqlite3")
        assert "give this user the right" in line
        assert not Path("/usr/state.sqlite3").exists()

    def test_empty_file_is_used(self, path: Path, store: SQLiteStore) -> None:
        """An empty file, such as one made with touch, becomes the store's."""
        path.touch()
        store.set("key", b"x")
        assert store.get("key") == b"x"

    def test_log_of_a_removed_file_is_not_played_back(self, tmp_path: Path, make: t.Callable[..., SQLiteStore]) -> None:
        """Where a database was removed after a crash and its log was not, the store begins anew."""
        make(path=tmp_path / "old").set("key", b"x")
        shutil.copy(tmp_path / "old-wal", tmp_path / "new-wal")
        store = make(path=tmp_path / "new")
        assert store.get("key") is None
        store.set("other", b"x")
        assert list(store.scan("")) == ["other"]

    def test_opens_what_a_killed_checkpoint_left(
        self, tmp_path: Path, make: t.Callable[..., SQLiteStore], fake: FakeClock
    ) -> None:
        """A database whose header counts pages that are only in the log is not taken for damaged."""
        store = make(path=tmp_path / "whole")
        store.get("key")
        shutil.copy(tmp_path / "whole", tmp_path / "torn")
        store.set_many({f"key:{number}": b"x" * 1000 for number in range(1000)})
        shutil.copy(tmp_path / "whole-wal", tmp_path / "torn-wal")
        assert log_pages(store) > 100
        header = (tmp_path / "whole").read_bytes()[:4096]
        with (tmp_path / "torn").open("r+b") as file:
            file.write(header)
        assert (tmp_path / "torn").stat().st_size < 100 * 4096
        assert len(make(path=tmp_path / "torn").get_many(f"key:{number}" for number in range(1000))) == 1000


class TestErrors:
    """Every failure of SQLite as an error of the contract."""

    @pytest.mark.parametrize(
        ("code", "raised", "says"),
        [
            ("SQLITE_BUSY", StoreUnavailable, "STATEFUL_STORE_TIMEOUT"),
            ("SQLITE_BUSY_SNAPSHOT", StoreUnavailable, "STATEFUL_STORE_TIMEOUT"),
            ("SQLITE_LOCKED", StoreUnavailable, "STATEFUL_STORE_TIMEOUT"),
            ("SQLITE_PROTOCOL", StoreUnavailable, "STATEFUL_STORE_TIMEOUT"),
            ("SQLITE_CANTOPEN", StoreUnavailable, "cannot be opened"),
            ("SQLITE_IOERR", StoreUnavailable, "quota"),
            ("SQLITE_IOERR_WRITE", StoreUnavailable, "quota"),
            ("SQLITE_FULL", StoreError, "full: free some space"),
            ("SQLITE_READONLY", StoreError, "give this user the right"),
            ("SQLITE_READONLY_DBMOVED", StoreError, "give this user the right"),
            ("SQLITE_CORRUPT", StoreError, "damaged"),
            ("SQLITE_CORRUPT_INDEX", StoreError, "damaged"),
            ("SQLITE_NOTADB", StoreError, "no SQLite database"),
            ("SQLITE_TOOBIG", ValueTooLarge, "longer than SQLite takes"),
            ("SQLITE_NOMEM", StoreError, "see the cause"),
            ("SQLITE_INTERNAL", StoreError, "see the cause"),
        ],
    )
    def test_codes(self, code: str, raised: type[StoreError], says: str) -> None:
        """Each code, extended or not, has its error and its advice."""
        error = sqlite3.OperationalError()
        error.sqlite_errorcode = getattr(sqlite3, code)
        found = store_error(error, "/somewhere")
        assert type(found) is raised
        assert says in str(found)

    def test_misuse_is_an_error_of_the_store(self, store: SQLiteStore) -> None:
        """What Python's module finds wrong by itself, and has no code for, is a StoreError with its cause."""
        connection = store._connections.take()
        connection.close()
        store._connections.give_back(connection)
        with pytest.raises(StoreError, match="see the cause") as raised:
            store.get("key")
        assert isinstance(raised.value.__cause__, sqlite3.ProgrammingError)
        store._connections._idle.clear()
        store._connections._open.clear()

    def test_too_long_for_sqlite(self, store: SQLiteStore) -> None:
        """A value that this build of SQLite does not take is ValueTooLarge."""
        with store._lent() as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
        with pytest.raises(ValueTooLarge):
            store.set("key", b"x" * 1001)

    def test_full_database(self, store: SQLiteStore) -> None:
        """When the file cannot grow, writing says that the disk is full, reading goes on, and so does writing later."""
        store.set("before", b"1")
        with store._lent() as connection:
            connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreError, match="full: free some space"):
            store.set_many({f"key:{number}": b"x" * 1000 for number in range(100)})
        with pytest.raises(StoreError, match="full: free some space"):
            store.set("large", b"x" * 100_000)
        assert store.get("before") == b"1"
        with store._lent() as connection:
            connection.execute("PRAGMA max_page_count = 1000000")
        store.set("large", b"x" * 100_000)
        assert store.get("large") == b"x" * 100_000

    def test_file_size_limit(self, path: Path, work: t.Callable[..., Worker]) -> None:
        """Where the system refuses to write, the store is unavailable, reading goes on, and so does writing later."""
        failure, read, later = work("full_by_limit", path).finish()
        assert failure.startswith("StoreUnavailable")
        assert "file size limit" in failure
        assert (read, later) == ("b'1'", "b'1'")
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    def test_full_disk(self, tmp_path: Path, work: t.Callable[..., Worker]) -> None:
        """On a full disk writing says so, reading goes on, and with space writing goes on."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("this user may not mount a small disk")
        try:
            failure, read, later = work("full_disk", disk / "state.sqlite3").finish()
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
        assert failure.startswith("StoreError: the disk that holds")
        assert (read, later) == ("b'1'", "b'1'")


class TestTakingTurns:
    """The writer lock."""

    def test_another_process_is_waited_for(
        self, path: Path, fake: FakeClock, make: t.Callable[..., SQLiteStore]
    ) -> None:
        """While another process writes, a write waits for its timeout and then says what to do; reading goes on."""
        store = make(timeout=0.01)
        store.set("key", b"x")
        with open(f"{path}-lock", "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            began = clock.monotonic()
            with pytest.raises(StoreUnavailable, match=r"end the process.*STATEFUL_STORE_TIMEOUT"):
                store.set("key", b"y")
            assert clock.monotonic() - began == pytest.approx(0.01, rel=0.1)
            assert store.get("key") == b"x"
        store.set("key", b"y")
        assert store.get("key") == b"y"

    def test_another_thread_is_waited_for(self, fake: FakeClock, make: t.Callable[..., SQLiteStore]) -> None:
        """While another thread of the same store writes, a write waits for its timeout; reading goes on."""
        store = make(timeout=0.01)
        store.set("key", b"x")
        began = clock.monotonic()
        with store._file.writer, pytest.raises(StoreUnavailable):
            store.set("key", b"y")
        assert clock.monotonic() - began == pytest.approx(0.01, rel=0.1)
        assert store.get("key") == b"x"

    def test_another_program_is_waited_for(self, path: Path, make: t.Callable[..., SQLiteStore]) -> None:
        """A program that knows only SQLite's own lock is waited for as well."""
        store = make(timeout=0.01)
        store.set("key", b"x")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="another program"):
                store.set("key", b"y")
            with pytest.raises(StoreUnavailable, match="another program"):
                store.incr("count")
            assert store.get("key") == b"x"
            other.execute("ROLLBACK")
        store.set("key", b"y")
        assert store.incr("count") == 1

    def test_lock_is_free_after_a_failure(self, path: Path, store: SQLiteStore) -> None:
        """A write that fails leaves the lock free and no transaction behind, in every kind of write."""
        store.set("key", b"no number")
        failing: list[t.Callable[[], object]] = [
            lambda: store.incr("key"),
            lambda: store.set_many({"many": b"x" * 2000}),
            lambda: store.set("key", b"x" * 2000),
            lambda: store.delete_many(["x" * 1000, "y" * 1000]),
        ]
        with store._lent() as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
        for fail in failing:
            with contextlib.suppress(StoreError):
                fail()
            with open(f"{path}-lock", "rb") as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with store._lent() as connection:
                assert not connection.in_transaction

    def test_file_system_without_locks(self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where files cannot be locked, the error says to move the file; once they can, writing works."""

        def refuse(descriptor: int) -> t.NoReturn:
            raise OSError(errno.ENOLCK, "No locks available")

        with monkeypatch.context() as patch:
            patch.setattr(writer_lock, "try_lock", refuse)
            with pytest.raises(StoreError, match="move it to a local disk"):
                store.set("key", b"x")
        store.set("key", b"x")
        assert store.get("key") == b"x"

    def test_interrupted_wait_leaves_the_lock_free(
        self, path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A signal's exception between taking the lock and writing leaves it free for other processes."""
        take = writer_lock.try_lock

        def interrupt(descriptor: int) -> t.NoReturn:
            take(descriptor)
            raise KeyboardInterrupt

        store.get("key")
        monkeypatch.setattr(writer_lock, "try_lock", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.set("key", b"x")
        with open(f"{path}-lock", "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_killed_process_frees_the_lock(self, path: Path, store: SQLiteStore, work: t.Callable[..., Worker]) -> None:
        """The lock of a process that is killed while it writes is free at once."""
        worker = work("hold_lock", path)
        assert worker.line() == "ready"
        worker.kill()
        store.set("key", b"x")
        assert store.get("key") == b"x"

    def test_child_does_not_keep_its_parents_lock(
        self, path: Path, store: SQLiteStore, work: t.Callable[..., Worker]
    ) -> None:
        """When a process is killed while it writes, a child that it had forked does not keep the lock."""
        worker = work("hold_lock_and_fork", path)
        child = int(worker.line())
        try:
            assert worker.line() == "ready"
            worker.process.kill()
            worker.process.wait()
            store.set("key", b"x")
            assert store.get("key") == b"x"
        finally:
            os.kill(child, signal.SIGKILL)


class TestCrowds:
    """Many processes and threads, and processes that die."""

    @pytest.mark.parametrize("seconds", [10 if LONG else 3])
    def test_nothing_is_lost(self, path: Path, store: SQLiteStore, work: t.Callable[..., Worker], seconds: int) -> None:
        """Two processes of four threads do everything at once: no error, and every count is exact."""
        store.set("swap", b"0")
        crew = [work("hammer", path, seconds, 4) for _ in range(2)]
        assert [worker.line() for worker in crew] == ["ready"] * 2
        for worker in crew:
            worker.begin()
        total = dict.fromkeys(["swap", "incr", "add"], 0)
        for worker in crew:
            (line,) = worker.finish()
            for name, count in (pair.split("=") for pair in line.split()):
                total[name] += int(count)
        assert min(total.values()) > 0
        assert store.get_many(["swap", "incr"]) == {name: b"%d" % total[name] for name in ("swap", "incr")}
        assert len(list(store.scan("add:"))) == total["add"]
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    def test_killed_writers_lose_nothing(
        self, path: Path, make: t.Callable[..., SQLiteStore], work: t.Callable[..., Worker]
    ) -> None:
        """However often a writer is killed, what it had confirmed is there, and the file is whole."""
        chance, confirmed = random.Random(1), 0
        for _ in range(10):
            worker = work("count_on", path)
            assert worker.line() == "ready"
            worker.begin()
            for _ in range(chance.randrange(1, 3000)):
                confirmed = int(worker.line())
            confirmed = int((worker.kill() or [confirmed])[-1])
            store = make()
            assert int(store.get("last") or 0) >= confirmed - 1
            numbers = range(1, confirmed + 1)
            assert store.get_many(f"number:{n}" for n in numbers) == {f"number:{n}": b"%d" % n for n in numbers}
            store.close()
            assert rows(path, "PRAGMA integrity_check") == [("ok",)]


class TestConnections:
    """Connections, threads and forks."""

    def test_threads_leave_no_connection(self, store: SQLiteStore) -> None:
        """Threads that come and go, one after the other, use one connection between them."""
        store.get("key")
        (first,) = store._connections._open
        for _ in range(20):
            thread = threading.Thread(target=store.set, args=("key", b"x"))
            thread.start()
            thread.join()
        assert store._connections._open == [first] == store._connections._idle

    def test_calls_at_once_have_connections_of_their_own(self, store: SQLiteStore) -> None:
        """Calls that go on at the same time never share a connection."""
        with store._lent() as one, store._lent() as other:
            assert one is not other
        assert len(store._connections._open) == 2

    def test_close_amid_a_call(self, store: SQLiteStore) -> None:
        """A connection that is in use when the store is closed is closed after its call."""
        with store._lent() as connection:
            store.close()
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")

    def test_child_inherits_no_connection(self, store: SQLiteStore) -> None:
        """At the moment of a fork no connection is open, so that the child has none that is its parent's."""
        store.set("key", b"x")
        assert store._connections._open
        assert in_child(lambda: store._connections._open == [] and store.get("key") == b"x")

    def test_parent_may_close_while_a_child_writes(self, path: Path, make: t.Callable[..., SQLiteStore]) -> None:
        """What a child writes is kept when the parent, which had the file open first, closes it meanwhile."""
        store = make()
        store.set("parent", b"1")
        to_child, to_parent = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            with leaving():
                store.set("child", b"1")
                os.write(to_parent[1], b".")
                os.read(to_child[0], 1)
                store.set("child", b"2")
                os._exit(0)
        os.read(to_parent[0], 1)
        assert store.get("child") == b"1"
        store.close()
        os.write(to_child[1], b".")
        assert os.waitpid(child, 0)[1] == 0
        for end in (*to_child, *to_parent):
            os.close(end)
        assert make().get_many(["parent", "child"]) == {"parent": b"1", "child": b"2"}
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    def test_fork_waits_for_calls(self, store: SQLiteStore) -> None:
        """A fork while another thread is amid a call waits until that call is over."""
        lent, forking = threading.Event(), threading.Event()

        def call() -> None:
            with store._lent() as connection:
                lent.set()
                forking.wait(PATIENCE)
                connection.execute("SELECT 1")

        os.register_at_fork(before=forking.set)  # called before ours, which was registered earlier
        thread = threading.Thread(target=call)
        thread.start()
        lent.wait(PATIENCE)
        assert in_child(lambda: store._connections._open == [] and store.get("key") is None)
        thread.join()
        assert store.get("key") is None

    def test_fork_amid_an_endless_call(
        self, store: SQLiteStore, make: t.Callable[..., SQLiteStore], fake: FakeClock
    ) -> None:
        """A call that does not end in time is not waited for any longer; the child then says why it cannot go on."""
        with store._lent():
            assert in_child(lambda: "forked" in failure(lambda: store.get("key")))
            assert store.get("key") is None
        assert in_child(lambda: store.get("key") is None)

    def test_child_ends_well(self, store: SQLiteStore) -> None:
        """A child that drops the store it inherited, thread and all, ends without waiting for anybody."""
        store.set("key", b"x")
        assert background_threads()
        assert in_child(lambda: store.incr("key2") == 1 and len(background_threads()) == 1)


def failure(call: t.Callable[[], object]) -> str:
    """Return what a failing call says."""
    with pytest.raises(StoreError) as raised:
        call()
    return str(raised.value)


@contextlib.contextmanager
def leaving() -> t.Iterator[None]:
    """End a child whatever happens: it must not go on with the tests of its parent."""
    try:
        yield
    finally:
        os._exit(1)


def in_child(holds: t.Callable[[], object]) -> bool:
    """Tell whether something holds in a forked child."""
    child = os.fork()
    if child == 0:
        with leaving():
            os._exit(0 if holds() else 2)
    return os.waitpid(child, 0)[1] == 0


class TestBuckets:
    """Purging, and what it costs the writes."""

    def bucket(self, path: Path, key: str = "key") -> int:
        """Return the bucket of a row, in seconds from now."""
        ((bucket,),) = rows(path, f"SELECT bucket FROM entries WHERE key = '{key}'")
        return bucket * sqlite_purge.BUCKET_SECONDS - int(clock.now())

    def test_renewal_leaves_the_bucket(self, path: Path, store: SQLiteStore) -> None:
        """A row that is to live longer stays in its bucket, whatever call renews it."""
        with FakeClock(start=6_000_000) as fake:
            store.set("key", b"1", 600)
            fake.advance(300)
            store.set("key", b"2", 600)
            store.swap("key", b"2", b"3", 600)
            store.touch("key", 600)
            store.set_many({"key": b"4"}, 600)
            store.set("key", b"5")
            assert self.bucket(path) == 300
            fake.advance(10**9)
            assert store.get("key") == b"5"

    @pytest.mark.parametrize(
        "shorten",
        [
            lambda store: store.set("key", b"2", 10),
            lambda store: store.swap("key", b"1", b"2", 10),
            lambda store: store.touch("key", 10),
            lambda store: store.set_many({"key": b"2"}, 10),
        ],
        ids=["set", "swap", "touch", "set_many"],
    )
    @pytest.mark.parametrize("ttl", [MONTH, None])
    def test_tombstone_moves_forward(
        self, path: Path, store: SQLiteStore, shorten: t.Callable[[SQLiteStore], object], ttl: float | None
    ) -> None:
        """A row that is to end before its bucket moves to an earlier one, and is purged soon."""
        with FakeClock(start=6_000_000) as fake:
            store.set("key", b"1", ttl)
            shorten(store)
            assert self.bucket(path) == 0
            fake.advance(10)
            assert store.purge_expired() == 1
            assert rows(path, "SELECT * FROM entries") == []

    def test_purge_files_the_renewed_anew(self, path: Path, store: SQLiteStore) -> None:
        """A purge that finds a renewed row alive files it under its present expiry, and does not look again before."""
        with FakeClock(start=6_000_000) as fake:
            store.set("key", b"1", 600)
            store.set("for ever", b"1", 600)
            store.set("key", b"1", 6000)
            store.touch("for ever")
            fake.advance(1200)
            with store._lent() as connection:
                purge = sqlite_purge.Purge(store._file.writer)
                assert [purge.batch(connection, clock.now()) for _ in range(2)] == [2, 0]
            assert purge.tell() == 0
            assert self.bucket(path) == 4800
            assert self.bucket(path, "for ever") > 10**15
            fake.advance(4799)
            assert store.purge_expired() == 0
            fake.advance(1)
            assert store.purge_expired() == 1

    def test_purge_of_one_call_is_exact(self, store: SQLiteStore) -> None:
        """What expired a moment ago is purged; what expires in a moment is not."""
        with FakeClock(start=6_000_001) as fake:
            store.set("first", b"1", 10)
            store.set("second", b"1", 11)
            fake.advance(10)
            assert store.purge_expired() == 1
            assert store.get("second") == b"1"

    def test_background_counts(self, store: SQLiteStore, fake: FakeClock) -> None:
        """What the background removed is told by the next purge, once."""
        store.set_many({f"key:{number}": b"x" for number in range(70)}, 60)
        fake.advance(3600)
        store._maintenance.round()
        assert store.purge_expired() == 70
        assert store.purge_expired() == 0

    def test_batches_adapt(self, store: SQLiteStore) -> None:
        """Batches become smaller while they take long, and larger while they do not."""

        class Slow(clock.Clock):
            step = 0.0
            shown = 0.0

            def monotonic(self) -> float:
                self.shown += self.step
                return self.shown

        slow = Slow()
        with FakeClock() as fake:
            store.set_many({f"key:{number}": b"x" for number in range(3000)}, 60)
            fake.advance(3600)
            before = clock.install(slow)
            try:
                purge = sqlite_purge.Purge(store._file.writer)
                with store._lent() as connection:
                    sizes = [purge.batch(connection, fake.now()) for _ in range(5)]
                    slow.step = 0.02
                    sizes += [purge.batch(connection, fake.now()) for _ in range(5)]
            finally:
                clock.install(before)
        assert sizes[:6] == [50, 100, 200, 400, 500, 500]
        assert sizes[6:] == sorted(sizes[6:], reverse=True)
        assert (sizes[6] < 200, sizes[-1]) == (True, 10)

    def test_renewal_writes_one_page(self, make: t.Callable[..., SQLiteStore], fake: FakeClock) -> None:
        """Among ten thousand rows, a renewal appends one page to the log; moving a row to another bucket more."""
        with contextlib.closing(make()) as filled:
            filled.set_many({f"session:{number:040}": b"x" * 200 for number in range(10_000)}, MONTH)
        store, pages = make(), []
        for ttl in (2 * MONTH, 10):
            log_pages(store)  # all is carried over, and the next write starts the log over
            store.set(f"session:{5000:040}", b"y" * 200, ttl)
            pages.append(log_pages(store))
        assert pages[0] == 1
        assert pages[1] > 1

    @pytest.mark.parametrize("name", ["_GET", "_SET", "_ADD", "_SWAP", "_TOUCH", "_COUNT", "_SCAN_FROM", "_SCAN_AFTER"])
    def test_statements_search(self, store: SQLiteStore, name: str) -> None:
        """No statement reads the whole table."""
        statement = getattr(sqlite_module, name)
        parameters = {"key": "k", "value": b"", "old": b"", "expires": 1, "bucket": 1, "now": 1}
        with store._lent() as connection:
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", parameters if ":" in statement else ("k", 1)
            ).fetchall()
        assert [step[3] for step in plan if step[3].startswith("SCAN") or "TEMP" in step[3]] == []

    def test_purge_searches(self, store: SQLiteStore) -> None:
        """A purge finds what is due by the index over the buckets."""
        with store._lent() as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sqlite_purge._DUE}", (1, 1, 1, 1)).fetchall()
        assert [step[3] for step in plan] == ["SEARCH entries USING INDEX entries_bucket (bucket<?)"]


class TestMaintenance:
    """The background thread."""

    def test_last_writes_are_carried_over(self, path: Path, store: SQLiteStore, fake: FakeClock) -> None:
        """Some seconds after a write with none after it, the write is in the database itself."""
        store.set("key", b"x")
        fake.advance(4)
        assert carried_over(path) == 0
        fake.advance(1)
        assert until(lambda: carried_over(path) == 1)

    def test_many_writes_are_carried_over(self, path: Path, store: SQLiteStore, fake: FakeClock) -> None:
        """Many writes are carried over while no time passes at all."""
        for number in range(sqlite_maintenance._PAGES_A_ROUND):
            store.set(f"key:{number}", b"x")
        assert until(lambda: carried_over(path) > 0)

    def test_purge_is_carried_over(
        self, path: Path, make: t.Callable[..., SQLiteStore], monkeypatch: pytest.MonkeyPatch, fake: FakeClock
    ) -> None:
        """A purge carries over what it writes again and again, so that it does not make the log long by itself."""
        rows_a_round = sqlite_maintenance._ROWS_A_ROUND
        with contextlib.closing(make()) as filled:
            filled.set_many({f"key:{number}": b"x" for number in range(3 * rows_a_round)}, 60)
        fake.advance(60)
        store, checkpoint = make(), sqlite_maintenance._checkpoint
        left: list[int] = []

        def count(connection: sqlite3.Connection) -> tuple[int, int]:
            done = checkpoint(connection)
            left.append(carried_over(path))
            return done

        monkeypatch.setattr(sqlite_maintenance, "_checkpoint", count)
        assert store.purge_expired() == 3 * rows_a_round
        assert left[-1] == 0
        assert max(before - after for before, after in itertools.pairwise([3 * rows_a_round, *left])) < 2 * rows_a_round

    def test_long_values_count_by_their_length(self, path: Path, store: SQLiteStore, fake: FakeClock) -> None:
        """A few long values are carried over as early as many short ones."""
        for number in range(20):
            store.set(f"key:{number}", b"x" * 1_000_000)
        assert until(lambda: carried_over(path) > 0)

    def test_expired_rows_are_removed_when_little_is_written(
        self, path: Path, store: SQLiteStore, fake: FakeClock
    ) -> None:
        """A single write has everything removed that has expired, in as many rounds as it takes."""
        count = 2 * sqlite_maintenance._ROWS_A_ROUND + 1
        store.set_many({f"key:{number}": b"x" for number in range(count)}, 60)
        fake.advance(3600)
        store.set("alive", b"x")

        def all_gone() -> bool:
            fake.advance(5)
            return rows(path, "SELECT key FROM entries") == [("alive",)]

        assert until(all_gone)

    def test_close_carries_over(self, path: Path, make: t.Callable[..., SQLiteStore]) -> None:
        """A store that is closed leaves nothing in the log, also while others have the file open, and no thread."""
        other, store = make(), make()
        other.get("key")
        store.set("key", b"x")
        assert len(background_threads()) == 1
        store.close()
        assert carried_over(path) == 1
        assert background_threads() == []

    def test_close_twice_amid_a_read(
        self, path: Path, make: t.Callable[..., SQLiteStore], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where another program's read keeps the log from being carried over whole, closing is quiet all the same."""
        store = make()
        store.set("key", b"x")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM entries").fetchall()
            store.set("key", b"y")
            store.close()
            store.close()
        assert caplog.records == []

    def test_reading_starts_no_thread(self, store: SQLiteStore) -> None:
        """A store that only reads has no background thread."""
        store.get("key")
        store.get_many(["key"])
        assert background_threads() == []

    def test_idle_thread_rests(self, path: Path, store: SQLiteStore) -> None:
        """When all is done the thread waits for the next write, without a timeout."""
        waits: list[float | None] = []

        class Impatient(clock.Clock):
            def wait_for(self, event: threading.Event, timeout: float | None) -> bool:
                waits.append(timeout)
                return event.wait() if timeout is None else event.is_set()

        before = clock.install(Impatient())
        try:
            store.set("key", b"x")
            assert until(lambda: waits and waits[-1] is None)
            assert carried_over(path) == 1
            store.set("other", b"x")
            assert until(lambda: waits.count(None) == 2)
            assert carried_over(path) == 2
        finally:
            clock.install(before)
        assert set(waits) == {None, sqlite_maintenance._QUIET_SECONDS}

    def test_dropped_store_ends_its_thread(self, path: Path) -> None:
        """A store that is dropped without being closed is freed, and its thread ends."""
        store = SQLiteStore(path)
        store.set("key", b"x")
        (thread,) = background_threads()
        store._connections.before_fork()  # closes what would else be closed by the garbage collector, with a warning
        store._connections.after_fork_in_parent()
        del store
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def test_long_log_starts_over(
        self, path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, fake: FakeClock
    ) -> None:
        """A log over its ceiling is copied while others write, and once more while nobody may; then it starts over."""
        monkeypatch.setattr(sqlite_maintenance, "_LOG_CEILING", 100)
        checkpoint = sqlite_maintenance._checkpoint
        others_may_write: list[bool] = []
        with open(f"{path}-lock", "a") as lock:

            def watch(connection: sqlite3.Connection) -> tuple[int, int]:
                free = writer_lock.try_lock(lock.fileno())
                others_may_write.append(free)
                if free:
                    writer_lock.unlock(lock.fileno())
                return checkpoint(connection)

            monkeypatch.setattr(sqlite_maintenance, "_checkpoint", watch)
            for number in range(200):
                store.set(f"key:{number}", b"x")
            store._maintenance.round()
        assert others_may_write == [True, True, False]
        store.set("key", b"x")
        assert log_pages(store) < 10

    @pytest.mark.parametrize(
        ("appended", "prices"),
        [
            (sqlite_maintenance._MANY_PAGES, [0, 0]),
            (sqlite_maintenance._MANY_PAGES + 1, [0, 0, sqlite_maintenance._MOST_BRAKE]),
        ],
    )
    def test_brake(
        self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, fake: FakeClock, appended: int, prices: list[float]
    ) -> None:
        """Where copying the log cannot keep up with the writers, they take their time during one more copy."""
        ceiling = sqlite_maintenance._LOG_CEILING
        logs = iter([ceiling + 1, ceiling + 1 + appended, 0, 0])
        found: list[float] = []

        def write_amid(connection: sqlite3.Connection) -> tuple[int, int]:
            if not store._file.writer._threads.locked():  # the last copy is made while nobody may write
                began = fake.monotonic()
                store.set("key", b"x" * 1_000_000)
                found.append(fake.monotonic() - began)
            return next(logs), 0

        store.set("key", b"x")
        monkeypatch.setattr(sqlite_maintenance, "_checkpoint", write_amid)
        store._maintenance.round()
        monkeypatch.undo()
        assert found == pytest.approx(prices)

    def test_failure_is_logged_once(
        self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fake: FakeClock
    ) -> None:
        """Of failures in a row the first is logged, without a value; the work is tried again and done."""
        store.set("secret key", b"secret value")
        maintenance, checkpoint = store._maintenance, sqlite_maintenance._checkpoint

        def fail(connection: sqlite3.Connection) -> t.NoReturn:
            raise sqlite3.OperationalError("disk I/O error")

        with caplog.at_level(logging.WARNING, "flask_stateful"):
            for checkpoints in (fail, fail, checkpoint, fail):
                monkeypatch.setattr(sqlite_maintenance, "_checkpoint", checkpoints)
                maintenance.round()
                assert maintenance.is_due() == (checkpoints is fail)
            monkeypatch.undo()
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert store.path in caplog.text
        assert "secret" not in caplog.text

    def test_failing_thread_goes_on(
        self, path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, fake: FakeClock
    ) -> None:
        """A round that fails, in whatever way, does not end the thread."""
        failed = threading.Event()
        monkeypatch.setattr(sqlite_maintenance, "_checkpoint", lambda connection: failed.set() or 1 / 0)
        store.set("key", b"x")
        assert until(lambda: fake.advance(5) or failed.is_set())
        monkeypatch.undo()
        assert until(lambda: fake.advance(5) or carried_over(path) == 1)

    def test_no_thread_to_be_had(
        self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where no thread can be started, writes take place all the same, and one line is logged."""

        def refuse(thread: threading.Thread) -> t.NoReturn:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        store.set("key", b"x")
        store.set("key", b"y")
        assert store.get("key") == b"y"
        assert len(caplog.records) == 1

    def test_interpreter_ends_amid_work(self, path: Path, work: t.Callable[..., Worker]) -> None:
        """A process that ends without closing its store ends at once, quietly, and loses nothing."""
        for _ in range(2):
            assert work("leave", path).finish() == ["True"]
            assert rows(path, "SELECT count(*) FROM entries") == [(100,)]

    def test_file_that_was_removed(
        self, path: Path, make: t.Callable[..., SQLiteStore], caplog: pytest.LogCaptureFixture, fake: FakeClock
    ) -> None:
        """A store whose file was removed begins anew soon, and says so."""
        store, other = make(), make()
        store.set("key", b"x")
        for file in path.parent.iterdir():
            file.unlink()
        store._maintenance.round()
        store.set("new", b"x")
        assert other.get_many(["key", "new"]) == {"new": b"x"}
        assert "removed or replaced" in caplog.text
        assert store.get_many(["key", "new"]) == {"new": b"x"}


class TestCheck:
    """What an operator is told."""

    def test_nothing_to_mend(self, store: SQLiteStore) -> None:
        """A store as it is made has no problems."""
        store.set("key", b"x")
        assert store.check() == []

    def test_open_to_others(self, path: Path, store: SQLiteStore) -> None:
        """A file that others may read is named, with the command that mends it."""
        store.set("key", b"x")
        path.chmod(0o644)
        assert store.check() == [f"Other users may open {path}: run chmod 600 {path}."]

    def test_network(self, path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file on a network file system is named."""
        monkeypatch.setattr(sqlite_file, "filesystem_of", lambda path: "nfs4")
        (problem,) = store.check()
        assert f"{path} lies on a network file system (nfs4)" in problem

    def test_no_log(self, path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, fake: FakeClock) -> None:
        """Where SQLite cannot keep a log the store works, and a check says so."""
        connect = sqlite_file.DatabaseFile._connect
        monkeypatch.setattr(
            sqlite_file.DatabaseFile, "_connect", lambda file, options: connect(file, f"{options}&vfs=unix-dotfile")
        )
        store.set("key", b"x")
        assert store.get("key") == b"x"
        store._maintenance.round()
        (problem,) = store.check()
        assert "no write-ahead log" in problem

    def test_long_log(self, path: Path, store: SQLiteStore) -> None:
        """A log that has become very long is named, with what may be the cause."""
        store.set("key", b"x")
        os.truncate(f"{path}-wal", 9 * sqlite_file.LOG_KEPT_BYTES)
        (problem,) = store.check()
        assert f"{path}-wal has grown to 288 MiB" in problem

    @pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="the kernel does not tell")
    def test_filesystem_is_found(self, tmp_path: Path) -> None:
        """The type of a file system is that of the innermost mount."""
        assert sqlite_file.filesystem_of("/proc/self") == "proc"
        kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout.strip()
        assert str(sqlite_file.filesystem_of(str(tmp_path))).startswith(kind[:3])
