"""The parts of the project agree: code and documentation, extras and stores, README and CI."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import shutil
import subprocess
import tomllib
import types
import typing as t
from pathlib import Path

import flask
import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "src" / "flask_stateful"
STORES = PACKAGE / "stores"
DOCS = PROJECT / "docs"

#: Modules of the stores' room that are no store.
NO_STORES = {"__init__", "base", "forks", "guarded", "polling"}

#: What no file of the project may hold: where a machine found its packages, and where a machine kept the project.
MACHINE = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.|debian\.(?:org|net)|ubuntu\.com|--(?:extra-)?index-url|--find-links\b"
    r"|(?<![\w.])/(?:home|Users)/\w+/|(?<![\w.])/(?:root|work|workspace)/"
)

#: What is left to do is done, or is not begun.
LEFT_OVER = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")

#: The longest function, in lines, and the most positional parameters.
LONGEST, POSITIONAL = 60, 4


@functools.cache
def tracked() -> list[Path]:
    """Return the files that belong to the project, this one aside: it has to name what it looks for."""
    if shutil.which("git") is None or not (PROJECT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    files = [PROJECT / name for name in listed.stdout.split("\0") if name]
    return [path for path in files if path.is_file() and path != Path(__file__)]


@functools.cache
def texts() -> dict[str, str]:
    """Return the text of each tracked file that is text."""
    found = {}
    for path in tracked():
        try:
            found[str(path.relative_to(PROJECT))] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


@functools.cache
def pages() -> dict[str, str]:
    """Return the documentation's pages."""
    found = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    return {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in found}


def parsed(*folders: str) -> t.Iterator[tuple[str, ast.Module]]:
    """Yield every Python file in some folders, parsed."""
    for folder in folders:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            yield str(path.relative_to(PROJECT)), ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(tree: ast.AST) -> t.Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function in a file."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def pyproject() -> dict[str, t.Any]:
    """Return the project's description."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def module(name: str) -> types.ModuleType:
    """Return a module of the package."""
    return importlib.import_module(f"flask_stateful.{name}" if name else "flask_stateful")


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    """Return where a pattern occurs in the project's files."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_files_name_no_machine() -> None:
    """No file holds a package registry's address, nor a path that exists on one machine only."""
    assert lines_matching(MACHINE) == []


def test_nothing_is_left_to_do() -> None:
    """No file holds a note about work that is left."""
    assert lines_matching(LEFT_OVER) == []


@pytest.mark.parametrize("text", ["see https://pypi.org/x", "--index-url x", "cd /home/ada/x", "run /work/x"])
def test_the_machine_pattern_bites(text: str) -> None:
    """What the pattern is for is found."""
    assert MACHINE.search(text)


def test_every_test_states_what_it_expects() -> None:
    """Each test function, the shipped conformance suite's included, has a docstring of one line."""
    missing = [
        f"{name}:{node.lineno}: {node.name}"
        for name, tree in parsed("tests", "src/flask_stateful/testing")
        for node in functions(tree)
        if node.name.startswith("test_") and len((ast.get_docstring(node) or "").splitlines()) != 1
    ]
    assert missing == []


def test_no_test_sleeps() -> None:
    """No test waits for time to pass; a store that is broken on purpose may be slow."""
    sleeping = [
        f"{name}:{node.lineno}"
        for name, tree in parsed("tests", "src/flask_stateful/testing")
        for node in ast.walk(tree)
        if "/broken/" not in name
        and isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("time.sleep", "sleep", "asyncio.sleep")
    ]
    assert sleeping == []


def test_functions_keep_their_size() -> None:
    """No function of the package exceeds the longest length, or takes too many positional parameters."""
    too_large = []
    for name, tree in parsed("src"):
        for node in functions(tree):
            parameters = [arg for arg in (*node.args.posonlyargs, *node.args.args) if arg.arg not in ("self", "cls")]
            asks_by_name = node.name.startswith("test_")  # pytest fills these in
            if (node.end_lineno or 0) - node.lineno >= LONGEST or (len(parameters) > POSITIONAL and not asks_by_name):
                too_large.append(f"{name}:{node.lineno}: {node.name}")
    assert too_large == []


def test_documented_names_exist() -> None:
    """Everything that the API page names can be imported."""
    named = re.findall(r"^\.\. auto\w+:: (flask_stateful[\w.]*)", pages()["api.md"], re.M)
    assert named
    assert [name for name in named if not exists(name)] == []


