"""Cached template fragments."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, render_template_string, session
from jinja2 import TemplateSyntaxError
from markupsafe import Markup

from flask_stateful import Stateful
from flask_stateful.testing import FakeClock


class Templates:
    """Renders templates that count how often they are rendered."""

    def __init__(self) -> None:
        self.state = Stateful()
        self.app = Flask("shop")
        self.app.config.update(SECRET_KEY="a key for tests, long enough", TESTING=True, STATEFUL_STORE="memory://")
        self.state.init_app(self.app)
        self.count = 0
        self.app.jinja_env.globals["count"] = self._count

    def _count(self) -> int:
        self.count += 1
        return self.count

    def render(self, template: str, *, visitor: dict[str, t.Any] | None = None, **context: t.Any) -> str:
        with self.app.test_request_context():
            session.update(visitor or {})
            return render_template_string(template, **context)


@pytest.fixture
def templates() -> Templates:
    """Templates of an application."""
    return Templates()


def test_fragment_is_rendered_once(templates: Templates) -> None:
    """The body is rendered by the first request only, and what is around it by each."""
    template = '{{ x }} {% cache "side", ttl=60 %}<b>{{ count() }}</b>{% endcache %}'
    assert [templates.render(template, x=x) for x in "ab"] == ["a <b>1</b>", "b <b>1</b>"]


def test_fragment_is_escaped_once(templates: Templates) -> None:
    """What was escaped in the body is neither escaped again nor let through."""
    template = '{% cache "a" %}{{ text }}{% endcache %}'
    assert [templates.render(template, text="<i>") for _ in range(2)] == ["&lt;i&gt;"] * 2
    assert templates.render('{% cache "b" %}{{ text }}{% endcache %}', text=Markup("<i>")) == "<i>"


def test_fragments_with_one_name_vary(templates: Templates) -> None:
    """M14: vary tells them apart by value and type, also where glued texts would be equal."""
    template = '{% cache "side", vary=vary %}{{ count() }}{% endcache %}'
    varies = [["a_b", "c"], ["a", "b_c"], [1], ["1"], [True], [None], []]
    assert [templates.render(template, vary=vary) for vary in varies * 2] == [str(n) for n in range(1, 8)] * 2


def test_fragments_nest_and_have_tags(templates: Templates) -> None:
    """An inner fragment is cached by itself; a tag takes those that have it."""
    template = (
        '{% cache "out", tags=["outer"] %}{{ count() }}{% cache "in", tags=["inner"] %}-{{ count() }}{% endcache %}'
        "{% endcache %}"
    )
    assert [templates.render(template) for _ in range(2)] == ["1-2"] * 2
    with templates.app.app_context():
        templates.state.cache.invalidate_tags("outer")
    assert templates.render(template) == "3-2"


def test_personal_fragment_is_not_stored(templates: Templates) -> None:
    """L3: a body that reads the session is rendered for each visitor; what vary read is covered."""
    bare = '{% cache "bare" %}{{ session["name"] }}{% endcache %}'
    covered = '{% cache "covered", vary=[session["name"]] %}{{ session["name"] }}{{ count() }}{% endcache %}'
    visitors = [{"name": "Ada"}, {"name": "Grace"}, {"name": "Ada"}]
    assert [templates.render(bare, visitor=visitor) for visitor in visitors] == ["Ada", "Grace", "Ada"]
    assert [templates.render(covered, visitor=visitor) for visitor in visitors] == ["Ada1", "Grace2", "Ada1"]


def test_body_that_raises_is_evaluated_once(templates: Templates) -> None:
    """M14: an error in the body leaves nothing behind and is not tried twice."""
    with pytest.raises(ZeroDivisionError):
        templates.render('{% cache "broken" %}{{ count() }}{{ 1 // 0 }}{% endcache %}')
    assert templates.count == 1


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{% cache %}{% endcache %}", "begins with a name"),
        ("{% cache 60 %}{% endcache %}", "begins with a name"),
        ("{% cache ttl=60 %}{% endcache %}", "begins with a name"),
        ("{% cache name %}{% endcache %}", "begins with a name"),
        ('{% cache "a", tll=60 %}{% endcache %}', "takes ttl, stale, vary, tags, not tll"),
        ('{% cache "a", 60 %}{% endcache %}', "expected token 'name'"),
        ('{% cache "a" ttl=60 %}{% endcache %}', "expected token 'end of statement block'"),
    ],
)
def test_wrong_tag_is_a_syntax_error(templates: Templates, template: str, error: str) -> None:
    """A tag that is not written as it should be says how it should."""
    with pytest.raises(TemplateSyntaxError, match=error):
        templates.app.jinja_env.from_string(template)


def test_stale_fragment_is_refreshed_after_the_response(state: Stateful) -> None:
    """What refreshes a fragment has the request that asked for it, and may ask for URLs; the next visitor gets it."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="a key for tests, long enough", TESTING=True, STATEFUL_STORE="memory://")
    state.init_app(app)
    template = '{% cache "n", ttl=60, stale=60 %}{{ number() }} {{ url_for("page", of=request.args.of) }}{% endcache %}'
    numbers = iter(range(10))

    @app.get("/page")
    def page() -> str:
        return render_template_string(template, number=lambda: next(numbers))

    def ask(of: str) -> str:
        with app.test_client().get(f"/page?of={of}") as response:
            return response.text

    with FakeClock() as clock:
        assert ask("a") == "0 /page?of=a"
        clock.advance(61)
        assert ask("b") == "0 /page?of=a"
        assert ask("c") == "1 /page?of=b"
