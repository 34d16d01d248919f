"""Declared classes: what may stand in one, what a handle does, and which application has which."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import typing as t
from datetime import timedelta

import pytest

from flask_stateful import (
    AppState,
    ConfigError,
    CookieState,
    LocalState,
    SessionState,
    TabState,
    UserState,
    field,
    migrate,
)
from flask_stateful.declared.fields import Field
from flask_stateful.declared.model import model_of
from flask_stateful.declared.registry import Registry

from .conftest import Site


class HTTPSettings(SessionState):
    """A class of a module."""

    theme: t.Literal["auto", "dark"] = "auto"
    tags: list[str] = field(default_factory=list)


class OfUser(UserState):
    """Another class of a module."""

    count: int = 0


def test_the_model_says_what_was_declared() -> None:
    """Name, version, purpose, options and fields are found by model_of()."""

    class Prefs(LocalState, version=2, purpose="preferences", shared=True):
        theme: str = "auto"
        draft: str = field("", max_bytes=65_536, ttl=timedelta(days=7), conflict="server")
        coupon: dict[str, int] | None = field(None, sealed=True, fresh=True)

    model = model_of(Prefs)
    assert (model.name, model.kind, model.version, model.purpose, model.shared) == (
        "prefs",
        "local",
        2,
        "preferences",
        True,
    )
    assert model.key == "prefs~2"
    draft, coupon = model.fields["draft"], model.fields["coupon"]
    assert isinstance(draft, Field)
    assert (draft.max_bytes, draft.ttl, draft.conflict, draft.mirror) == (65_536, 604_800.0, "server", None)
    assert (coupon.sealed, coupon.fresh, coupon.default()) == (True, True, None)
    assert (draft.key, draft.label, draft.where) == ("prefs.draft~2", "prefs.draft", "Prefs.draft")
    assert Prefs.theme is model.fields["theme"]  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("written", "name"),
    [("Prefs", "prefs"), ("UserPrefs", "user_prefs"), ("HTTPPrefs", "http_prefs"), ("A1B", "a1_b"), ("_Own", "own")],
)
def test_a_name_is_the_class_s_own(written: str, name: str) -> None:
    """A class is called by its name in snake_case."""
    cls = type(written, (AppState,), {"__annotations__": {"x": int}, "x": 1, "__module__": __name__})
    assert model_of(cls).name == name


def body(source: str, base: str = "SessionState", options: str = "") -> t.Any:
    """Define a class with a body."""
    names = {**globals(), "TabState": TabState, "__name__": __name__}
    exec(f"def make():\n    class Bad({base}{options}):\n        {source}\n    return Bad", names)
    return names["make"]()


@pytest.mark.parametrize(
    ("source", "base", "said"),
    [
        ("x: int", "SessionState", "Bad.x has no default; write `x: int = ...`"),
        ("x = 3", "SessionState", "Bad.x has no annotation; write `x: int = ...`"),
        ("x = field(3)", "SessionState", "Bad.x has no annotation"),
        ("_x: int = 3", "SessionState", "begins with an underscore, which no field may; write x"),
        ("x: int = 'secret'", "SessionState", "the default of Bad.x does not fit: Bad.x must be int, not str"),
        ("x: int = field(default_factory=str)", "SessionState", "the default of Bad.x does not fit"),
        ("x: Nope = 3", "SessionState", "cannot be looked up: name 'Nope' is not defined"),
        ("x: complex = 1j", "SessionState", "Bad.x is declared with complex"),
        ("x: int = field(3, sealed=True)", "SessionState", "has the option 'sealed', and session state has none such"),
        ("x: int = field(3, ttl=5)", "UserState", "has the option 'ttl', and user state has none such"),
        ("x: int = field(3, mirror=True)", "TabState", "has the option 'mirror', and tab state has none such"),
        ("x: int = field(3, conflict='server')", "CookieState", "has the option 'conflict'"),
        ("x: int = field(3, fresh=True)", "LocalState", "is fresh and not sealed"),
        ("x: int = field(3, sealed=True, mirror=True)", "LocalState", "is sealed, so no cookie"),
        ("x: int = field(3, max_bytes=0)", "LocalState", "max_bytes=0"),
        ("x: int = field(3, conflict='mine')", "LocalState", "neither"),
        ("x: int = 2**60", "LocalState", "the default of Bad.x does not fit: Bad.x holds what JavaScript cannot"),
        ("x: str = field('abc', max_bytes=3)", "AppState", "the default of Bad.x does not fit"),
        ("of: int = 3", "UserState", "Bad.of is what handles themselves have"),
        ("x: int = 3", "SessionState, LocalState", "must derive from one of"),
    ],
)
def test_mistakes_are_told_where_the_class_is_defined(source: str, base: str, said: str) -> None:
    """A field that cannot be is a TypeError that names it, says what to write, and shows no value."""
    with pytest.raises(TypeError) as caught:
        body(source, base)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (", name='Prefs'", "small letters"),
        (", name='a.b'", "small letters"),
        (", name=''", "small letters"),
        (", version=0", "version=0"),
        (", version='2'", "version='2'"),
        (", purpose='fun'", "necessary, preferences, analytics, marketing"),
        (
            ", max_age=3",
            "Bad has the keyword 'max_age', and this kind of state has none such",
        ),
        (
            ", shared=True",
            "Bad has the keyword 'shared', and this kind of state has none such",
        ),
    ],
)
def test_options_of_a_class_are_checked(options: str, said: str) -> None:
    """A class keyword that is wrong, or that its kind lacks, is a TypeError."""
    with pytest.raises(TypeError, match=said):
        body("x: int = 3", options=options)


@pytest.mark.parametrize(
    ("base", "keyword", "allowed"),
    [
        ("LocalState", "max_age=3", "shared, name, version, purpose"),
        ("CookieState", "shared=True", "max_age, overflow"),
    ],
)
def test_keywords_of_another_kind_are_told(base: str, keyword: str, allowed: str) -> None:
    """The error says which keywords a class of this kind may have."""
    with pytest.raises(TypeError, match=f"has none such; it has {allowed}"):
        body("x: int = 3", base, f", {keyword}")


@pytest.mark.parametrize("arguments", [{}, {"default": 1, "default_factory": int}])
def test_a_field_has_one_default(arguments: dict[str, t.Any]) -> None:
    """field() without a default, or with two, is a TypeError."""
    with pytest.raises(TypeError, match="default"):
        field(**arguments)


def test_defaults_are_copied() -> None:
    """Each reader has a mutable default of its own, however it was declared."""

    class Lists(SessionState):
        plain: list[dict[str, int]] = [{"a": 1}]
        made: list[int] = field(default_factory=lambda: [1])

    for name in ("plain", "made"):
        declared = model_of(Lists).fields[name]
        first = declared.default()
        first.append(9)
        assert declared.default() == ([{"a": 1}] if name == "plain" else [1])


def test_local_names_in_annotations_are_found() -> None:
    """Annotations that are text may name what the function around the class has, and classes inside of it."""

    @dataclasses.dataclass
    class Item:
        count: int

    class Cart(SessionState):
        class Color:
            pass

        LIMIT: t.ClassVar[int] = 3
        items: list[Item] = []
        one: Item | None = None

        def total(self) -> int:
            return 7

    assert model_of(Cart).fields.keys() == {"items", "one"}
    assert (Cart.LIMIT, Cart().total()) == (3, 7)


def test_declared_classes_can_be_derived_from() -> None:
    """A derived class has its parents' fields as its own, under its own name, and may replace them."""

    class Base(CookieState, max_age=60, purpose="analytics"):
        a: int = 1
        b: int = 2

    class Child(Base):
        b: str = "two"  # type: ignore[assignment]
        c: int = 3

    model = model_of(Child)
    assert {name: declared.default() for name, declared in model.fields.items()} == {"a": 1, "b": "two", "c": 3}
    assert (model.name, model.max_age, model.purpose) == ("child", 60, "analytics")
    assert model.fields["a"] is not model_of(Base).fields["a"]
    assert model.fields["a"].label == "child.a"


