"""``state.cache``."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Callable, Generator, Iterable, Mapping

from ..blocks import current_block, when_committed
from ..current import get_app
from ..locks import StoreLock
from ..stores.base import Ttl, ttl_seconds
from .call import Call
from .functions import CachedFunction, cached_function
from .keys import canonical, store_key
from .rules import ViewRules
from .runtime import (
    DEFAULT,
    EXTENSION,
    Consistency,
    Default,
    Runtime,
    require_consistency,
    require_tables,
    require_tag,
    require_vary,
    unwrap,
    watched,
)
from .steps import owner, run
from .tags import EVERYTHING
from .values import PLAIN
from .views import cached_view

P = t.ParamSpec("P")
R = t.TypeVar("R")


class Cache:
    """Values that are computed once, kept in memory and in a store, and never served after they were invalidated.

    Every call needs an application context.

    :param make_runtime: returns what the current application's cache works with, where it is not made yet.
    """

    def __init__(self, make_runtime: Callable[[], Runtime]) -> None:
        self._make_runtime = make_runtime

    # Values under a key of one's own

    def get(self, key: t.Any, default: t.Any = None) -> t.Any:
        """Return the value of a key, or the default where there is none, or none can be had.

        :param key: text, a number, a tuple of such: whatever an argument of a cached function can be.
        """
        # What self.runtime and value_key() begin with, written out: two calls more count for a hit.
        try:
            runtime = get_app().extensions[EXTENSION]
        except KeyError:
            runtime = self.runtime
        store_key = (runtime.text_keys.get(key) if type(key) is str else None) or runtime.value_key(key)
        held = runtime.storage.recall(store_key)
        if held is None:
            held = runtime.storage.find_one(Call(key=store_key, codec=PLAIN))
        return default if held is None else held.value

    def get_many(self, keys: Iterable[t.Any]) -> dict[t.Any, t.Any]:
        """Return the values of those keys that have one, and can be had; what memory lacks is asked for at once."""
        runtime = self.runtime
        calls = {key: self._call(runtime, key) for key in keys}
        found = runtime.storage.find(calls.values())
        return {key: found[call.key].value for key, call in calls.items() if call.key in found}

    def set(
        self, key: t.Any, value: t.Any, ttl: Ttl | Default = DEFAULT, *, stale: Ttl = None, tags: Iterable[str] = ()
    ) -> None:
        """Write a value.

        :param ttl: seconds or a timedelta that it is fresh; ``None`` for ever; ``STATEFUL_CACHE_TTL`` by default.
        :param stale: seconds or a timedelta after that, during which ``get_or_set()`` may still serve it.
        :param tags: names with which it can be invalidated together with others.
        :raises StoreError: if the store fails.
        """
        runtime = self.runtime
        call, value = self._call(runtime, key, ttl=ttl, stale=stale, tags=tags), _as_it_is(value)
        when_committed(lambda: runtime.storage.set(call, value))

    def set_many(
        self, values: Mapping[t.Any, t.Any], ttl: Ttl | Default = DEFAULT, *, tags: Iterable[str] = ()
    ) -> None:
        """Write several values, in two exchanges with the store.

        :raises StoreError: if the store fails; some of them may be written then.
        """
        runtime, tags = self.runtime, tuple(tags)
        calls = {self._call(runtime, key, ttl=ttl, tags=tags): _as_it_is(value) for key, value in values.items()}
        when_committed(lambda: runtime.storage.set_many(calls))

    def add(self, key: t.Any, value: t.Any, ttl: Ttl | Default = DEFAULT, *, tags: Iterable[str] = ()) -> bool:
        """Write a value only where there is none; tell whether this call wrote it."""
        runtime = self.runtime
        return runtime.storage.add(self._call(runtime, key, ttl=ttl, tags=tags), value)

    def delete(self, key: t.Any) -> None:
        """Remove a value. Whoever is computing it will not write it."""
        self.delete_many([key])

    def delete_many(self, keys: Iterable[t.Any]) -> None:
        """Remove several values."""
        runtime = self.runtime
        these = [runtime.value_key(key) for key in keys]
        when_committed(lambda: runtime.storage.forget(these))

    def touch(self, key: t.Any, ttl: Ttl | Default = DEFAULT) -> bool:
        """Give a value a new ttl, from now on; tell whether there was one."""
        runtime = self.runtime
        call = self._call(runtime, key, ttl=ttl)
        if current_block.get() is None:
            return runtime.storage.touch(call)
        when_committed(lambda: runtime.storage.touch(call))
        return runtime.storage.find_one(call) is not None

    def incr(self, key: t.Any, by: int = 1, *, ttl: Ttl = None) -> int:
        """Add to a counter, which begins at 0, and return what it is then.

        :param ttl: seconds or a timedelta that the counter lives from when it begins; ``None`` for ever.
        """
        runtime = self.runtime
        return runtime.storage.incr(runtime.value_key(key), by, ttl)

    def get_or_set(
        self,
        key: t.Any,
        factory: Callable[[], R],
        ttl: Ttl | Default = DEFAULT,
        *,
        stale: Ttl = None,
        tags: Iterable[str] = (),
    ) -> R:
        """Return the value of a key; where there is none, compute it once, however many ask.

        :param factory: computes the value.
        :param ttl: seconds or a timedelta that it is fresh.
        :param stale: seconds or a timedelta after that, during which the old value is served while one caller
            refreshes it, or when refreshing fails.
        :param tags: names with which it can be invalidated together with others.
        """
        runtime = self.runtime
        call = self._call(runtime, key, ttl=ttl, stale=stale, tags=tags)
        held = runtime.storage.recall(call.key)
        if held is not None:
            return t.cast("R", held.value)
        value = run(runtime.engine.plan(call, owner()), watched(runtime, factory), runtime.later, factory)
        return t.cast("R", unwrap(value))

    # Functions

    def memoize(
        self,
        ttl: Ttl | Default = DEFAULT,
        *,
        stale: Ttl = None,
        tags: Iterable[str] = (),
        key: Callable[..., t.Any] | None = None,
        depends_on: Iterable[t.Any] | None = None,
        consistency: Consistency | None = None,
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Cache what a function returns, for each set of arguments.

        :param ttl: seconds or a timedelta that a result is fresh; ``None`` for ever.
        :param stale: seconds or a timedelta after that, during which the old result is served while one caller
            refreshes it, or when refreshing fails.
        :param tags: names with which the results can be invalidated together with others.
        :param key: called with the arguments, returns what to tell calls apart by instead of them.
        :param depends_on: what of the application's database the results are made from, instead of the tables that the
            function is found to read: models, tables, names of tables, and ``state.row(User, "user_id")``.
        :param consistency: ``"exact"`` never serves a result after a commit to a table that it was made from, which is
            so by itself with ``db=``; ``"ttl"`` serves it until its ttl is over.
        """
        named = require_tables(depends_on)

        def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
            return cached_function(
                self,
                function,
                ttl=ttl,
                stale=stale,
                tags=tuple(tags),
                key=key,
                depends_on=named,
                consistency=consistency,
            )

        return decorate

    # Views

    def view(
        self,
        ttl: Ttl | Default = DEFAULT,
        *,
        stale: Ttl = None,
        query: Iterable[str] | None = None,
        vary: Iterable[str | Callable[[], t.Any]] = (),
        tags: Iterable[str] = (),
        unless: Callable[[], t.Any] | None = None,
        missing_ttl: Ttl = None,
        front: bool = False,
        depends_on: Iterable[t.Any] | None = None,
        consistency: Consistency | None = None,
    ) -> Callable[[Callable[..., t.Any]], t.Any]:
        """Cache the answers of a view, for each address.

        Only full answers with status 200 to ``GET`` are stored, and only those that are the same for everybody: what
        was made after reading a cookie or a session key that ``vary`` does not cover is not.

        :param ttl: seconds or a timedelta that an answer is fresh; ``None`` for ever.
        :param stale: seconds or a timedelta after that, during which the old answer is served while one request
            refreshes it.
        :param query: the query arguments that tell answers apart; all of them by default.
        :param vary: what else tells answers apart: ``"user"``, ``"session"``, ``"cookie:NAME"``, ``"header:NAME"``, or
            functions that return a value.
        :param tags: names with which the answers can be invalidated together with others.
        :param unless: called for each request; if it returns something true, the view answers itself.
        :param missing_ttl: seconds or a timedelta that an answer with status 404 or 410 is fresh; such answers are not
            stored by default.
        :param front: answer hits before Flask is entered, so that neither ``before_request`` functions nor login checks
            run: only ``GET`` and ``HEAD`` without ``Cookie`` and ``Authorization``, and only from the process's memory;
            not those that are made from the database.
        :param depends_on: as for :meth:`memoize`; the arguments are those of the view.
        :param consistency: as for :meth:`memoize`.
        :raises ValueError: if ``front`` goes with ``vary`` or ``unless``, which only Flask can ask for.
        """
        vary = tuple(map(require_vary, vary))
        if front and (vary or unless is not None):
            raise ValueError("front=True answers before vary= and unless= can be asked; leave out one of them")
        rules = ViewRules(
            ttl=ttl if isinstance(ttl, Default) else ttl_seconds(ttl),
            stale=ttl_seconds(stale) or 0.0,
            query=None if query is None else tuple(query),
            vary=vary,
            tags=tuple(map(require_tag, tags)),
            unless=unless,
            missing_ttl=ttl_seconds(missing_ttl),
            front=front,
            depends_on=require_tables(depends_on),
            consistency=require_consistency(consistency, depends_on),
        )
        return lambda view: cached_view(self, view, rules)

    # All at once

    def invalidate_tags(self, *tags: str) -> None:
        """Invalidate every value that has one of these tags: one write, however many they are."""
        these, storage = list(map(require_tag, tags)), self.runtime.storage
        when_committed(lambda: storage.invalidate(these))

    def clear(self) -> None:
        """Invalidate every value of this application: one write, however many they are."""
        storage = self.runtime.storage
        when_committed(lambda: storage.invalidate([EVERYTHING]))

    @contextlib.contextmanager
    def lock(self, name: t.Any, *, ttl: float = 30, timeout: float = 5) -> Generator[None]:
        """Let one caller at a time, of all processes, do something.

        :param ttl: seconds after which another may have it, should the holder be killed.
        :param timeout: seconds to wait for it.
        :raises LockTimeout: if it was not free in time.
        """
        runtime = self.runtime
        key = store_key(runtime.storage.namespace, "lock", "", canonical(name))
        busy = f"the lock was held by another for {timeout:g} seconds; hold it for less time or raise lock(timeout=)"
        lock = StoreLock(runtime.storage.store, key, busy, timeout=timeout, lease=ttl)
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @property
    def stats(self) -> dict[str, int]:
        """How often what has happened in this process, and how much it holds in memory."""
        return self.runtime.stats

    @property
    def runtime(self) -> Runtime:
        """What the current application's cache works with."""
        runtime: Runtime | None = get_app().extensions.get(EXTENSION)
        return runtime or self._make_runtime()

    def _call(
        self, runtime: Runtime, key: t.Any, *, ttl: Ttl | Default = DEFAULT, stale: Ttl = None, tags: Iterable[str] = ()
    ) -> Call:
        return Call(
            key=runtime.value_key(key),
            codec=PLAIN,
            ttl=runtime.ttl if isinstance(ttl, Default) else ttl_seconds(ttl),
            stale=ttl_seconds(stale) or 0.0,
            tags=tuple(map(require_tag, tags)),
            reading=runtime.reading(),
        )


def _as_it_is(value: t.Any) -> t.Any:
    """Return a value that an atomic block writes later; what is changed in it until then is not written."""
    return value if current_block.get() is None else PLAIN.decode(PLAIN.encode(value))
