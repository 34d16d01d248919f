"""The public names are there, all of them and no others, and the pictures of them are true."""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing as t

import pytest
from blinker import NamedSignal

import flask_stateful
from flask_stateful import errors, signals, stores, testing

#: The public names, by module. What is added here is added to ``docs/api.md`` as well.
NAMES = {
    "flask_stateful": {
        "AppState",
        "CookieState",
        "LocalState",
        "MISSING",
        "SessionState",
        "TabState",
        "UserState",
        "field",
        "migrate",
        "ConfigError",
        "CookieTooLarge",
        "LockTimeout",
        "SessionInfo",
        "StateClosed",
        "StateConflict",
        "StateError",
        "Stateful",
        "StoreError",
        "StoreUnavailable",
        "ValueTooLarge",
    },
    "flask_stateful.stores": {"Store", "open_store", "register_scheme"},
    "flask_stateful.testing": {
        "FakeBrowser",
        "FakeClock",
        "FakeTab",
        "Fault",
        "FaultyStore",
        "StoreConformance",
        "login",
    },
}

#: What a developer types after ``state.sessions.``.
SESSIONS = {"current", "destroy", "lock", "login", "logout", "rotate", "user_id"}

SIGNALS = {
    "state_changed",
    "state_invalid",
    "user_changed",
    "session_created",
    "session_rotated",
    "session_destroyed",
    "session_id_invalid",
    "session_corrupt",
    "cache_hit",
    "cache_miss",
    "cache_refreshed",
    "cache_error",
    "store_down",
    "store_up",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_exported(module: str) -> None:
    """Each module says what is public, and all of that is there."""
    loaded = importlib.import_module(module)
    assert set(loaded.__all__) == NAMES[module]
    assert all(getattr(loaded, name) is not None for name in loaded.__all__)
    in_order = sorted(loaded.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert list(loaded.__all__) == in_order


def test_package_has_no_public_names_besides() -> None:
    """What can be seen in the package without an underscore is exported, or is one of its modules."""
    seen = {name for name, value in vars(flask_stateful).items() if not isinstance(value, types.ModuleType)}
    assert {name for name in seen if not name.startswith("_")} == NAMES["flask_stateful"]


def public(kind: type) -> set[str]:
    """Return the public names of a class."""
    return {name for name in vars(kind) if not name.startswith("_")}


def test_extension_has_its_names() -> None:
    """``state.`` offers what is built, and nothing else."""
    state = flask_stateful.Stateful()
    assert public(flask_stateful.Stateful) == {
        "atomic",
        "browser_status",
        "external",
        "init_app",
        "inventory",
        "known",
        "on_commit",
        "reset",
        "row",
        "test_isolation",
        "user_id",
    }
    assert {name for name in vars(state) if not name.startswith("_")} == {
        "cache",
        "consent",
        "cookies",
        "database",
        "sessions",
    }
    assert public(type(state.sessions)) == SESSIONS


def test_extension_takes_everything_but_the_application_by_name() -> None:
    """The application comes first, all else is written with its name."""
    parameters = inspect.signature(flask_stateful.Stateful).parameters
    positional = [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]
    assert positional == ["app"]
    assert set(parameters) == {"app", "db", "declared", "store", "user_id"}


def test_session_info_has_its_fields() -> None:
    """What is known about a session has the names that lists of sessions will have too."""
    assert list(t.get_type_hints(flask_stateful.SessionInfo)) == [
        "handle",
        "user_id",
        "created_at",
        "last_seen_at",
        "expires_at",
        "ip",
        "user_agent",
        "current",
    ]


def test_signals_have_their_names() -> None:
    """Each signal is called as its variable, with hyphens."""
    found = {name: value for name, value in vars(signals).items() if isinstance(value, NamedSignal)}
    assert found.keys() == SIGNALS
    assert all(signal.name == name.replace("_", "-") for name, signal in found.items())


# Errors


def drawn_tree() -> dict[str, str]:
    """Return each error in the drawing and the one it hangs from."""
    lines = [
        line for line in (errors.__doc__ or "").splitlines() if re.match(r"\s*(?:[│├└ ─]*)[A-Z]\w+(?:\s{2}|$)", line)
    ]
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in lines:
        found = re.search(r"[A-Z]\w+", line)
        assert found
        depth, name = found.start(), found.group()
        above = [entry for entry in above if entry[0] < depth]
        parents[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    return parents


def real_tree() -> dict[str, str]:
    """Return each error and its base."""
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert all(len(kind.__bases__) == 1 for kind in kinds)
    return {kind.__name__: kind.__base__.__name__ for kind in kinds if kind.__base__}


def test_drawn_tree_is_the_real_one() -> None:
    """The tree in the module's text has every error in its place."""
    assert drawn_tree() == real_tree()
    assert len(real_tree()) == 16


def test_drawn_tree_says_of_each_what_it_means() -> None:
    """Each error in the drawing but the root has words beside it, and each class a sentence."""
    for name in real_tree():
        assert inspect.getdoc(getattr(errors, name)), name
        if name != "StateError":
            assert re.search(rf"{name} {{2,}}\w+", errors.__doc__ or ""), name


def test_exported_errors_are_those_that_views_meet() -> None:
    """The package itself exports the errors of its own tree, the same objects."""
    exported = {name for name in NAMES["flask_stateful"] if name in real_tree()}
    assert all(getattr(flask_stateful, name) is getattr(errors, name) for name in exported)
    assert stores.Store is importlib.import_module("flask_stateful.stores.base").Store


def test_conformance_suite_is_loaded_when_it_is_asked_for() -> None:
    """The suite is there by its name, and a name that does not exist is an AttributeError as usual."""
    assert inspect.isclass(testing.StoreConformance)
    with pytest.raises(AttributeError, match="no attribute 'FakeDatabase'"):
        testing.FakeDatabase  # noqa: B018
