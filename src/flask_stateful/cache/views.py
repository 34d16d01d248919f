"""Views whose answers are cached (:rfc:`9111`, :rfc:`9211`)."""

from __future__ import annotations

import contextlib
import functools
import operator
import typing as t
from collections.abc import Callable, Set

from flask import current_app, request
from werkzeug.exceptions import HTTPException

from .. import clock
from ..blocks import when_committed
from ..current import get_app, get_request
from ..errors import StoreError
from .call import Call
from .keys import canonical, store_key
from .pages import NAME, PAGE, PLACE, Page, page_of, signpost
from .rules import ViewRules
from .runtime import Default, Runtime
from .steps import Lasting, Private, owner, run
from .tags import EVERYTHING

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Response

    from .cache import Cache

#: Requests with one of these are answered by the view itself.
_PASSES_BY: t.Final = frozenset({"HTTP_AUTHORIZATION", "HTTP_RANGE"})

_NOTHING: t.Final[Set[str]] = frozenset()

#: How many addresses of a view are kept at hand.
_RECENT: t.Final = 1024


class CachedView:
    """A view whose answers are cached; made by ``state.cache.view()``."""

    def __init__(self, cache: Cache, view: Callable[..., t.Any], rules: ViewRules) -> None:
        self._cache = cache
        self._view = view
        self.rules = rules
        self.name = f"{view.__module__}:{view.__qualname__}"
        #: Every answer has it, so that one write invalidates them all.
        self._own_tag = f"view {self.name}"
        # Parsing a query and encoding a key take longer than all the rest of a hit.
        self._key_at = functools.lru_cache(maxsize=_RECENT)(self._make_key)

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Answer from the cache, or by the view."""
        environ = get_request().environ
        if not self._applies(environ):
            return self._dispatch(args, kwargs)
        runtime = self._cache.runtime
        key, told_apart = self._key(runtime, environ)
        held = runtime.storage.recall(key, self.name)
        page: Page | None = None if held is None else held.value
        if page is not None and not page.vary:
            return self.hit(runtime, key, page, environ)
        return _Making(self, runtime, functools.partial(self._dispatch, args, kwargs), told_apart).answer(key, page)

    def forget(self) -> None:
        """Remove what is stored for the current request's address."""
        runtime = self._cache.runtime
        key, _ = self._key(runtime, request.environ)
        when_committed(lambda: runtime.storage.forget([key]))

    def forget_all(self) -> None:
        """Invalidate every answer of the view: one write."""
        storage = self._cache.runtime.storage
        when_committed(lambda: storage.invalidate([self._own_tag]))

    def hit(self, runtime: Runtime, key: str, page: Page, environ: WSGIEnvironment) -> Response:
        """Return a stored page as the answer to the current request."""
        if self.rules.front and not page.vary:
            runtime.front.offer(environ, key, page)
        response = page.response(get_app().response_class, environ)
        return self.rules.announce(response) if self.rules.vary else response

    def call(self, runtime: Runtime, key: str) -> Call:
        """Return the call for a key."""
        rules = self.rules
        ttl = runtime.ttl if isinstance(rules.ttl, Default) else rules.ttl
        reading = runtime.reading(rules.consistency, rules.depends_on, lambda: request.view_args or {})
        tags = (self._own_tag, *rules.tags)
        return Call(key=key, name=self.name, codec=PAGE, ttl=ttl, stale=rules.stale, tags=tags, reading=reading)

    def _applies(self, environ: WSGIEnvironment) -> bool:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or not environ.keys().isdisjoint(_PASSES_BY):
            return False
        return not (self.rules.unless is not None and self.rules.unless())

    def _dispatch(self, args: tuple[t.Any, ...], kwargs: dict[str, t.Any]) -> t.Any:
        return current_app.ensure_sync(self._view)(*args, **kwargs)

    def _key(self, runtime: Runtime, environ: WSGIEnvironment) -> tuple[str, Set[str]]:
        """Return the current request's key, and what the functions in ``vary=`` read to tell visitors apart."""
        varied, reads = self._varied(runtime) if self.rules.vary else (b"", _NOTHING)
        return self._key_at(runtime.storage.namespace, varied, *map(environ.get, PLACE)), reads

    def _varied(self, runtime: Runtime) -> tuple[bytes, Set[str]]:
        reads, values = set[str](), list[t.Any]()
        for name in self.rules.vary:
            if isinstance(name, str):
                values.append(runtime.vary_value(name))
                continue
            with runtime.unit().watching() as read:
                values.append(name())
            reads |= read
        return canonical(values), reads

    def _make_key(self, namespace: str, varied: bytes, *_: t.Any) -> str:
        """Return the key of the current request, whose place in the environ is the rest of the arguments."""
        asked = request.args.items(multi=True)
        wanted = self.rules.query
        query = [(name, value) for name, value in asked if wanted is None or name in wanted]
        # Only names are sorted: which of several values of one name comes first may matter to the view.
        query.sort(key=operator.itemgetter(0))
        where = [request.scheme, request.host, request.root_path, request.path, query]
        return store_key(namespace, "view", self.name, canonical([where, varied]))


