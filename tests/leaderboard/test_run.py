"""The trainings of a submission: which commands, which flags are refused, what happens after a failure and Ctrl-C, and
one real run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cim_plugin import cli
from cim_plugin.leaderboard import run as run_module
from cim_plugin.runs.configuration import Configuration
from cim_plugin.wilds_runner import config as flags

pytestmark = pytest.mark.slow

STAND_IN = Path(__file__).with_name("stand_in_trainer.py")
SMALL = (
    "--model small_cnn --target_resolution 28 --batch_size 16 --n_epochs 1 --lr 1e-3 --loader_kwargs num_workers=0 "
    "--cache false --progress_bar false"
).split()


@pytest.fixture
def start(leaderboard, data, tmp_path, monkeypatch):
    """A function (flags) -> exit status, output, errors of 'leaderboard run' on the small iwildcam with ERM; children
    are stand-ins.
    """
    monkeypatch.setattr(run_module, "PROGRAM", [sys.executable, str(STAND_IN)])
    monkeypatch.setattr(sys, "argv", ["cim-plugin", "leaderboard", "run", "..."])

    def run(*words, dataset="iwildcam"):
        return leaderboard(
            "run", "-d", dataset, "--algorithm", "ERM", "--root_dir", data, "--output_dir", tmp_path / "out", *words
        )

    return run


def refusal(outcome) -> str:
    status, output, errors = outcome
    assert (status, output, len(errors)) == (2, [], 1), (output, errors)
    return errors[0].removeprefix("cim-plugin leaderboard: error: ").removeprefix("cim-plugin leaderboard run: error: ")


def trained(tmp_path) -> list[int]:
    """The seeds that stand-ins have finished, in order."""
    path = tmp_path / "out" / "trained"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset, seeds", {"iwildcam": 3, "rxrx1": 3, "fmow": 3, "camelyon17": 10}.items())
def test_a_dry_run_prints_one_command_per_seed_and_needs_no_data(leaderboard, tmp_path, dataset, seeds):
    words = ["-d", dataset, "--algorithm", "CIM_VIB", "--root_dir", "no data", "--output_dir", tmp_path / "o u t"]
    status, output, errors = leaderboard("run", *words, "--dry-run")
    assert (status, errors) == (0, [])
    common = f"cim-plugin train --dataset {dataset} --root_dir 'no data' --algorithm CIM_VIB"
    assert output == [
        f"{common} --seed {seed} --log_dir '{tmp_path}/o u t/seed_{seed}' --resume" for seed in range(seeds)
    ]
    assert not (tmp_path / "o u t").exists()


FLAGS = {
    "none": [],
    "numbers": ["--lr", "1e-7", "--batch_size", "24", "--max_grad_norm", "0.3"],
    "dictionaries": [
        "--optimizer",
        "SGD",
        "--optimizer_kwargs",
        "momentum=0.9",
        "nesterov=true",
        "--model_kwargs",
        "pretrained=false",
        "name='0.5'",
        "x=a b",
    ],
    "lists": ["--target_resolution", "40", "48", "--groupby_fields", "location", "y"],
    "truth values": ["--cache", "--no_group_logging", "false", "--uniform_over_groups", "TRUE"],
    "an empty dictionary": ["--loader_kwargs"],
    "hyperparameters": ["--cim_lambda", "0.25", "--cim_pairs", "cross_environment", "--vib_beta", "1e-5"],
    "a path with blanks": ["--pretrained_model_path", "my weights.pth"],
    "what the rules want anyway": [
        "--frac",
        "1",
        "--val_metric",
        "F1-macro_all",
        "--save_pred",
        "true",
        "--split_scheme",
        "official",
        "--version",
        "2.0",
    ],
}


@pytest.mark.parametrize("words", FLAGS.values(), ids=FLAGS)
def test_the_commands_mean_what_was_given(leaderboard, tmp_path, words):
    """The configuration of every command is that of 'cim-plugin train' with the same flags."""
    given = ["-d", "iwildcam", "--algorithm", "CIM_VIB", "--root_dir", "data", *words]
    status, output, errors = leaderboard("run", *given, "--output_dir", tmp_path / "out", "--dry-run")
    assert (status, errors, len(output)) == (0, [], 3)
    for seed, line in enumerate(output):
        assert shlex.split(line)[:2] == ["cim-plugin", "train"]
        assert configuration(shlex.split(line)[2:]) == configuration(
            [*given, "--seed", str(seed), "--log_dir", f"{tmp_path}/out/seed_{seed}", "--resume"]
        )


def configuration(words: list[str]) -> Configuration:
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    return flags.make_config(parser.parse_args(words))


#: what is given -> what the refusal says
REFUSED = {
    "--seed 0": "--seed is not accepted: the leaderboard fixes the seeds",
    "--log_dir logs": "--log_dir is not accepted: every seed has a folder in --output_dir",
    "--resume": "--resume is not accepted: it is always on",
    "--eval_epoch 3": "--eval_epoch is not accepted: the validation metric chooses the epoch",
    "--eval_splits test": "--eval_splits is not accepted: all splits are evaluated",
    "--frac 0.5": "not accepted, it breaks the leaderboard's rules: --frac is 0.5, it must be 1.0",
    "--val_metric acc_avg": "not accepted, it breaks the leaderboard's rules: --val_metric is 'acc_avg', it must be "
    "'F1-macro_all'",
    "--val_metric_decreasing": "not accepted, it breaks the leaderboard's rules: --val_metric_decreasing is True, it "
    "must be False",
    "--save_pred false": "not accepted, it breaks the leaderboard's rules: --save_pred is False, it must be True",
    "--save_best false": "not accepted, it breaks the leaderboard's rules: --save_best is False, it must be True",
    "--evaluate_all_splits false": "not accepted, it breaks the leaderboard's rules: --evaluate_all_splits is False, "
    "it must be True",
    "--eval_only": "not accepted, it breaks the leaderboard's rules: --eval_only is True, it must be False",
    "--split_scheme mixed-to-test": "not accepted, it breaks the leaderboard's rules: --split_scheme is "
    "'mixed-to-test', it must be 'official'",
    "--version 1.0": "not accepted, it breaks the leaderboard's rules: --version is '1.0', it must be '2.0'",
    "--dataset_kwargs a=1": "not accepted, it breaks the leaderboard's rules: --dataset_kwargs is {'a': 1}, it must be "
    "{}",
    "--frac 0.1 --save_pred false": "not accepted, it breaks the leaderboard's rules: --frac is 0.1, it must be 1.0; "
    "--save_pred is False, it must be True",
    "-d waterbirds": "'waterbirds' has no WILDS leaderboard; choose from iwildcam, camelyon17, rxrx1, fmow",
    "-d amazon": "'amazon' is not images of one label, cim-plugin does not train on it; choose from iwildcam, "
    "camelyon17, rxrx1, fmow",
    "--algorithm IRM": "algorithm 'IRM' is unknown",
    "--lr -1": "argument --lr: -1 is not a finite number above 0",
}


@pytest.mark.parametrize("words, expected", REFUSED.items())
def test_what_breaks_a_rule_is_refused_by_name(start, tmp_path, words, expected):
    assert refusal(start(*words.split())).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_missing_data_are_said_before_anything_starts(start, tmp_path):
    words = refusal(start("--root_dir", tmp_path / "nowhere"))
    assert words.startswith(
        f"{tmp_path}/nowhere/iwildcam_v2.0/RELEASE_v2.0.txt does not exist; it cannot be got by a command: "
    )


def test_synthetic_data_are_refused_before_anything_starts(start, tmp_path):
    folder = tmp_path / "data" / "iwildcam_v2.0"
    folder.mkdir(parents=True)
    (folder / "RELEASE_v2.0.txt").write_text("SYNTHETIC")
    assert (
        refusal(start("--root_dir", tmp_path / "data"))
        == f"{folder} is synthetic data of 'cim-plugin data demo'; a submission needs the real iwildcam"
    )


# --- one seed after the other -----------------------------------------------------------------------------------------


def test_it_says_what_is_done_and_left_and_what_comes_next(start, data, tmp_path):
    status, output, errors = start()
    assert (status, errors, trained(tmp_path)) == (0, [], [0, 1, 2])
    assert output[0] == "iwildcam, ERM: seeds 0 to 2, by F1-macro_all on validation data; finished: none; left: 0, 1, 2"
    assert [line.partition(":")[0] for line in output[1:4]] == ["seed 0", "seed 1", "seed 2"]
    assert output[4:] == [
        "finished: 0, 1, 2; left: none",
        f"next: cim-plugin leaderboard pack {tmp_path}/out --root_dir {data} -o iwildcam_ERM.tar.gz",
    ]
    status, output, _ = start()
    assert status == 0 and output[0].endswith("finished: 0, 1, 2; left: none") and trained(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("how, why", [("FAIL", "exit status 3"), ("KILL", "signal 9")])
def test_a_failed_seed_is_reported_and_the_others_go_on(start, tmp_path, monkeypatch, how, why):
    monkeypatch.setenv(how, "1")
    status, output, errors = start()
    assert status == 1 and trained(tmp_path) == [0, 2] and output[-1] == "finished: 0, 2; left: 1"
    assert errors == [
        f"seed 1 failed ({why}); going on with the next",
        f"failed: seed 1 ({why}); try again with the same command: cim-plugin leaderboard run ...",
    ]
    _, output, _ = start("--dry-run")
    assert len(output) == 1 and " --seed 1 " in output[0]
    monkeypatch.delenv(how)
    assert start()[0] == 0 and trained(tmp_path) == [0, 2, 1]


def test_a_run_of_another_configuration_is_not_taken_for_this_one(start, tmp_path):
    assert start("--lr", "0.5")[0] == 0
    expected = (
        f"{tmp_path}/out/seed_0 holds a run of another configuration (--lr 0.5 and 3e-05); repeat its flags or choose "
        f"another --output_dir"
    )
    assert refusal(start()) == expected
    assert (
        start("--lr", "0.5", "--log_every", "7", "--loader_kwargs", "num_workers=0")[0] == 0
    )  # what it logs and where it runs is free


def test_results_of_something_else_are_refused(start, tmp_path):
    (tmp_path / "out" / "seed_1").mkdir(parents=True)
    (tmp_path / "out" / "seed_1" / "results.json").write_text("[]")
    assert refusal(start()).startswith(f"{tmp_path}/out/seed_1/results.json, line 1: a JSON object is expected")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("everyone", [False, True], ids=["to the command", "to the whole terminal"])
def test_ctrl_c_stops_the_seed_that_runs_and_says_how_to_go_on(data, tmp_path, number, everyone):
    """On a terminal the key reaches every process of the group. The child must get the signal once: a second one means
    'at once'.
    """
    # a background job ignores the key
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    stand_in = f"from cim_plugin.leaderboard import run; run.PROGRAM = {[sys.executable, str(STAND_IN)]!r}"
    code = f"{listen}; {stand_in}; from cim_plugin import cli; sys.exit(cli.main(sys.argv[1:]))"
    words = [
        "leaderboard",
        "run",
        "-d",
        "iwildcam",
        "--algorithm",
        "ERM",
        "--root_dir",
        str(data),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "WAIT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "seed_1" / "waiting").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    (os.killpg if everyone else os.kill)(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (
        errors
        == f"stopped; finished: 0; left: 1, 2; go on with the same command: {shlex.join(['cim-plugin', *words])}\n"
    )
    assert (tmp_path / "out" / "seed_1" / "signals").read_text() == f"{int(number)}\n" and trained(tmp_path) == [0]
    assert "seed 2" not in output


# --- for real ---------------------------------------------------------------------------------------------------------


def test_from_training_to_a_checked_submission(leaderboard, data, tmp_path):
    """Two seeds by the commands of --dry-run, as on a cluster; the last by 'run'; then pack and check, on the small
    iwildcam.
    """
    words = [
        "run",
        "-d",
        "iwildcam",
        "--algorithm",
        "CIM",
        "--root_dir",
        data,
        "--output_dir",
        tmp_path / "out",
        *SMALL,
    ]
    _, commands, _ = leaderboard(*words, "--dry-run")
    for command in commands[1:]:
        assert cli.main(shlex.split(command)[1:]) == 0
    assert leaderboard(*words, "--dry-run")[1] == commands[:1]
    status, output, _ = leaderboard(*words)
    assert (status, output[0].rpartition("; finished")[2], output[-2]) == (
        0,
        ": 1, 2; left: 0",
        "finished: 0, 1, 2; left: none",
    )
    status, output, _ = leaderboard("pack", tmp_path / "out", "--root_dir", data, "-o", tmp_path / "s.tar.gz")
    assert status == 0 and output[-1].startswith(f"{tmp_path}/s.tar.gz: 12 files of predictions")
    status, output, _ = leaderboard("check", tmp_path / "s.tar.gz", "--root_dir", data)
    assert status == 0 and output[-1] == f"{tmp_path}/s.tar.gz: 12 files of predictions of iwildcam; no findings"
    assert (
        sum(line.startswith("iwildcam ") and line.endswith(" over 3 seeds") for line in output) == 8
    )  # four splits, F1-macro_all and acc_avg


def test_on_a_cluster_a_failed_seed_is_submitted_again_by_the_same_command(start, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    cluster = ("--launcher", "submitit", "--cluster", "local", "--array", "3")
    monkeypatch.setenv("FAIL", "1")
    status, output, errors = start(*cluster)
    assert status == 1 and sorted(trained(tmp_path)) == [0, 2] and output[-1] == "finished: 0, 2; left: 1"
    assert errors[0].startswith("3 jobs on local, 3 at a time; logs: ") and errors[-1].startswith(
        "failed: seed 1 (exit"
    )
    monkeypatch.delenv("FAIL")
    status, output, errors = start(*cluster)
    assert status == 0 and sorted(trained(tmp_path)) == [0, 1, 2] and errors[0].startswith("1 jobs on local")
