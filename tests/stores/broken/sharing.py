"""Stores that are wrong when many use them at once. Each arranges its own race, so that it is lost every time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
import typing as t
from collections.abc import Iterator
from pathlib import Path

from flask_stateful.errors import StoreError
from flask_stateful.stores.base import Ttl
from flask_stateful.stores.memory import MemoryStore
from tests.stores.broken.table import breaks
from tests.stores.sound import FileStore, FileSuite, Rows

#: Real seconds until somebody who waits for a rival goes on alone.
ALONE = 1.0


class Race:
    """Two callers that are in the same place at the same time: each waits there for another, once."""

    def __init__(self, barrier: t.Any) -> None:
        self._barrier = barrier
        self._met: set[tuple[int, int]] = set()

    def meet(self) -> None:
        """Wait for a rival, at the first call of each thread of each process."""
        me = os.getpid(), threading.get_ident()
        if me not in self._met and not self._barrier.broken:
            self._met.add(me)
            with contextlib.suppress(threading.BrokenBarrierError):
                self._barrier.wait(ALONE)


class Racy(MemoryStore):
    """Looks, and then does, with time between."""

    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self._race = Race(threading.Barrier(2))

    def _meet(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            self._race.meet()


@breaks("test_add_has_one_winner_among_threads", "test_add_on_expired_has_one_winner")
class AddLooksFirst(Racy):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        free = self.get(key) is None
        self._meet()
        if free:
            self.set(key, value, ttl)
        return free


@breaks("test_add_on_expired_has_one_winner")
class AddRemovesExpiredFirst(Racy):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        expired = key in self._entries and self.get(key) is None
        self._meet()
        if expired:
            self._put(key, self._new_entry(key, value, ttl))
            return True
        return super().add(key, value, ttl)


@breaks("test_swap_loses_nothing_among_threads")
class SwapLooksFirst(Racy):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        same = self.get(key) == old
        self._meet()
        if same:
            self.set(key, new, ttl)
        return same


@breaks("test_incr_loses_nothing_among_threads")
class IncrReadsFirst(Racy):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        count = int(self.get(key) or 0) + by
        self._meet()
        self.set(key, b"%d" % count, ttl)
        return count


class Halves:
    """A piece of work that somebody comes between, once."""

    def __init__(self, event: t.Callable[[], t.Any]) -> None:
        self._half_done, self._over = event(), event()

    def half_done(self) -> None:
        """Let somebody come between."""
        self._half_done.set()
        self._over.wait(ALONE)

    def come_between(self) -> None:
        """Wait for a piece of work to be half done."""
        if not self._over.is_set():
            self._half_done.wait(ALONE)

    def gone(self) -> None:
        """Let the work go on."""
        self._over.set()


@breaks("test_touch_and_swap_bring_nothing_back")
class TouchReadsFirst(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self._halves = Halves(threading.Event)

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        value = self.get(key)
        self._halves.half_done()
        if value is not None:
            self.set(key, value, ttl)
        return value is not None

    def delete(self, key: str) -> None:
        self._halves.come_between()
        super().delete(key)
        self._halves.gone()


@breaks("test_values_are_whole_among_threads")
class WritesInHalves(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self._halves = Halves(threading.Event)

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        super().set(key, value[: len(value) // 2], ttl)
        self._halves.half_done()
        super().set(key, value, ttl)

    def get(self, key: str) -> bytes | None:
        self._halves.come_between()
        found = super().get(key)
        self._halves.gone()
        return found


class RacyFile(FileStore):
    """Reads and writes without the lock, with time between."""

    races: t.ClassVar[dict[Path, Race]] = {}

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # What a child opens anew finds the race that its parent arranged.
        self.race = self.races.setdefault(path, Race(multiprocessing.get_context("fork").Barrier(2)))
        self._parent = os.getpid()

    @contextlib.contextmanager
    def _rows(self) -> Iterator[Rows]:
        rows = self._read()
        before = dict(rows)
        yield rows
        if rows != before:
            if multiprocessing.parent_process() is not None:
                self.race.meet()
            self._write(rows)


breaks(
    "test_add_has_one_winner_among_processes",
    "test_swap_loses_nothing_among_processes",
    "test_incr_loses_nothing_among_processes",
    suite=FileSuite,
)(RacyFile)


@breaks("test_values_are_whole_among_processes", suite=FileSuite)
class WritesFilesInHalves(FileStore):
    halves: t.ClassVar[dict[Path, Halves]] = {}

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._halves = self.halves.setdefault(path, Halves(multiprocessing.get_context("fork").Event))

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        super().set(key, value[: len(value) // 2], ttl)
        self._halves.half_done()
        super().set(key, value, ttl)

    def get(self, key: str) -> bytes | None:
        self._halves.come_between()
        found = super().get(key)
        self._halves.gone()
        return found


@breaks("test_write_is_seen_by_other_processes", suite=FileSuite)
class KeepsItsOwnCopy(FileStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._own: Rows = {}

    def _read(self) -> Rows:
        return self._own

    def _write(self, rows: Rows) -> None:
        self._own = rows


@breaks("test_works_on_both_sides_of_a_fork")
class RefusesOtherProcesses(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self._process = os.getpid()

    def _find(self, key: str) -> t.Any:
        if os.getpid() != self._process:
            raise StoreError("this connection was made in another process")
        return super()._find(key)


@breaks("test_works_on_both_sides_of_a_fork", suite=FileSuite)
class LosesItsChildren(FileStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._process = os.getpid()

    def _write(self, rows: Rows) -> None:
        if os.getpid() == self._process:
            super()._write(rows)


@breaks("test_works_after_a_fork_amid_writes")
class KeepsItsLock(MemoryStore):
    def before_fork(self) -> None:
        pass

    def after_fork_in_parent(self) -> None:
        pass

    def after_fork_in_child(self) -> None:
        pass

    def _put(self, key: str, entry: t.Any) -> None:
        if key.startswith("busy"):
            time.sleep(0.01)  # so that the lock is held whenever the process forks
        super()._put(key, entry)


@breaks("test_close_in_a_child_leaves_the_parent", suite=FileSuite)
class RemovesItsFile(FileStore):
    def close(self) -> None:
        super().close()
        self.path.unlink(missing_ok=True)
