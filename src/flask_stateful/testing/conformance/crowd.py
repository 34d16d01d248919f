"""Many threads or processes that do one thing at once."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import traceback
import typing as t
import warnings
from multiprocessing.connection import Connection

import pytest

from ... import clock

T = t.TypeVar("T")

_system = clock.Clock()

#: Python hands over to another thread this often, in seconds, so that races show.
_SWITCH_INTERVAL = 1e-5


def eventually(condition: t.Callable[[], bool], patience: float) -> bool:
    """Wait in real time, at most ``patience`` seconds, until something is true; tell whether it is."""
    deadline = _system.monotonic() + patience
    while not condition() and _system.monotonic() < deadline:
        _system.wait(0.001)
    return condition()


def in_threads(count: int, work: t.Callable[[int], T], *, patience: float) -> list[T]:
    """Run ``work(0)``, ``work(1)``, ... in that many threads, which begin together.

    :param patience: real seconds until a thread counts as stuck.
    :return: what they returned, in order.
    :raises Exception: the first that one of them raised.
    """
    start = threading.Barrier(count)
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait(patience)
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    # Daemons, so that one which is stuck does not keep the interpreter from ending.
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    with _switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patience)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), f"a thread was stuck for {patience} s"
    return [results[number] for number in range(count)]


@contextlib.contextmanager
def _switching_often() -> t.Generator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def in_processes(count: int, work: t.Callable[[int], T], *, patience: float) -> list[T]:
    """Run ``work(0)``, ``work(1)``, ... in that many forked processes, which begin together.

    Skips the test where processes cannot fork.

    :param patience: real seconds until a process counts as stuck.
    :return: what they returned, in order.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes cannot fork here")
    context = multiprocessing.get_context("fork")
    start = context.Barrier(count)
    children: list[tuple[t.Any, Connection]] = []
    try:
        for number in range(count):
            here, there = context.Pipe(duplex=False)
            child = context.Process(target=_run_in_child, args=(there, lambda: start.wait(patience), work, number))
            with warnings.catch_warnings():
                # Newer Pythons warn of a fork beside threads; that a store lives through it is what is tested.
                warnings.simplefilter("ignore", DeprecationWarning)
                child.start()
            there.close()
            children.append((child, here))
        return [_answer(here, patience) for _, here in children]
    finally:
        for child, here in children:
            here.close()
            child.kill()
            child.join()


def _run_in_child(there: Connection, start: t.Callable[[], object], work: t.Callable[[int], T], number: int) -> None:
    """Send what the work returned, or how it failed."""
    try:
        start()
        there.send((work(number), None))
    except BaseException:
        there.send((None, traceback.format_exc()))


def _answer(here: Connection, patience: float) -> t.Any:
    """Return what a child sent."""
    assert here.poll(patience), f"a process was stuck for {patience} s"
    try:
        result, failure = here.recv()
    except EOFError:
        result, failure = None, "it died"
    assert failure is None, f"a process failed: {failure}"
    return result
