"""The conformance suite passes sound stores, and fails each broken one in the test that says why."""

from __future__ import annotations

import subprocess
import sys
import typing as t
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import pytest

from flask_stateful.testing import StoreConformance
from tests.stores.broken.cases import TABLE
from tests.stores.broken.table import Row, rules_of
from tests.stores.sound import ClientSuite, FileSuite, WatchableSuite

ROOT = Path(__file__).parents[2]
CASES = "tests/stores/broken/cases.py"

#: What became of each test of each case, once for each of its parameters.
Outcomes = dict[tuple[str, str], list[str]]


class TestWatchableStore(WatchableSuite):
    """A sound store that tells changes passes."""


class TestClientStore(ClientSuite):
    """A sound store that was given a client passes."""


class TestFileStore(FileSuite):
    """A sound store that processes share passes."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Run the whole table once, and return what became of each test."""
    report = tmp_path_factory.mktemp("bites") / "report.xml"
    # Explaining how two values of a megabyte differ would take minutes, and nobody reads it.
    options = ["--noconftest", "-q", "-p", "no:cacheprovider", "--tb=no", "--assert=plain", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, CASES]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=280)
    found: Outcomes = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["classname"].rpartition(".")[2], case.attrib["name"].partition("[")[0]
        found[name].append(next((child.tag for child in case), "passed"))
    return found


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.store.__name__}-{row.test}") for row in TABLE])
def test_broken_store_is_noticed(outcomes: Outcomes, row: Row) -> None:
    """The test that is named for a broken store fails, by what it checks: an error in setting it up is none."""
    assert "failure" in outcomes[row.case, row.test]


def test_every_rule_is_broken_once() -> None:
    """There is no test in the suite that no broken store makes fail."""
    assert rules_of(StoreConformance) - {row.test for row in TABLE} == set()


def test_cases_have_names_of_their_own() -> None:
    """No broken store hides another one of the same name."""
    stores: dict[str, t.Any] = {}
    assert [row.case for row in TABLE if stores.setdefault(row.case, row.store) is not row.store] == []
