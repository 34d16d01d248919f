"""What the cache of one application works with."""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager

from flask import has_request_context, request

from .. import clock
from ..errors import ConfigError
from ..stores.forks import tell_of_forks
from ..unit import Unit
from .background import Background
from .engine import Engine
from .front import Front
from .keys import value_key
from .steps import Later, Private
from .tables import Arguments, Reading

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: For how many seconds, and for how many keys.
_PASS: t.Final = 60.0
_MAX_PASSES: t.Final = 4096


#: How true a cached value is to the tables it was made from: until the next commit to one of them, or until its ttl.
Consistency: t.TypeAlias = t.Literal["exact", "ttl"]


#: Where an application's ``extensions`` have what its cache works with, once it was asked for.
EXTENSION: t.Final = "stateful.cache"

#: How many keys that are text are kept at hand.
_MOST_TEXTS: t.Final = 4096


class Default:
    """The type of :data:`DEFAULT`."""

    def __repr__(self) -> str:
        return "STATEFUL_CACHE_TTL"


#: The ttl that the settings give.
DEFAULT: t.Final = Default()


class Runtime:
    """What the cache of one application works with.

    :param ttl: seconds that a value is fresh unless its call says otherwise.
    :param unit_of: returns the unit of the request with an environ.
    :param vary_value: returns what a view varies by, such as ``"user"``.
    :param front: answers pages before Flask is entered.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        ttl: float,
        background: Background,
        unit_of: Callable[[WSGIEnvironment], Unit],
        vary_value: Callable[[str], t.Any],
        front: Front,
    ) -> None:
        self.engine = engine
        self.storage = engine.storage
        self.ttl = ttl
        self.later: Later = background.later
        self.unit_of = unit_of
        self.vary_value = vary_value
        self.front = front
        #: Keys whose answers may not be stored, and until when nobody tries: they need not wait for one another.
        self.passes: dict[str, float] = {}
        #: The store keys of values whose own keys are text, of the very type ``str``.
        self.text_keys: dict[str, str] = {}
        self._background = background
        tell_of_forks(self)

    def reading(
        self,
        consistency: Consistency | None = None,
        depends_on: Iterable[t.Any] | None = None,
        arguments: Arguments | None = None,
    ) -> Callable[[], AbstractContextManager[Reading]] | None:
        """Return what notes which tables a value is made from, or ``None`` where nobody wants to know.

        :raises ConfigError: if it is asked for, and the application has named no database.
        """
        tables = self.storage.tables
        if consistency == "ttl":
            return None if tables is None else tables.committed
        if tables is None:
            if consistency is not None or depends_on is not None:
                raise ConfigError(
                    "consistency= and depends_on= need the application's database; write Stateful(app, db=db)"
                )
            return None
        return functools.partial(tables.reading, depends_on, arguments, exact=consistency == "exact")

    def value_key(self, key: t.Any) -> str:
        """Return the store key of a value under a key of the application's own."""
        if type(key) is not str:
            return value_key(self.storage.namespace, key)
        found = self.text_keys.get(key)
        if found is None:
            if len(self.text_keys) >= _MOST_TEXTS:
                self.text_keys.clear()
            found = self.text_keys[key] = value_key(self.storage.namespace, key)
        return found

    @property
    def stats(self) -> dict[str, int]:
        """How often what has happened in this process, and how much it holds in memory."""
        memory = self.storage.layer.memory
        held = {"memory_bytes": memory.bytes, "memory_entries": len(memory)} if memory is not None else {}
        return {**self.storage.events.counters, **held}

    def unit(self) -> Unit:
        """Return the unit of the current request; outside of one, a unit that nobody asks."""
        return self.unit_of(request.environ) if has_request_context() else Unit()

    def before_fork(self) -> None:
        """Do nothing: the locks are only ever held for moments."""

    def after_fork_in_parent(self) -> None:
        """Do nothing: the parent goes on as it was."""

    def after_fork_in_child(self) -> None:
        """Begin anew, without the threads that were computing, and what they may have held."""
        self._background.renew()
        self.engine.renew()

    def pass_by(self, key: str) -> None:
        """Let calls for a key go straight to the view for a while."""
        if len(self.passes) >= _MAX_PASSES:
            self.passes.clear()
        self.passes[key] = clock.monotonic() + _PASS


def require_consistency(consistency: Consistency | None, depends_on: object) -> Consistency | None:
    """Return a consistency, or raise where it is none that we know.

    :raises ValueError: if it is neither ``"exact"`` nor ``"ttl"``, or ``"ttl"`` with tables that nobody would look at.
    """
    if consistency not in (None, "exact", "ttl"):
        raise ValueError(f'consistency= takes "exact" and "ttl", not {consistency!r}')
    if consistency == "ttl" and depends_on is not None:
        raise ValueError('consistency="ttl" looks at no tables; leave out depends_on=, or write consistency="exact"')
    return consistency


def require_tables(depends_on: object) -> tuple[t.Any, ...] | None:
    """Return what a value depends on; what the items are is looked at when the models are mapped.

    :raises TypeError: if it is one thing, and no list.
    """
    if depends_on is None:
        return None
    if isinstance(depends_on, (str, type)) or not isinstance(depends_on, Iterable):
        raise TypeError("depends_on= takes a list of models, tables and names; write depends_on=[Post]")
    items = t.cast("t.Any", depends_on)
    return tuple(items)


def require_tag(tag: object) -> str:
    """Return a tag, or raise where it cannot be one.

    :raises TypeError: if it is not text.
    :raises ValueError: if it is empty.
    """
    if not isinstance(tag, str):
        raise TypeError(f'a tag must be str, not {type(tag).__name__}; write tags=["posts"]')
    if not tag:
        raise ValueError('a tag must not be empty; write tags=["posts"]')
    return tag


def require_vary(vary: object) -> t.Any:
    """Return what a view varies by, or raise where it is nothing that we know.

    :raises ValueError: if it is text of another form.
    """
    if callable(vary) or vary in ("user", "session"):
        return vary
    kind, _, name = str(vary).partition(":")
    if kind in ("cookie", "header") and name:
        return vary
    raise ValueError(f'vary= takes "user", "session", "cookie:NAME", "header:NAME" and functions, not {vary!r}')


def watched(
    runtime: Runtime, compute: Callable[[], t.Any], covered: frozenset[str] = frozenset()
) -> Callable[[], t.Any]:
    """Return a computation whose value is private if it reads one visitor's state.

    :param covered: what it may read, because the value's key tells it apart.
    """

    def watching() -> t.Any:
        with runtime.unit().watching() as reads:
            value = compute()
            personal = reads - covered
        return Private(f"it read {', '.join(sorted(personal))}", value) if personal else value

    return watching


def watched_async(runtime: Runtime, compute: Callable[[], Awaitable[t.Any]]) -> Callable[[], Awaitable[t.Any]]:
    """Return a computation like :func:`watched` does, for a coroutine function."""

    async def watching() -> t.Any:
        with runtime.unit().watching() as reads:
            value = await compute()
        return Private(f"it read {', '.join(sorted(reads))}", value) if reads else value

    return watching


def unwrap(value: t.Any) -> t.Any:
    """Return a value that a plan came to, also if it is private."""
    return value.value if isinstance(value, Private) else value
