"""Views whose answers are cached (:rfc:`9111`, :rfc:`9211`)."""

from __future__ import annotations

import contextlib
import functools
import logging
import typing as t
from collections.abc import Callable, Iterable

from flask import current_app, request
from werkzeug.exceptions import HTTPException

from .. import clock
from ..errors import StoreError
from .call import Call
from .keys import canonical, store_key
from .pages import NAME, PAGE, Page, page_of, signpost
from .personal import uncovered
from .runtime import Default, Runtime
from .steps import Lasting, Private, owner, run
from .tags import EVERYTHING

if t.TYPE_CHECKING:
    from flask import Flask, Response

    from .cache import Cache

logger = logging.getLogger("flask_stateful")


class ViewOptions(t.NamedTuple):
    """How a view is cached."""

    ttl: float | Default | None
    stale: float
    #: Query arguments that tell answers apart; ``None`` means all.
    query: tuple[str, ...] | None
    vary: tuple[str | Callable[[], t.Any], ...]
    tags: tuple[str, ...]
    unless: Callable[[], t.Any] | None
    #: Seconds that "there is no such page" is fresh; ``None`` does not store it.
    missing_ttl: float | None
    front: bool

    @property
    def personal(self) -> bool:
        """Whether an answer may be for one visitor."""
        return any(callable(name) or not name.startswith("header:") for name in self.vary)


class CachedView:
    """A view whose answers are cached; made by ``state.cache.view()``."""

    def __init__(self, cache: Cache, view: Callable[..., t.Any], options: ViewOptions) -> None:
        self._cache = cache
        self._view = view
        self.options = options
        self.name = f"{view.__module__}:{view.__qualname__}"
        #: Every answer has it, so that one write invalidates them all.
        self._own_tag = f"view {self.name}"

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Answer from the cache, or by the view."""
        if not self._applies():
            return self._dispatch(args, kwargs)
        making = _Making(self, self._cache.runtime, functools.partial(self._dispatch, args, kwargs))
        return making.answer(self._key(making.runtime))

    def forget(self) -> None:
        """Remove what is stored for the current request's address."""
        runtime = self._cache.runtime
        runtime.storage.forget([self._key(runtime)])

    def forget_all(self) -> None:
        """Invalidate every answer of the view: one write."""
        self._cache.runtime.storage.invalidate([self._own_tag])

    def call(self, runtime: Runtime, key: str) -> Call:
        """Return the call for a key."""
        options = self.options
        ttl = runtime.ttl if isinstance(options.ttl, Default) else options.ttl
        return Call(
            key=key, name=self.name, codec=PAGE, ttl=ttl, stale=options.stale, tags=(self._own_tag, *options.tags)
        )

    def refusal(self, response: Response, reads: Iterable[str]) -> str | None:
        """Say why an answer may not be stored; ``None`` if it may."""
        login: t.Any = getattr(current_app, "login_manager", None)
        config = t.cast("t.Any", current_app.config)
        remember = config.get("REMEMBER_COOKIE_NAME", "remember_token") if login else None
        names = [name for name in self.options.vary if isinstance(name, str)]
        personal = uncovered(reads, names, user_cookies=[remember] if remember else [])
        if personal:
            return f"it was made after reading {', '.join(sorted(personal))}, and vary= does not cover that"
        if response.status_code != 200 and not self.is_missing(response.status_code):
            return f"its status is {response.status_code}"
        if response.is_streamed or response.direct_passthrough:
            return "it is streamed"
        if "Set-Cookie" in response.headers:
            return "it sets a cookie"
        control = response.cache_control
        if control.private or control.no_store or control.no_cache:
            return "its Cache-Control forbids that"
        if "*" in response.vary or "cookie" in self.learned(response):
            return "it varies by every visitor"
        return None

    def is_missing(self, status: int | None) -> bool:
        """Tell whether a status says that there is no such page, and is to be stored."""
        return status in (404, 410) and self.options.missing_ttl is not None

    def learned(self, response: Response) -> tuple[str, ...]:
        """Return the request headers that an answer varies by, beyond those that are in the key already."""
        named = {header.lower() for header in map(_header_of, self.options.vary) if header}
        return tuple(sorted(header.lower() for header in response.vary if header.lower() not in named))

    def vary(self, response: Response) -> Response:
        """Tell caches further on what the answers vary by."""
        for name in self.options.vary:
            header = _header_of(name)
            if header:
                response.vary.add(header)
        return response

    def _applies(self) -> bool:
        if request.method not in ("GET", "HEAD") or "Authorization" in request.headers or "Range" in request.headers:
            return False
        return not (self.options.unless is not None and self.options.unless())

    def _dispatch(self, args: tuple[t.Any, ...], kwargs: dict[str, t.Any]) -> t.Any:
        return current_app.ensure_sync(self._view)(*args, **kwargs)

    def _key(self, runtime: Runtime) -> str:
        query = [
            (name, value)
            for name, value in request.args.items(multi=True)
            if self.options.query is None or name in self.options.query
        ]
        where = [request.scheme, request.host, request.root_path, request.path, sorted(query)]
        varied = [runtime.vary_value(name) if isinstance(name, str) else name() for name in self.options.vary]
        return store_key(runtime.storage.namespace, "view", self.name, canonical([where, varied]))


