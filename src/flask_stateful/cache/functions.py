"""Functions whose results are cached."""

from __future__ import annotations

import functools
import inspect
import typing as t
from collections.abc import Callable

from ..blocks import when_committed
from ..current import get_app
from ..stores.base import Ttl, ttl_seconds
from .call import Call
from .keys import Signature
from .runtime import (
    EXTENSION,
    Consistency,
    Default,
    Runtime,
    require_consistency,
    require_tag,
    unwrap,
    watched,
    watched_async,
)
from .steps import owner, run, run_async
from .values import Codec, codec_for

if t.TYPE_CHECKING:
    from .cache import Cache

P = t.ParamSpec("P")
R_co = t.TypeVar("R_co", covariant=True)


class CachedFunction(t.Protocol[P, R_co]):
    """What :meth:`Cache.memoize` makes of a function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the cached result, or compute it."""
        ...

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Remove the result for these arguments."""

    def forget_all(self) -> None:
        """Invalidate every result of the function: one write."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute the result now and put it in the place of the old one."""
        ...

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself."""
        ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key that the store keeps the result under."""
        ...


class _Plan:
    """What is known about a cached function once it is decorated."""

    def __init__(
        self,
        cache: Cache,
        function: Callable[..., t.Any],
        *,
        ttl: Ttl | Default,
        stale: Ttl,
        tags: tuple[str, ...],
        key: Callable[..., t.Any] | None,
        depends_on: tuple[t.Any, ...] | None,
        consistency: Consistency | None,
    ) -> None:
        self.cache = cache
        self.function = function
        self.signature = Signature(function, key)
        #: What log lines call its results.
        self.name = f"{self.signature.name}()"
        self.codec: Codec = codec_for(_return_annotation(function))
        #: Every result has it, so that one write invalidates them all.
        self.own_tag = f"function {self.signature.name}"
        self._ttl = ttl if isinstance(ttl, Default) else ttl_seconds(ttl)
        self._stale = ttl_seconds(stale) or 0.0
        self._tags = (self.own_tag, *map(require_tag, tags))
        self._depends_on = depends_on
        self._consistency: Consistency | None = require_consistency(consistency, depends_on)

    def call(self, runtime: Runtime, key: str, args: tuple[t.Any, ...], kwargs: dict[str, t.Any]) -> Call:
        """Return the call for a key."""
        arguments = functools.partial(self.signature.arguments, args, kwargs)
        return Call(
            key=key,
            name=self.name,
            codec=self.codec,
            ttl=runtime.ttl if isinstance(self._ttl, Default) else self._ttl,
            stale=self._stale,
            tags=self._tags,
            reading=runtime.reading(self._consistency, self._depends_on, arguments),
        )

    def key(self, args: tuple[t.Any, ...], kwargs: dict[str, t.Any]) -> str:
        """Return the key of a call in the current application."""
        return self.signature.key(self.cache.runtime.storage.namespace, args, kwargs)


def cached_function(cache: Cache, function: Callable[P, R_co], **options: t.Any) -> CachedFunction[P, R_co]:
    """Return a function that caches what another one returns."""
    plan = _Plan(cache, function, **options)
    wrapper: t.Any = _async_wrapper(plan) if inspect.iscoroutinefunction(function) else _wrapper(plan)

    def refresh(*args: t.Any, **kwargs: t.Any) -> t.Any:
        runtime = cache.runtime
        steps = runtime.engine.replace(plan.call(runtime, plan.key(args, kwargs), args, kwargs))
        return unwrap(run(steps, watched(runtime, functools.partial(function, *args, **kwargs)), runtime.later))

    async def refresh_async(*args: t.Any, **kwargs: t.Any) -> t.Any:
        runtime = cache.runtime
        steps = runtime.engine.replace(plan.call(runtime, plan.key(args, kwargs), args, kwargs))
        compute = functools.partial(plan.function, *args, **kwargs)
        return unwrap(await run_async(steps, watched_async(runtime, compute), runtime.later))

    def forget(*args: t.Any, **kwargs: t.Any) -> None:
        storage, key = cache.runtime.storage, plan.key(args, kwargs)
        when_committed(lambda: storage.forget([key]))

    def forget_all() -> None:
        storage = cache.runtime.storage
        when_committed(lambda: storage.invalidate([plan.own_tag]))

    def cache_key(*args: t.Any, **kwargs: t.Any) -> str:
        return plan.key(args, kwargs)

    wrapper.forget = forget
    wrapper.forget_all = forget_all
    wrapper.refresh = refresh_async if inspect.iscoroutinefunction(function) else refresh
    wrapper.uncached = function
    wrapper.cache_key = cache_key
    return t.cast("CachedFunction[P, R_co]", wrapper)


def _wrapper(plan: _Plan) -> Callable[..., t.Any]:
    name, keys = plan.name, plan.signature.known

    @functools.wraps(plan.function)
    def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        # What call() begins with, written out for calls that were made before: to call it all would double a hit.
        try:
            storage = get_app().extensions[EXTENSION].storage
            known = keys[storage.namespace]
            key: str | None = known(*args, **kwargs) if kwargs else known(*args)
        except Exception:  # nothing is known yet, or the arguments are no scalars
            key = held = None
        else:
            held = storage.recall(key, name)
        return call(key, args, kwargs) if held is None else held.value

    def call(key: str | None, args: tuple[t.Any, ...], kwargs: dict[str, t.Any]) -> t.Any:
        runtime = plan.cache.runtime
        if key is None:
            key = plan.key(args, kwargs)
            held = runtime.storage.recall(key, name)
            if held is not None:
                return held.value
        compute = functools.partial(plan.function, *args, **kwargs)
        steps = runtime.engine.plan(plan.call(runtime, key, args, kwargs), owner())
        return unwrap(run(steps, watched(runtime, compute), runtime.later, compute))

    return wrapper


def _async_wrapper(plan: _Plan) -> Callable[..., t.Any]:
    function = plan.function

    @functools.wraps(function)
    async def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        runtime = plan.cache.runtime
        key = plan.signature.key(runtime.storage.namespace, args, kwargs)
        held = runtime.storage.recall(key, plan.name)
        if held is not None:
            return held.value
        compute = functools.partial(function, *args, **kwargs)
        watching = watched_async(runtime, compute)
        steps = runtime.engine.plan(plan.call(runtime, key, args, kwargs), owner())
        return unwrap(await run_async(steps, watching, runtime.later, compute))

    return wrapper


def _return_annotation(function: Callable[..., t.Any]) -> t.Any:
    try:
        return t.get_type_hints(function).get("return")
    except Exception:  # a name that only type checkers can resolve
        return None
