"""``{% cache %}``: template fragments that are cached."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable

from flask import copy_current_request_context, has_request_context
from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from markupsafe import Markup

from ..stores.base import ttl_seconds
from .call import Call
from .keys import canonical, store_key
from .runtime import DEFAULT, require_tag, unwrap, watched
from .steps import owner, run
from .values import PLAIN

if t.TYPE_CHECKING:
    from flask import Flask
    from jinja2.parser import Parser

    from .runtime import Runtime

_OPTIONS: t.Final = ("ttl", "stale", "vary", "tags")


def add_fragment_tag(app: Flask, get_runtime: Callable[[], Runtime]) -> None:
    """Let an application's templates use ``{% cache %}``."""

    class CacheExtension(FragmentExtension):
        runtime = staticmethod(get_runtime)

    if "jinja_env" in vars(app):
        app.jinja_env.add_extension(CacheExtension)
    else:
        # The environment is made at first use; until then an application may still change its options.
        extensions = [*app.jinja_options.get("extensions", ()), CacheExtension]
        app.jinja_options = {**app.jinja_options, "extensions": extensions}


class FragmentExtension(Extension):
    """Adds ``{% cache "name", ttl=60, stale=0, vary=[...], tags=[...] %}...{% endcache %}``."""

    tags = {"cache"}  # noqa: RUF012 (Jinja's own declaration)

    @staticmethod
    def runtime() -> Runtime:
        """Return what the application's cache works with."""
        raise NotImplementedError

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn the tag into a call of :meth:`_render`."""
        line = next(parser.stream).lineno
        name = None if parser.stream.current.test("block_end") else parser.parse_expression()
        if not isinstance(name, nodes.Const) or not isinstance(name.value, str):
            raise TemplateSyntaxError(
                '{% cache %} begins with a name: {% cache "sidebar", ttl=60 %}', line, parser.name
            )
        options: list[nodes.Keyword] = []
        while parser.stream.skip_if("comma"):
            options.append(self._option(parser))
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        call = self.call_method("_render", [name], options)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _option(self, parser: Parser) -> nodes.Keyword:
        token = parser.stream.expect("name")
        if token.value not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise TemplateSyntaxError(f"{{% cache %}} takes {known}, not {token.value}", token.lineno, parser.name)
        parser.stream.expect("assign")
        value = parser.parse_expression()
        if token.value == "vary":
            # What this expression reads is covered by it. Arguments are evaluated in order, so the watch begins first.
            value = self.call_method("_covered", [self.call_method("_watch"), value])
        return nodes.Keyword(token.value, value, lineno=token.lineno)

    def _watch(self) -> frozenset[str]:
        """Return what was read so far, and note anew what is read from now on."""
        unit = self.runtime().unit()
        before, unit.reads = frozenset(unit.reads), set()
        return before

    def _covered(self, before: frozenset[str], values: t.Any) -> _Vary:
        unit = self.runtime().unit()
        covered = frozenset(unit.reads)
        unit.reads |= before
        return _Vary(values, covered)

    def _render(
        self,
        name: str,
        *,
        caller: Callable[[], str],
        ttl: t.Any = DEFAULT,
        stale: t.Any = None,
        vary: _Vary | None = None,
        tags: Iterable[str] = (),
    ) -> Markup:
        """Return the fragment, rendered now or before."""
        runtime = self.runtime()
        values, covered = vary or _Vary((), frozenset())
        call = Call(
            key=store_key(runtime.storage.namespace, "fragment", name, canonical(values)),
            codec=PLAIN,
            name=f"the fragment {name!r}",
            ttl=runtime.ttl if ttl is DEFAULT else ttl_seconds(ttl),
            stale=ttl_seconds(stale) or 0.0,
            tags=tuple(map(require_tag, tags)),
            reading=runtime.reading(),
        )
        held = runtime.storage.recall(call.key, call.name)
        if held is not None:
            return t.cast("Markup", held.value)
        compute = watched(runtime, lambda: Markup(caller()), covered)  # noqa: S704 (a template has escaped it)
        # What a template asks for, a URL say, needs a request, also when the fragment is refreshed after the response.
        recompute = copy_current_request_context(compute) if has_request_context() else compute
        value = run(runtime.engine.plan(call, owner()), compute, runtime.later, recompute)
        return t.cast("Markup", unwrap(value))


class _Vary(t.NamedTuple):
    """What a fragment varies by, and what was read to find that out."""

    values: t.Any
    covered: frozenset[str]
