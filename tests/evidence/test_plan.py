"""Which runs the table of subgroups is made of, in which order, and what each is trained with."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import pytest

from cim_plugin.wilds_runner.config import add_arguments, make_config
from scripts.evidence.plan import REFERENCES, Plan, Run
from scripts.evidence.rows import BALANCED, ROWS, with_bases
from scripts.evidence.settings import SEARCH_SEED, Settings

SETTINGS = Settings("data", "weights.pt", n_epochs=2, side=64, cross_fit="7")


def parsed(words: list[str]):
    """The configuration that 'cim-plugin train' makes of a run's words."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert words[0] == "train"
    return make_config(parser.parse_args(words[1:]))


def plan_of(folder: Path, *rows: str, **changes) -> Plan:
    return Plan(SETTINGS, str(folder), rows or tuple(ROWS), **{"seeds": 2, "rates": (1e-4,), **changes})


def finish(plan: Plan, run: Run, score: float, test: float = 0.0) -> None:
    """A results.json as a run leaves it."""
    file = Path(plan.place(run)) / "results.json"
    file.parent.mkdir(parents=True)
    selection = {"worst_pseudo_group": {"score": score, "splits": {"test": {"metrics": {"acc_wg": test}}}}}
    file.write_text(json.dumps({"status": "finished", "selection": selection}))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.retrain is None])
def test_every_row_is_a_command_line_that_is_taken_and_differs_in_what_it_says_only(tmp_path, name):
    plan = plan_of(tmp_path)
    config, erm = (parsed(plan.words(Run(row, 1))).as_record() for row in (name, "ERM"))
    assert (config["freeze_bn"], config["batch_size"], config["n_epochs"], config["lr"]) == (True, 32, 2, 1e-4)
    assert config["cache"] is True and config["target_resolution"] == [64, 64] and config["seed"] == 1
    differ = {key for key in config if config[key] != erm[key]} - {"log_dir", "algorithm", "hyperparameters"}
    allowed = {"balance_batches", "groups"} if ROWS[name].batches == BALANCED else set()
    allowed |= {"root_dir"} if ROWS[name].figures_only else set()
    allowed |= {"pseudo_environments", "balance_batches"} if name == "JTT" else set()
    allowed |= {"uniform_over_groups", "distinct_groups"} if ROWS[name].uses_groups else set()
    assert differ <= allowed


def test_pseudo_environments_of_a_seed_are_found_once_and_go_to_all_rows_but_jtt(tmp_path):
    plan = plan_of(tmp_path)
    config = parsed(plan.words(Run(REFERENCES, 1)))
    assert (config.cross_fit, config.n_epochs, config.algorithm) == (7, 1, "ERM")
    files = {name: parsed(plan.words(Run(name, 1))).pseudo_environments for name in ROWS if ROWS[name].retrain is None}
    assert files.pop("JTT") is None
    assert set(files.values()) == {f"{config.log_dir}/cross_fit.csv"}


def test_pseudo_environments_of_another_table_serve_and_none_are_found_anew(tmp_path):
    settings = dataclasses.replace(SETTINGS, side=128, references=SETTINGS.name)
    larger, plan = plan_of(tmp_path, "ERM", "AFR")._replace(settings=settings), plan_of(tmp_path, "ERM", "AFR")
    given = {each: parsed(each.words(Run("ERM", 1))).pseudo_environments for each in (plan, larger)}
    assert given[larger] == given[plan] and larger.place(Run("ERM", 1)) != plan.place(Run("ERM", 1))
    assert larger.size == plan.size - 2 == sum(len(stage) for stage in larger.stages())


def test_a_retrained_row_starts_from_the_run_of_the_same_seed_and_rate(tmp_path):
    plan = plan_of(tmp_path)
    words = plan.words(Run("AFR", 1, 3e-4))
    assert words[:2] == ["retrain", plan.place(Run("ERM", 1, 3e-4))] and words[2:4] == ["--method", "afr"]
    assert with_bases(["DFR", "pseudo-head"]) == ["ERM", "ERM-balanced", "DFR", "pseudo-head"]


def test_the_same_rates_are_searched_for_every_row_outside_the_reported_seeds(tmp_path):
    plan = plan_of(tmp_path, "ERM", "CIM", "AFR", rates=(1e-4, 3e-4, 1e-3))
    assert plan.search() == [Run(name, SEARCH_SEED, rate) for name in ("ERM", "CIM") for rate in plan.rates]
    assert SEARCH_SEED not in plan.all_seeds
    searched, reported = (parsed(plan.words(Run("CIM", seed))) for seed in (SEARCH_SEED, 0))
    assert (searched.evaluate_all_splits, searched.save_last) == (False, False)  # its test data are not even looked at
    assert (reported.evaluate_all_splits, reported.save_last) == (True, True)
    assert plan_of(tmp_path).search() == []


def test_the_rate_is_chosen_on_validation_data_of_equals_the_first(tmp_path):
    plan = plan_of(tmp_path, "ERM", "CIM", "AFR", rates=(1e-4, 3e-4, 1e-3))
    assert plan.rate("ERM") is None and plan.of_seed(0, retrained=False) == []
    for name, scores in {"ERM": (0.1, 0.5, 0.5), "CIM": (0.3, 0.2, 0.1)}.items():
        for rate, score in zip(plan.rates, scores):
            finish(plan, Run(name, SEARCH_SEED, rate), score, test=1 - score)
    assert [plan.rate(name) for name in ("ERM", "CIM", "AFR")] == [3e-4, 1e-4, 3e-4]
    assert plan.of_seed(7, retrained=True) == [Run("AFR", 7, 3e-4)]


def test_seeds_are_outermost_and_what_a_run_needs_comes_in_a_stage_before_it(tmp_path):
    plan = plan_of(tmp_path, "ERM", "CIM", "AFR")
    stages = list(plan.stages())
    assert stages == [
        [Run(REFERENCES, 0)],
        [],
        [Run(REFERENCES, 1), Run("ERM", 0), Run("CIM", 0)],
        [Run("AFR", 0)],
        [Run("ERM", 1), Run("CIM", 1)],
        [Run("AFR", 1)],
    ]
    assert sum(map(len, stages)) == plan.size
    assert list(plan_of(tmp_path, "ERM", rates=(1e-4, 3e-4, 1e-3)).stages())[0] == [
        Run(REFERENCES, 100),
        Run(REFERENCES, 0),
    ]


def test_runs_of_other_settings_have_other_folders(tmp_path):
    plan = plan_of(tmp_path)
    others = [Settings("data", "weights.pt", 3, 64), Settings("data", "weights.pt", 2, 96)]
    places = {each.place(Run("ERM", 0)) for each in (plan, *(plan._replace(settings=other) for other in others))}
    assert len(places) == 3