def test_unknown_names_are_told_with_the_nearest() -> None:
    """Reading, setting and deleting what is no field is an AttributeError with a hint."""
    handle = HTTPSettings()
    with pytest.raises(AttributeError, match="HTTPSettings has no field 'theem'; did you mean 'theme'"):
        handle.theem  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'theme'"):
        handle.themes = "dark"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="it has theme, tags"):
        handle.zzzzzz = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"write state\.reset\(HTTPSettings\(\), 'theme'\)"):
        del handle.theme
    with pytest.raises(AttributeError, match="has no field"):
        del handle.nothing  # type: ignore[attr-defined]


def test_unknown_names_for_reset_and_known(site: Site) -> None:
    """state.reset() and state.known() name the nearest field, too, and ask for a handle."""
    handle = HTTPSettings()
    with pytest.raises(AttributeError, match="did you mean 'theme'"):
        site.state.reset(handle, "themes")
    with pytest.raises(AttributeError, match="did you mean 'theme'"):
        site.state.known(handle, "themes")
    with pytest.raises(TypeError, match="handle"):
        site.state.reset(HTTPSettings)  # type: ignore[arg-type]


def test_handles_hold_nothing() -> None:
    """Handles of one class are equal, hash alike, hide values and survive pickling and copying."""
    handle, other = HTTPSettings(), HTTPSettings()
    assert handle == other
    assert hash(handle) == hash(other)
    assert handle != OfUser()
    assert OfUser.of(1) == OfUser.of("1") != OfUser.of(2)
    assert OfUser.of(1) != OfUser()
    assert repr(handle) == "<HTTPSettings>"
    assert repr(OfUser.of("ada")) == "<OfUser of a user>"
    for one in (handle, OfUser(), OfUser.of("ada")):
        assert pickle.loads(pickle.dumps(one)) == one
        assert copy.deepcopy(one) == one


