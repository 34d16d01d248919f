"""Cached functions, and values under keys of one's own."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import typing as t
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from flask import Flask, session
from markupsafe import Markup

from flask_stateful import Stateful
from flask_stateful.errors import EncodeError, StoreUnavailable
from flask_stateful.serialization import MISSING
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore
from flask_stateful.testing.conformance.crowd import eventually

from .conftest import PATIENCE, MakeApp


class Counted:
    """Counts its calls."""

    def __init__(self, result: t.Any = None) -> None:
        self.calls = 0
        self.result = result

    def __call__(self) -> t.Any:
        self.calls += 1
        if isinstance(self.result, Exception):
            raise self.result
        return {"call": self.calls} if self.result is None else self.result


def memoized(state: Stateful, counted: Counted, **options: t.Any) -> t.Any:
    @state.cache.memoize(**options)
    def function(a: t.Any, b: t.Any = 2) -> t.Any:
        return counted()

    return function


@pytest.mark.usefixtures("app")
def test_result_is_computed_once_for_each_key(state: Stateful) -> None:
    """The same call does not compute again, in whatever way it is written; another one does."""
    counted = Counted()
    function = memoized(state, counted)
    assert function(1) == function(1, 2) == function(b=2, a=1) == {"call": 1}
    assert function(True) == {"call": 2}
    assert function.uncached(1) == {"call": 3}


@pytest.mark.usefixtures("app")
def test_calls_that_only_look_alike_are_told_apart(state: Stateful) -> None:
    """Each has a result of its own, also where Python says that the arguments are equal, and when asked for again."""
    function = memoized(state, Counted())
    alike: list[t.Any] = [1, True, 1.0, "1", b"1", Decimal(1), (1,), (True,), [1], [True], 0.0, -0.0, None]
    results = [(function(value)["call"], function(value, b=value)["call"]) for value in alike]
    assert len({call for calls in results for call in calls}) == 2 * len(alike)
    assert [(function(value)["call"], function(value, b=value)["call"]) for value in alike] == results


@pytest.mark.usefixtures("app")
def test_key_is_asked_for_at_each_call(state: Stateful) -> None:
    """What key= returns may depend on more than the arguments: nobody is served what is another's."""
    current = ["de"]
    function = memoized(state, Counted(), key=lambda a: (a, current[0]))
    assert (function(1), function(1)) == ({"call": 1}, {"call": 1})
    current[0] = "en"
    assert (function(1), function(1)) == ({"call": 2}, {"call": 2})
    current[0] = "de"
    assert function(1) == {"call": 1}


@pytest.mark.usefixtures("app")
def test_keys_that_only_look_alike_are_told_apart(state: Stateful) -> None:
    """A value under plain text is not found under text of another kind, nor the other way round."""
    alike: list[t.Any] = ["1", Markup("1"), b"1", 1, True]
    for _ in range(2):
        for number, key in enumerate(alike):
            state.cache.set(key, number)
        assert [state.cache.get(key) for key in alike] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, (), b""])
def test_empty_results_are_cached(state: Stateful, value: t.Any) -> None:
    """None and other empty values are results like any other."""
    assert state.cache.get_or_set("key", lambda: value) == value
    assert state.cache.get_or_set("key", lambda: pytest.fail("computed again")) == value
    assert type(state.cache.get("key", MISSING)) is type(value)


@pytest.mark.usefixtures("app")
def test_results_come_back_as_they_were(state: Stateful) -> None:
    """Types survive, and nobody's change to a result is seen by the next."""
    value = {"tuple": (1, {2}), "when": timedelta(1), "list": [1]}
    function = memoized(state, Counted(copy.deepcopy(value)))
    function(1)["list"].append(2)
    assert function(1) == value
    assert type(function(1)["tuple"]) is tuple


@dataclasses.dataclass(frozen=True)
class Product:
    name: str
    tags: tuple[str, ...]


@pytest.mark.usefixtures("app")
def test_annotated_records_come_back_as_themselves(state: Stateful) -> None:
    """A dataclass in the return annotation is rebuilt."""

    @state.cache.memoize()
    def products() -> list[Product]:
        return [Product("tea", ("hot",))]

    assert products() == products() == [Product("tea", ("hot",))]


