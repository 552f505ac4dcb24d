"""``python -m scripts.baselines``: its rows are command lines that 'cim-plugin train' takes, and a row of each."""

from __future__ import annotations

import argparse

import pytest

from cim_plugin.compare import command
from cim_plugin.wilds_runner.config import add_arguments, make_config
from scripts import baselines
from scripts.demo_wilds import PLUGIN, SETTINGS


@pytest.mark.parametrize("row", baselines.ROWS)
def test_a_row_is_a_command_line_that_is_taken(row):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    config = make_config(parser.parse_args([*SETTINGS, *baselines.ROWS[row], "--root_dir", "data"]))
    assert config.batch_size == 32 and config.algorithm in baselines.ROWS[row]


def test_the_rows_of_colours_differ_in_their_weight_only():
    flags = [baselines.ROWS[row] for row in ("colours", "colours-0.01", "colours-0")]
    assert [words[len(flags[0]) :] for words in flags] == [[], ["--cim_lambda", "0.01"], ["--cim_lambda", "0"]]


def test_a_failed_run_ends_it_with_what_it_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baselines.subprocess, "call", lambda words, env: 0)  # the data are not made
    monkeypatch.setattr("sys.argv", ["baselines", "--rows", "ERM", "--seeds", "1", "--output_dir", str(tmp_path)])
    assert baselines.main() == 1
    assert f"{tmp_path}/runs/ERM-20-0/err.txt says why" in capsys.readouterr().err
    assert "waterbirds is not in --root_dir" in (tmp_path / "runs/ERM-20-0/err.txt").read_text()


def test_the_table_is_made_by_words_that_compare_takes(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(baselines.subprocess, "call", lambda words, env=None: called.append(words) or 0)
    (tmp_path / "runs/ERM-20-0").mkdir(parents=True)
    (tmp_path / "runs/ERM-20-0/results.json").write_text('{"status": "finished"}')
    monkeypatch.setattr("sys.argv", ["baselines", "--rows", "ERM", "--seeds", "1", "--output_dir", str(tmp_path)])
    assert baselines.main() == 0
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(called[-1][len(PLUGIN) + 1 :])
    assert args.rules == list(baselines.RULES) and args.folders == [f"{tmp_path}/runs/ERM-20-0"]
