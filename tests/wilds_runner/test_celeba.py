"""CelebA through its real loader and evaluator: a second dataset from the command to its files."""

from __future__ import annotations

import pytest
from small_runs import ALGORITHMS, SIZES, read_csv, results, train, write_celeba


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    return write_celeba(tmp_path_factory.mktemp("celebA"))


@pytest.fixture(scope="module", params=ALGORITHMS)
def run(request, celeba, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    assert train(celeba.parent, folder, algorithm=request.param, dataset="celebA") == 0
    return folder


def _reference_groups(celeba, predictions: list[int], split: int) -> dict[str, tuple[float, int]]:
    """Accuracy and count of (blond, male) by the release's own tables."""
    rows = [
        row
        for row, part in zip(read_csv(celeba / "list_attr_celeba.csv"), read_csv(celeba / "list_eval_partition.csv"))
        if part["partition"] == str(split)
    ]
    hits: dict[str, list[bool]] = {}
    for row, predicted in zip(rows, predictions, strict=True):
        blond = row["Blond_Hair"] == "1"
        name = f"y:{'blond' if blond else 'notblond'}_male:{int(row['Male'] == '1')}"
        hits.setdefault(name, []).append(predicted == blond)
    return {name: (sum(values) / len(values), len(values)) for name, values in hits.items()}


def test_groups_and_worst_group_accuracy_are_those_of_the_predictions(celeba, run):
    result = results(run)
    assert result["status"] == "finished" and result["dataset"] == "celebA" and result["synthetic"]
    assert result["config"]["groupby_fields"] == ["male", "y"] and result["config"]["val_metric"] == "acc_wg"
    for number, split in ((1, "val"), (2, "test")):
        predictions = [
            int(line) for line in (run / f"celebA_split:{split}_seed:0_epoch:best_pred.csv").read_text().split()
        ]
        assert len(predictions) == SIZES[split]
        groups = _reference_groups(celeba, predictions, number)
        record = result["selection"]["best"]["splits"][split]
        assert record["metrics"]["acc_wg"] == pytest.approx(min(accuracy for accuracy, _ in groups.values()))
        for name, (accuracy, count) in groups.items():
            assert record["metrics"][f"acc_{name}"] == pytest.approx(accuracy, abs=1e-6)
            assert record["metrics"][f"count_{name}"] == count


def test_resuming_a_finished_run_changes_no_number(celeba, run):
    before = results(run)["selection"]
    assert train(celeba.parent, run, "--resume", algorithm=results(run)["algorithm"], dataset="celebA") == 0
    assert results(run)["selection"] == before


@pytest.mark.parametrize("size", [(89, 109), (356, 436)])
def test_files_of_another_size_are_one_line_before_the_first_step(size, tmp_path, capsys):
    """Files at half size were cropped at 178 pixels all the same, and two thirds of every picture were black."""
    write_celeba(tmp_path / "data", *size)
    assert train(tmp_path / "data", tmp_path / "run", algorithm="ERM", dataset="celebA") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    for words in (f"{size[0]}x{size[1]} pixels", "178x218", "the 178 in the middle", "replace the file"):
        assert words in said
    assert not (tmp_path / "run" / "train_algo.csv").exists()
