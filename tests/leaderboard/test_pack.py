"""Archives of finished runs: what is in them, that the same runs give the same bytes, and how they are written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import statistics
import tarfile
from pathlib import Path

import pytest
from submissions import LENGTHS, name, prediction

SPLITS = LENGTHS["camelyon17"]


def read_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


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
