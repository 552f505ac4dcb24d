"""The folders of ``scripts/bench reports`` are runs that compare reads, and its row."""

from __future__ import annotations

import argparse
import random

from cim_plugin.compare.tables import build
from cim_plugin.runs import find
from scripts.benchmarks import reports


def test_the_folders_are_finished_runs(tmp_path):
    reports.write_jobs(tmp_path / "jobs", 50, random.Random(0))
    reports.write_runs(tmp_path / "runs", 8, random.Random(0))
    found = find.find([str(tmp_path)])
    assert found.left_out == [] and all(run.unfinished is None for run in found.runs)
    assert {table.host: len(table.rows) for table in build(found.runs)} == {"wilds": 8, "domainbed": 15}


def test_the_ratio_is_the_median_of_pairs():
    rounds = [[(1.0, 2.0), (4.0, 4.0)], [(3.0, 2.0), (4.0, 8.0)], [(2.0, 2.0), (4.0, 2.0)]]
    assert reports._words(rounds) == "CPU 2.00 against 4.00: 0.50 times; wall 2.00 against 4.00: 0.50 times"
    assert reports._words([[one[0]] for one in rounds]) == "CPU 2.00; wall 2.00"


def test_a_whole_run(capsys):
    args = {"jobs": 2, "runs": 2, "pairs": 1, "against": None}
    assert reports.run(argparse.Namespace(**args)) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["2", "2"]
