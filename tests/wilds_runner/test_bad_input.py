"""Flags and data that users get wrong: one line that names the value and the fix, exit status 2, no traceback."""

from __future__ import annotations

import pytest
import small_runs
from retired import said, said_of_flag
from small_runs import COLUMNS, assert_refused, read_metadata, read_model, results, write_metadata

#: what is wrong -> flags that follow those of a good command, and what the line must say
FLAGS = {
    "an unknown dataset": (["-d", "birds"], ["'birds'", "waterbirds"]),
    "a dataset of text": (["-d", "civilcomments"], ["'civilcomments' is text", "waterbirds"]),
    "an unknown algorithm": (["--algorithm", "IRM"], ["'IRM'", "CIM_VIB"]),
    "an unknown model": (["--model", "resnet19"], ["'resnet19'", "resnet18"]),
    "an unknown flag": (["--epochs", "3"], ["--epochs"]),
    "an unknown optimizer": (["--optimizer", "Adagrad"], ["'Adagrad'", "AdamW"]),
    "an argument that the optimizer has not": (["--optimizer_kwargs", "momentum=0.9"], ["momentum", "Adam"]),
    "an unknown transform": (["--transform", "bert"], ["'bert'", "image_base"]),
    "an unknown group field": (["--groupby_fields", "place", "y"], ["'place'", "background"]),
    "an unknown metric": (["--val_metric", "acc_avg"], ["'acc_avg'", "adj_acc_avg", "acc_wg"]),
    "an unknown split": (
        ["--evaluate_all_splits", "false", "--eval_splits", "id_test"],
        ["'id_test'", "train, val, test"],
    ),
    "an unknown split scheme": (["--split_scheme", "mixed"], ["mixed"]),
    "images without a common size": (["--transform", "image_base", "--target_resolution", "0"], ["0"]),
    "half precision on a CPU": (["--precision", "16-mixed"], ["16-mixed", "bf16-mixed"]),
    "images that processes cannot share": (
        ["--batch_size", "21", "--devices", "2"],
        ["--batch_size 21", "a multiple of 2"],
    ),
    "an unknown metric of the schedule": (
        ["--scheduler", "ReduceLROnPlateau", "--scheduler_metric_name", "acc"],
        ["'acc'", "adj_acc_avg"],
    ),
    "a model for larger images": (
        ["--model", "densenet121", "--model_kwargs", "pretrained=false"],
        ["densenet121", "28x28", "--target_resolution"],
    ),
    "a last batch of one image for batch normalisation": (
        ["--model", "resnet18", "--model_kwargs", "pretrained=false", "--batch_size", "59"],
        ["--batch_size 59", "one image to the last batch of 60", "resnet18"],
    ),
    "a retired flag": (["--algorithm", "CIM", "--cim_mask=per_channel"], [said_of_flag("cim_mask")]),
    "a retired flag that did nothing": (
        ["--algorithm", "CIM", "--cim_composites", "false"],
        [said_of_flag("cim_composites")],
    ),
    "a retired value": (["--algorithm", "CIM", "--cim_similarity", "pytorch_msssim"], [said("cim_similarity")]),
    "pairs of environments that are not there": (
        ["--algorithm", "CIM", "--cim_pairs", "cross_environment", "--groupby_fields", "y"],
        ["cross_environment", "random"],
    ),
    "a negative weight": (["--algorithm", "CIM", "--cim_lambda", "-1"], ["cim_lambda", "-1"]),
    "another algorithm's hyperparameter": (["--algorithm", "VIB", "--cim_lambda", "1"], ["cim_lambda"]),
    "a learning rate that is not a number": (["--lr", "nan"], ["nan"]),
    "a fraction above 1": (["--frac", "2"], ["2"]),
    "an empty fraction": (["--frac", "0.001"], ["train", "--frac 0.001"]),
    "both resume and eval_only": (["--resume", "--eval_only"], ["--resume", "--eval_only"]),
    "a model that was never saved": (["--eval_only"], ["--eval_only", "epoch:best_model.pth"]),
    "weights that are not there": (
        ["--pretrained_model_path", "nowhere.pth"],
        ["--pretrained_model_path", "nowhere.pth"],
    ),
    "a word that is not key=value": (["--loader_kwargs", "num_workers"], ["--loader_kwargs", "num_workers"]),
    "an argument that a loader has not": (["--loader_kwargs", "num_threads=2"], ["--loader_kwargs", "num_threads"]),
}


