"""Every reason not to write an archive of runs: one line, and nothing is written."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from submissions import prediction

from cim_plugin.errors import InputError
from cim_plugin.leaderboard.runs import find_runs


def edit(run: Path, change) -> None:
    """Change results.json of a run in place."""
    path = run / "results.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))


def set_config(key: str, value):
    return lambda results: results["config"].__setitem__(key, value)


def set_key(key: str, value):
    return lambda results: results.__setitem__(key, value)


def of_dataset(dataset: str):
    return lambda results: (set_key("dataset", dataset)(results), set_config("dataset", dataset)(results))


def another_seed(seed: int):
    return lambda results: (set_key("seed", seed)(results), set_config("seed", seed)(results))


SEED_NEEDS = "camelyon17 needs seeds 0 to 9"


BREAKS = "{runs}/seed_4 breaks the leaderboard's rules: "


NO_METRICS = "{runs}/seed_4/results.json has no metrics of split "


DIFFER = "{runs}/seed_0 and {runs}/seed_4 have different configurations: "


#: what is wrong with the results of seed 4 -> (the change, the words)
RESULTS = {
    "unfinished": (set_key("status", "running"), "{runs}/seed_4 is not finished (epoch 1 of 1); go on with --resume"),
    "synthetic data": (
        set_key("synthetic", True),
        "{runs}/seed_4 was trained on synthetic data of 'cim-plugin data demo'",
    ),
    "a fraction of the data": (set_config("frac", 0.5), BREAKS + "--frac is 0.5, it must be 1.0"),
    "another split scheme": (
        set_config("split_scheme", "mixed-to-test"),
        BREAKS + "--split_scheme is 'mixed-to-test', it must be 'official'",
    ),
    "another validation metric": (
        set_config("val_metric", "acc_wg"),
        BREAKS + "--val_metric is 'acc_wg', it must be 'acc_avg'",
    ),
    "the worst epoch": (
        set_config("val_metric_decreasing", True),
        BREAKS + "--val_metric_decreasing is True, it must be False",
    ),
    "an old release": (set_config("version", "0.9"), BREAKS + "--version is '0.9', it must be '1.0'"),
    "arguments of the data set": (
        set_config("dataset_kwargs", {"a": 1}),
        BREAKS + "--dataset_kwargs is {{'a': 1}}, it must be {{}}",
    ),
    "another learning rate": (set_config("lr", 0.5), DIFFER + "--lr 0.001 and 0.5"),
    "another algorithm": (set_config("algorithm", "ERM"), DIFFER + "--algorithm 'CIM_VIB' and 'ERM'"),
    "another hyperparameter": (
        lambda results: results["config"]["hyperparameters"].__setitem__("cim_lambda", 3.0),
        DIFFER + "--hyperparameters ",
    ),
    "other devices": (set_config("devices", 8), DIFFER + "--devices 1 and 8"),
    "the seed of another run": (
        another_seed(5),
        "{runs}/seed_4 and {runs}/seed_5 are both of seed:5; pass one of them",
    ),
    "a seed too many": (another_seed(10), "{runs}/seed_4 is of seed:10; " + SEED_NEEDS + " and no other"),
    "no metrics": (
        lambda results: results["selection"]["best"]["splits"]["test"].clear(),
        NO_METRICS + "test by rule best",
    ),
    "a split that was not evaluated": (
        lambda results: results["selection"]["best"]["splits"].pop("id_val"),
        NO_METRICS + "id_val by rule best",
    ),
    "metrics that are words": (
        lambda results: results["selection"]["best"]["splits"]["test"].__setitem__("metrics", {"acc_avg": "good"}),
        NO_METRICS + "test by rule best",
    ),
    "no configuration": (
        lambda results: results.pop("config"),
        "{runs}/seed_4/results.json is not the results.json of 'cim-plugin train'",
    ),
    "two data sets in one": (
        set_key("dataset", "fmow"),
        "{runs}/seed_4/results.json is not the results.json of 'cim-plugin train'",
    ),
    "no selection": (
        set_key("selection", {"best": 3}),
        "{runs}/seed_4/results.json is not the results.json of 'cim-plugin train'",
    ),
}


def assert_refused(outcome, tmp_path: Path, words: str) -> None:
    status, output, errors = outcome
    assert (status, output, len(errors)) == (2, [], 1), (output, errors)
    assert errors[0].startswith(f"cim-plugin leaderboard: error: {words}"), errors[0]
    assert not (tmp_path / "submission.tar.gz").exists() and not list(tmp_path.glob(".writing*"))


@pytest.mark.parametrize("change, words", RESULTS.values(), ids=RESULTS)
def test_results_that_make_no_submission_are_refused(pack, runs, tmp_path, change, words):
    edit(runs / "seed_4", change)
    assert_refused(pack(runs), tmp_path, words.format(runs=runs))


NO_BOARD = {
    "waterbirds": "'waterbirds' has no WILDS leaderboard; choose from iwildcam, camelyon17, rxrx1, fmow",
    "amazon": "'amazon' is not images of one label, cim-plugin does not train on it; choose from iwildcam, camelyon17, "
    "rxrx1, fmow",
}


@pytest.mark.parametrize("dataset, words", NO_BOARD.items())
def test_a_data_set_that_we_cannot_submit_is_refused(pack, runs, tmp_path, dataset, words):
    for seed in range(10):
        edit(runs / f"seed_{seed}", of_dataset(dataset))
    assert_refused(pack(runs), tmp_path, words)


def test_a_run_of_another_data_set_is_refused(pack, runs, tmp_path):
    edit(runs / "seed_4", of_dataset("rxrx1"))
    assert_refused(
        pack(runs),
        tmp_path,
        f"{runs}/seed_0 and {runs}/seed_4 have different configurations: --dataset 'camelyon17' and 'rxrx1'",
    )


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", "null", "[" * 100_000, "\x00"],
    ids=["empty", "half", "a list", "null", "deep", "binary"],
)
def test_results_that_are_none_are_refused(pack, runs, tmp_path, content):
    (runs / "seed_4" / "results.json").write_text(content)
    assert_refused(pack(runs), tmp_path, f"{runs}/seed_4/results.json, line 1: ")


def test_a_missing_seed_is_named(pack, runs, tmp_path):
    shutil.rmtree(runs / "seed_4")
    shutil.rmtree(runs / "seed_7")
    assert_refused(pack(runs), tmp_path, f"there is no run of seed:4, seed:7; {SEED_NEEDS}")


def test_two_runs_of_a_seed_are_refused(pack, runs, tmp_path):
    shutil.copytree(runs / "seed_4", runs / "seed_4_again")
    assert_refused(pack(runs), tmp_path, f"{runs}/seed_4 and {runs}/seed_4_again are both of seed:4; pass one of them")


def test_a_folder_without_runs_is_refused(pack, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(
        pack(tmp_path / "empty"),
        tmp_path,
        f"{tmp_path}/empty holds no results.json, neither itself nor in its subfolders",
    )


def test_a_selection_by_test_data_is_refused(pack, ten_runs, tmp_path):
    assert_refused(
        pack(ten_runs, "--rule", "oracle"),
        tmp_path,
        "--rule oracle chooses the epoch by test data; the leaderboard allows validation data only",
    )
    folder = ten_runs / "seed_0" / "selection" / "oracle"
    assert_refused(
        pack(folder),
        tmp_path,
        f"{folder} is of the rule 'oracle', which chooses the epoch by test data; pass the run's folder",
    )


def test_only_a_runs_own_folder_of_the_rule_is_refused(ten_runs, tmp_path, monkeypatch):
    """Not runs below a folder of that name; and selection/oracle also where it is the current folder."""
    for run in ("oracle", "oracle/seed_0"):
        (tmp_path / run).mkdir()
    (tmp_path / "oracle" / "seed_0" / "results.json").touch()
    assert (
        find_runs(str(tmp_path / "oracle"))
        == find_runs(str(tmp_path / "oracle" / "seed_0"))
        == [tmp_path / "oracle" / "seed_0"]
    )
    monkeypatch.chdir(ten_runs / "seed_0" / "selection" / "oracle")
    with pytest.raises(InputError, match="is of the rule 'oracle'"):
        find_runs(".")


def test_an_unknown_rule_names_those_of_the_runs_without_oracle(pack, ten_runs, tmp_path):
    assert_refused(
        pack(ten_runs, "--rule", "first"), tmp_path, f"--rule first is none of {ten_runs}/seed_0; it has best, "
    )
    assert "oracle" not in pack(ten_runs, "--rule", "first")[2][0]


#: what is wrong with a file of predictions -> (its content, None where it is not there, and the words after its path)
PREDICTIONS = {
    "missing": (None, " is missing; was the run started with --save_pred false?"),
    "too short": ("0\n" * 8, ":8: ends after 8 labels; split test has 9 images"),
    "too long": ("0\n" * 10, ":10: ends after 10 labels; split test has 9 images"),
    "a label out of range": ("0\n1\n2\n" + "0\n" * 6, ":3: label 2 is out of range, labels are 0 to 1"),
    "a float": (
        "0\n" * 8 + "1.0\n",
        ":9: '1.0' is no label, a whole number from 0 to 1; WILDS' evaluate.py reads it as 1.0",
    ),
}


@pytest.mark.parametrize("content, words", PREDICTIONS.values(), ids=PREDICTIONS)
def test_predictions_that_are_not_right_are_refused_with_file_and_line(pack, runs, tmp_path, content, words):
    path = prediction(runs / "seed_4", "test", 4)
    path.unlink() if content is None else path.write_text(content)
    assert_refused(pack(runs), tmp_path, f"{path}{words}")


def test_several_findings_are_counted(pack, runs, tmp_path):
    prediction(runs / "seed_4", "test", 4).write_text("x\n" * 9)
    outcome = pack(runs)
    assert_refused(outcome, tmp_path, f"{prediction(runs / 'seed_4', 'test', 4)}:1: 'x' is no label")
    assert outcome[2][0].endswith("; and 5 more findings")


def test_changed_predictions_are_found_with_the_data(pack, runs, data, tmp_path):
    path = prediction(runs / "seed_4", "test", 4)
    labels = path.read_text().split()
    path.write_text("".join(f"{1 - int(label)}\n" for label in labels))
    assert pack(runs)[0] == 0
    (tmp_path / "submission.tar.gz").unlink()
    outcome = pack(runs, "--root_dir", data)
    assert_refused(outcome, tmp_path, f"{path} gives acc_avg ")
    assert outcome[2][0].endswith("; the predictions, results.json or the data were changed")


def test_metrics_that_are_not_numbers_are_found_with_the_data(pack, runs, data, tmp_path):
    edit(
        runs / "seed_4",
        lambda results: results["selection"]["best"]["splits"]["test"]["metrics"].__setitem__("acc_avg", math.nan),
    )
    assert_refused(pack(runs, "--root_dir", data), tmp_path, f"{prediction(runs / 'seed_4', 'test', 4)} gives acc_avg ")


def test_published_lengths_are_asked_for_without_the_data(leaderboard, ten_runs, tmp_path):
    outcome = leaderboard("pack", ten_runs, "-o", tmp_path / "submission.tar.gz")
    path = prediction(ten_runs / "seed_0", "id_val", 0)
    assert_refused(
        outcome, tmp_path, f"{path}:7: ends after 7 labels; split id_val has 33,560 images; and 29 more findings"
    )


def test_data_that_are_not_there_are_said(pack, leaderboard, ten_runs, tmp_path):
    assert_refused(
        pack(ten_runs, "--root_dir", tmp_path / "nowhere"),
        tmp_path,
        f"camelyon17 is not in --root_dir {tmp_path}/nowhere; get it with: ",
    )
    assert pack(ten_runs)[0] == 0
    status, output, errors = leaderboard("check", tmp_path / "submission.tar.gz", "--root_dir", tmp_path / "nowhere")
    assert (status, output, len(errors)) == (2, [], 1) and "camelyon17 is not in --root_dir" in errors[0]


def test_another_ending_is_refused(leaderboard, ten_runs, tmp_path):
    assert_refused(
        leaderboard("pack", ten_runs, "-o", tmp_path / "s.zip"), tmp_path, f"-o {tmp_path}/s.zip must end in .tar.gz"
    )
