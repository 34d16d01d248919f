"""What happens between two steps of a call: an invalidation, an outage, another caller."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_stateful import Stateful
from flask_stateful.epochs import LocalEpochs, slot_of
from flask_stateful.errors import StoreError, StoreUnavailable
from flask_stateful.stores.base import Store
from flask_stateful.testing import FakeClock, Fault, FaultyStore

from .conftest import PATIENCE, MakeApp
from .test_races import Gate, ask, forget, two_apps, waiting


class Interrupted(FaultyStore):
    """A store in which something happens right after an operation, once."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.after: dict[str, Callable[[], object]] = {}

    def _call(self, operation: str, keys: Iterable[str], work: Callable[[], t.Any]) -> t.Any:
        result = super()._call(operation, keys, work)
        then = self.after.pop(operation, None)
        if then is not None:
            then()
        return result


@pytest.fixture
def interrupted(store: Store) -> Interrupted:
    return Interrupted(store)


@pytest.mark.parametrize(
    "invalidate", [forget, lambda cache: cache.invalidate_tags("tag"), lambda cache: cache.clear()]
)
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_caller_does_not_get_what_was_begun_before_an_invalidation(
    make_app: MakeApp, open_again: Callable[[], Store], invalidate: Callable[[t.Any], None], where: str
) -> None:
    """S2: who asks after an invalidation, while an older value is still being computed, gets a newer one."""
    gate = Gate()
    (one, one_state), (other, other_state) = two_apps(make_app, open_again)
    with ThreadPoolExecutor() as pool:
        older = pool.submit(ask, one, one_state, gate, tags=["tag"])
        gate.wait()
        app, state = (one, one_state) if where == "here" else (other, other_state)
        with app.app_context():
            invalidate(state.cache)
        calls: list[str] = []
        newer = [pool.submit(ask, one, one_state, lambda: calls.append("x") or "new", tags=["tag"]) for _ in range(4)]
        waiting(4, one_state, one)
        gate.open.set()
        assert older.result(PATIENCE) == 1
        assert {future.result(PATIENCE) for future in newer} == {"new"}
        assert calls == ["x"]


def test_value_deleted_while_its_tags_are_looked_up_is_not_held(
    make_app: MakeApp, state: Stateful, interrupted: Interrupted
) -> None:
    """S2: a value that is deleted after it was read, and before its tags were, is not kept in memory."""
    with make_app(state, interrupted).app_context():
        state.cache.set("key", "old", tags=["tag"])
        interrupted.after["get_many"] = lambda: state.cache.delete("key")
        state.cache.get("key")
        assert state.cache.get("key") is None


def test_second_forgetting_is_not_settled_by_the_first(
    make_app: MakeApp, state: Stateful, interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: of two threads that forget a key, the later one deletes what was written after the earlier one deleted."""
    app = make_app(state, interrupted)
    deleted, named = threading.Event(), threading.Event()

    def between() -> None:
        deleted.set()
        assert named.wait(PATIENCE)

    def first() -> None:
        with app.app_context():
            state.cache.delete("key")

    thread = threading.Thread(target=first)
    with app.app_context():
        layer = state.cache.runtime.storage.layer
        changed = layer.changed

        def after_naming(keys: Iterable[str]) -> None:
            if threading.current_thread() is not thread:
                named.set()
                thread.join(PATIENCE)
            changed(keys)

        interrupted.after["delete_many"] = between
        thread.start()
        assert deleted.wait(PATIENCE)
        state.cache.set("key", "written between")
        monkeypatch.setattr(layer, "changed", after_naming)
        state.cache.delete("key")
        assert state.cache.get("key") is None


@pytest.mark.parametrize("operation", ["get_many", "add", "swap", "delete"])
@pytest.mark.parametrize("kind", ["unavailable", "error", "lost_reply"])
def test_outage_at_any_step_leaves_the_value_to_be_computed(
    make_app: MakeApp, state: Stateful, store: Store, operation: str, kind: t.Any
) -> None:
    """W2: whichever call to the store fails, a caller gets the value; computing it is all that is left."""
    faulty = FaultyStore(store)
    with make_app(state, faulty).app_context():
        faulty.fail(Fault(kind, operation))
        assert state.cache.get_or_set("key", lambda: "value", tags=["tag"]) == "value"


@pytest.mark.parametrize(("kind", "operation"), [("error", "swap"), ("lost_reply", "add")])
def test_outage_leaves_no_lease_behind(
    make_app: MakeApp, state: Stateful, store: Store, clock: FakeClock, kind: t.Any, operation: str
) -> None:
    """W2: after a store failed in the middle of a call, the next caller does not wait for that call's lease."""
    faulty = FaultyStore(store)
    with make_app(state, faulty).app_context():
        faulty.fail(Fault(kind, operation))
        assert state.cache.get_or_set("key", lambda: 1) == 1
        faulty.mend()
        clock.advance(2)  # or a remote store would not be asked again
        began = clock.monotonic()
        assert state.cache.get_or_set("key", lambda: 2) == 2
        assert clock.monotonic() == began


def test_error_of_the_computation_is_not_taken_for_the_stores(make_app: MakeApp, state: Stateful, store: Store) -> None:
    """A computation that itself raises a StoreError is not computed twice."""
    calls: list[str] = []

    def compute() -> None:
        calls.append("x")
        raise StoreError("of another store")

    with make_app(state, store).app_context():
        with pytest.raises(StoreError, match="of another store"):
            state.cache.get_or_set("key", compute)
        assert calls == ["x"]


def test_giving_up_leaves_the_next_holder_alone(
    make_app: MakeApp, state: Stateful, interrupted: Interrupted, store: Store
) -> None:
    """S3: a caller whose computation failed does not take the lease, or the value, of one who comes right then."""
    other_state = Stateful()
    other = make_app(other_state, store)

    def fail() -> None:
        raise ValueError("broken")

    app = make_app(state, interrupted)
    interrupted.after["swap"] = lambda: ask(other, other_state, lambda: "theirs")
    with app.app_context(), pytest.raises(ValueError, match="broken"):
        state.cache.get_or_set("key", fail)
    assert ask(app, state, lambda: pytest.fail("computed again")) == "theirs"


def test_forgetting_is_owed_until_it_is_done(
    make_app: MakeApp, state: Stateful, store: Store, clock: FakeClock
) -> None:
    """S2: an invalidation that fails again and again is done before anything is served from the store."""
    faulty = FaultyStore(store)
    with make_app(state, faulty).app_context():
        state.cache.set("key", "old", tags=["tag"])
        faulty.fail(Fault("unavailable", "set_many", nth=range(1, 4)))
        with pytest.raises(StoreUnavailable):
            state.cache.invalidate_tags("tag")
        for number in range(2):
            clock.advance(60)  # or a remote store would not be asked again
            assert state.cache.get_or_set("key", lambda number=number: number, tags=["tag"]) == number
        clock.advance(60)
        assert state.cache.get_or_set("key", lambda: "new", tags=["tag"]) == "new"
        assert state.cache.get("key") == "new"


def test_an_epoch_never_comes_back() -> None:
    """Two threads that move one slot on at once leave no number behind that was there before."""
    epochs = LocalEpochs()
    seen = set()
    for key in ("a", "b", "a", "c"):
        epochs.changed([key])
        seen.add(epochs.table[slot_of(key)])
    assert len(seen) == 4
