"""What users get wrong: one line that names the value and the fix, exit status 2, no traceback; a loss that is not
finite: 1.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_runs
import torch
from retired import HARMLESS, said, said_of_flag
from small_runs import (
    COLUMNS,
    after_steps,
    model_path,
    read_metadata,
    read_model,
    relative_files,
    results,
    train,
    write_metadata,
)

from cim_plugin.wilds_runner import checkpoint


@pytest.fixture
def own_release(release, tmp_path):
    """A root whose release a test may damage."""
    shutil.copytree(release, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def attempt(tmp_path, capsys):
    """A function like ``train`` that returns the exit status and the lines on stderr, after checking that they hold no
    traceback.
    """

    def run(root, *more: str, log_dir=tmp_path / "run", **choice):
        try:
            status = train(root, log_dir, *more, **choice)
        except SystemExit as end:  # argparse
            status = end.code
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return status, errors.splitlines()

    return run


def assert_refused(outcome, *parts: str, status: int = 2):
    code, lines = outcome
    assert code == status and len(lines) == 1, (code, lines)
    assert lines[0].startswith(("cim-plugin train: error: ", "cim-plugin: error: unrecognized arguments: "))
    for part in parts:
        assert part in lines[0], lines[0]


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


# --- log_dir ----------------------------------------------------------------------------------------------------------


def test_a_log_dir_that_cannot_be_written_is_refused(attempt, release, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(attempt(release, log_dir=tmp_path / "file" / "run"), "--log_dir", "file/run", "choose another")


def test_a_log_dir_that_holds_a_run_is_not_overwritten(attempt, release, tmp_path):
    assert attempt(release)[0] == 0
    before = (tmp_path / "run" / "train_algo.csv").read_bytes()
    assert_refused(attempt(release), "holds a run already", "--resume")
    (tmp_path / "run" / "state.pth").unlink()
    assert_refused(attempt(release), "holds a run already", "choose another folder")
    assert_refused(attempt(release, "--resume"), "without state.pth", "choose another folder")
    (tmp_path / "run" / "results.json").unlink()  # as run_expt leaves its folder
    assert_refused(attempt(release), "holds a run already", "choose another folder")
    assert (tmp_path / "run" / "train_algo.csv").read_bytes() == before


def test_metrics_are_looked_up_before_the_first_step(attempt, release):
    with after_steps(lambda number, _: pytest.fail("a step was made")):
        assert_refused(attempt(release, "--val_metric", "acc_avg"), "'acc_avg'")


def test_a_run_of_another_configuration_is_not_resumed(attempt, release):
    assert attempt(release)[0] == 0
    assert_refused(attempt(release, "--resume", "--lr", "0.5"), "had lr 0.001, now it is 0.5", "--log_dir")


def test_a_run_with_a_tuple_among_its_flags_is_resumed(attempt, release):
    flags = ["--optimizer_kwargs", "betas=(0.9,0.99)", "--n_epochs", "1"]
    assert attempt(release, *flags)[0] == 0 and attempt(release, *flags, "--resume")[0] == 0


def test_a_state_that_is_none_is_refused(attempt, release, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save({"epoch": 3}, tmp_path / "run" / "state.pth")
    assert_refused(attempt(release, "--resume"), "state.pth", "not the state of a run")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    "flag, name", [("--resume", "state.pth"), ("--eval_only", "waterbirds_seed:0_epoch:best_model.pth")]
)
@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))], ids=["torch", "pickle"]
)
def test_a_file_that_would_execute_code_is_refused_unexecuted(
    attempt, release, tmp_path, monkeypatch, flag, name, save
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    save({"algorithm": Bomb(), "config": Bomb()}, tmp_path / "run" / name)
    assert_refused(attempt(release, flag), name, "nothing else is loaded")
    assert not (tmp_path / "exploded").exists()


def test_a_damaged_state_is_refused(attempt, release, tmp_path):
    assert attempt(release)[0] == 0
    state = tmp_path / "run" / "state.pth"
    state.write_bytes(state.read_bytes()[:1000])
    assert_refused(attempt(release, "--resume"), "state.pth", "not a checkpoint")


def test_eval_only_refuses_the_model_of_another_algorithm(attempt, release, tmp_path):
    assert attempt(release)[0] == 0
    told = attempt(release, "--eval_only", algorithm="CIM")
    assert_refused(told, "results.json has algorithm 'ERM', now it is 'CIM'; repeat its flags")
    (tmp_path / "run" / "results.json").unlink()
    told = attempt(release, "--eval_only", algorithm="CIM")
    assert_refused(told, "not a model of CIM with --model small_cnn")


@pytest.mark.parametrize(
    "flags, name",
    [
        (["--cim_mask_stride", "2"], "cim_mask_stride"),
        (["--target_resolution", "32"], "target_resolution"),
        (["--frac", "0.5"], "frac"),
    ],
)
def test_eval_only_refuses_what_the_weights_fit_and_was_not_trained(attempt, release, flags, name):
    assert attempt(release, algorithm="CIM")[0] == 0
    assert_refused(
        attempt(release, "--eval_only", *flags, algorithm="CIM"), "results.json", f"has {name}", "repeat its flags"
    )


def test_eval_only_takes_a_run_from_before_a_hyperparameter(attempt, release, tmp_path):
    assert attempt(release, algorithm="CIM")[0] == 0
    file = tmp_path / "run" / "results.json"
    result = json.loads(file.read_text())
    del result["config"]["hyperparameters"]["cim_learning_rate"]
    file.write_text(json.dumps(result))
    assert attempt(release, "--eval_only", algorithm="CIM")[0] == 0


def _hyperparameters(file: Path, **values) -> None:
    """As if the run had been one of version 0.1."""
    result = json.loads(file.read_text())
    result["config"]["hyperparameters"] |= values
    file.write_text(json.dumps(result))


def test_eval_only_takes_a_run_of_then_and_names_what_is_no_more(attempt, release, tmp_path):
    assert attempt(release, algorithm="CIM")[0] == 0
    file = tmp_path / "run" / "results.json"
    _hyperparameters(file, **HARMLESS)
    assert attempt(release, "--eval_only", algorithm="CIM")[0] == 0
    _hyperparameters(file, cim_mask="per_channel")
    assert_refused(attempt(release, "--eval_only", algorithm="CIM"), said("cim_mask"))


def test_resume_of_a_run_of_then_goes_on_or_names_what_is_no_more(attempt, release, tmp_path):
    """Its state and its results hold the hyperparameters of then."""
    assert attempt(release, "--n_epochs", "1", algorithm="CIM")[0] == 0
    folder = tmp_path / "run"
    state = torch.load(folder / "state.pth", weights_only=True)
    for more, refused in ((HARMLESS, None), ({"cim_sparsity": 0.1}, "cim_sparsity")):
        state["config"]["hyperparameters"] |= more
        torch.save(state, folder / "state.pth")
        _hyperparameters(folder / "results.json", **more)
        told = attempt(release, "--n_epochs", "1", "--resume", algorithm="CIM")
        if refused is None:
            assert told[0] == 0
        else:
            assert_refused(told, said(refused), "choose another folder")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_eval_only_beside_a_damaged_result_is_refused(attempt, release, tmp_path, content):
    assert attempt(release)[0] == 0
    (tmp_path / "run" / "results.json").write_text(content)
    assert_refused(attempt(release, "--eval_only"), "results.json is damaged", "move it away")


def _full(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_says_so_and_keeps_what_was_saved(attempt, release, tmp_path, monkeypatch):
    assert attempt(release, "--n_epochs", "1", "--save_step", "1")[0] == 0
    before = {
        name: (tmp_path / "run" / name).read_bytes()
        for name in relative_files(tmp_path / "run")
        if name.endswith((".pth", ".json"))
    }
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", _full)
        assert_refused(
            attempt(release, "--n_epochs", "1", "--save_step", "1", "--resume"), "No space left on device", "--resume"
        )
    assert all((tmp_path / "run" / name).read_bytes() == content for name, content in before.items())
    assert not [name for name in relative_files(tmp_path / "run") if name.endswith(".part")]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 kB; skips where it cannot be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True)
        if sys.platform == "linux"
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip("a file system of 600 kB cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_says_so(attempt, release, small_disk):
    assert_refused(
        attempt(release, "--algorithm", "CIM_VIB", log_dir=small_disk / "run"), "cannot write", "--log_dir", "--resume"
    )


# --- the loss ---------------------------------------------------------------------------------------------------------


def ruin_after(last: int):
    """A context in which the update after so many steps writes NaN into the last weights, the head's."""

    @torch.no_grad()
    def ruin(number, optimizer):
        if number == last:
            optimizer.param_groups[0]["params"][-1].fill_(float("nan"))

    return after_steps(ruin)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(attempt, release, tmp_path):
    with ruin_after(4):  # the first batch of the second epoch
        assert_refused(attempt(release), "epoch 1, batch 1", "--lr", status=1)
    state = torch.load(tmp_path / "run" / "state.pth", weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 0)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert results(tmp_path / "run")["status"] == "running"
    assert attempt(release, "--resume")[0] == 0 and results(tmp_path / "run")["status"] == "finished"


