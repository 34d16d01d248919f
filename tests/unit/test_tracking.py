"""Tracked items behave as a dict does, and know what was changed in them, also inside a list."""

from __future__ import annotations

import copy
import typing as t

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from flask_stateful.errors import DecodeError, EncodeError, StateConflict, ValueTooLarge
from flask_stateful.serialization import Raw, dumps, loads
from flask_stateful.sessions.codec import SessionCodec
from flask_stateful.tracking import TrackedItems

from .values import exact

CODEC = SessionCodec(102, lambda key: None)

KEYS = st.sampled_from(["a", "b", "c", "d"])
VALUES = st.recursive(
    st.one_of(st.integers(-2, 2), st.sampled_from(["", "x"]), st.none(), st.sets(st.integers(0, 2))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["k", "l"]), inner, max_size=2),
    ),
    max_leaves=3,
)


def stored(values: t.Mapping[str, t.Any]) -> dict[str, Raw]:
    """Return values as the store holds them."""
    return {key: Raw(dumps(value)) for key, value in values.items()}


def look_at(items: TrackedItems, key: str) -> t.Any:
    """Return a value as a session does."""
    value = items.values[key]
    return items.decode(key, value) if type(value) is Raw else value


def change_in_place(value: t.Any, by: int) -> bool:
    """Change something in a value; tell whether there was something that can be changed."""
    match value:
        case list():
            value.append(by)
        case dict():
            value["k"] = by
        case set():
            value.symmetric_difference_update({by})
        case tuple():
            return any(change_in_place(item, by) for item in value)
        case _:
            return False
    return True


class Tracking(RuleBasedStateMachine):
    """Does the same to tracked items and to plain dicts, while another request writes to the store now and then."""

    found = Bundle("found")

    def __init__(self) -> None:
        super().__init__()
        #: What the store held when the items were last told.
        self.known: dict[str, t.Any] = {}
        #: What the store holds now.
        self.theirs: dict[str, t.Any] = {}
        #: What the items should hold.
        self.mine: dict[str, t.Any] = {}
        self.deleted: set[str] = set()
        #: Whether ours were laid over theirs, which may put keys in either's order.
        self.laid = False
        self.items = TrackedItems({}, CODEC)

    @rule(key=KEYS, value=VALUES)
    def assign(self, key: str, value: t.Any) -> None:
        self.items.assign(key, copy.deepcopy(value))
        self.mine[key] = value
        self.deleted.discard(key)

    @rule(key=KEYS)
    def assign_what_is_there(self, key: str) -> None:
        if key in self.mine:
            self.items.assign(key, look_at(self.items, key))
            self.deleted.discard(key)

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        if key in self.mine:
            assert exact(look_at(self.items, key)) == exact(self.mine[key])
            assert look_at(self.items, key) is look_at(self.items, key)
        else:
            assert key not in self.items.values

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if key not in self.mine:
            with pytest.raises(KeyError):
                self.items.delete(key)
            return
        self.items.delete(key)
        del self.mine[key]
        self.deleted.add(key)

    @rule(key=KEYS, by=st.integers(0, 2))
    def change_inside(self, key: str, by: int) -> None:
        if key in self.mine:
            assert change_in_place(look_at(self.items, key), by) == change_in_place(self.mine[key], by)

    @rule(key=KEYS)
    def change_inside_and_back(self, key: str) -> None:
        if key in self.mine and isinstance(value := look_at(self.items, key), list):
            value.append("more")
            del value[-1]

    @rule(key=KEYS, value=VALUES)
    def another_writes(self, key: str, value: t.Any) -> None:
        self.theirs[key] = value

    @rule(key=KEYS)
    def another_deletes(self, key: str) -> None:
        self.theirs.pop(key, None)

    def differences(self) -> dict[str, bytes]:
        """Return the encodings of those values of ours that differ from what we know to be stored."""
        known = {key: dumps(value) for key, value in self.known.items()}
        mine = {key: dumps(value) for key, value in self.mine.items()}
        return {key: encoded for key, encoded in mine.items() if known.get(key) != encoded}

    @rule()
    def lay_over_what_is_stored_now(self) -> None:
        changed = {key: self.mine[key] for key in self.differences()}
        kept = {key: value for key, value in self.theirs.items() if key not in self.deleted}
        self.mine = copy.deepcopy(kept | changed)
        self.deleted &= self.theirs.keys()
        self.deleted -= changed.keys()
        self.known = copy.deepcopy(self.theirs)
        self.items.rebase(stored(self.theirs), keep_changes=True)
        self.laid = True

    @rule()
    def save(self) -> None:
        merged = {key: value for key, value in self.theirs.items() if key not in self.items.removed()}
        merged |= {key: loads(encoded) for key, encoded in self.items.changes().items()}
        if not self.laid and list(self.theirs) == list(self.known):
            assert list(merged) == list(self.mine)
        self.laid = False
        self.theirs, self.known, self.mine = merged, copy.deepcopy(merged), copy.deepcopy(merged)
        self.deleted = set()
        self.items.rebase(stored(merged), keep_changes=False)
        assert self.items.changes() == {}

    @rule()
    def forget(self) -> None:
        self.items = TrackedItems(stored(self.theirs), CODEC)
        self.laid = False
        self.known, self.mine, self.deleted = copy.deepcopy(self.theirs), copy.deepcopy(self.theirs), set()

    @invariant()
    def what_has_changed_is_known(self) -> None:
        changes, differences, removed = self.items.changes(), self.differences(), self.items.removed()
        assert {key: encoded for key, encoded in changes.items() if key in differences} == differences
        assert changes.keys() - differences.keys() <= removed, "what is the same is saved only if it has moved"
        assert removed - changes.keys() == self.deleted & self.known.keys()

    @invariant()
    def the_keys_are_those_of_a_dict(self) -> None:
        assert self.items.values.keys() == self.mine.keys()

    @precondition(lambda self: self.mine)
    @invariant()
    def what_was_assigned_is_what_is_there(self) -> None:
        assigned = self.items.assigned_values()
        assert all(exact(value) == exact(self.mine[key]) for key, value in assigned.items())