def exists(name: str) -> bool:
    """Tell whether a dotted name can be imported."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: t.Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(lambda owner, part: getattr(owner, part, None), parts[end:], found) is not None
    return False


@pytest.mark.parametrize("name", ["", "stores", "testing"])
def test_public_names_are_documented(name: str) -> None:
    """Every name that a public module exports stands in the documentation."""
    exported = getattr(module(name), "__all__", ())
    everything = "\n".join(pages().values())
    whole_modules = set(re.findall(r"^\.\. automodule:: ([\w.]+)", pages()["api.md"], re.M))
    undocumented = [
        public
        for public in exported
        if getattr(getattr(module(name), public), "__module__", None) not in whole_modules
        and not re.search(rf"\b{public}\b", everything)
    ]
    assert undocumented == []


def test_commands_and_pages_agree() -> None:
    """Every command is documented, and every documented command exists."""
    app = flask.Flask(__name__)
    module("").Stateful(app, store="memory://")
    shown = set(re.findall(r"flask state ([a-z]\w*)", "\n".join(pages().values())))
    assert shown == set(app.cli.commands["state"].commands)


def test_settings_and_pages_agree() -> None:
    """The settings page has a row for every setting that is read, and the pages name no other."""
    rows = set(re.findall(r"^\| `(STATEFUL_\w+)`", pages()["settings.md"], re.M))
    source = (PACKAGE / "settings.py").read_text(encoding="utf-8")
    read = {f"STATEFUL_{name}" for name in re.findall(r"\.read\(\"([A-Z_]+)\"", source)}
    named = {name for page in pages().values() for name in re.findall(r"`(STATEFUL_\w+)`", page)}
    assert rows == read
    assert named <= rows


def store_modules() -> list[str]:
    """Return the names of the modules and folders that hold a store."""
    files = [*STORES.glob("*.py"), *(path.parent for path in STORES.glob("*/__init__.py"))]
    return sorted(path.stem for path in files if path.stem not in NO_STORES)


@pytest.mark.parametrize("name", store_modules())
def test_store_has_its_page_and_tests(name: str) -> None:
    """Each store has a page, which the overview lists, and a test file."""
    assert f"stores/{name}.md" in pages()
    assert f"({name}.md)" in pages()["stores/index.md"]
    assert list((PROJECT / "tests" / "stores").glob(f"test_{name}*.py"))


def imported_by(path: Path) -> set[str]:
    """Return the top-level names of what a file imports from outside the package."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    origins = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name.split(".")[0] for name in plain | origins}


def test_extras_and_stores_agree() -> None:
    """Each library that a store imports is an extra named like the store, and each extra belongs to a store."""
    extras = pyproject()["project"]["optional-dependencies"]
    libraries = {extra: {re.split(r"\W", requirement)[0] for requirement in extras[extra]} for extra in extras}
    assert set(extras) <= set(store_modules())
    for name in store_modules():
        files = [*STORES.glob(f"{name}.py"), *STORES.glob(f"{name}/*.py")]
        used = set().union(*map(imported_by, files)) & set().union(*libraries.values())
        assert used <= libraries.get(name, set())


def test_schemes_and_pages_agree() -> None:
    """Each scheme that a store is opened by stands on a store's page, and no page names another."""
    shown = set(re.findall(r"`([a-z][a-z+]*)://", "".join(pages()[page] for page in pages() if "stores/" in page)))
    assert shown == set(module("stores")._schemes)


def test_readme_and_ci_agree() -> None:
    """Every `make` target that the pages name exists, and CI runs the README's test command."""
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M))
    files = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *DOCS.rglob("*.md"), PROJECT / ".ci" / "run"]
    named = {name for path in files for name in re.findall(r"(?:`|\$ |step |all )make ([a-z]+)", path.read_text())}
    assert {"demo", "test", "check", "services"} <= named <= targets


def test_changes_begin_with_this_version() -> None:
    """The first release that CHANGES.md lists is the one that the project is at."""
    version = pyproject()["project"]["version"].partition(".dev")[0]
    first = re.search(r"^## (.+)$", (PROJECT / "CHANGES.md").read_text(encoding="utf-8"), re.M)
    assert first is not None
    assert version in first[1]