def test_result_expires(state: Stateful, app: Flask, clock: FakeClock) -> None:
    """A result is fresh until its ttl has passed, whatever the store."""
    function = memoized(state, Counted(), ttl=60)
    assert function(1) == {"call": 1}
    clock.advance(59)
    assert function(1) == {"call": 1}
    clock.advance(1)
    assert function(1) == {"call": 2}


@pytest.mark.usefixtures("app")
def test_forgetting(state: Stateful) -> None:
    """forget() takes one result, forget_all() the function's, invalidate_tags() a tag's, clear() all of them."""
    one = memoized(state, Counted(), tags=["posts"])
    one(1), one(2)
    one.forget(1)
    assert (one(1), one(2)) == ({"call": 3}, {"call": 2})
    one.forget_all()
    assert (one(1), one(2)) == ({"call": 4}, {"call": 5})
    state.cache.invalidate_tags("unknown")
    assert one(1) == {"call": 4}
    state.cache.invalidate_tags("posts")
    assert one(1) == {"call": 6}
    state.cache.clear()
    assert one(1) == {"call": 7}


@pytest.mark.usefixtures("app")
def test_refresh_replaces_the_result(state: Stateful) -> None:
    """refresh() computes now, and everybody gets the new result."""
    function = memoized(state, Counted())
    assert (function(1), function.refresh(1), function(1)) == ({"call": 1}, {"call": 2}, {"call": 2})


@pytest.mark.usefixtures("app")
def test_refresh_of_a_coroutine_function(state: Stateful) -> None:
    """refresh() of a coroutine function is awaited, and replaces the result."""
    counted = Counted()

    @state.cache.memoize()
    async def function() -> t.Any:
        return counted()

    async def visit() -> list[t.Any]:
        return [await function(), await function.refresh(), await function()]

    assert asyncio.run(visit()) == [{"call": 1}, {"call": 2}, {"call": 2}]


def test_refresh_made_of_one_visitors_state_is_not_kept(state: Stateful, app: Flask) -> None:
    """L3: refreshing while the function reads the session gives the result to the caller alone."""

    @state.cache.memoize()
    def greeting() -> str:
        return f"Hello {session.get('name')}"

    with app.test_request_context():
        session["name"] = "Ada"
        assert greeting.refresh() == "Hello Ada"
    with app.test_request_context():
        assert greeting() == "Hello None"


@pytest.mark.usefixtures("app")
def test_refresh_that_an_invalidation_overtakes_is_not_kept(state: Stateful) -> None:
    """S2: what was being computed by refresh() when it was invalidated is not served after that."""
    overtake: list[Callable[[], None]] = []
    counted = Counted()

    @state.cache.memoize(tags=["tag"])
    def function() -> t.Any:
        value = counted()
        if overtake:
            overtake.pop()()
        return value

    for invalidate in (function.forget, function.forget_all, lambda: state.cache.invalidate_tags("tag")):
        for present in (True, False):
            if present:
                function()
            else:
                function.forget()
            overtake.append(invalidate)
            made = function.refresh()["call"]
            assert function() == {"call": made + 1}


def test_forgetting_is_seen_by_other_processes(make_app: MakeApp, open_again: Callable[[], Store]) -> None:
    """S2: what one application forgets, another with the same store serves no more, not even from its memory."""
    states = [Stateful(), Stateful()]
    stores = [open_again() for _ in states]
    apps = [make_app(state, store) for state, store in zip(states, stores, strict=True)]
    # On one machine that is so at once; from a server, the other has to hear of it first.
    patience = PATIENCE if stores[0].remote else 0
    for invalidate in (
        lambda cache: cache.delete("key"),
        lambda cache: cache.invalidate_tags("tag"),
        lambda cache: cache.clear(),
        lambda cache: cache.set("key", "new"),
    ):
        with apps[0].app_context():
            states[0].cache.set("key", "old", tags=["tag"])
        for app, state in zip(apps, states, strict=True):
            with app.app_context():
                assert [state.cache.get("key"), state.cache.get("key")] == ["old", "old"]
        with apps[0].app_context():
            invalidate(states[0].cache)
        with apps[1].app_context():
            assert eventually(lambda: states[1].cache.get("key") != "old", patience)


