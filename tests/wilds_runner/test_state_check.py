"""A state of the wrong structure is refused in one line that names the place, and nothing on the disk has changed."""

from __future__ import annotations

import functools
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from small_runs import finish, start, train, words
from test_resume import stop_at

from cim_plugin.wilds_runner import checkpoint, loop

RUN = ("--n_epochs", "2", "--log_every", "50", "--scheduler", "ReduceLROnPlateau", "--scheduler_metric_name", "acc_wg")


@pytest.fixture(scope="module")
def stopped(release, tmp_path_factory) -> Path:
    """A run of CIM_VIB that was stopped in its second epoch. Not to be changed."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    argv = words(release, folder, *RUN, algorithm="CIM_VIB")
    assert finish(start(argv, functools.partial(stop_at, "loop", "_step", 5, signal.SIGINT))) == 130
    return folder


@pytest.fixture
def run(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resume(release, folder: Path) -> int:
    return train(release, folder, *RUN, "--resume", algorithm="CIM_VIB")


def change(*path, to=None, drop: bool = False):
    """A function that changes one place of a state."""

    def changed(state) -> None:
        *outer, last = path
        for name in outer:
            state = state[name]
        if drop:
            del state[last]
        else:
            state[last] = to(state[last]) if callable(to) else to

    return changed


WEIGHT = "head.weight"
OTHERS = ("optimizer", "others")  #: of all weights but those of the transformation network
PARAMETER = (*OTHERS, "state", 0)

WRONG = {
    "no weights": (change("model", drop=True), "has no 'model'"),
    "no epoch": (change("epoch", drop=True), "has no 'epoch'"),
    "an unknown key": (change("more", to=1), "it has 'more', which is not known"),
    "an epoch below 0": (change("epoch", to=-1), "'epoch' is -1 where a whole number from 0 to 2 belongs"),
    "an epoch beyond the run": (change("epoch", to=99), "'epoch' is 99"),
    "an epoch that is true": (change("epoch", to=True), "'epoch' is True"),
    "an epoch that is a fraction": (change("epoch", to=1.0), "'epoch' is 1.0"),
    "a batch beyond the epoch": (change("batch", to=50), "'batch' is 50 where a whole number from 0 to 3 belongs"),
    "fewer batches seen": (change("batch", to=1), "'seen' has 2 batches where 1 belong"),
    "a missing weight": (change("model", WEIGHT, drop=True), f"'model' has no '{WEIGHT}'"),
    "an unknown weight": (change("model", "x", to=torch.zeros(1)), "'model' has 'x'"),
    "a weight of another shape": (change("model", WEIGHT, to=torch.zeros(3, 3)), "a tensor (3, 3)"),
    "a weight of another type": (change("model", WEIGHT, to=lambda w: w.double()), "of torch.float64"),
    "a weight that is a list": (change("model", WEIGHT, to=[]), "is a list"),
    "a weight that is NaN": (change("model", WEIGHT, to=lambda w: w * math.nan), "not finite"),
    "an optimizer that is a list": (change("optimizer", to=[]), "'optimizer' is a list"),
    "another optimizer": (
        change(*OTHERS, to=lambda o: torch.optim.SGD([torch.zeros(1)], 0.1, 0.9).state_dict()),
        "'optimizer'['others']['param_groups'][0] has 'momentum', which is not known",
    ),
    "a learning rate that is text": (change(*OTHERS, "param_groups", 0, "lr", to="0.1"), "['lr'] is '0.1'"),
    "other weights": (change(*OTHERS, "param_groups", 0, "params", to=[0]), "['params'] is a list"),
    "a half moment": (change(*PARAMETER, "exp_avg", drop=True), "has no 'exp_avg'"),
    "a moment of another shape": (change(*PARAMETER, "exp_avg", to=torch.zeros(7)), "a tensor (7,)"),
    "a moment of no weight": (change(*OTHERS, "state", 999, to={}), "a key of 'optimizer'['others']['state'] is 999"),
    "no scheduler": (change("scheduler", to=None), "'scheduler' is None"),
    "another scheduler": (change("scheduler", to={"step_size": 1}), "'scheduler' has 'step_size'"),
    "a scheduler's text": (change("scheduler", "patience", to="x"), "'scheduler'['patience'] is 'x'"),
    "an unknown rule": (change("chosen", "luck", to=(0, 0.5)), "a key of 'chosen' is 'luck'"),
    "a choice without its outcome": (change("outcomes", "best", drop=True), "different selection rules"),
    "a choice of an epoch to come": (change("chosen", "best", to=(1, 0.5)), "an epoch of 'best' that has not ended"),
    "a choice that is a number": (change("chosen", "best", to=3), "'chosen'['best'] is 3"),
    "an outcome without a field": (change("outcomes", "best", "val", "text", drop=True), "has no 'text'"),
    "an outcome without a split": (change("outcomes", "best", "val", drop=True), "'outcomes'['best'] has no 'val'"),
    "an accuracy of 7": (change("outcomes", "best", "val", "accuracy", to=7.0), "['accuracy'] is 7.0"),
    "an outcome without its metric": (change("outcomes", "best", "val", "metrics", to={}), "has no 'acc_wg'"),
    "rows that are none": (change("seen", 0, to=lambda s: (s[0] + 60, s[1])), "whole numbers below 60"),
    "rows that were not drawn": (change("seen", 0, to=lambda s: (s[0] * 0, s[1])), "other rows than epoch 1 draws"),
    "predictions of fewer rows": (change("seen", 0, to=lambda s: (s[0], s[1][1:])), "20 rows and 19 predictions"),
    "a negative count": (change("averages", "count", to=-3), "'averages'['count'] is -3"),
    "an unknown sum": (change("averages", "sums", "x", to=torch.zeros(())), "'averages'['sums'] has 'x'"),
    "a sum of other groups": (change("averages", "sums", "loss_group", to=torch.zeros(9).double()), "(9,)"),
    "a clock of text": (change("clock", to={"train": "long"}), "'clock'['train'] is 'long'"),
    "costs of text": (change("cost", "peak_memory_bytes", to={"resident": "all"}), "'all'"),
    "cross-fit in a run without": (change("cross_fit", to=True), "'cross_fit' is True in a run without --cross_fit"),
    "predictions of other images": (
        change("predicted", to={"val": torch.zeros(3).long()}),
        "'predicted' has no 'test'",
    ),
    "a log file elsewhere": (change("log_sizes", "/tmp/victim", to=0), "a key of 'log_sizes' is '/tmp/victim'"),
    "a log file above": (change("log_sizes", "../victim", to=0), "a key of 'log_sizes' is '../victim'"),
    "a log file that is none": (change("log_sizes", "results.json", to=0), "a key of 'log_sizes' is 'results.json'"),
    "a log file that is a number": (change("log_sizes", 3, to=0), "a key of 'log_sizes' is 3"),
    "a size below 0": (change("log_sizes", "log.txt", to=-1), "'log_sizes'['log.txt'] is -1"),
    "a size that is a fraction": (change("log_sizes", "log.txt", to=0.5), "'log_sizes'['log.txt'] is 0.5"),
    "no configuration": (change("config", drop=True), "is not the state of a run"),
    "a configuration of lists": (change("config", to=[]), "is not the state of a run"),
    "an algorithm that is a list": (change("config", "algorithm", to=[]), "had algorithm []"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.slow
def test_a_wrong_state_is_one_line_and_changes_nothing(release, run, capsys, what):
    wrong, says = WRONG[what]
    state = torch.load(run / "state.pth", weights_only=True)
    wrong(state)
    checkpoint.save(str(run / "state.pth"), state)
    before = contents(run)
    capsys.readouterr()
    assert resume(release, run) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("cim-plugin train: error: --resume: ") and said.count("\n") == 1
    assert contents(run) == before


def test_the_state_itself_goes_on(release, run):
    assert resume(release, run) == 0


def test_a_state_from_before_the_checksum_goes_on(release, run):
    state = torch.load(run / "state.pth", weights_only=True)
    for younger in ("data", "lasting", "cost", "cross_fit"):
        state.pop(younger)
    torch.save(state, run / "state.pth")
    assert resume(release, run) == 0


def test_a_flipped_bit_is_one_line_and_changes_nothing(release, run, capsys):
    content = (run / "state.pth").read_bytes()
    for place in (len(content) // 3, len(content) - 30):
        damaged = bytearray(content)
        damaged[place] ^= 4
        (run / "state.pth").write_bytes(damaged)
        before = contents(run)
        capsys.readouterr()
        assert resume(release, run) == 2
        assert "state.pth is damaged" in capsys.readouterr().err and contents(run) == before


@pytest.mark.parametrize("name", ["log.txt", "train_eval.csv", "val_algo.csv", "state.pth.part", "results.json"])
def test_links_of_a_run_folder_are_not_written_through(release, run, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if (run / name).exists():
        (run / name).unlink()
    (run / name).symlink_to(victim)
    assert resume(release, run) == (2 if name.endswith((".txt", ".csv")) else 0)
    assert victim.read_text() == "precious"


# --- the data ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(release, tmp_path) -> Path:
    """A copy of the data that may be changed."""
    return Path(shutil.copytree(release, tmp_path / "data"))


def edit(root: Path, column: int, value: str, first: int = 3) -> None:
    path = root / "waterbirds_v1.0" / "metadata.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[first][column] = value if lines[first][column] != value else str(1 - int(value))
    path.write_text("\n".join(map(",".join, lines)) + "\n")


CHANGED = {
    "the labels": lambda root: edit(root, 2, "0"),
    "the metadata": lambda root: edit(root, 4, "0"),
    "the splits": lambda root: edit(root, 3, "1"),
    "the names of the images": lambda root: edit(root, 1, "004.png"),
}


@pytest.mark.parametrize("what", CHANGED)
@pytest.mark.parametrize("way", ["--resume", "--eval_only"])
def test_a_run_does_not_go_on_with_other_data(moved, run, capsys, what, way):
    CHANGED[what](moved)
    before = contents(run)
    capsys.readouterr()
    assert train(moved, run, *RUN, way, algorithm="CIM_VIB") == 2
    said = capsys.readouterr().err
    assert f"{way}: {what} of waterbirds in {moved} are not those that the run" in said and said.count("\n") == 1
    if way == "--resume":
        assert contents(run) == before


def test_a_run_goes_on_with_the_same_data_elsewhere(moved, run):
    assert train(moved, run, *RUN, "--resume", algorithm="CIM_VIB") == 0


# --- two at once ------------------------------------------------------------------------------------------------------


def hold(ready: Path, go_on: str) -> None:
    """In a child: wait at the end of the first epoch until the writing end is closed."""

    def wait(self) -> None:
        if not ready.exists():
            ready.write_text("")
            with open(go_on) as file:
                file.read()
        original(self)

    original, loop.Loop._finish_epoch = loop.Loop._finish_epoch, wait


def test_of_two_trainings_of_one_folder_the_second_is_refused(release, tmp_path):
    folder, ready, go_on = tmp_path / "run", tmp_path / "ready", os.path.join(tmp_path, "go_on")
    os.mkfifo(go_on)

    first = start(words(release, folder, "--n_epochs", "1"), functools.partial(hold, ready, go_on))
    with open(go_on, "w"):  # until the first reads, in the middle of its epoch
        second = start(words(release, folder, "--n_epochs", "1"), output=tmp_path / "second")
        third = start(words(release, folder, "--n_epochs", "1", "--resume"), output=tmp_path / "third")
        assert finish(second) == finish(third) == 2
    assert finish(first) == 0
    for name in ("second", "third"):
        (line,) = (tmp_path / name).read_text().splitlines()
        assert f"--log_dir {folder} is being written by another command (process {first.pid} " in line
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
