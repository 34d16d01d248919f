"""The fake clock: time stands still until the test moves it, and threads are not timed out by a slow machine."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from flask_stateful import clock
from flask_stateful.stores import forks
from flask_stateful.testing import FakeClock
from flask_stateful.testing import clock as fake
from flask_stateful.testing.conformance.crowd import in_processes, in_threads

#: Real seconds, enough for anything that does happen.
PLENTY = 30.0

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


class ScriptedEvent(threading.Event):
    """An event that tells of each attempt to wait for it; an attempt takes as long as its step, and then has failed."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self.steps = list(steps)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.steps:
            return super().wait(timeout)
        self.steps.pop(0)()
        return self.is_set()


def run(work: Callable[[], object], *, daemon: bool = False) -> threading.Thread:
    """Start a thread."""
    thread = threading.Thread(target=work, daemon=daemon)
    thread.start()
    return thread


class TestTime:
    """What moves the time."""

    def test_stands_still(self) -> None:
        """Time does not pass by itself, on either clock."""
        with FakeClock() as time:
            before = clock.now(), clock.monotonic()
            threading.Event().wait(0.001)
            assert (clock.now(), clock.monotonic()) == before == (time.now(), time.monotonic())

    def test_begins_with_the_clock_it_replaces(self) -> None:
        """What was stored before is neither older nor younger inside."""
        with FakeClock(NEW_YEAR) as outer:
            outer.advance(5)
            with FakeClock() as inner:
                assert inner.now() == NEW_YEAR.timestamp() + 5
                assert inner.monotonic() == outer.monotonic()

    @pytest.mark.parametrize(
        "start", [NEW_YEAR, NEW_YEAR.timestamp(), NEW_YEAR.astimezone(timezone(timedelta(hours=5)))]
    )
    def test_begins_where_it_is_told(self, start: datetime | float) -> None:
        """A start is an aware datetime of any zone, or seconds since 1970."""
        assert FakeClock(start).now() == 1893456000.0

    def test_refuses_a_naive_datetime(self) -> None:
        """A datetime without a zone would mean another moment on every machine."""
        naive = datetime(2030, 1, 1)
        with pytest.raises(ValueError, match=r"timezone\.utc"):
            FakeClock(naive)
        with pytest.raises(ValueError, match=r"timezone\.utc"):
            FakeClock().set(naive)

    @pytest.mark.parametrize("by", [90, 90.0, timedelta(minutes=1, seconds=30)])
    def test_advances(self, by: float | timedelta) -> None:
        """Advancing moves both clocks by seconds or a timedelta."""
        with FakeClock(NEW_YEAR) as time:
            monotonic = clock.monotonic()
            time.advance(by)
            assert clock.now() == NEW_YEAR.timestamp() + 90
            assert clock.monotonic() == monotonic + 90

    @pytest.mark.parametrize("by", [-1, -0.001, math.nan, timedelta(seconds=-1)])
    def test_does_not_advance_backwards(self, by: float | timedelta) -> None:
        """Advancing by less than nothing is an error that names set(), and moves nothing."""
        time = FakeClock(NEW_YEAR)
        with pytest.raises(ValueError, match=r"set\(\)"):
            time.advance(by)
        assert time.now() == NEW_YEAR.timestamp()

    def test_is_set_like_a_clock_on_the_wall(self) -> None:
        """Setting moves the wall clock, forward or back, and no time passes by it."""
        with FakeClock(NEW_YEAR) as time:
            monotonic = clock.monotonic()
            for when in (NEW_YEAR - timedelta(days=1), NEW_YEAR.timestamp() + 5):
                time.set(when)
                assert clock.now() == (when.timestamp() if isinstance(when, datetime) else when)
                assert clock.monotonic() == monotonic

    def test_counts_every_advance_of_many_threads(self) -> None:
        """Threads that advance at once lose no second."""
        both = threading.Barrier(2)

        class Slow(float):
            def __radd__(self, other: float) -> float:
                # Where two threads get here at once, each has read the time that the other is about to replace.
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait(0.1)
                return other + float(self)

        time = FakeClock(0.0)
        in_threads(2, lambda number: time.advance(Slow(1)), patience=PLENTY)
        assert time.now() == 2


