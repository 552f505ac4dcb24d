"""Archives of finished runs: what is in them, that the same runs give the same bytes, and every reason not to write
one.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import statistics
import tarfile
from pathlib import Path

import pytest
from submissions import LENGTHS, name, prediction

from cim_plugin.errors import InputError
from cim_plugin.leaderboard.runs import find_runs

SPLITS = LENGTHS["camelyon17"]


@pytest.fixture
def pack(leaderboard, tmp_path, small_counts):
    """A function (words before -o) -> exit status, output, errors, of packing into submission.tar.gz of the test's
    folder.
    """
    return lambda *words: leaderboard("pack", *words, "-o", tmp_path / "submission.tar.gz")


def read_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def edit(run: Path, change) -> None:
    """Change results.json of a run in place."""
    path = run / "results.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))


# --- what is in the archive -------------------------------------------------------------------------------------------


def test_it_holds_one_file_per_split_and_seed_with_the_labels_of_the_run(pack, ten_runs, tmp_path):
    status, output, errors = pack(ten_runs)
    assert (status, errors) == (0, [])
    assert output[-1] == f"{tmp_path}/submission.tar.gz: 30 files of predictions, metrics.json and README.md"
    files = read_archive(tmp_path / "submission.tar.gz")
    expected = {
        name(split, seed, "camelyon17"): prediction(ten_runs / f"seed_{seed}", split, seed).read_bytes()
        for split in SPLITS
        for seed in range(10)
    }
    assert {path: files.pop(path) for path in expected} == expected
    assert sorted(files) == ["camelyon17/README.md", "camelyon17/metrics.json"]


def test_what_pack_writes_passes_check(pack, leaderboard, ten_runs, data, tmp_path):
    assert pack(ten_runs)[0] == 0
    for words in ([], ["--root_dir", data]):
        status, output, _ = leaderboard("check", tmp_path / "submission.tar.gz", *words)
        assert status == 0 and output[-1].endswith("30 files of predictions of camelyon17; no findings")


def _reference_aggregate(evaluators, files: dict[str, bytes]) -> dict:
    table = {}
    for split in SPLITS:
        values = [
            evaluators[split]([int(label) for label in files[name(split, seed, "camelyon17")].split()])["acc_avg"]
            for seed in range(10)
        ]
        table[split] = {
            "acc_avg": pytest.approx(statistics.fmean(values), abs=1e-12),
            "acc_avg_std": pytest.approx(statistics.stdev(values), abs=1e-12),
        }
    return table


def test_the_metrics_are_those_of_the_runs_and_their_mean_and_deviation(pack, ten_runs, evaluators, tmp_path):
    assert pack(ten_runs)[0] == 0
    files = read_archive(tmp_path / "submission.tar.gz")
    metrics = json.loads(files["camelyon17/metrics.json"])
    assert metrics["mean_and_std_over_seeds"] == _reference_aggregate(evaluators, files)
    for split in SPLITS:
        for seed in range(10):
            labels = [int(label) for label in files[name(split, seed, "camelyon17")].split()]
            assert metrics["per_seed"][split][f"seed:{seed}"] == pytest.approx(evaluators[split](labels), abs=1e-9)


def test_pack_and_check_agree_with_wilds_own_evaluate(pack, leaderboard, ten_runs, data, wilds_evaluate, tmp_path):
    """evaluate_benchmark reads the unpacked archive and writes its own table."""
    assert pack(ten_runs)[0] == 0
    files = read_archive(tmp_path / "submission.tar.gz")
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    expected = wilds_evaluate.evaluate_benchmark("camelyon17", str(tmp_path / "camelyon17"), str(tmp_path), str(data))
    assert set(expected) == set(SPLITS) and len({values["acc_avg"] for values in expected.values()}) > 1
    table = json.loads(files["camelyon17/metrics.json"])["mean_and_std_over_seeds"]
    assert table == {split: pytest.approx(values, abs=1e-12) for split, values in expected.items()}
    _, output, _ = leaderboard("check", tmp_path / "submission.tar.gz", "--root_dir", data)
    for split, values in expected.items():
        assert (
            f"camelyon17 {split:8} {'acc_avg':18} {values['acc_avg']:.6f} ± {values['acc_avg_std']:.6f} over 10 seeds"
            in output
        )


def test_metrics_computed_again_are_the_same(pack, ten_runs, data, tmp_path):
    assert pack(ten_runs)[0] == 0
    first = read_archive(tmp_path / "submission.tar.gz")
    status, output, _ = pack(ten_runs, "--root_dir", data)
    second = read_archive(tmp_path / "submission.tar.gz")
    differences = "id_val 7 (published 33,560), test 9 (published 85,054), val 8 (published 34,904)"
    warning = (
        f"camelyon17 in --root_dir is not the published release; no submission can be measured by it: {differences}"
    )
    assert status == 0 and output[0] == f"note: {warning}"
    assert f"WARNING: {warning}\n" in second.pop("camelyon17/README.md").decode() and first.pop("camelyon17/README.md")
    assert second == first


@pytest.mark.parametrize("rule", ["last", "average", "worst_class"])
def test_another_rule_submits_its_epoch(pack, ten_runs, tmp_path, rule):
    assert pack(ten_runs, "--rule", rule)[0] == 0
    files = read_archive(tmp_path / "submission.tar.gz")
    for seed in (0, 7):
        assert (
            files[name("test", seed, "camelyon17")]
            == prediction(ten_runs / f"seed_{seed}", "test", seed, rule).read_bytes()
        )
    assert f"(rule `{rule}`; test data were not used)" in files["camelyon17/README.md"].decode()


def test_the_readme_tells_configuration_versions_and_selection(pack, ten_runs, tmp_path):
    assert pack(ten_runs)[0] == 0
    text = read_archive(tmp_path / "submission.tar.gz")["camelyon17/README.md"].decode()
    results = json.loads((ten_runs / "seed_0" / "results.json").read_text())
    assert text.startswith("# camelyon17: CIM_VIB\n")
    assert (
        "Epoch by acc_avg on validation data, highest (rule `best`; test data were not used). Epochs, counted from 0: "
        "seed:0 0, seed:1 0," in text
    )
    config = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert (
        config["hyperparameters"]["vib_beta"] == 0.001
        and config["model"] == "small_cnn"
        and config["target_resolution"] == [28, 28]
    )
    assert all(config[key] == results["config"][key] for key in config)
    assert f'"torch": "{results["versions"]["torch"]}"' in text
    for private in (str(ten_runs), results["config"]["root_dir"], results["config"]["log_dir"]):
        assert private not in text


def test_the_same_runs_give_the_same_bytes(pack, ten_runs, runs, tmp_path):
    """Whatever the order and the place of the runs, their times, and who packs."""
    assert pack(ten_runs)[0] == 0
    first = (tmp_path / "submission.tar.gz").read_bytes()
    for path in runs.rglob("*"):
        os.utime(path, (1, 1))
    assert pack(*(runs / f"seed_{seed}" for seed in (9, 3, 0, 1, 2, 8, 7, 4, 5, 6)))[0] == 0
    assert (tmp_path / "submission.tar.gz").read_bytes() == first
    with tarfile.open(tmp_path / "submission.tar.gz") as tar:
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode, m.isreg()) for m in tar} == {
            (0, 0, "", "", 0, 0o644, True)
        }
    assert gzip.decompress(first) and first[3:9] == bytes(5) + b"\x02"  # no name, no time


def test_a_run_that_was_copied_to_another_seed_is_noted(pack, runs):
    for split in SPLITS:
        prediction(runs / "seed_4", split, 4).write_bytes(prediction(runs / "seed_2", split, 2).read_bytes())
    _, output, _ = pack(runs)
    assert [line for line in output if line.startswith("note: ")] == [
        f"note: camelyon17: seed:2 and seed:4 have the same predictions for split {split}; are they two trainings?"
        for split in SPLITS
    ]


def test_a_run_that_is_given_twice_counts_once(pack, ten_runs):
    assert pack(ten_runs, ten_runs / "seed_3")[0] == 0


# --- reasons to refuse ------------------------------------------------------------------------------------------------


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


def test_synthetic_data_are_no_measure(pack, leaderboard, ten_runs, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "camelyon17_v1.0" / "RELEASE_v1.0.txt").write_text("SYNTHETIC: for a try\n")
    assert pack(ten_runs)[0] == 0
    _, output, _ = leaderboard("check", tmp_path / "submission.tar.gz", "--root_dir", tmp_path / "data")
    assert (
        "note: camelyon17 in --root_dir is synthetic data of 'cim-plugin data demo'; no submission can be measured by "
        "it" in output
    )


# --- writing ----------------------------------------------------------------------------------------------------------


def test_another_ending_is_refused(leaderboard, ten_runs, tmp_path):
    assert_refused(
        leaderboard("pack", ten_runs, "-o", tmp_path / "s.zip"), tmp_path, f"-o {tmp_path}/s.zip must end in .tar.gz"
    )


def test_a_place_that_cannot_be_written_is_one_line(leaderboard, ten_runs, tmp_path, small_counts):
    (tmp_path / "file").write_text("")
    status, _, errors = leaderboard("pack", ten_runs, "-o", tmp_path / "file" / "s.tar.gz")
    assert status == 2 and len(errors) == 1 and f"{tmp_path}/file" in errors[0]


def test_an_archive_that_is_there_stays_whole_until_the_new_one_is(pack, ten_runs, tmp_path, monkeypatch):
    target = tmp_path / "submission.tar.gz"
    target.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        status, _, errors = pack(ten_runs)
        assert status == 2 and errors[0].startswith(
            f"cim-plugin leaderboard: error: cannot write {target} (No space left on device); "
        )
        assert [path.name for path in tmp_path.iterdir()] == ["submission.tar.gz"]
    assert target.read_bytes() == b"old"
    assert pack(ten_runs)[0] == 0 and len(read_archive(target)) == 32
