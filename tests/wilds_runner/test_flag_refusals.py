"""Flags that no run can go on with: one line, status 2, before the first epoch, and nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from small_runs import after_steps, read_metadata, train, write_metadata

from cim_plugin.runs.defaults import SCHEDULERS

#: flag -> texts that are none of its numbers, beside those of every flag
EVERY = ["", "x", "nan", "1e400", "٣", "9" * 20, "9" * 5000, "-1"]
COUNTS = dict.fromkeys(
    "batch_size n_epochs gradient_accumulation_steps log_every save_step devices num_nodes n_groups_per_batch "
    "cross_fit cross_fit_tiles target_resolution randaugment_n vib_dimension".split(),
    ["0", "1.5"],
)
FROM_ZERO = dict.fromkeys("seed device eval_epoch".split(), ["1.5"])
NUMBERS = dict.fromkeys("frac lr resize_scale".split(), ["0"]) | {"frac": ["0", "1.1"]}
LARGE = {
    "lr",
    "resize_scale",
    "max_grad_norm",
    "weight_decay",
    "cache_limit",
    "cim_lambda",
}  #: a number of 20 digits is one
FLAGS = {**COUNTS, **FROM_ZERO, **NUMBERS, **dict.fromkeys(sorted(LARGE - set(NUMBERS)), [])}
CASES = [
    f"--{flag}={text}"
    for flag, more in FLAGS.items()
    for text in (*EVERY, *more)
    if not (flag in LARGE and text == "9" * 20)
]
KEYWORDS = {
    "--loader_kwargs": "num_workers=-1 num_workers=x num_workers=1.5 num_workers=5000 num_workers=true "
    "prefetch_factor=0 "
    "prefetch_factor=x timeout=-1 timeout=x timeout=1e400 multiprocessing_context=x pin_memory=3 batch_size=3 "
    "shuffle=true collate_fn=x drop_last=true generator=3 worker_init_fn=x",
    "--loader_kwargs num_workers=0": "prefetch_factor=2 timeout=5 persistent_workers=true",
    "--optimizer SGD --optimizer_kwargs": "momentum=-1 momentum=x momentum=1e400 momentum=99999999999999999999 nope=1 "
    "lr=3",
    "--optimizer SGD --optimizer_kwargs momentum=0.9": "dampening=x",
    "--optimizer AdamW --optimizer_kwargs": "betas=(0.9,) betas=0.9 betas=(2,3) betas=x eps=x eps=-1 "
    "differentiable=true",
    "--scheduler StepLR --scheduler_kwargs": "step_size=0 step_size=-1 step_size=1.5 step_size=x gamma=x gamma=1e400 "
    "gamma=-1 nope=1 step_size=99999999999999999999",
    "--scheduler MultiStepLR --scheduler_kwargs": "milestones=5 milestones=x milestones=['a'] milestones=[-1] "
    "milestones=[1.5] milestones=[1e400] nope=1",
    "--scheduler MultiStepLR --scheduler_kwargs milestones=[2]": "gamma=x gamma=-1",
    "--scheduler ReduceLROnPlateau --scheduler_metric_name acc_avg --scheduler_kwargs": "patience=x factor=2 factor=x "
    "factor=-1 threshold=x mode=x min_lr=x cooldown=x eps=x nope=1",
    "--scheduler cosine_schedule_with_warmup --scheduler_kwargs": "num_warmup_steps=x num_warmup_steps=-1 "
    "num_warmup_steps=true num_warmup_steps=1e400 num_warmup_steps=none nope=1",
    "--model_kwargs": "channels=x channels=-1 channels=5 nope=1 channels=99999999999999999999 x=" + "(" * 1000,
    "--model resnet18 --model_kwargs pretrained=false": "groups=0 groups=x width_per_group=-1 norm_layer=x nope=1",
    "--dataset_kwargs": "nope=1 root_dir=x",
}
CASES += [f"{flags} {word}" for flags, words in KEYWORDS.items() for word in words.split()]
CASES += ["--scheduler MultiStepLR", "--groupby_fields y y", "--split_scheme x", "--version 9", "--eval_splits nope"]
CASES += ["--eval_only", "--download --root_dir new", "--root_dir nowhere/deeper", "--val_metric nope"]


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """A function (root, flags) -> the one line, after checking that nothing was made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))

    def run(root, *flags: str) -> str:
        before = sorted(os.listdir())
        try:
            status = train(root, tmp_path / "runs" / "new", *flags, algorithm="CIM_VIB")
        except SystemExit as end:
            status = end.code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cim-plugin")]
        assert status == 2 and len(lines) == 1 and len(lines[0]) < 1200, (status, lines)
        assert sorted(os.listdir()) == before
        return lines[0]

    return run


