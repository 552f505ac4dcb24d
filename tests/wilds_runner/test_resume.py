"""A run that is stopped or killed at any moment and resumed ends as one that was left alone."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from small_runs import after_steps, finish, read_model, relative_files, results, start, train, words

from cim_plugin.wilds_runner import checkpoint, cross_fit, loop
from cim_plugin.wilds_runner import results as results_module

pytestmark = pytest.mark.slow

#: a line of train_algo.csv per epoch, so that a stop falls into its averages
RUN = (
    "--optimizer",
    "SGD",
    "--lr",
    "0.05",
    "--n_epochs",
    "3",
    "--scheduler",
    "cosine_schedule_with_warmup",
    "--save_step",
    "2",
    "--log_every",
    "50",
)


@pytest.fixture(scope="module")
def uninterrupted(release, tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("uninterrupted")
    assert finish(start(words(release, log_dir, *RUN, algorithm="CIM_VIB"))) == 0
    return log_dir


def assert_same_run(folder, expected):
    """All files alike, byte for byte but for times, folders, and that the log tells of having been resumed."""
    own = {"state.pth", "results.json", "log.txt"}
    assert relative_files(folder) == relative_files(expected)
    for name in relative_files(expected) - own:
        if name.endswith(".pth"):
            ours, theirs = (torch.load(path / name, weights_only=True) for path in (folder, expected))
            assert ours["epoch"] == theirs["epoch"] and ours["algorithm"].keys() == theirs["algorithm"].keys(), name
            assert all(torch.equal(value, theirs["algorithm"][key]) for key, value in ours["algorithm"].items()), name
        else:
            assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    for key in ("status", "epochs", "selection", "steps"):
        assert results(folder)[key] == results(expected)[key], key
    epochs = [line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("Epoch [")]
    assert epochs == ["Epoch [0]:", "Epoch [1]:", "Epoch [2]:"]


def stop_at(owner: str, name: str, call: int, number: int, path_end: str | None = None) -> None:
    """Let the process get a signal right before the call, counted from 1, of a function; only of those whose last word
    ends so.
    """
    module = {
        "loop": loop.Loop,
        "predict": loop,
        "reference": cross_fit,
        "checkpoint": checkpoint,
        "results": results_module,
        "os": os,
    }[owner]
    original, seen = getattr(module, name), []

    def function(*arguments, **keywords):
        if path_end is None or str(arguments[-1]).endswith(path_end):
            seen.append(name)
            if len(seen) == call:
                os.kill(os.getpid(), number)
        return original(*arguments, **keywords)

    setattr(module, name, function)


MOMENTS = {
    "before anything was saved": ("loop", "_step", 2),
    "in the second epoch": ("loop", "_step", 5),
    "in the first evaluation": ("predict", "predict", 1),
    "in the evaluation of the last epoch": ("predict", "predict", 6),
    "with a state written but not in place": ("os", "replace", 2, "state.pth"),
    "between the state and the files of its epoch": ("results", "publish", 2),
    "between two files of an epoch": ("checkpoint", "save_predictions", 4),
    "before the first results.json": ("checkpoint", "save_json", 1),
    "before the last results.json": ("os", "replace", 3, "results.json"),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(release, tmp_path, uninterrupted, moment):
    owner, name, call, *path_end = moment
    argv = words(release, tmp_path, *RUN, "--resume", algorithm="CIM_VIB")
    killed = start(argv, functools.partial(stop_at, owner, name, call, signal.SIGKILL, *path_end))
    assert finish(killed) == -signal.SIGKILL
    assert finish(start(argv)) == 0
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    "flags",
    [
        ("--optimizer", "AdamW", "--lr", "0.001"),
        ("--optimizer", "AdamW", "--lr", "0.001", "--cim_learning_rate", "0"),
        ("--cim_gradient", "contrastive", "--vib_beta", "1"),
    ],
    ids=["an Adam of its own beside AdamW", "the host's optimizer", "L_con alone"],
)
def test_a_killed_run_goes_on_however_the_network_is_trained(release, tmp_path, flags):
    whole, killed = (words(release, tmp_path / which, *RUN, *flags, algorithm="CIM_VIB") for which in ("all", "killed"))
    assert finish(start(whole)) == 0
    stop = functools.partial(stop_at, "loop", "_step", 5, signal.SIGKILL)
    assert finish(start([*killed, "--resume"], stop)) == -signal.SIGKILL
    assert finish(start([*killed, "--resume"])) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "all")


def test_a_run_of_before_goes_on_only_with_the_rate_that_it_had(release, tmp_path, capsys):
    """Version 0.1 left the network to Adam, and said 0.0 of it or nothing."""
    old = (*RUN, "--optimizer", "Adam", "--cim_learning_rate", "0")
    argv = words(release, tmp_path, *old, algorithm="CIM")
    assert finish(start(argv, functools.partial(stop_at, "loop", "_step", 5, signal.SIGINT))) == 130
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    for name in ("cim_learning_rate", "cim_gradient"):
        del state["config"]["hyperparameters"][name]
    checkpoint.save(str(tmp_path / "state.pth"), state)
    now = (*RUN, "--optimizer", "Adam", "--resume")
    assert train(release, tmp_path, *now, algorithm="CIM") == 2
    assert "had cim_learning_rate 0.0, now it is 0.001; repeat its flags" in capsys.readouterr().err
    assert train(release, tmp_path, *now, "--cim_learning_rate", "0", algorithm="CIM") == 0


def test_a_run_that_is_killed_again_and_again_arrives(release, tmp_path, uninterrupted):
    argv = words(release, tmp_path, *RUN, "--resume", algorithm="CIM_VIB")
    for call in (1, 2, 3):  # each time a little further: every child finds what the one before has published
        assert finish(start(argv, functools.partial(stop_at, "results", "publish", 2, signal.SIGKILL))) == (
            -signal.SIGKILL if call < 3 else 0
        )
    assert finish(start(argv)) == 0
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("where", [("loop", "_step", 5), ("predict", "predict", 4)], ids=["training", "evaluating"])
def test_a_stopped_run_saves_and_says_how_to_go_on(release, tmp_path, uninterrupted, number, status, where):
    log_dir = tmp_path / "a log"
    argv = words(release, log_dir, *RUN, algorithm="CIM_VIB")
    assert finish(start(argv, functools.partial(stop_at, *where, number), tmp_path / "output")) == status
    last = (tmp_path / "output").read_text().splitlines()[-1]
    assert (
        last.startswith("cim-plugin train: stopped at epoch 1, batch ")
        and f"--log_dir '{log_dir}'" in last
        and last.endswith("--resume")
    )
    state = torch.load(log_dir / "state.pth", weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 2 if where[1] == "_step" else 3)
    assert finish(start([*argv, "--resume"])) == 0
    assert_same_run(log_dir, uninterrupted)


def test_a_run_that_accumulates_gradients_stops_where_it_has_made_a_step(release, tmp_path):
    accumulating = (*RUN, "--gradient_accumulation_steps", "2")
    assert train(release, tmp_path / "whole", *accumulating, algorithm="CIM") == 0
    argv = words(release, tmp_path / "stopped", *accumulating, algorithm="CIM")
    assert (
        finish(start(argv, functools.partial(stop_at, "loop", "_step", 4, signal.SIGINT))) == 130
    )  # before the first of two batches
    state = torch.load(tmp_path / "stopped" / "state.pth", weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 2)
    assert finish(start([*argv, "--resume"])) == 0
    whole, resumed = read_model(tmp_path / "whole"), read_model(tmp_path / "stopped")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


BALLAST = 300_000_000  #: bytes


def hold_ballast() -> None:
    torch.ones(BALLAST // 4)


def test_what_a_run_cost_is_not_what_resuming_it_costs(release, tmp_path):
    argv = words(release, tmp_path, "--n_epochs", "1")
    assert finish(start(argv)) == 0
    before = results(tmp_path)
    assert finish(start([*argv, "--resume"], hold_ballast)) == 0
    assert {**results(tmp_path), "config": before["config"]} == before


def test_the_most_memory_of_all_sessions_counts(release, tmp_path):
    """Of a run whose first session held most, and of one whose second session did."""
    peaks = {}
    for first, second in ((hold_ballast, None), (None, hold_ballast), (None, None)):
        log_dir = tmp_path / f"{first} {second}"
        argv = words(release, log_dir, *RUN, algorithm="ERM")
        assert finish(start(argv, functools.partial(stopped_after, first))) == 130
        assert finish(start([*argv, "--resume"], second)) == 0
        peaks[first, second] = results(log_dir)["peak_memory_bytes"]["resident"]
    least = peaks.pop((None, None))
    assert all(peak > least + BALLAST / 2 for peak in peaks.values())


def stopped_after(before) -> None:
    if before is not None:
        before()
    stop_at("loop", "_step", 5, signal.SIGINT)


def test_a_run_goes_on_and_is_evaluated_without_the_weights_it_started_from(release, tmp_path, trained):
    weights = tmp_path / "weights.pth"
    torch.save({"algorithm": read_model(trained("ERM"))}, weights)
    flags = ("--pretrained_model_path", str(weights))
    argv = words(release, tmp_path / "run", *RUN, *flags)
    assert finish(start(argv, functools.partial(stop_at, "loop", "_step", 5, signal.SIGINT))) == 130
    weights.unlink()
    assert train(release, tmp_path / "run", *RUN, *flags, "--resume") == 0
    assert train(release, tmp_path / "run", *RUN, *flags, "--eval_only") == 0


def test_a_finished_run_resumes_to_itself_and_restores_what_was_lost(release, tmp_path):
    assert train(release, tmp_path) == 0
    before = results(tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "waterbirds_split:test_seed:0_epoch:last_pred.csv").unlink()
    assert train(release, tmp_path, "--resume") == 0
    assert results(tmp_path)["selection"] == before["selection"]
    assert (tmp_path / "waterbirds_split:test_seed:0_epoch:last_pred.csv").exists()


def test_resume_in_an_empty_folder_begins_a_run(release, tmp_path):
    assert train(release, tmp_path / "new", "--resume", "--n_epochs", "1") == 0
    assert results(tmp_path / "new")["status"] == "finished"


def test_a_fault_between_state_and_files_is_repaired(release, tmp_path, trained):
    """There is a folder in the place of results.json when the first epoch ends."""
    with after_steps(lambda *_: (tmp_path / "results.json").mkdir(exist_ok=True)):
        assert train(release, tmp_path, "--n_epochs", "3") == 2
    assert relative_files(tmp_path) >= {"state.pth"}
    (tmp_path / "results.json").rmdir()
    assert train(release, tmp_path, "--n_epochs", "3", "--resume") == 0
    assert results(tmp_path)["selection"] == results(trained("ERM"))["selection"]
    assert relative_files(tmp_path) == relative_files(trained("ERM"))


def test_a_real_process_is_killed_from_outside(release, tmp_path, uninterrupted):
    """No server, no hook: a fresh interpreter, and a SIGKILL as soon as it has saved something."""
    argv = words(release, tmp_path, *RUN, "--resume", algorithm="CIM_VIB")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cim_plugin.wilds_runner", *argv[1:]], stdout=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "state.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert (tmp_path / "state.pth").exists()
    assert finish(start(argv)) == 0
    assert_same_run(tmp_path, uninterrupted)