class TestInstalling:
    """Whose clock it is, and how long."""

    def test_is_the_clock_inside_only(self) -> None:
        """The clock that was current is so again after the block, also when that raised."""
        before = clock.install(clock.Clock())
        clock.install(before)
        with pytest.raises(ZeroDivisionError), FakeClock(NEW_YEAR):
            _ = 1 / (clock.now() - NEW_YEAR.timestamp())
        current = clock.install(before)
        assert current is before

    def test_can_be_nested_and_entered_again(self) -> None:
        """Inside another one, or a second time, each block ends with what was before it."""
        first, second = FakeClock(1.0), FakeClock(2.0)
        seen = []
        with first:
            with second, first:
                seen.append(clock.now())
            seen.append(clock.now())
            with second:
                seen.append(clock.now())
            seen.append(clock.now())
        assert seen == [1.0, 1.0, 2.0, 1.0]
        assert clock.now() > 1000


class TestWaiting:
    """Waiting takes fake time when it is in vain, and none when it is not."""

    def test_wait_lets_the_time_pass(self) -> None:
        """To wait is to advance, in any thread; less than nothing is an error."""
        with FakeClock(0.0) as time:
            clock.wait(3600)
            in_threads(2, lambda number: clock.wait(10), patience=PLENTY)
            assert (clock.now(), time.now()) == (3620, 3620)
            with pytest.raises(ValueError, match="seconds"):
                clock.wait(-1)

    def test_timeout_of_a_lone_thread_passes_at_once(self) -> None:
        """Where no other thread could help, the whole timeout passes without real waiting."""
        code = (
            "import threading; from flask_stateful import clock; from flask_stateful.testing.clock import FakeClock\n"
            "event, lock = threading.Event(), threading.Lock(); lock.acquire()\n"
            "with FakeClock(0.0, patience=3600):\n"
            "    print(clock.wait_for(event, 60), clock.now(), clock.acquire(lock, 40), clock.now())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["False", "60.0", "False", "100.0"], done.stderr

    def test_timeout_passes_after_patience(self) -> None:
        """Where another thread could help but does not, the whole timeout passes when patience is at an end."""
        end, lock = threading.Event(), threading.Lock()
        lock.acquire()
        idler = run(end.wait)
        with FakeClock(0.0, patience=0.01):
            assert not clock.wait_for(threading.Event(), 60)
            assert clock.now() == 60
            assert not clock.acquire(lock, 40)
            assert clock.now() == 100
        end.set()
        idler.join()

    def test_success_takes_no_time(self) -> None:
        """What is free or set is had at once; nothing passes."""
        event, lock = threading.Event(), threading.Lock()
        event.set()
        with FakeClock(0.0):
            assert clock.wait_for(event, 60)
            assert clock.wait_for(event)
            assert clock.acquire(lock, 60)
            assert lock.locked()
            assert clock.now() == 0

    @pytest.mark.parametrize("timeout", [0, -1])
    def test_no_timeout_is_one_attempt(self, timeout: float) -> None:
        """With nothing to wait, what is not free or set is given up at once; nothing passes."""
        end, lock = threading.Event(), threading.Lock()
        lock.acquire()
        idler = run(end.wait)
        with FakeClock(0.0, patience=3600):
            assert not clock.wait_for(threading.Event(), timeout)
            assert not clock.acquire(lock, timeout)
            assert clock.now() == 0
        end.set()
        idler.join()

    def test_wait_without_timeout_has_no_end(self) -> None:
        """Without a timeout an event is waited for until it is set."""
        timeouts: list[float | None] = []

        class Recorded(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                timeouts.append(timeout)
                return True

        with FakeClock():
            assert clock.wait_for(Recorded())
        assert timeouts == [None]

    @pytest.mark.parametrize("timeout", [0.000001, 3600])
    def test_event_that_is_about_to_be_set_is_had(self, timeout: float) -> None:
        """A thread that sets the event a real moment later is not too late, however short the fake timeout."""
        waiting = threading.Event()

        class Noticed(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                waiting.set()
                return super().wait(timeout)

        event = Noticed()
        setter = run(lambda: waiting.wait(PLENTY) and event.set())
        with FakeClock(0.0, patience=PLENTY):
            assert clock.wait_for(event, timeout)
            assert clock.now() == 0
        setter.join()

    def test_lock_that_is_about_to_be_free_is_had(self) -> None:
        """A thread that holds the lock for a real moment is not too slow, however short the fake timeout."""
        held, wanted, lock = threading.Event(), threading.Event(), threading.Lock()

        def hold() -> None:
            with lock:
                held.set()
                wanted.wait(PLENTY)

        holder = run(hold)
        held.wait(PLENTY)
        with FakeClock(0.0, patience=PLENTY):
            wanted.set()
            assert clock.acquire(lock, 0.000001)
            assert clock.now() == 0
        holder.join()

    def test_earliest_timeout_comes_first(self) -> None:
        """A thread that has to give up earlier does so first, and may then do what a later one waits for."""
        late_tried, early_tries, refused = (threading.Event() for _ in range(3))
        done = ScriptedEvent(lambda: (late_tried.set(), early_tries.wait(PLENTY)), refused.set)
        never = ScriptedEvent(lambda: (early_tries.set(), refused.wait(PLENTY)))
        with FakeClock(0.0, patience=PLENTY):

            def early() -> None:
                late_tried.wait(PLENTY)
                clock.wait_for(never, 5)
                done.set()

            never_set = run(early)
            assert clock.wait_for(done, 10)
            assert clock.now() == 5
            never_set.join()

    def test_timeout_that_is_over_holds_up_nobody(self) -> None:
        """A thread that had what it waited for does not keep a later one from its timeout."""
        event, answers = threading.Event(), []
        event.set()
        with FakeClock(0.0, patience=0.01):
            assert clock.wait_for(event, 5)
            later = run(lambda: answers.append((clock.wait_for(threading.Event(), 60), clock.now())))
            later.join(PLENTY)
        assert answers == [(False, 60)]

    def test_daemon_follows_the_time(self) -> None:
        """A background thread's timeout passes when the test moves the time, and never by itself."""
        tried, answers = threading.Semaphore(0), []
        never = ScriptedEvent(*[tried.release] * 100_000)
        with FakeClock(0.0, patience=0.0) as time:
            background = run(lambda: answers.append(clock.wait_for(never, 5)), daemon=True)
            for _ in range(3):
                assert tried.acquire(timeout=PLENTY)
            assert (clock.now(), answers) == (0, [])
            time.advance(5)
            background.join(PLENTY)
            assert (clock.now(), answers) == (5, [False])

    def test_daemon_is_let_go_at_the_end(self) -> None:
        """A background thread that waits in a clock which is no longer there goes on."""
        tried, answers = threading.Semaphore(0), []
        never = ScriptedEvent(*[tried.release] * 100_000)
        with FakeClock(0.0, patience=0.0):
            background = run(lambda: answers.append(clock.wait_for(never, 5)), daemon=True)
            assert tried.acquire(timeout=PLENTY)
        background.join(PLENTY)
        assert answers == [False]


class TestForking:
    """A child's clock goes on from the parent's."""

    def test_child_can_move_the_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither a lock nor a wait of a thread that the child does not have holds it up."""
        # A store of another test that is told of the fork would look at the clock, and wait for the lock.
        monkeypatch.setattr(forks, "_aware", weakref.WeakSet())
        held, forked, waiting = threading.Event(), threading.Event(), threading.Event()

        def hold() -> None:
            with fake._guard:
                held.set()
                forked.wait(PLENTY)

        def work(number: int) -> object:
            began = clock.monotonic()
            clock.wait(1)
            return clock.wait_for(threading.Event(), 60), round(clock.monotonic() - began, 6)

        with FakeClock(0.0, patience=0.01):
            sleeper = run(lambda: clock.wait_for(ScriptedEvent(lambda: (waiting.set(), forked.wait(PLENTY))), 5))
            waiting.wait(PLENTY)
            holder = run(hold)
            held.wait(PLENTY)
            answers = in_processes(1, work, patience=PLENTY)
            forked.set()
            holder.join()
            sleeper.join()
        assert answers == [(False, 61)]
