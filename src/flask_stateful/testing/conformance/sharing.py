"""The rules on many at once: each operation is atomic, from any thread and process, and after a fork."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import threading
import typing as t

import pytest

from ...stores.base import Store
from .abilities import change, live_epochs
from .crowd import eventually, in_processes, in_threads
from .suite import Later, Suite, need

#: Callers at once, and how often each does its thing.
CROWD, ROUNDS = 4, 25


def add_each(store: Store, number: int) -> list[bool]:
    """Try to add every key of a range; return which this caller won."""
    return [store.add(f"key:{key}", b"%d" % number) for key in range(ROUNDS)]


def swap_up(store: Store, rounds: int) -> None:
    """Add 1 to a number so many times by reading and swapping."""
    for _ in range(rounds):
        while True:
            value = store.get("key")
            assert value is not None
            if store.swap("key", value, b"%d" % (int(value) + 1)):
                break


def write_whole(store: Store, byte: bytes, length: int) -> None:
    """Write a long value of one byte by each way there is."""
    value = byte * length
    for round_ in range(ROUNDS):
        store.set("key", value)
        present = store.get("key")
        if present is not None and round_ % 3 == 0:
            store.swap("key", present, value)
        if round_ % 5 == 0:
            store.delete("key")
            store.add("key", value)


def torn(values: t.Iterable[bytes | None], length: int) -> list[str]:
    """Describe the values that no caller wrote in one piece."""
    return [
        f"{len(value)} bytes of {len(set(value))} kinds"
        for value in values
        if value is not None and (len(value) != length or len(set(value)) != 1)
    ]


class ThreadRules(Suite):
    """Many threads of one process, half of them with a store opened anew."""

    def test_add_has_one_winner_among_threads(self, store: Store) -> None:
        """Of threads that add the same key at once exactly one wins, and its value is there."""
        stores = self.many(store, CROWD)
        wins = in_threads(CROWD, lambda number: add_each(stores[number], number), patience=self.patience)
        winners = [[number for number in range(CROWD) if wins[number][key]] for key in range(ROUNDS)]
        assert [len(numbers) for numbers in winners] == [1] * ROUNDS
        assert [store.get(f"key:{key}") for key in range(ROUNDS)] == [b"%d" % numbers[0] for numbers in winners]

    def test_add_on_expired_has_one_winner(self, store: Store, later: Later) -> None:
        """Of threads that add where a value has expired exactly one wins."""
        store.set_many({f"key:{key}": b"old" for key in range(ROUNDS)}, 60)
        later(60)
        wins = in_threads(CROWD, lambda number: add_each(store, number), patience=self.patience)
        assert [sum(won) for won in zip(*wins, strict=True)] == [1] * ROUNDS

    def test_swap_loses_nothing_among_threads(self, store: Store) -> None:
        """Threads that count by swap lose no count."""
        store.set("key", b"0")
        stores = self.many(store, CROWD)
        in_threads(CROWD, lambda number: swap_up(stores[number], ROUNDS), patience=self.patience)
        assert store.get("key") == b"%d" % (CROWD * ROUNDS)

    def test_incr_loses_nothing_among_threads(self, store: Store) -> None:
        """Threads that count by incr lose no count, and each count is returned once."""
        stores = self.many(store, CROWD)
        counts = in_threads(
            CROWD, lambda number: [stores[number].incr("key") for _ in range(ROUNDS)], patience=self.patience
        )
        assert sorted(count for own in counts for count in own) == list(range(1, CROWD * ROUNDS + 1))
        assert store.get("key") == b"%d" % (CROWD * ROUNDS)

    def test_values_are_whole_among_threads(self, store: Store) -> None:
        """A reader sees a value as one writer wrote it, or none, while others write, swap, delete and add."""
        length = min(65536, store.max_value_bytes)
        stores = self.many(store, CROWD)

        def work(number: int) -> list[bytes | None]:
            if number % 2 == 0:
                write_whole(stores[number], b"%d" % number, length)
                return []
            return [stores[number].get("key") for _ in range(ROUNDS * 2)]

        seen = in_threads(CROWD, work, patience=self.patience)
        assert torn((value for own in seen for value in own), length) == []

    def test_touch_and_swap_bring_nothing_back(self, store: Store) -> None:
        """A value deleted while others touch and swap it stays deleted."""

        def work(number: int) -> None:
            for round_ in range(ROUNDS):
                key = f"key:{round_}"
                if number == 0:
                    store.delete(key)
                elif number == 1:
                    store.touch(key, 60)
                else:
                    store.swap(key, b"x", b"x", 60)

        store.set_many({f"key:{round_}": b"x" for round_ in range(ROUNDS)})
        in_threads(3, work, patience=self.patience)
        assert store.get_many([f"key:{round_}" for round_ in range(ROUNDS)]) == {}


class ProcessRules(Suite):
    """Many processes that share what the store holds."""

    @pytest.fixture
    def shared(self, store: Store) -> Store:
        """Return the store, or skip the test where it lives in one process."""
        if not self.across_processes:
            pytest.skip("lives in one process")
        return store

    def test_write_is_seen_by_other_processes(self, shared: Store) -> None:
        """What one process wrote the next one reads, adds to, swaps and deletes, and the first sees that."""
        shared.set_many({"swap": b"1", "delete": b"1"})
        shared.incr("incr", 41)

        def work(number: int) -> object:
            store = self.reopen(shared)
            seen = store.get("swap"), store.swap("swap", b"1", b"2"), store.add("delete", b"2"), store.incr("incr")
            store.delete("delete")
            return seen

        assert in_processes(1, work, patience=self.patience) == [(b"1", True, False, 42)]
        assert shared.get_many(["swap", "delete", "incr"]) == {"swap": b"2", "incr": b"42"}

    def test_add_has_one_winner_among_processes(self, shared: Store) -> None:
        """Of processes that add the same key at once exactly one wins."""
        wins = in_processes(CROWD, lambda number: add_each(self.reopen(shared), number), patience=self.patience)
        assert [sum(won) for won in zip(*wins, strict=True)] == [1] * ROUNDS

    def test_swap_loses_nothing_among_processes(self, shared: Store) -> None:
        """Processes that count by swap lose no count."""
        shared.set("key", b"0")
        in_processes(CROWD, lambda number: swap_up(self.reopen(shared), ROUNDS), patience=self.patience)
        assert shared.get("key") == b"%d" % (CROWD * ROUNDS)

    def test_incr_loses_nothing_among_processes(self, shared: Store) -> None:
        """Processes that count by incr lose no count."""

        def work(number: int) -> list[int]:
            store = self.reopen(shared)
            return [store.incr("key") for _ in range(ROUNDS)]

        counts = in_processes(CROWD, work, patience=self.patience)
        assert sorted(count for own in counts for count in own) == list(range(1, CROWD * ROUNDS + 1))

    def test_values_are_whole_among_processes(self, shared: Store) -> None:
        """A process sees a value as another one wrote it, or none."""
        length = min(65536, shared.max_value_bytes)

        def work(number: int) -> list[str]:
            store = self.reopen(shared)
            if number % 2 == 0:
                write_whole(store, b"%d" % number, length)
                return []
            return torn([store.get("key") for _ in range(ROUNDS * 2)], length)

        assert in_processes(CROWD, work, patience=self.patience) == [[]] * CROWD

    def test_epochs_tell_changes_of_other_processes(self, shared: Store) -> None:
        """A key that another process changes is not what it was before."""
        need(shared, "epochs")
        epochs = live_epochs(shared, self.patience)
        marks = epochs.marks(["key"])

        def work(number: int) -> None:
            store = self.reopen(shared)
            change(store, store.epochs(""), ["key"])

        in_processes(1, work, patience=self.patience)
        assert eventually(lambda: not epochs.is_unchanged(marks), self.patience)
        epochs.close()


class ForkRules(Suite):
    """The very same store object in a forked process."""

    def test_works_on_both_sides_of_a_fork(self, store: Store) -> None:
        """A child reads, writes and counts with the store it inherited; the parent's goes on as before."""
        store.set("before", b"1")

        def work(number: int) -> tuple[list[int | bytes | None], bool]:
            store.set(f"child:{number}", b"1")
            seen = [store.get("before"), store.get(f"child:{number}"), store.incr(f"count:{number}")]
            return seen, store.add("new", b"")

        (seen, won), (also_seen, also_won) = in_processes(2, work, patience=self.patience)
        assert seen == also_seen == [b"1", b"1", 1]
        assert store.get("before") == b"1"
        store.set("after", b"1")
        assert store.get("after") == b"1"
        wins = [won, also_won, store.add("new", b"")]
        assert sum(wins) == (1 if self.across_processes else 3)

    def test_works_after_a_fork_amid_writes(self, store: Store) -> None:
        """A child works also when other threads were inside the store at the moment of the fork."""
        under_way, done = threading.Barrier(3), threading.Event()

        def write(number: int) -> None:
            store.set(f"busy:{number}", b"x" * 1000)
            under_way.wait(self.patience)
            while not done.is_set():
                store.set(f"busy:{number}", b"x" * 1000)
                store.get(f"busy:{number}")

        writers = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(2)]
        for writer in writers:
            writer.start()
        try:
            under_way.wait(self.patience)
            for count in range(1, 4):
                counted = in_processes(
                    1, lambda number: (store.incr("count"), store.get("busy:0")), patience=self.patience
                )
                assert counted == [(count if self.across_processes else 1, b"x" * 1000)]
        finally:
            done.set()
            for writer in writers:
                writer.join(self.patience)
        assert store.get_many(["busy:0", "busy:1"]) == dict.fromkeys(["busy:0", "busy:1"], b"x" * 1000)

    def test_close_in_a_child_leaves_the_parent(self, store: Store) -> None:
        """A child that closes the store it inherited does not close the parent's."""
        store.set("key", b"1")
        in_processes(1, lambda number: store.close(), patience=self.patience)
        assert store.get("key") == b"1"
        store.set("key", b"2")
        assert store.get("key") == b"2"
