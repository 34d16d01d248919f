"""A unit that remembers, goes back, keeps and goes on, next to a model that says what must come of it.

Hypothesis lets a view write every kind of state, remember, go back and keep, in any order. What the view reads, and
what the next request of that browser finds, is what the model says.
"""

from __future__ import annotations

import copy
import typing as t

from flask import Flask, request, session
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_stateful import AppState, CookieState, LocalState, SessionState, Stateful, field
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.unit import Unit
from flask_stateful.wiring import wiring_of

LONG = "x" * 5_000


def _declare() -> t.Any:
    """Declare classes that belong to no other application of this process."""

    class Cart(SessionState):
        items: list[int] = field(default_factory=list)

    class Flags(AppState):
        level: int = 0
        hosts: list[int] = field(default_factory=list)

    class Prefs(LocalState):
        theme: int = 0
        draft: list[int] = field(default_factory=list, mirror=False)

    class Seen(CookieState):
        tour: list[int] = field(default_factory=list)

    return Cart, Flags, Prefs, Seen


Cart, Flags, Prefs, Seen = _declare()


class Places:
    """Every kind of state: how a view writes it, and how it reads it."""

    def __init__(self) -> None:
        self.app = Flask("steps")
        self.app.config.update(SECRET_KEY="x" * 32)
        self.state = state = Stateful(self.app, store=MemoryStore(), declared=[Cart, Flags, Prefs, Seen])
        cart, flags, prefs, seen = Cart(), Flags(), Prefs(), Seen()
        cookies = state.cookies
        self.write: dict[str, t.Callable[[int], t.Any]] = {
            "session": lambda n: session.update(n=n),
            "session list": lambda n: session.setdefault("list", []).append(n),
            "session removed": lambda n: session.pop("n", None),
            "cart": lambda n: cart.items.append(n),
            "level": lambda n: setattr(flags, "level", n),
            "hosts": lambda n: flags.hosts.append(n),
            "theme": lambda n: setattr(prefs, "theme", n),
            "draft": lambda n: prefs.draft.append(n),
            "draft reset": lambda n: state.reset(prefs, "draft"),
            "tour": lambda n: seen.tour.append(n),
            "tour reset": lambda n: state.reset(seen, "tour"),
            "sealed": lambda n: cookies.__setitem__("sealed", n),
            "spilled": lambda n: cookies.set("spilled", [n, LONG], overflow="spill"),
            "signed": lambda n: cookies.signed.set("plain", str(n)) if n % 2 else cookies.signed.delete("plain"),
            "consent": lambda n: state.consent.grant("analytics") if n % 2 else state.consent.withdraw("analytics"),
        }
        self.read: dict[str, t.Callable[[], t.Any]] = {
            "session": lambda: session.get("n"),
            "session list": lambda: session.get("list"),
            "cart": lambda: cart.items,
            "level": lambda: flags.level,
            "hosts": lambda: flags.hosts,
            "theme": lambda: prefs.theme,
            "draft": lambda: prefs.draft,
            "tour": lambda: seen.tour,
            "sealed": lambda: cookies.get("sealed"),
            "spilled": lambda: cookies.get("spilled"),
            "signed": lambda: cookies.signed.get("plain"),
            "consent": lambda: state.consent.has("analytics"),
        }

    def snapshot(self) -> dict[str, t.Any]:
        """Return what a view reads."""
        return copy.deepcopy({name: read() for name, read in self.read.items()})


def modelled(model: dict[str, t.Any], what: str, n: int) -> dict[str, t.Any]:
    """Return what all is after a view has written one kind of state."""
    after = copy.deepcopy(model)
    name = what.removesuffix(" removed").removesuffix(" reset")
    if what.endswith("removed"):
        after[name] = None
    elif what.endswith("reset"):
        after[name] = []
    elif name in ("session list", "cart", "hosts", "draft", "tour"):
        after[name] = [*(after[name] or []), n]
    else:
        after[name] = {"spilled": [n, LONG], "signed": str(n) if n % 2 else None, "consent": n % 2 == 1}.get(name, n)
    return after


class Run:
    """One request: what hypothesis lets its view do, and what the model says of it.

    :param found: what the browser had before.
    """

    def __init__(self, places: Places, steps: list[tuple[str, int]], found: dict[str, t.Any]) -> None:
        self.places = places
        self.steps = steps
        self.now = self.kept = found
        self.marks: list[tuple[t.Callable[[], None], dict[str, t.Any]]] = []

    def view(self) -> None:
        """Do all of it."""
        unit: Unit = wiring_of(self.places.app).unit_of(request.environ)
        for what, n in self.steps:
            if what == "remember":
                self.marks.append((unit.remember(), self.now))
            elif what == "go back":
                self._go_back(looks=n > 5)
            elif what == "keep":
                unit.write()
                unit.settle()
                self.marks, self.kept = [], self.now
            else:
                self.places.write[what](n)
                self.now = modelled(self.now, what, n)

    def _go_back(self, *, looks: bool) -> None:
        if self.marks:
            go_back, self.now = self.marks.pop()
            go_back()
            if looks:
                assert self.places.snapshot() == self.now


def steps_of(places: Places) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Return what views may do."""
    names = [*places.write, *["remember", "go back", "keep"] * 3]
    return st.lists(st.tuples(st.sampled_from(names), st.integers(1, 9)), max_size=12)


PLACES = Places()


def visit(client: FlaskClient, view: t.Callable[[], None], status: int) -> None:
    """Let a request do something and answer with a status."""
    STEPS_LEFT[:] = [view, status]
    response = client.post("/")
    assert response.status_code == status, response.get_data(as_text=True)


STEPS_LEFT: list[t.Any] = []


@PLACES.app.post("/")
def page() -> tuple[str, int]:
    """Do what the test wants."""
    STEPS_LEFT[0]()
    return "", STEPS_LEFT[1]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests=st.lists(st.tuples(steps_of(PLACES), st.sampled_from([200, 500])), min_size=1, max_size=4))
def test_every_kind_of_state_goes_back_and_is_kept(requests: list[tuple[list[tuple[str, int]], int]]) -> None:
    """What a view reads after going back is what it read before; a failing request leaves what was kept, no more."""
    PLACES.app.config["PROPAGATE_EXCEPTIONS"] = True
    client = PLACES.app.test_client()
    found: dict[str, t.Any] = {}
    visit(client, lambda: found.update(PLACES.snapshot()), 200)
    for steps, status in requests:
        run = Run(PLACES, steps, dict(found))
        visit(client, run.view, status)
        visit(client, lambda: found.update(PLACES.snapshot()), 200)
        assert found == (run.now if status == 200 else run.kept)