@pytest.mark.parametrize("algorithm", ["ERM", "groupDRO", "CIM_VIB"])
def test_an_absurd_learning_rate_is_met_in_the_first_epoch(attempt, release, tmp_path, algorithm):
    assert_refused(
        attempt(release, "--lr", "1e30", "--optimizer", "SGD", algorithm=algorithm), "epoch 0, batch ", "--lr", status=1
    )
    assert not model_path(tmp_path / "run", "last").exists()


@pytest.mark.parametrize("hours", [0, 1], ids=["at the end of an epoch", "within one"])
def test_weights_that_the_last_step_has_ruined_are_not_saved(attempt, release, tmp_path, monkeypatch, hours):
    """Every loss is finite here: the update after the sixth one writes NaN. A look at the clock takes so many hours:
    within a long epoch a run is saved, too.
    """
    monkeypatch.setattr(time, "monotonic", itertools.count(0, 3600 * hours).__next__)
    with ruin_after(6):
        assert_refused(attempt(release), "a weight is not finite after epoch 1, batch 2", "--lr", status=1)
    state = torch.load(tmp_path / "run" / "state.pth", weights_only=True)
    assert (state["epoch"], state["batch"]) == ((1, 2) if hours else (1, 0))
    assert all(value.isfinite().all() for value in state["model"].values())
