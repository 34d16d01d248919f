"""What the tests of the SQLite store run in a process of its own: ``python sqlite_worker.py TASK PATH ...``.

A worker prints one line when it is ready, and begins when its standard input gives it one.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import typing as t

from flask_stateful.stores.sqlite import SQLiteStore

#: Long enough for any machine: what is tested is that nothing is lost, not how fast it is.
TIMEOUT = 60.0


def ready() -> None:
    """Tell the test, and wait for it."""
    say("ready")
    sys.stdin.readline()


def say(text: object) -> None:
    """Print a line at once."""
    print(text, flush=True)


def hammer(path: str, seconds: str, threads: str) -> None:
    """Do everything at once in several threads; print how often each counter was counted up."""
    store = SQLiteStore(path, timeout=TIMEOUT)
    counts: dict[str, int] = {"swap": 0, "incr": 0, "add": 0}
    guard = threading.Lock()
    ready()
    end = time.monotonic() + float(seconds)

    def work(number: int) -> None:
        chance = random.Random(f"{os.getpid()}:{number}")
        own: dict[str, int] = dict.fromkeys(counts, 0)
        while time.monotonic() < end:
            name = f"key:{chance.randrange(50)}"
            store.set(name, os.urandom(chance.randrange(3000)), chance.choice([0.01, 5, 1000, None]))
            store.get(f"key:{chance.randrange(50)}")
            own["add"] += store.add(f"add:{chance.randrange(100_000)}", b"x")
            store.incr("incr")
            own["incr"] += 1
            own["swap"] += swap_up(store)
        with guard:
            for name, count in own.items():
                counts[name] += count

    crew = [threading.Thread(target=work, args=(number,)) for number in range(int(threads))]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    store.close()
    say(" ".join(f"{name}={count}" for name, count in counts.items()))


def swap_up(store: SQLiteStore) -> int:
    """Try once to count up by reading and swapping."""
    value = store.get("swap")
    assert value is not None
    return store.swap("swap", value, b"%d" % (int(value) + 1), 1000)


def count_on(path: str) -> None:
    """Write rising numbers for ever, and print each once its write is confirmed."""
    store = SQLiteStore(path, timeout=TIMEOUT)
    ready()
    number = int(store.get("last") or 0)
    while True:
        number += 1
        store.set(f"number:{number}", b"%d" % number)
        store.set("last", b"%d" % number)
        say(number)


def first_start(path: str) -> None:
    """Use a file that may not be there yet, in two threads at once."""
    store = SQLiteStore(path, timeout=TIMEOUT)
    ready()
    crew = [threading.Thread(target=store.incr, args=("count",)) for _ in range(2)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    store.close()
    say("done")


def hold_lock(path: str) -> None:
    """Take the writer lock and keep it."""
    store = SQLiteStore(path, timeout=TIMEOUT)
    store.set("key", b"held")
    with store._file.writer:
        ready()


def hold_lock_and_fork(path: str) -> None:
    """Fork while a thread has the writer lock; print the child, which lives on."""
    store = SQLiteStore(path, timeout=TIMEOUT)
    store.set("key", b"held")
    with store._file.writer:
        child = os.fork()
        if child == 0:
            signal.pause()
        say(child)
        ready()


def full_by_limit(path: str) -> None:
    """Write until this process may not make files longer, then read, then write again with the limit lifted."""
    import resource

    store = SQLiteStore(path, timeout=TIMEOUT)
    store.set("before", b"1")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    say(fill_up(store))
    say(store.get("before"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    store.set("after", b"1")
    say(store.get("after"))
    store.close()


def full_disk(path: str) -> None:
    """Write until the disk is full, then read, then free some space and write again."""
    store = SQLiteStore(path, timeout=TIMEOUT)
    store.set("before", b"1")
    ballast = os.path.join(os.path.dirname(path), "ballast")
    with open(ballast, "wb") as file:
        file.write(bytes(1_000_000))
    say(fill_up(store))
    say(store.get("before"))
    os.unlink(ballast)
    store.set("after", b"1")
    say(store.get("after"))
    store.close()


def fill_up(store: SQLiteStore) -> str:
    """Write until it fails; return how."""
    try:
        for number in range(100_000):
            store.set(f"key:{number}", os.urandom(2000))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it never failed"


def as_nobody(path: str) -> None:
    """Use a file as a user who may not write its folder."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        SQLiteStore(path).set("key", b"x")
    except Exception as error:
        say(f"{type(error).__name__}: {error}")


def leave(path: str) -> None:
    """Write a lot and end without closing, amid the work of the background thread."""
    store = SQLiteStore(path, timeout=TIMEOUT)
    for number in range(5000):
        store.set(f"key:{number % 100}", os.urandom(2000), 60)
    say(store.get("key:1") is not None)


TASKS: dict[str, t.Callable[..., None]] = {
    "hammer": hammer,
    "count_on": count_on,
    "first_start": first_start,
    "hold_lock": hold_lock,
    "hold_lock_and_fork": hold_lock_and_fork,
    "full_by_limit": full_by_limit,
    "full_disk": full_disk,
    "as_nobody": as_nobody,
    "leave": leave,
}

if __name__ == "__main__":
    TASKS[sys.argv[1]](*sys.argv[2:])