def test_a_base_without_fields_is_no_state() -> None:
    """The bases themselves, and classes between, declare nothing."""

    class Between(SessionState):
        pass

    class Real(Between):
        x: int = 0

    assert model_of(Real).name == "real"
    with pytest.raises(TypeError, match="Between declares no fields"):
        model_of(Between)


# Applications


def test_classes_of_one_name_are_a_mistake() -> None:
    """Two classes of one name in one application, whatever their kinds, are a ConfigError that names both."""

    class Prefs(SessionState):
        x: int = 0

    class Other(AppState, name="prefs"):
        x: int = 0

    with pytest.raises(ConfigError, match=r'Other and .*Prefs are both called \'prefs\'; write name="..."'):
        Site(declared=[Prefs, Other])
    site = Site()
    site.visit(lambda: Prefs().x)
    with pytest.raises(ConfigError, match="are both called"), site.app.app_context():
        Other().x  # noqa: B018


def test_an_application_may_be_limited_to_some_classes() -> None:
    """With declared=, the use of another class is a ConfigError, also through reset() and known()."""

    class Mine(AppState):
        x: int = 0

    site = Site(declared=[Mine])
    with site.app.app_context():
        assert Mine().x == 0
        for use in (lambda: HTTPSettings().theme, lambda: site.state.known(HTTPSettings(), "theme")):
            with pytest.raises(ConfigError, match=r"HTTPSettings is not declared .* Stateful\(declared="):
                use()


def test_what_modules_define_belongs_to_every_application() -> None:
    """A class of a module is known by itself, one inside of a function once it is used."""

    class Local(AppState):
        x: int = 0

    registry = Registry()
    assert "http_settings" in registry.models()
    assert "local" not in registry.models()
    registry.admit(model_of(Local))
    assert "local" in registry.models()


def test_a_missing_migration_is_told_at_set_up() -> None:
    """A version that nothing leads to is a ConfigError that says what to write."""

    class Prefs(AppState, version=3):
        x: int = 0

    @migrate(Prefs, 2)
    def second(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return old

    with pytest.raises(ConfigError, match=r"no migration from version 1; write @migrate\(Prefs, 1\)"):
        Site(declared=[Prefs])
    with Site().app.app_context(), pytest.raises(ConfigError, match="no migration from version 1"):
        Prefs().x  # noqa: B018


def test_a_migration_that_leads_nowhere_is_refused() -> None:
    """A step of a version that there is not, or a second one, is a TypeError."""

    class Prefs(AppState, version=2):
        x: int = 0

    for version in (0, 2, 3):
        with pytest.raises(TypeError, match=f"nothing to migrate from {version}"):
            migrate(Prefs, version)
    migrate(Prefs, 1)(dict)
    with pytest.raises(TypeError, match="already"):
        migrate(Prefs, 1)(dict)


def test_an_application_without_us_is_told() -> None:
    """A handle in an application without Stateful says what to write."""
    from flask import Flask

    with Flask("bare").app_context(), pytest.raises(ConfigError, match=r"state = Stateful\(app\)"):
        HTTPSettings().theme  # noqa: B018
