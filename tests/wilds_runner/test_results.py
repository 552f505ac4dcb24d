"""results.json and the prediction files of every rule, against independent readings of the same data."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections import Counter

import pytest
import torch
import wilds
from small_runs import ALGORITHMS, RULES, SIZES, prediction_path, read_csv, read_metadata, results, train, write_release

from cim_plugin.wilds_runner.costs import Clock

GROUP_NAMES = {
    (y, place): f"y:{('landbird', 'waterbird')[y]}_background:{('land', 'water')[place]}"
    for y in (0, 1)
    for place in (0, 1)
}
TRAINING_SHARES = {
    (0, 0): 3498,
    (0, 1): 184,
    (1, 0): 56,
    (1, 1): 1057,
}  #: of the real Waterbirds, by which adj_acc_avg weighs


def rows_of(release, split: str) -> list[tuple[int, int]]:
    """(y, place) of every image of a split."""
    rows = read_metadata(release / "waterbirds_v1.0")
    return [(int(row["y"]), int(row["place"])) for row in rows if row["split"] == str(list(SIZES).index(split))]


def _reference_metrics(rows: list[tuple[int, int]], predicted: list[int]) -> dict[str, float]:
    """Accuracy of all, of every group, of the worst one, and the mean weighted by the training groups, counted one by
    one.
    """
    totals, hits = Counter(rows), Counter(row for row, label in zip(rows, predicted, strict=True) if row[0] == label)
    accuracy = {group: hits[group] / count for group, count in totals.items()}
    adjusted = sum(TRAINING_SHARES[group] * value for group, value in accuracy.items()) / sum(TRAINING_SHARES.values())
    return {
        **{f"acc_{GROUP_NAMES[group]}": value for group, value in accuracy.items()},
        **{f"count_{GROUP_NAMES[group]}": count for group, count in totals.items()},
        "acc_wg": min(accuracy.values()),
        "adj_acc_avg": adjusted,
    }


def read_predictions(path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_predictions_of_every_rule_give_its_metrics(trained, release, algorithm, rule):
    folder = trained(algorithm)
    choice = results(folder)["selection"][rule]
    for split in ("val", "test"):
        rows, predicted = rows_of(release, split), read_predictions(prediction_path(folder, rule, split))
        record = choice["splits"][split]
        assert record["metrics"] == pytest.approx(_reference_metrics(rows, predicted), abs=1e-6)
        assert record["accuracy"] == pytest.approx(
            sum(y == label for (y, _), label in zip(rows, predicted)) / len(rows)
        )
        by_class = [[y == label for (y, _), label in zip(rows, predicted) if y == wanted] for wanted in (0, 1)]
        assert record["class_accuracy"] == pytest.approx([sum(hits) / len(hits) for hits in by_class])
        assert {name: group["count"] for name, group in record["groups"].items()} == {
            GROUP_NAMES[row]: count for row, count in Counter(rows).items()
        }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wilds_own_evaluate_gives_the_same_metrics(trained, release, wilds_checkout, algorithm):
    path = wilds_checkout / "examples" / "evaluate.py"
    specification = importlib.util.spec_from_file_location("wilds_evaluate", path)
    evaluate = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(evaluate)
    dataset = wilds.get_dataset("waterbirds", root_dir=str(release))
    folder = trained(algorithm)
    for rule, choice in results(folder)["selection"].items():
        for split in ("val", "test"):
            predicted = evaluate.get_predictions(str(prediction_path(folder, rule, split)))
            assert evaluate.evaluate_replicate(dataset, split, predicted) == pytest.approx(
                choice["splits"][split]["metrics"], abs=1e-6
            )


COLUMNS = {"best": ("val", "acc_wg"), "worst_group": ("val", "acc_wg"), "oracle": ("test", "acc_wg")}


@pytest.fixture(scope="module")
def lively(release, tmp_path_factory):
    """The folder of a run whose accuracy goes up and down, so that rules differ."""
    folder = tmp_path_factory.mktemp("lively")
    assert train(release, folder, "--n_epochs", "12", "--batch_size", "10", algorithm="groupDRO") == 0
    return folder


@pytest.mark.parametrize("rule", COLUMNS)
def test_a_rule_chooses_the_first_epoch_with_the_highest_score(lively, rule):
    split, column = COLUMNS[rule]
    values = [float(row[column]) for row in read_csv(lively / f"{split}_eval.csv")]
    choice = results(lively)["selection"][rule]
    assert len(set(values)) > 2 and (choice["epoch"], choice["score"]) == (values.index(max(values)), max(values))


def test_average_and_worst_class_are_counted_without_groups(lively, release):
    counts, per_class, average = Counter(rows_of(release, "val")), [], []
    for row in read_csv(lively / "val_eval.csv"):
        hits = {group: float(row[f"acc_{name}"]) * counts[group] for group, name in GROUP_NAMES.items()}
        average.append(sum(hits.values()) / sum(counts.values()))
        per_class.append(
            min(sum(hits[y, place] for place in (0, 1)) / sum(counts[y, place] for place in (0, 1)) for y in (0, 1))
        )
    selection = results(lively)["selection"]
    for rule, values in (("average", average), ("worst_class", per_class)):
        assert selection[rule]["score"] == pytest.approx(max(values), abs=1e-6)
        assert values[selection[rule]["epoch"]] == pytest.approx(max(values), abs=1e-6)
    assert selection["last"]["epoch"] == 11
    assert len({choice["epoch"] for choice in selection.values()}) > 2


def test_results_say_what_was_run_and_what_it_cost(trained):
    result = results(trained("CIM_VIB"))
    assert result["status"] == "finished" and (result["epochs"], result["steps"], result["seed"]) == (3, 9, 0)
    assert (result["dataset"], result["algorithm"]) == ("waterbirds", "CIM_VIB")
    assert (
        result["config"]["lr"] == 1e-3
        and result["config"]["hyperparameters"]["cim_lambda"] == 1.0
        and result["config"]["batch_size"] == 20
    )
    assert result["similarity"] == "MS-SSIM with 2 scales"  # 28 pixels: (11 - 1) · 2 < 28 <= (11 - 1) · 4
    assert set(result["seconds"]) == {"train", "evaluation"} and all(value > 0 for value in result["seconds"].values())
    assert result["peak_memory_bytes"]["resident"] > 50e6
    expected = {
        "torch": torch.__version__.split("+")[0],
        "python": sys.version.split()[0],
        "wilds": importlib.metadata.version("wilds"),
    }
    assert {name: result["versions"][name] for name in expected} == expected
    assert result["n_parameters"] == sum(
        value.numel()
        for name, value in torch.load(trained("CIM_VIB") / "state.pth", weights_only=True)["model"].items()
    )


def test_only_the_oracle_is_marked_as_looking_at_test_labels(trained):
    needs = {rule: choice["needs"] for rule, choice in results(trained("ERM"))["selection"].items()}
    assert "test labels" in needs["oracle"] and not any(
        "test" in text for rule, text in needs.items() if rule != "oracle"
    )


@pytest.mark.parametrize("first_line, synthetic", [("SYNTHETIC: digits", True), ("Waterbirds v1.0", False)])
def test_synthetic_data_are_marked_in_results_and_log(tmp_path, first_line, synthetic):
    write_release(tmp_path, first_line)
    assert train(tmp_path, tmp_path / "run", "--n_epochs", "1") == 0
    assert results(tmp_path / "run")["synthetic"] is synthetic
    assert ("SYNTHETIC" in (tmp_path / "run" / "log.txt").read_text()) is synthetic


def test_a_state_saved_amid_an_epoch_has_its_seconds(monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    first, second = Clock(), Clock()
    with first.measure("train"):
        saved = first.seconds
    assert saved == {"train": 10} and first.seconds["train"] == 20
    second.go_on_from(saved)
    with second.measure("train"):
        pass
    assert second.seconds["train"] == 20