@pytest.mark.parametrize("flags, parts", FLAGS.values(), ids=FLAGS)
def test_a_wrong_flag_is_named_in_one_line(attempt, release, flags, parts):
    assert_refused(attempt(release, *flags), *parts)


# --- data -------------------------------------------------------------------------------------------------------------


def edit(root, change) -> None:
    """Apply ``change`` to every row of the release's table; rows for which it returns None go."""
    folder = root / "waterbirds_v1.0"
    rows = [change(index, row) for index, row in enumerate(read_metadata(folder))]
    write_metadata(folder, [row for row in rows if row is not None])


def without(column: str):
    return lambda index, row: {name: value for name, value in row.items() if name != column}


def with_value(column: str, value: str, at: int):
    return lambda index, row: {**row, column: value} if index == at else row


TABLES = {
    "no column of labels": (without("y"), ["'y'", "cim-plugin data check"]),
    "no column of places": (without("place"), ["'place'"]),
    "a label out of range": (with_value("y", "2", 7), ["label 2", "row 7", "2 classes"]),
    "a label that is a word": (with_value("y", "duck", 7), ["waterbirds"]),
    "no validation split": (lambda index, row: None if row["split"] == "1" else row, ["'val'", "empty"]),
    "no training split": (lambda index, row: None if row["split"] == "0" else row, ["'train'", "empty"]),
    "one class": (lambda index, row: None if row["split"] == "0" and row["y"] == "1" else row, ["class 0", "two"]),
    "an image that is not there": (with_value("img_filename", "999.png", 3), ["image 3", "999.png"]),
}


@pytest.mark.parametrize("change, parts", TABLES.values(), ids=TABLES)
def test_a_table_that_cannot_be_used_is_refused(attempt, own_release, change, parts):
    edit(own_release, change)
    assert_refused(attempt(own_release), *parts)


def test_a_table_longer_than_the_images_names_the_first_that_is_missing(attempt, own_release):
    folder = own_release / "waterbirds_v1.0"
    rows = read_metadata(folder)
    write_metadata(folder, [*rows, dict(zip(COLUMNS, ("141", "140.png", "1", "0", "0", "none")))])
    assert_refused(attempt(own_release), "image 140", "140.png", "replace the file")


@pytest.mark.parametrize("cache", ["false", "true"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named_with_its_index(attempt, own_release, workers, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = own_release / "waterbirds_v1.0" / "017.png"
    image.write_bytes(image.read_bytes()[:200])
    assert_refused(
        attempt(own_release, "--loader_kwargs", f"num_workers={workers}", "--cache", cache),
        "image 17",
        "017.png",
        "replace the file",
    )
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.slow
def test_images_of_another_size_need_a_resolution(attempt, release, monkeypatch):
    where = small_runs.FLAGS.index("--target_resolution")
    monkeypatch.setattr(small_runs, "FLAGS", small_runs.FLAGS[:where] + small_runs.FLAGS[where + 2 :])
    assert_refused(attempt(release), "28x28", "224x224", "--target_resolution")


def test_a_group_that_training_lacks_is_a_warning_and_the_run_goes_on(attempt, own_release, tmp_path):
    edit(own_release, lambda index, row: None if (row["split"], row["y"], row["place"]) == ("0", "1", "0") else row)
    for algorithm in ("ERM", "groupDRO"):
        status, _ = attempt(own_release, algorithm=algorithm, log_dir=tmp_path / algorithm)
        assert status == 0
        text = (tmp_path / algorithm / "log.txt").read_text()
        assert "y = waterbird, background =  land: n = 0\n        warning: the training split has no such image" in text
        outcome = results(tmp_path / algorithm)["selection"]["last"]["splits"]
        assert (
            "y:waterbird_background:land" in outcome["val"]["groups"]
            and "y:waterbird_background:land" not in outcome["train"]["groups"]
        )
    assert read_model(tmp_path / "groupDRO")["group_weights.weights"][2] == 0


def test_a_missing_dataset_names_the_command_that_gets_it(attempt, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nothing"):
        assert_refused(
            attempt(tmp_path / folder), "waterbirds", "cim-plugin data get waterbirds", "cim-plugin data demo"
        )
    assert not (tmp_path / "nothing").exists()


def test_a_folder_without_its_table_is_refused(attempt, own_release):
    (own_release / "waterbirds_v1.0" / "metadata.csv").unlink()
    assert_refused(attempt(own_release), "metadata.csv", "does not exist")
