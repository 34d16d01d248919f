"""The house's floors: imports only point down, rooms of one floor do not know each other, what is optional stays so."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
import typing as t
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT / "src"
PACKAGE = "flask_stateful"

#: The floor of each room, as in DESIGN.md. A room is a module or a folder directly under the package; the package's
#: own ``__init__`` is the room "".
FLOORS = {
    "errors": 0,
    "clock": 0,
    "signals": 0,
    "seldom": 1,
    "serialization": 1,
    "sealing": 1,
    "epochs": 1,
    "stores": 2,
    "tracking": 2,
    "unit": 3,
    "locks": 3,
    "declared": 3,
    "blocks": 4,
    "current": 4,
    "cookies": 4,
    "sessions": 5,
    "browser": 5,
    "cache": 5,
    "consent": 5,
    "database": 5,
    "durable": 5,
    "settings": 6,
    "keys": 6,
    "wiring": 7,
    "cli": 8,
    "inventory": 8,
    "metrics": 8,
    "extension": 9,
    "": 10,
    "testing": 11,
}

#: Up to this floor, nothing knows of Flask.
WITHOUT_FLASK = 2

#: What every store may know, besides its own folder.
SHARED_BY_STORES = {"base", "forks", "polling"}

#: Of these, importing the package imports nothing, even when they are installed.
OPTIONAL = {
    "flask_login",
    "flask_sqlalchemy",
    "sqlalchemy",
    "pymemcache",
    "pymongo",
    "boto3",
    "pydantic",
    "attrs",
    "prometheus_client",
    "opentelemetry",
}


class Edge(t.NamedTuple):
    """One module imports another, both inside the package."""

    importer: str
    imported: str
    lazy: bool
    line: int


def room_of(module: str) -> str:
    """Return the room a module lies in."""
    return module.removeprefix(PACKAGE).removeprefix(".").split(".")[0]


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def modules() -> dict[str, Path]:
    """Return every module of the package and its file."""
    return {module_name(path): path for path in sorted((SOURCE / PACKAGE).rglob("*.py"))}


def resolve(node: ast.Import | ast.ImportFrom, module: str, path: Path) -> t.Iterator[str]:
    """Yield the full names an import statement names, a submodule by its own name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    climbed = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    origin = ".".join([*climbed, *([node.module] if node.module else [])])
    for alias in node.names:
        full = f"{origin}.{alias.name}"
        is_module = full in modules() or (origin == PACKAGE and alias.name in FLOORS)
        yield full if is_module else origin


def edges_of(module: str, path: Path, tree: ast.Module) -> t.Iterator[Edge]:
    """Yield the edges from one module to others of the package."""
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in resolve(node, module, path):
                if name.split(".")[0] == PACKAGE:
                    yield Edge(module, name, node in lazy, node.lineno)


def faults_of(edges: t.Iterable[Edge]) -> list[str]:
    """Return a sentence for each edge that the house does not allow."""
    faults = []
    for edge in edges:
        here, there = room_of(edge.importer), room_of(edge.imported)
        where = f"{edge.importer}:{edge.line} imports {edge.imported}"
        if here != there and FLOORS[there] >= FLOORS[here]:
            faults.append(f"{where}: floor {FLOORS[here]} may not know floor {FLOORS[there]}")
        if here == there == "stores" and is_sideways(edge):
            faults.append(f"{where}: a store may know {', '.join(sorted(SHARED_BY_STORES))}, and no other store")
    return faults


def is_sideways(edge: Edge) -> bool:
    """Tell whether one store imports another; stores/__init__ may, inside a function."""
    if edge.importer == f"{PACKAGE}.stores":
        return not edge.lazy and edge.imported != f"{PACKAGE}.stores.base"
    here, there = (
        module.removeprefix(f"{PACKAGE}.stores").removeprefix(".").split(".")[0]
        for module in (edge.importer, edge.imported)
    )
    return there not in ("", here) and there not in SHARED_BY_STORES


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds the package's source."""
    start = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def edges() -> list[Edge]:
    """Every edge inside the package."""
    return [
        edge
        for module, path in modules().items()
        for edge in edges_of(module, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
    ]


def test_every_room_has_a_floor() -> None:
    """A module or folder that is new in the package is given a floor here and in DESIGN.md."""
    assert {room_of(module) for module in modules()} <= set(FLOORS)


def test_imports_point_down(edges: list[Edge]) -> None:
    """No module imports one of its own floor or a higher one, except inside its own room."""
    assert len(edges) > 3
    assert faults_of(edges) == []


def test_testing_is_imported_by_nobody(edges: list[Edge]) -> None:
    """What ships for tests stays out of what runs."""
    assert [edge for edge in edges if room_of(edge.imported) == "testing" != room_of(edge.importer)] == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        pytest.param("stores.base", "from ..unit import Unit", id="upwards"),
        pytest.param("errors", "from . import clock", id="sideways"),
        pytest.param("sealing", "import flask_stateful.serialization", id="sideways-absolute"),
        pytest.param("stores.redis.store", "from ..sqlite import SQLiteStore", id="between-stores"),
        pytest.param("stores.memory", "def f():\n    from .sqlite import SQLiteStore", id="between-stores-lazily"),
        pytest.param("stores.__init__", "from .sqlite import SQLiteStore", id="store-not-lazily"),
        pytest.param("unit", "if t.TYPE_CHECKING:\n    from .sessions import Session", id="for-types-only"),
        pytest.param("errors", "from . import Stateful", id="the-package-itself"),
    ],
)
def test_the_rule_bites(module: str, code: str) -> None:
    """Each kind of forbidden import is found."""
    path = SOURCE / PACKAGE / (module.replace(".", "/") + ".py")
    assert len(faults_of(edges_of(module_name(path), path, ast.parse(code)))) == 1


@pytest.mark.parametrize(
    ("module", "code"),
    [
        pytest.param("unit", "from .stores.base import Store", id="downwards"),
        pytest.param("stores.redis.store", "from ..base import Store\nfrom ...errors import StoreError", id="base"),
        pytest.param("stores.redis.store", "from .client import ClientLink\nfrom ..forks import ForkAware", id="own"),
        pytest.param("stores.__init__", "def f():\n    from .sqlite import SQLiteStore", id="store-lazily"),
        pytest.param("sessions.manager", "from . import record", id="same-room"),
    ],
)
def test_the_rule_lets_pass(module: str, code: str) -> None:
    """What the house allows is not taken for a fault."""
    path = SOURCE / PACKAGE / (module.replace(".", "/") + ".py")
    assert faults_of(edges_of(module_name(path), path, ast.parse(code))) == []


def test_low_floors_import_without_flask() -> None:
    """Floors 0 to 2 work where Flask is not installed."""
    low = [name for name in modules() if FLOORS[room_of(name)] <= WITHOUT_FLASK]
    code = f"""
import importlib, types
for blocked in ("flask", "werkzeug", "jinja2"):
    sys.modules[blocked] = None
package = types.ModuleType({PACKAGE!r})  # stands in for an __init__ that imports the extension
package.__path__ = [{str(SOURCE / PACKAGE)!r}]
sys.modules[{PACKAGE!r}] = package
for name in {low!r}:
    importlib.import_module(name)
"""
    assert f"{PACKAGE}.stores.base" in low
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_package_imports_no_optional_library() -> None:
    """Importing flask_stateful imports nothing that an extra brings, nor another optional library."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = OPTIONAL | {re.split(r"\W", requirement)[0] for extra in extras.values() for requirement in extra}
    done = python(f"import {PACKAGE}; print(*({names!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
