"""Train ERM and CIM on DebugDigitsOnPhotos with DomainBed's own train script, and print one table."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys

from cim_plugin.files import parse_json, read_text
from cim_plugin.progress import progress
from cim_plugin.runs import jobs

from .demo_wilds import run_all, said

ALGORITHMS = ("ERM", "CIM")
STEPS = 41
TEST_ENVIRONMENT = 2  #: "-90%": the background that went with one label goes with the other
TRAINING_ENVIRONMENTS = (0, 1)
RESULTS = "results.jsonl"  #: gets a line per evaluation


def train(output: str) -> int:
    """Train what is not finished. Exit status 1 where a run failed."""
    folders = folders_of(output)
    starts = {folder: start(algorithm, folder) for algorithm, folder in folders.items() if not finished(folder)}
    with progress(total=len(folders) * STEPS, unit="step", smoothing=0.05) as bar:
        return said(run_all(starts, bar, lambda: sum(map(steps_done, folders.values()))))


def folders_of(output: str) -> dict[str, str]:
    return {algorithm: os.path.join(output, "domainbed", f"{algorithm}-{STEPS}-0") for algorithm in ALGORITHMS}


def start(algorithm: str, folder: str) -> jobs.Start:
    """Starts the host's script."""
    flags = f"--test_envs {TEST_ENVIRONMENT} --steps {STEPS} --checkpoint_freq 20 --seed 0 --trial_seed 0"
    words = ["--dataset", "DebugDigitsOnPhotos", "--algorithm", algorithm, *flags.split(), "--output_dir", folder]

    def start(environment: jobs.Environment) -> jobs.Process:
        with contextlib.suppress(FileNotFoundError):  # of a run that was stopped: the host would append to it
            os.remove(os.path.join(folder, RESULTS))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # the host keeps both in the folder
        return jobs.command([sys.executable, "-m", "domainbed.scripts.train", *words], **quiet)(environment)

    return start


def finished(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "done"))


def steps_done(folder: str) -> int:
    if finished(folder):
        return STEPS
    return read(folder)[-1]["step"] + 1 if os.path.exists(os.path.join(folder, RESULTS)) else 0


def read(folder: str) -> list[dict]:
    """The records that a run has written so far."""
    path = os.path.join(folder, RESULTS)
    *lines, _ = read_text(path).split("\n")  # the last one is empty, or being written
    return [parse_json(line, path, number) for number, line in enumerate(lines, 1)] or [{"step": -1}]


def print_table(output: str) -> None:
    """Accuracy on the held-out environment by training-domain validation, as DomainBed defines it."""
    print(f"\nDomainBed: DebugDigitsOnPhotos, test environment -90%, {STEPS} steps, one seed")
    for algorithm, folder in folders_of(output).items():
        chosen = max(read(folder), key=validation)
        test = chosen[f"env{TEST_ENVIRONMENT}_in_acc"]
        print(f"{algorithm:14}  validation {100 * validation(chosen):5.1f}%  test {100 * test:5.1f}%")
    print("So few steps show that both train, not which is better: a coin has 50% of both.")


def validation(record: dict) -> float:
    """Mean accuracy on the training environments' held-out images."""
    return statistics.mean(record[f"env{environment}_out_acc"] for environment in TRAINING_ENVIRONMENTS)
