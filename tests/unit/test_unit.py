"""A request's unit keeps what joined it together or not at all, in one order, once."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, Response, request

from flask_stateful import Stateful
from flask_stateful.errors import StoreUnavailable
from flask_stateful.unit import Participant, Step, Unit
from flask_stateful.wiring import wiring_of


class Kind:
    """A kind of state that notes what happens to it.

    :param fails: what of it fails.
    """

    step: t.ClassVar[Step] = Step.SESSION

    def __init__(self, name: str, happened: list[str], *, fails: str = "") -> None:
        self.name = name
        self.happened = happened
        self.fails = fails

    def save(self) -> None:
        self._note("save")

    def discard(self) -> None:
        self._note("discard")

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        self.happened.append(f"{what} {self.name}")
        if what == self.fails:
            raise StoreUnavailable(self.name)


def kind_at(step: int) -> type[Kind]:
    """Return a kind of state that is saved at another step."""
    return type("Other", (Kind,), {"step": step})


@pytest.fixture
def happened() -> list[str]:
    """What has happened, in order."""
    return []


def test_saves_each_once_and_closes_all_afterwards(happened: list[str]) -> None:
    """Saving saves everything that has joined and then closes it; the second time nothing happens."""
    unit = Unit()
    unit.join(Kind("a", happened))
    unit.join(Kind("b", happened))
    unit.save()
    assert unit.closed
    assert happened == ["save a", "save b", "close a", "close b"]
    unit.save()
    unit.discard()
    assert len(happened) == 4


def test_saves_in_the_order_of_the_steps(happened: list[str]) -> None:
    """The step decides what is saved first, and among equals who joined first, whatever the order of joining."""
    unit = Unit()
    for name, step in (("c1", 30), ("a1", 10), ("b1", 20), ("c2", 30), ("a2", 10), ("b2", 20)):
        unit.join(kind_at(step)(name, happened))
    unit.save()
    assert happened[:6] == ["save a1", "save a2", "save b1", "save b2", "save c1", "save c2"]


def test_discards_all_and_closes(happened: list[str]) -> None:
    """Discarding saves nothing, and afterwards neither saving nor discarding does anything."""
    unit = Unit()
    unit.join(Kind("a", happened))
    unit.join(Kind("b", happened))
    unit.discard()
    assert unit.closed
    assert happened == ["discard a", "discard b", "close a", "close b"]
    unit.discard()
    unit.save()
    assert len(happened) == 4


def test_failure_in_the_middle_discards_the_rest(happened: list[str]) -> None:
    """When one fails to be saved, its error is raised, it and those after it are discarded, and all are closed."""
    unit = Unit()
    for name, fails in (("a", ""), ("b", "save"), ("c", "")):
        unit.join(Kind(name, happened, fails=fails))
    with pytest.raises(StoreUnavailable, match="b"):
        unit.save()
    assert unit.closed
    assert happened == ["save a", "save b", "discard b", "discard c", "close a", "close b", "close c"]
    unit.save()
    assert len(happened) == 7


@pytest.mark.parametrize("end", [Unit.save, Unit.discard])
def test_what_joins_too_late_is_left_alone(happened: list[str], end: t.Callable[[Unit], None]) -> None:
    """What joins a unit that has ended is neither saved nor discarded by ending it again."""
    unit = Unit()
    end(unit)
    unit.join(Kind("late", happened))
    unit.save()
    unit.discard()
    assert happened == []


def test_unit_that_nothing_joined_is_closed_all_the_same() -> None:
    """A unit without state can be saved and discarded, and is closed then."""
    for end in (Unit.save, Unit.discard):
        unit = Unit()
        assert not unit.closed
        end(unit)
        assert unit.closed


def test_what_joins_is_not_asked_anything(happened: list[str]) -> None:
    """Joining costs nothing: neither saving nor closing happens before the unit ends."""
    unit = Unit()
    participant: Participant = Kind("a", happened)
    unit.join(participant)
    assert happened == []
    assert not unit.closed


def test_a_participant_that_is_being_saved_may_add_one_of_a_later_step(happened: list[str]) -> None:
    """What joins while the unit is saved is saved in its turn."""
    unit = Unit()

    class Adder(Kind):
        def save(self) -> None:
            super().save()
            unit.join(kind_at(60)("late", happened))

    unit.join(Adder("adder", happened))
    unit.join(kind_at(50)("between", happened))
    unit.save()
    assert unit.ended
    assert happened[:3] == ["save adder", "save between", "save late"]
    assert happened[-1] == "close late"


def test_sends_what_is_outgoing_once_and_in_order() -> None:
    """Each change is done to the response in the order in which it was asked for, and never twice."""
    unit, response = Unit(), Response()
    unit.outgoing.append(lambda response: response.headers.add("X-Done", "a"))
    unit.outgoing.append(lambda response: response.headers.add("X-Done", "b"))
    unit.send(response)
    unit.send(response)
    assert response.headers.getlist("X-Done") == ["a", "b"]


@pytest.mark.parametrize("handled", [True, False])
@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("fails", ["", "save"])
def test_the_response_is_sent_what_is_outgoing_whatever_happens(status: int, fails: str, handled: bool) -> None:
    """Saved, discarded, or failed to save, with an error handler or without: each response has it once."""
    app = Flask(__name__)
    app.config["STATEFUL_STORE"] = "memory://"
    Stateful(app)
    if handled:
        app.register_error_handler(ZeroDivisionError, lambda error: ("handled", 500))

    class Failing(Kind):
        def save(self) -> None:
            if fails:
                raise ZeroDivisionError

    @app.get("/")
    def page() -> tuple[str, int]:
        unit = wiring_of(app).unit_of(request.environ)
        unit.join(Failing("it", []))
        unit.outgoing.append(lambda response: response.headers.add("X-Done", "yes"))
        return "", status

    response = app.test_client().get("/")
    assert response.status_code == (500 if fails and status == 200 else status)
    assert response.headers.getlist("X-Done") == ["yes"]
