"""Trackers by their real packages, without a network; what they keep is read back."""

from __future__ import annotations

import csv
import sqlite3
import sys

import pytest
from small_runs import finish, start, words

from cim_plugin.errors import InputError
from cim_plugin.runs.configuration import TRACKERS
from cim_plugin.wilds_runner import tracking

SENT = [({"train_algo/L_con": 0.25, "train_algo/loss_avg": 1.5}, 10), ({"val_eval/acc_wg": 0.5}, 20)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder of a run, and trackers that reach nothing."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "my run").mkdir()
    return tmp_path / "my run"


def send(name: str, run, sent=SENT) -> None:
    """As a process does it from its start to its end."""
    tracker = tracking.start(name, str(run), {"lr": 0.1, "algorithm": "CIM"})
    for values, step in sent:
        tracker.numbers(values, step)
    tracker.close()


def test_tensorboard(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    send("tensorboard", run, SENT[:1])
    send("tensorboard", run, SENT[1:])
    found = accumulator.EventAccumulator(str(run))
    found.Reload()
    read = {(name, event.step, event.value) for name in found.Tags()["scalars"] for event in found.Scalars(name)}
    assert read == {(name, step, value) for values, step in SENT for name, value in values.items()}


def test_wandb_goes_on_in_the_same_run(run):
    pytest.importorskip("wandb", reason="no wandb")
    send("wandb", run, SENT[:1])
    send("wandb", run, SENT[1:])
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    name = (run / tracking.NAME).read_text().strip()
    assert {file.name for file in files} == {f"run-{name}.wandb"} and name.startswith("my-run-")
    tracked = b"".join(file.read_bytes() for file in files)
    assert all(key.encode() in tracked for values, _ in SENT for key in values)


def test_trackio_goes_on_in_the_same_run(run):
    pytest.importorskip("trackio", reason="no trackio")
    send("trackio", run, SENT[:1])
    send("trackio", run, SENT[1:])
    (database,) = (run.parent / "trackio").glob("*.db")
    rows = sqlite3.connect(database).execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [step for _, step, _ in rows] == [10, 20]
    assert {name for name, _, _ in rows} == {(run / tracking.NAME).read_text().strip()}
    assert "L_con" in str(rows[0][2]) and "acc_wg" in str(rows[1][2])


@pytest.mark.parametrize("name", tracking.TRACKERS)
def test_a_missing_package_is_one_line(name, run, monkeypatch):
    module, package, _ = tracking.TRACKERS[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"--track {name} needs the package '{package}'; pip install {package}"):
        tracking.start(name, str(run), {})


def test_what_a_package_refuses_is_one_line(run, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="no wandb")
    monkeypatch.setattr(
        wandb, "init", lambda **words: exec("raise wandb.errors.UsageError('no key')", {"wandb": wandb})
    )
    with pytest.raises(InputError, match="--track wandb does not start: no key; leave it out"):
        tracking.start("wandb", str(run), {})


@pytest.mark.parametrize("content", ["", "a b", "../x", "x" * 101])
def test_a_foreign_name_is_refused(content, run):
    (run / tracking.NAME).write_text(content)
    with pytest.raises(InputError, match="holds no name of a run"):
        tracking.run_name(str(run))


def test_the_trackers_are_those_of_the_flag():
    assert tuple(tracking.TRACKERS) == TRACKERS


def test_a_run_sends_what_its_csv_files_have(release, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    assert finish(start(words(release, tmp_path / "run", "--track", "tensorboard", algorithm="CIM"))) == 0
    found = accumulator.EventAccumulator(str(tmp_path / "run"))
    found.Reload()
    for name, column in (("train_algo", "L_con"), ("val_eval", "acc_wg")):
        with open(tmp_path / "run" / f"{name}.csv", newline="") as lines:
            rows = [float(row[column]) for row in csv.DictReader(lines)]
        sent = found.Scalars(f"{name}/{column}")
        assert [event.value for event in sent] == pytest.approx(rows) and len(rows) >= 2
        assert [event.step for event in sent] == sorted(event.step for event in sent)
