"""Runs of 'cim-plugin train' and folders that the tests of reports share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from showing import train

from cim_plugin.compare import tables
from cim_plugin.data import demo
from cim_plugin.data.releases import RELEASES
from cim_plugin.files import write_whole
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


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A root with the demo release of Waterbirds."""
    root = tmp_path_factory.mktemp("root")
    for path, content in demo.make_files("waterbirds", 0).items():
        write_whole(RELEASES["waterbirds"].path(root) / path, content)
    return root


@pytest.fixture(scope="session")
def run(root, tmp_path_factory) -> Path:
    """A finished run of CIM_VIB. Not to be changed."""
    return train(root, tmp_path_factory.mktemp("CIM_VIB"), "CIM_VIB")


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copy"))