TestTracking = Tracking.TestCase
TestTracking.__doc__ = "Whatever is done in whatever order, tracked items hold what a dict would and know what changed."


def test_looking_is_not_changing() -> None:
    """Reading every value, also those that could be changed in place, leaves nothing to save."""
    items = TrackedItems(stored({"list": [1, {"a": ()}], "set": {1}, "text": "x", "moment": None}), CODEC)
    for key in list(items.values):
        look_at(items, key)
    assert items.changes() == {}
    assert items.assigned_values() == {}


def test_value_that_nobody_looks_at_stays_encoded() -> None:
    """A value is decoded when it is looked at, once, and the others are not."""
    items = TrackedItems(stored({"a": [1], "b": [2]}), CODEC)
    assert look_at(items, "a") is look_at(items, "a")
    assert type(items.values["b"]) is Raw


def test_value_that_cannot_be_decoded_stays_as_it_is() -> None:
    """A value that is no value of ours raises when it is looked at, each time, and is not saved."""
    items = TrackedItems({"a": Raw(b"\xc7\x00\x64")}, CODEC)
    for _ in range(2):
        with pytest.raises(DecodeError):
            look_at(items, "a")
    assert items.changes() == {}


def test_equal_value_is_no_change() -> None:
    """Assigning what is stored already leaves nothing to save; an equal value of another type is a change."""
    items = TrackedItems(stored({"a": 1, "b": [1, 2]}), CODEC)
    items.assign("a", 1)
    items.assign("b", [1, 2])
    assert items.changes() == {}
    assert items.assigned_values() == {"a": 1, "b": [1, 2]}
    items.assign("a", True)
    items.assign("b", (1, 2))
    assert items.changes() == {"a": dumps(True), "b": dumps((1, 2))}


