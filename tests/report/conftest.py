"""Runs of 'cim-plugin train' and folders that the tests of reports share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cim_plugin.compare import tables
from cim_plugin.runs import find

sys.path.append(str(Path(__file__).parents[1] / "wilds_runner"))  # small_runs


@pytest.fixture
def compare():
    """A function (folder, rules) -> the tables of all runs below it."""

    def build(folder: Path, rules=None) -> list[tables.Table]:
        return tables.build(find.find([str(folder)]).runs, rules)

    return build


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory) -> Path:
    """A folder with real runs of two epochs: ERM and the control of CIM, a release of digits on photographs beside
    them.
    """
    from small_runs import train, write_release

    root = tmp_path_factory.mktemp("trained")
    write_release(root / "data")
    for algorithm, words in (("ERM", ()), ("CIM", ("--cim_lambda", "0"))):
        assert train(root / "data", root / "runs" / algorithm, *words, algorithm=algorithm) == 0
    return root
