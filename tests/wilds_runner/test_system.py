"""Where training does not run."""

from __future__ import annotations

import os

import pytest

from cim_plugin.cli import main
from cim_plugin.doctor import packages
from cim_plugin.doctor.findings import Surroundings
from cim_plugin.wilds_runner import system

TRAIN = "train -d waterbirds --algorithm CIM --root_dir data --log_dir logs".split()


def levels() -> list[str]:
    """Of what the doctor finds."""
    return [finding.level for finding in packages.python(Surroundings(None, None, []))]


@pytest.mark.skipif(os.name == "nt", reason="this is Windows")
def test_windows_is_refused_before_anything_else_and_the_doctor_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert levels() == ["ok"]
    monkeypatch.setattr(system, "SYSTEM", "nt")
    assert levels() == ["ok", "warning"]
    assert main(TRAIN) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), list(tmp_path.iterdir())) == ("", 1, [])
    assert err.startswith("cim-plugin train: error: 'cim-plugin train' does not run on Windows: names of WILDS' files")
    assert "WSL" in err