def test_change_inside_what_was_assigned_counts() -> None:
    """What is saved is what a list holds in the end, not what it held when it was assigned."""
    items = TrackedItems({}, CODEC)
    cart = [1]
    items.assign("cart", cart)
    cart.append(2)
    assert items.changes() == {"cart": dumps([1, 2])}
    items.assign("cart", "gone")
    cart.append(3)
    assert items.changes() == {"cart": dumps("gone")}


def test_failed_assignment_changes_nothing() -> None:
    """A value that cannot be stored, or is too long, raises at once, and the old one stays."""
    items = TrackedItems(stored({"a": [1]}), CODEC)
    look_at(items, "a").append(2)
    with pytest.raises(EncodeError, match=r"^session\['a'\]\[0\] is of type object"):
        items.assign("a", [object()])
    with pytest.raises(ValueTooLarge, match=r"session\['a'\] takes 103 bytes and .*SESSION_MAX_BYTES allows 102$"):
        items.assign("a", "x" * 101)
    with pytest.raises(ValueTooLarge):
        items.assign("b", "x" * 101)
    assert items.changes() == {"a": dumps([1, 2])}
    items.assign("a", "x" * 100)
    assert items.changes() == {"a": dumps("x" * 100)}


def test_value_that_became_impossible_is_named() -> None:
    """A list that was changed in place to hold what cannot be stored is named when changes are asked for."""
    items = TrackedItems(stored({"a": [1]}), CODEC)
    look_at(items, "a").append({"b": object()})
    with pytest.raises(EncodeError, match=r"^session\['a'\]\[1\]\['b'\] is of type object"):
        items.changes()


# Going on from what another has saved


def test_live_value_stays_the_same_object() -> None:
    """A list that the store still holds as it is, or that was changed here, stays the one that somebody holds."""
    items = TrackedItems(stored({"same": [1], "changed": [2], "lost": [3]}), CODEC)
    same, changed, lost = (look_at(items, key) for key in ("same", "changed", "lost"))
    changed.append(0)
    items.rebase(stored({"same": [1], "changed": [9], "lost": [9]}), keep_changes=True)
    assert look_at(items, "same") is same
    assert look_at(items, "changed") is changed
    assert look_at(items, "lost") == [9]
    same.append(0)
    assert items.changes() == {"same": dumps([1, 0]), "changed": dumps([2, 0])}
    assert lost == [3]


@pytest.mark.parametrize("keep_changes", [True, False])
@pytest.mark.parametrize("now", [{"a": [9]}, {}], ids=["replaced", "deleted"])
def test_change_of_a_value_that_was_replaced_is_not_lost_silently(keep_changes: bool, now: dict[str, t.Any]) -> None:
    """A list that another request has replaced meanwhile can no longer be changed: that raises, and says what to do."""
    items = TrackedItems(stored({"a": [1]}), CODEC)
    held = look_at(items, "a")
    items.rebase(stored(now), keep_changes=keep_changes)
    assert items.changes() == {}
    held.append(2)
    with pytest.raises(StateConflict, match=r"session\['a'\] was looked up before .*look it up inside `with"):
        items.changes()
    with pytest.raises(StateConflict):
        items.rebase(stored(now), keep_changes=True)
    del held[-1]
    assert items.changes() == {}


def test_replaced_value_is_watched_on() -> None:
    """It is still noticed when the store was read again several times since."""
    items = TrackedItems(stored({"a": [1]}), CODEC)
    held = look_at(items, "a")
    for value in (7, 8, 9):
        items.rebase(stored({"a": value}), keep_changes=True)
    held.append(2)
    with pytest.raises(StateConflict):
        items.changes()


def test_deletion_is_kept_over_what_another_wrote() -> None:
    """A key that was deleted here stays deleted, whatever another has written to it; what it has added is there."""
    items = TrackedItems(stored({"a": 1, "b": 2}), CODEC)
    items.delete("a")
    items.rebase(stored({"a": 7, "b": 2, "c": 3}), keep_changes=True)
    assert set(items.values) == {"b", "c"}
    assert items.deleted == {"a"}
    items.rebase(stored({"b": 2}), keep_changes=True)
    assert items.deleted == set()