@pytest.mark.parametrize("flags", CASES, ids=lambda flags: flags[:60])
@pytest.mark.slow
def test_a_flag_that_cannot_be_used(flags, refused, release):
    first, _, rest = flags.partition("=")
    line = refused(release, *([flags] if first.split()[-1] == first else flags.split()), "--n_epochs", "30")
    assert "cim-plugin train: error: " in line


def test_every_schedule_has_its_row():
    assert {name for name in SCHEDULERS if any(name in flags for flags in KEYWORDS)} >= set(SCHEDULERS) - {
        "linear_schedule_with_warmup"
    }


# --- the disk ---------------------------------------------------------------------------------------------------------

#: what is in the log_dir -> (how it is made, a word of the refusal)
TAKEN = {
    "log.txt is a folder": (lambda folder: (folder / "log.txt").mkdir(), "log.txt, which is a folder"),
    "log.txt is a pipe": (lambda folder: os.mkfifo(folder / "log.txt"), "log.txt, which is no plain file"),
    "val_eval.csv is a folder": (lambda folder: (folder / "val_eval.csv").mkdir(), "val_eval.csv, which is a folder"),
    "results.json is a folder": (lambda folder: (folder / "results.json").mkdir(), "holds a run already"),
    "selection is a link": (lambda folder: (folder / "selection").symlink_to(folder.parent), "selection is a link"),
    "a rule's folder is a link": (
        lambda folder: (folder / "selection").mkdir() or (folder / "selection" / "average").symlink_to(folder.parent),
        "average is a link",
    ),
    "selection is a file": (lambda folder: (folder / "selection").touch(), "selection, which is a file"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_stands_where_a_run_writes_is_said_before_it_begins(what, refused, release, tmp_path):
    make, words = TAKEN[what]
    (tmp_path / "log").mkdir()
    make(tmp_path / "log")
    assert words in refused(release, "--log_dir", str(tmp_path / "log"))


@pytest.mark.parametrize("place", ["file", "file/below", "/dev/null/x", "/proc/nowhere"])
def test_a_log_dir_that_cannot_be_made(place, refused, release, tmp_path):
    (tmp_path / "file").touch()
    assert f"--log_dir {place} cannot be written (" in refused(release, "--log_dir", place)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("flags", [["--pretrained_model_path", "log/state.pth"], ["--resume", "--log_dir", "log"]])
def test_no_weights_are_waited_for(make, flags, refused, release, tmp_path):
    (tmp_path / "log").mkdir()
    make(tmp_path / "log" / "state.pth")
    assert re.search(f"{flags[0]}: log/state.pth is (a folder|no plain file)", refused(release, *flags))


@pytest.mark.parametrize("name", ["metadata.csv", "RELEASE_v1.0.txt", "else"])
def test_a_pipe_in_a_data_set_is_not_waited_for(name, refused, release, tmp_path):
    shutil.copytree(release, tmp_path / "data")
    path = tmp_path / "data" / "waterbirds_v1.0" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert f"{path} is no plain file" in refused(tmp_path / "data")


@pytest.mark.parametrize("reader", ["fail", "gone"])
def test_a_log_that_fails_in_an_epoch_is_one_line(reader, release, tmp_path, capsys):
    """The disk is full, or the folder is gone, after the first step of the second epoch."""
    log = tmp_path / "run" / "log.txt"

    def damage(number, _):
        if number == 4:
            shutil.rmtree(log.parent) if reader == "gone" else log.unlink()
            if reader == "fail":
                log.symlink_to("/dev/full")

    with after_steps(damage):
        assert train(release, tmp_path / "run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = {
        "gone": "train_algo.csv (No such file or directory)",
        "fail": "log.txt (No space left on device)",
    }
    assert f"cannot write {tmp_path}/run/{said[reader]}; what was saved before is whole" in line


# --- tables of names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column, value, said",
    [
        ("place", "7", "background 7 of row 3 of waterbirds has no name: its table has 2 names"),
        ("y", "5", "label 5 of row 3 of waterbirds is out of range"),
        ("place", "-1", "waterbirds in "),
        ("place", "9" * 18, "background 999999999999999999 of row 3 of waterbirds has no name"),
        ("place", "9" * 30, "waterbirds in "),
        ("y", "x" * 1_000_000, "waterbirds in "),
        ("split", "nan", "row 3 of waterbirds has no number of a split"),
    ],
    ids=lambda text: text[:20],
)
def test_numbers_beyond_a_table(column, value, said, refused, release, tmp_path):
    shutil.copytree(release, tmp_path / "data")
    folder = tmp_path / "data" / "waterbirds_v1.0"
    rows = read_metadata(folder)
    rows[3][column] = value
    write_metadata(folder, rows)
    assert said in refused(tmp_path / "data")
