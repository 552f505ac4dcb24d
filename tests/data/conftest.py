"""``cim-plugin data`` in the process of a test, and what the wilds package makes of its results."""

from __future__ import annotations

import pytest

from cim_plugin import cli


@pytest.fixture
def data(monkeypatch, capsys, tmp_path):
    """A function of the words after 'cim-plugin data' that returns exit status, output and errors; the current folder is the test's own."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        status = cli.main(["data", *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def open_release():
    """A function (name, root) -> wilds' dataset."""
    wilds = pytest.importorskip("wilds")
    return lambda name, root: wilds.get_dataset(dataset=name, root_dir=str(root), download=False)