class _Making:
    """One request for a cached view."""

    def __init__(self, view: CachedView, runtime: Runtime, dispatch: Callable[[], t.Any]) -> None:
        self.runtime = runtime
        self._view = view
        self._dispatch = dispatch
        self._unit = runtime.unit_of(request.environ)
        #: The view's own answer, once it was asked.
        self._made: Response | None = None
        self._error: Exception | None = None
        self._refusal: str | None = None
        #: The request headers that are in the key, beyond those that ``vary=`` names.
        self._known: tuple[str, ...] = ()

    def answer(self, key: str) -> Response:
        """Return a stored answer, or the view's own."""
        page = self._page(key)
        if isinstance(page, Page) and page.vary and self._made is None:
            self._known = page.vary
            page = self._page(self._varied_key(key, page.vary))
        if self._error is not None:
            raise self._error
        if self._made is not None:
            return self._miss(self._made)
        if not isinstance(page, Page):
            return self._miss(current_app.make_response(self._dispatch()))
        return self._hit(page, key)

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
        self._refusal = self._view.refusal(response, self._unit.reads)
        if self._refusal is not None:
            self.runtime.pass_by(key)
            return Private(self._refusal)
        return self._keep(key, response, versions)

    def _ask(self) -> Response:
        """Return the view's answer, also where that is an error which may be stored."""
        try:
            return current_app.make_response(self._dispatch())
        except HTTPException as error:
            if not self._view.is_missing(error.code):
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
        page = page_of(response, personal=self._view.options.personal)
        if response.status_code != 200:
            return Lasting(page, self._view.options.missing_ttl)
        vary = self._view.learned(response)
        if set(vary) <= set(self._known):
            return page
        if versions is not None:
            with contextlib.suppress(StoreError):
                self.runtime.storage.set(self._view.call(self.runtime, self._varied_key(key, vary)), page, versions)
        return signpost(vary)

    def _recompute(self, key: str) -> Callable[[], Page | Private | Lasting]:
        """Return a function that asks the view again, later, as this request would."""
        app: Flask = t.cast("t.Any", current_app)._get_current_object()
        view = self._view
        environ = {name: value for name, value in request.environ.items() if not name.startswith(_PER_REQUEST)}

        def recompute() -> Page | Private | Lasting:
            with app.request_context(environ):
                answered = app.preprocess_request()
                if answered is not None:
                    return Private("a before_request function answered")
                return _Making(view, self.runtime, self._dispatch)._make(key)

        return recompute

    @staticmethod
    def _varied_key(key: str, vary: tuple[str, ...]) -> str:
        values = canonical([[name, request.headers.get(name)] for name in vary])
        return f"{key}:{store_key('', 'vary', '', values)}"

    def _miss(self, response: Response) -> Response:
        detail = "stored" if self._refusal is None else f'detail="{self._refusal}"'
        response.headers["Cache-Status"] = f"{NAME}; fwd=miss; {detail}"
        return self._view.vary(response)

    def _hit(self, page: Page, key: str) -> Response:
        if self._view.options.front and not self._known:
            self.runtime.front.offer(request.environ, key, page)
        return self._view.vary(page.response())


#: What of an environ belongs to one request alone.
_PER_REQUEST: t.Final = ("flask_stateful.", "werkzeug.request", "wsgi.input")


def _header_of(name: object) -> str | None:
    """Return the request header that carries what a view varies by."""
    if not isinstance(name, str):
        return None
    return name.partition(":")[2] if name.startswith("header:") else "Cookie"


def cached_view(cache: Cache, view: Callable[..., t.Any], options: ViewOptions) -> t.Any:
    """Return a view function that answers from the cache."""
    cached = CachedView(cache, view, options)

    @functools.wraps(view)
    def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        return cached(*args, **kwargs)

    # functools.wraps copies what marks a coroutine function, and this one is none.
    wrapper.__dict__.pop("_is_coroutine_marker", None)
    wrapper.forget = cached.forget  # type: ignore[attr-defined]
    wrapper.forget_all = cached.forget_all  # type: ignore[attr-defined]
    wrapper.uncached = view  # type: ignore[attr-defined]
    return wrapper
