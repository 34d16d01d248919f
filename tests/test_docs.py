"""What the documentation shows is true: its Python runs, its `flask` commands work, its example does what it says.

The Python blocks of a page are run in order in one namespace, in an empty folder; a page that defines tests is run by
pytest. There is no way to leave a Python block out. `$ flask ...` lines in console blocks are run against the page's
``app``; lines below one, if any, are its output, where ``...`` stands for anything.
"""

from __future__ import annotations

import doctest
import gc
import re
import shlex
import subprocess
import sys
import textwrap
import types
import typing as t
from pathlib import Path

import pytest

from flask_stateful.testing import FakeBrowser, FakeClock

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]

#: What a block may be marked as; a directive's name stands in braces and is no code.
RUN = {"python", "console"}
SHOWN = {"text", "toml", "ini", "html", "jinja", "javascript", "nginx", "sh"}

BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.M | re.S)
COMMAND = re.compile(r"^\$ (?P<command>flask state .+)\n(?P<output>(?:(?!\$ ).*\n)*)", re.M)


class Block(t.NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    source = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], textwrap.dedent(found["text"]), source.count("\n", 0, found.start("text")))
        for found in BLOCK.finditer(source)
    ]


def run_python(block: Block, page: Path, module: types.ModuleType) -> None:
    """Run a block in a page's namespace, with the page's own line numbers in a traceback."""
    exec(compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True), module.__dict__)


def run_console(block: Block, page: Path, module: types.ModuleType) -> None:
    """Run the block's `flask state` commands against the page's app and compare what they print."""
    for found in COMMAND.finditer(block.text):
        done = module.app.test_cli_runner().invoke(args=shlex.split(found["command"])[1:])
        assert done.exit_code == 0, f"{page.name}:{block.line}: {found['command']}: {done.output}"
        expected = found["output"]
        same = doctest.OutputChecker().check_output(expected, done.output, doctest.ELLIPSIS)
        assert same or not expected, f"{page.name}:{block.line}: {found['command']} printed:\n{done.output}"


def run_page(page: Path, module: types.ModuleType) -> None:
    """Run a page's Python and console blocks in order."""
    for block in blocks_of(page):
        if block.language in RUN:
            {"python": run_python, "console": run_console}[block.language](block, page, module)


def has_tests(page: Path) -> bool:
    """Tell whether a page shows tests."""
    return any(re.search(r"^(def test_|class Test)", block.text, re.M) for block in blocks_of(page))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[types.ModuleType]:
    """An empty module in an empty folder."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    module.__file__ = str(tmp_path / "page.py")
    monkeypatch.setitem(sys.modules, "page", module)
    yield module
    module.__dict__.clear()
    gc.collect()  # what a page leaves open is reported here, not in another test


def named(pages: t.Iterable[Path]) -> list[t.Any]:
    """Return the pages as parameters that are named by their path."""
    return [pytest.param(page, id=str(page.relative_to(PROJECT))) for page in pages]


@pytest.mark.parametrize("page", named(PAGES))
def test_blocks_are_marked(page: Path) -> None:
    """Each fenced block says what it is, so that none of the Python ones is passed over."""
    source = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```", source, re.M)) == 2 * len(blocks_of(page))
    marks = {block.language for block in blocks_of(page)}
    assert {mark for mark in marks if not mark.startswith("{")} <= RUN | SHOWN
    assert not {mark for mark in marks if mark.startswith("{code")}


@pytest.mark.parametrize("page", named(page for page in PAGES if not has_tests(page)))
def test_page_runs(page: Path, module: types.ModuleType) -> None:
    """The code of a page runs from top to bottom."""
    run_page(page, module)


@pytest.mark.parametrize("page", named(page for page in PAGES if has_tests(page)))
def test_shown_tests_pass(page: Path, tmp_path: Path) -> None:
    """The tests that a page shows pass."""
    text = "\n\n".join(block.text for block in blocks_of(page) if block.language == "python")
    (tmp_path / "test_page.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run([*command, "test_page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_example_does_what_it_says(module: types.ModuleType) -> None:
    """The README's app counts visits, makes its headline once, and knows a theme that was chosen in the browser."""
    run_page(PROJECT / "README.md", module)
    browser = FakeBrowser(module.app)
    with FakeClock() as clock, module.app.app_context():
        tab = browser.open("/")
        assert "color-scheme: light" in tab.text
        assert "nothing was lost. This is visit 1." in tab.text
        tab.local.prefs.theme = "dark"
        assert "color-scheme: dark" in tab.get("/").text
        assert "This is visit 2." in tab.text
        assert module.state.cache.stats["misses"] == 1
        clock.advance(61)
        assert "This is visit 3." in tab.get("/").text
        assert module.state.cache.stats["misses"] == 2
