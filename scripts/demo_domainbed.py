"""Train ERM, CIM and CIM_VIB on DebugDigitsOnPhotos with DomainBed's own train script, and print one table."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys

from cim_plugin.files import parse_json, read_text
from cim_plugin.progress import progress
from cim_plugin.runs import jobs

from .demo_wilds import run_all

ALGORITHMS = ("ERM", "CIM", "CIM_VIB")
STEPS = 201
TEST_ENVIRONMENT = 2  #: "-90%": the background that went with one label goes with the other
TRAINING_ENVIRONMENTS = (0, 1)
RESULTS = "results.jsonl"  #: gets a line per evaluation


def run() -> int:
    folders = {algorithm: os.path.join("demo_output", f"{algorithm}-{STEPS}-0") for algorithm in ALGORITHMS}
    starts = {folder: start(algorithm, folder) for algorithm, folder in folders.items() if not finished(folder)}
    with progress(total=len(folders) * STEPS, unit="step", smoothing=0.05) as bar:
        failed = run_all(starts, [{}], bar, lambda: sum(map(steps_done, folders.values())))
    if failed:
        print(f"demo: error: {failed} failed; {failed}/err.txt says why", file=sys.stderr)
        return 1
    print_table({algorithm: read(folder) for algorithm, folder in folders.items()})
    return 0


def start(algorithm: str, folder: str) -> jobs.Start:
    """Starts the host's script."""
    flags = f"--test_envs {TEST_ENVIRONMENT} --steps {STEPS} --checkpoint_freq 20 --seed 0 --trial_seed 0"
    words = ["--dataset", "DebugDigitsOnPhotos", "--algorithm", algorithm, *flags.split(), "--output_dir", folder]

    def start(environment: jobs.Environment) -> jobs.Process:
        with contextlib.suppress(FileNotFoundError):  # of a run that was stopped: the host would append to it
            os.remove(os.path.join(folder, RESULTS))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
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


def print_table(records: dict[str, list[dict]]) -> None:
    """Accuracy on the held-out environment by training-domain validation, as DomainBed defines it."""
    print(f"\nDebugDigitsOnPhotos, test environment -90%, {STEPS} steps, seeds: 1; training-domain validation")
    print(f"{'algorithm':10} {'validation':>11} {'test':>15} {'step time':>10} {'to ERM':>7}")
    step_times = {name: statistics.median(record["step_time"] for record in of[1:]) for name, of in records.items()}
    for algorithm, step_time in step_times.items():
        chosen = max(records[algorithm], key=validation)
        print(
            f"{algorithm:10} {100 * validation(chosen):10.1f}% {100 * chosen[f'env{TEST_ENVIRONMENT}_in_acc']:14.1f}% "
            f"{1000 * step_time:7.0f} ms {step_time / step_times['ERM']:6.2f}x"
        )
    print("Small synthetic task with few seeds: it shows that everything runs, not which method is better.")


def validation(record: dict) -> float:
    """Mean accuracy on the training environments' held-out images."""
    return statistics.mean(record[f"env{environment}_out_acc"] for environment in TRAINING_ENVIRONMENTS)
