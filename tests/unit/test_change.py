"""What one request did to its session, laid over what is stored."""

from __future__ import annotations

import pytest

from flask_stateful.sealing import Keyring
from flask_stateful.serialization import Raw, dumps
from flask_stateful.sessions.change import PERMANENT, Change, Visitor, is_empty
from flask_stateful.sessions.manager import require_user_id
from flask_stateful.sessions.record import Header, RecordSeal

STORED = {"a": Raw(dumps(1)), "b": Raw(dumps(2)), "c": Raw(dumps(3))}


def applied(change: Change) -> dict[str, bytes]:
    """Return what is stored after a change."""
    return {key: bytes(raw) for key, raw in change.apply(STORED).items()}


def test_nothing_done_changes_nothing() -> None:
    """A change without content leaves every key, in its order, and is false."""
    assert list(applied(Change())) == ["a", "b", "c"]
    assert not Change()


def test_only_what_was_changed_is_touched() -> None:
    """What was assigned replaces, what was deleted goes, and all else stays, in its place."""
    change = Change(assigned={"a": dumps(7), "d": dumps(8)}, deleted={"b", "not there"})
    assert change
    assert list(applied(change).items()) == [("a", dumps(7)), ("c", dumps(3)), ("d", dumps(8))]
    assert list(STORED) == ["a", "b", "c"]


def test_cleared_keeps_only_what_was_assigned_since() -> None:
    """A cleared session has nothing of the stored one."""
    change = Change(assigned={"a": dumps(7)}, cleared=True)
    assert applied(change) == {"a": dumps(7)}
    assert change.moves


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        (Change(assigned={"a": b"\x01"}), False),
        (Change(deleted={"a"}), False),
        (Change(forced=True), False),
        (Change(cleared=True), True),
        (Change(rotated=True), True),
        (Change(login="eve"), True),
    ],
)
def test_every_kind_of_change_counts(change: Change, moves: bool) -> None:
    """Each kind of change is one, and those that need a new id say so."""
    assert change
    assert change.moves is moves


@pytest.mark.parametrize(
    ("items", "user", "expected"),
    [([], None, True), ([PERMANENT], None, True), (["a"], None, False), ([], "ada", False), ([PERMANENT], "0", False)],
)
def test_empty_means_no_key_and_no_user(items: list[str], user: str | None, expected: bool) -> None:
    """A session is worth keeping if it has a user, or a key besides the one that makes it permanent."""
    assert is_empty(items, user) is expected


def test_longest_parts_fit_into_a_record() -> None:
    """However long address, browser name and user id are, the record has room for them."""
    visitor = Visitor.of({"REMOTE_ADDR": "1" * 70_000, "HTTP_USER_AGENT": "ä" * 70_000})
    user_id = require_user_id("ü" * 512)
    header = Header(b"handle", user_id, 0.0, 0.0, 1.5, visitor.ip, visitor.user_agent)
    seal = RecordSeal(Keyring("secret"), token="token", key="key")
    assert seal.open(seal.seal(header, {})).header == header
    assert visitor.user_agent == "ä" * 200


@pytest.mark.parametrize("environ", [{}, {"REMOTE_ADDR": None, "HTTP_USER_AGENT": None}, {"REMOTE_ADDR": ""}])
def test_unknown_visitor_has_empty_names(environ: dict[str, str | None]) -> None:
    """Where a server knows neither address nor browser, both are empty."""
    assert Visitor.of(environ) == Visitor("", "")


@pytest.mark.parametrize("user_id", ["ada", "x" * 1024, 7, -1, 0])
def test_user_ids_become_text(user_id: str | int) -> None:
    """A user's id is text or a whole number, and is kept as text."""
    assert require_user_id(user_id) == str(user_id)


@pytest.mark.parametrize(
    ("user_id", "error", "words"),
    [
        (None, TypeError, "must be str or int, not NoneType; write login"),
        (True, TypeError, "not bool"),
        (1.0, TypeError, "not float"),
        (b"ada", TypeError, "not bytes"),
        (object(), TypeError, "not object"),
        ("", ValueError, "must not be empty"),
        ("x" * 1025, ValueError, "at most 1,024 UTF-8 bytes"),
        ("ü" * 513, ValueError, "at most 1,024 UTF-8 bytes"),
        ("\ud800", ValueError, "UTF-8"),
    ],
)
def test_wrong_user_ids_are_refused(user_id: object, error: type[Exception], words: str) -> None:
    """What cannot be a user's id, or is longer than a record has room for, is an error that says what to write."""
    with pytest.raises(error, match=words):
        require_user_id(user_id)