@pytest.mark.usefixtures("app")
def test_values_of_ones_own(state: Stateful) -> None:
    """set, get, add, delete, touch, incr and their plurals do what they say."""
    cache = state.cache
    assert cache.get("key", "default") == "default"
    cache.set("key", [1])
    cache.set(("key", 1), "tuple")
    assert cache.get_many(["key", ("key", 1), "missing"]) == {"key": [1], ("key", 1): "tuple"}
    assert (cache.get("key"), cache.get(("key", 1))) == ([1], "tuple")
    assert not cache.add("key", 2)
    cache.delete("key")
    assert cache.add("key", 2)
    assert cache.get("key") == 2
    cache.set_many({"a": 1, "b": 2})
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    cache.delete_many(["a", "b"])
    assert cache.get_many(["a", "b"]) == {}
    assert (cache.incr("n"), cache.incr("n", 5), cache.get("n")) == (1, 6, 6)
    assert not cache.touch("missing")


def test_touch_gives_a_new_ttl(state: Stateful, app: Flask, clock: FakeClock) -> None:
    """A touched value lives on from then."""
    state.cache.set("key", 1, ttl=10)
    clock.advance(9)
    assert state.cache.touch("key", ttl=10)
    clock.advance(9)
    assert state.cache.get("key") == 1
    clock.advance(1)
    assert state.cache.get("key") is None


@pytest.mark.usefixtures("app")
def test_what_cannot_be_encoded_is_an_error_in_testing(state: Stateful) -> None:
    """N4: in debugging and testing, the error names the type."""
    with pytest.raises(EncodeError, match="object"):
        memoized(state, Counted(object()))(1)


def test_what_cannot_be_encoded_is_returned_in_production(make_app: MakeApp, state: Stateful, store: Store) -> None:
    """N4: in production, the caller gets the value; it is not stored, and counted."""
    app = make_app(state, store)
    app.testing = False
    counted = Counted(object())
    with app.app_context():
        function = memoized(state, counted)
        assert function(1) is function(1) is counted.result
        assert (counted.calls, state.cache.stats["unencodable"]) == (2, 2)


@pytest.mark.usefixtures("app")
def test_error_reaches_the_caller_and_is_not_cached(state: Stateful) -> None:
    """A function that raises raises again, and the next call tries anew."""
    counted = Counted(ValueError("broken"))
    function = memoized(state, counted)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            function(1)
    assert counted.calls == 2
    counted.result = "mended"
    assert function(1) == "mended"


