"""What becomes of locks, threads and files when the process forks."""

from __future__ import annotations

import os
import threading
import typing as t
import weakref


class ForkAware(t.Protocol):
    """Something that a child process must not share with its parent."""

    def before_fork(self) -> None:
        """Come to rest; called in the parent, where other threads go on."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew, with nothing that other threads of the parent may have held."""


_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()
#: Held during a fork, so that both sides call the same ones.
_guard = threading.Lock()


def tell_of_forks(aware: ForkAware) -> None:
    """Tell an object of every fork for as long as it lives."""
    with _guard:
        _aware.add(aware)


def _before() -> None:
    _guard.acquire()
    for aware in _aware:
        aware.before_fork()


def _after_in_parent() -> None:
    for aware in _aware:
        aware.after_fork_in_parent()
    _guard.release()


def _after_in_child() -> None:
    global _guard
    _guard = threading.Lock()
    for aware in _aware:
        aware.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