class _Making:
    """One request for a cached view."""

    def __init__(
        self, view: CachedView, runtime: Runtime, dispatch: Callable[[], t.Any], told_apart: Set[str] = _NOTHING
    ) -> None:
        self.runtime = runtime
        #: What the view may read although it belongs to one visitor: the key tells that apart.
        self._told_apart = told_apart
        self._view = view
        self._dispatch = dispatch
        self._unit = runtime.unit_of(request.environ)
        #: The view's own answer, once it was asked.
        self._made: Response | None = None
        self._error: Exception | None = None
        self._refusal: str | None = None
        #: The request headers that are in the key, beyond those that ``vary=`` names.
        self._known: tuple[str, ...] = ()

    def answer(self, key: str, post: Page | None) -> Response:
        """Return a stored answer, or the view's own.

        :param post: the signpost that memory has in place of the answer.
        """
        page = post or self._page(key)
        if isinstance(page, Page) and page.vary and self._made is None:
            self._known = page.vary
            page = self._page(self._varied_key(key, page))
        if self._error is not None:
            raise self._error
        if self._made is not None:
            return self._miss(self._made)
        if not isinstance(page, Page):
            return self._miss(current_app.make_response(self._dispatch()))
        return self._view.hit(self.runtime, key, page, request.environ)

    def _page(self, key: str) -> t.Any:
        runtime = self.runtime
        if runtime.passes.get(key, 0.0) > clock.monotonic():
            self._make(key)
            return None
        held = runtime.storage.recall(key, self._view.name)
        if held is not None:
            return held.value
        plan = runtime.engine.plan(self._view.call(runtime, key), owner())
        return run(plan, functools.partial(self._make, key), runtime.later, self._recompute(key))

    def _make(self, key: str) -> Page | Private | Lasting:
        """Ask the view, and return what may be stored of its answer."""
        try:
            versions = self._versions(key)
            response = self._ask()
        except Exception as error:
            # Another visitor who waits may be allowed what this one is not.
            self._error = error
            return Private("it failed")
        self._made = response
        if request.method == "HEAD":
            self._refusal = "it answers HEAD"
            return Private(self._refusal)
        self._refusal = self._view.rules.refusal(response, self._unit.reads - self._told_apart)
        if self._refusal is not None:
            self.runtime.pass_by(key)
            return Private(self._refusal)
        return self._keep(key, response, versions)

    def _ask(self) -> Response:
        """Return the view's answer, also where that is an error which may be stored."""
        try:
            return current_app.make_response(self._dispatch())
        except HTTPException as error:
            if not self._view.rules.is_missing(error.code):
                raise
            answer = current_app.handle_user_exception(error)
            # Run as a WSGI application, as Flask would, an error without a handler of its own would be a stream.
            return current_app.make_response(answer.get_response() if isinstance(answer, HTTPException) else answer)

    def _versions(self, key: str) -> dict[str, bytes] | None:
        """Return the versions of the answer's tags before it is made; ``None`` where the store cannot tell."""
        try:
            return self.runtime.storage.tags.read((EVERYTHING, *self._view.call(self.runtime, key).tags))
        except StoreError:
            return None

    def _keep(self, key: str, response: Response, versions: dict[str, bytes] | None) -> Page | Lasting:
        page = page_of(response, personal=self._view.rules.personal)
        if response.status_code != 200:
            return Lasting(page, self._view.rules.missing_ttl)
        vary = self._view.rules.learned(response)
        if set(vary) <= set(self._known):
            return page
        post = signpost(vary)
        storage = self.runtime.storage
        reading = storage.tables.current() if storage.tables is not None else None
        if versions is not None and (reading is None or reading.refusal is None):
            tables = None if reading is None else reading.versions
            with contextlib.suppress(StoreError):
                storage.set(self._view.call(self.runtime, self._varied_key(key, post)), page, versions, tables)
        return post

    def _recompute(self, key: str) -> Callable[[], Page | Private | Lasting]:
        """Return a function that asks the view again, later, as this request would."""
        app, view, told_apart, given = get_app(), self._view, self._told_apart, get_request().environ

        def recompute() -> Page | Private | Lasting:
            environ = {name: value for name, value in given.items() if not name.startswith(_PER_REQUEST)}
            with app.request_context(environ):
                answered = app.preprocess_request()
                if answered is not None:
                    return Private("a before_request function answered")
                return _Making(view, self.runtime, self._dispatch, told_apart)._make(key)

        return recompute

    @staticmethod
    def _varied_key(key: str, post: Page) -> str:
        """Return the key of the answer for this request that a signpost leads to."""
        values = canonical([post.mark, [[name, request.headers.get(name)] for name in post.vary]])
        return f"{key}:{store_key('', 'vary', '', values)}"

    def _miss(self, response: Response) -> Response:
        detail = "stored" if self._refusal is None else f'detail="{self._refusal}"'
        response.headers["Cache-Status"] = f"{NAME}; fwd=miss; {detail}"
        if self._view.rules.front:
            self.runtime.front.activate()
        return self._view.rules.announce(response)


#: What of an environ belongs to one request alone.
_PER_REQUEST: t.Final = ("flask_stateful.", "werkzeug.request", "wsgi.input")


def cached_view(cache: Cache, view: Callable[..., t.Any], rules: ViewRules) -> t.Any:
    """Return a view function that answers from the cache."""
    cached = CachedView(cache, view, rules)

    @functools.wraps(view)
    def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        return cached(*args, **kwargs)

    # functools.wraps copies what marks a coroutine function, and this one is none.
    wrapper.__dict__.pop("_is_coroutine_marker", None)
    wrapper.forget = cached.forget  # type: ignore[attr-defined]
    wrapper.forget_all = cached.forget_all  # type: ignore[attr-defined]
    wrapper.uncached = view  # type: ignore[attr-defined]
    return wrapper