def test_stale_result_is_served_while_one_refreshes(
    state: Stateful, app: Flask, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past its ttl the old result is served, one refresh is begun, and it is nobody's wait."""
    later: list[Callable[[], object]] = []
    monkeypatch.setattr(state.cache.runtime, "later", later.append)
    counted = Counted()
    function = memoized(state, counted, ttl=60, stale=30)
    function(1)
    clock.advance(61)
    assert [function(1), function(1)] == [{"call": 1}, {"call": 1}]
    assert (len(later), counted.calls) == (1, 1)
    later.pop()()
    assert (function(1), counted.calls) == ({"call": 2}, 2)
    clock.advance(90)
    assert function(1) == {"call": 3}


def test_stale_result_is_served_when_refreshing_fails(
    state: Stateful, app: Flask, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh that raises leaves the old result, and is not repeated at once."""
    later: list[Callable[[], object]] = []
    monkeypatch.setattr(state.cache.runtime, "later", later.append)
    counted = Counted()
    function = memoized(state, counted, ttl=60, stale=600)
    function(1)
    counted.result = ValueError("broken")
    clock.advance(61)
    function(1)
    later.pop()()
    assert function(1) == {"call": 1}
    assert not later
    clock.advance(11)
    assert (function(1), len(later)) == ({"call": 1}, 1)


def test_stale_is_not_served_after_an_invalidation(state: Stateful, app: Flask, clock: FakeClock) -> None:
    """S2: what was invalidated is not served, however long it might be stale."""
    function = memoized(state, Counted(), ttl=60, stale=600)
    function(1)
    state.cache.clear()
    assert function(1) == {"call": 2}
    clock.advance(61)
    function.forget(1)
    assert function(1) == {"call": 3}


def test_result_made_of_one_visitors_state_is_not_cached(state: Stateful, app: Flask) -> None:
    """L3: a function that reads the session is called for each visitor."""

    @state.cache.memoize()
    def greeting() -> str:
        return f"Hello {session.get('name')}"

    for name in ("Ada", "Grace"):
        with app.test_request_context():
            session["name"] = name
            assert greeting() == f"Hello {name}"


@pytest.mark.usefixtures("app")
def test_gathered_coroutines_compute_once(state: Stateful) -> None:
    """M15: a coroutine function is cached, and a gather over one key computes once."""
    counted = Counted()

    @state.cache.memoize()
    async def function(a: int) -> t.Any:
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0)
        return counted()

    async def gather() -> list[t.Any]:
        return await asyncio.gather(*(function(1) for _ in range(5)))

    assert asyncio.run(gather()) == [{"call": 1}] * 5
    assert asyncio.run(gather()) == [{"call": 1}] * 5


@pytest.mark.usefixtures("app")
def test_methods_are_keyed_by_the_identity_of_their_instance(state: Stateful) -> None:
    """M8: two instances with two identities have two results, a new one with an old identity has the old one."""

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        def __cache_key__(self) -> str:
            return self.name

        @state.cache.memoize(key=lambda self: self.name)
        def title(self) -> str:
            return f"Shop {self.name}"

    assert (Shop("a").title(), Shop("b").title(), Shop("a").title()) == ("Shop a", "Shop b", "Shop a")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": 0}, "ttl must be more than 0"),
        ({"ttl": -1}, "ttl must be more than 0"),
        ({"ttl": float("nan")}, "ttl must be more than 0"),
        ({"ttl": "60"}, "ttl must be seconds"),
        ({"tags": [1]}, "a tag must be str"),
        ({"tags": [""]}, "a tag must not be empty"),
    ],
)
def test_wrong_options_are_errors_at_decoration(state: Stateful, options: dict[str, t.Any], error: str) -> None:
    """A wrong option is an error that says what is right, before anything is called."""
    with pytest.raises((TypeError, ValueError), match=error):
        memoized(state, Counted(), **options)


@pytest.mark.usefixtures("app")
def test_damaged_entry_is_computed_anew(state: Stateful, store: Store) -> None:
    """M5: an entry that cannot be decoded, of whatever make, is a miss once, and then repaired."""
    function = memoized(state, Counted())
    for damage in (b"", b"\x01", b"\x01e", b"\x01e\xc1", b"\x80\x04\x95pickle", b"\x01e" + b"\x00" * 50, b"text"):
        function.forget(1)
        before = function(1)["call"]
        store.set(function.cache_key(1), damage)
        state.cache.runtime.storage.layer.changed([function.cache_key(1)])
        assert function(1) == function(1) == {"call": before + 1}


def test_every_flipped_bit_is_a_miss(state: Stateful, make_app: MakeApp) -> None:
    """A value that was damaged anywhere, or cut anywhere, is not served: neither as it was nor as another one."""
    store = MemoryStore()
    with make_app(state, store, STATEFUL_CACHE_MEMORY=0).app_context():
        state.cache.set("key", "value")
        (key,) = store.scan("shop:cache:")
        data = store.get(key)
        assert data is not None
        number = int.from_bytes(data, "big")
        wrong = [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in range(len(data) * 8)]
        for damaged in [*wrong, *(data[:length] for length in range(len(data))), data + b"\0"]:
            store.set(key, damaged)
            assert state.cache.get("key", "nothing") == "nothing"
        store.set(key, data)
        assert state.cache.get("key") == "value"


@pytest.mark.usefixtures("app")
def test_entry_of_another_key_is_not_served(state: Stateful, store: Store) -> None:
    """An entry that turns up under another key is a miss."""
    function = memoized(state, Counted())
    function(1)
    data = store.get(function.cache_key(1))
    assert data is not None
    store.set(function.cache_key(2), data)
    assert function(2) == {"call": 2}


def test_invalidation_that_cannot_be_told_is_an_error_and_repeated(
    make_app: MakeApp, state: Stateful, store: Store
) -> None:
    """S2: a store that fails while something is forgotten raises; before it is used again, that is done."""
    faulty = FaultyStore(store)
    with make_app(state, faulty).app_context():
        function = memoized(state, Counted())
        function(1)
        for forget in (lambda: function.forget(1), function.forget_all, state.cache.clear):
            before = function(1)["call"]
            faulty.fail("unavailable")
            with pytest.raises(StoreUnavailable):
                forget()
            assert function(1) == {"call": before + 1}
            faulty.mend()
            assert function(1) == {"call": before + 2}
