"""Runs of 'cim-plugin train' and folders that the tests of reports share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cim_plugin.autoload import domainbed_cache
from cim_plugin.report import reading, tables

sys.path.append(str(Path(__file__).parents[1] / "wilds_runner"))  # small_runs


@pytest.fixture(scope="session")
def domainbed_checkout() -> Path:
    """A real DomainBed checkout, of which only what needs no torch is used; skips with the reason where there is
    none.
    """
    for folder in filter(None, (os.environ.get("DOMAINBED_HOME"), domainbed_cache())):
        if os.path.isfile(os.path.join(folder, "domainbed", "model_selection.py")):
            return Path(folder)
    pytest.skip("no DomainBed: run 'cim-plugin get-domainbed' or set DOMAINBED_HOME")


@pytest.fixture
def compare():
    """A function (folder, rules) -> the tables of all runs below it."""

    def build(folder: Path, rules=None) -> list[tables.Table]:
        return tables.build(reading.find([str(folder)]).runs, rules)

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
