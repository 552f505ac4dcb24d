"""Folders that cannot be used, states and models that are none, full disks: one line, exit status 2, no traceback."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from retired import HARMLESS, said
from small_runs import after_steps, assert_refused, relative_files

from cim_plugin.wilds_runner import checkpoint

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
