"""Train ERM, CIM and CIM_VIB on DebugDigitsOnPhotos with DomainBed's own train script, and print one table."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys

from cim_plugin.files import parse_json, read_text
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress
from cim_plugin.runs import jobs

from .demo_wilds import run_all

ALGORITHMS = ("ERM", "CIM", "CIM_VIB")
TEST_ENVIRONMENT = 2  #: "-90%": the background that went with one label goes with the other
TRAINING_ENVIRONMENTS = (0, 1)
RESULTS = "results.jsonl"  #: gets a line per evaluation


def main(words: list[str]) -> int:
    """Train what is not finished and print the table. Exit status 1 where a run failed."""
    parser = Parser(prog="scripts/demo", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=whole(1), default=201, help="training steps per run")
    parser.add_argument("--seeds", type=whole(1, 1000), default=1, help="runs per algorithm, with seeds 0, 1, ...")
    parser.add_argument(
        "--output_dir", default="demo_output", help="where runs are kept; a finished run is not done again"
    )
    args = parser.parse_args(words)
    runs = [(algorithm, seed) for seed in range(args.seeds) for algorithm in ALGORITHMS]
    folders = {run: os.path.join(args.output_dir, f"{run[0]}-{args.steps}-{run[1]}") for run in runs}
    starts = {folder: start(*run, args.steps, folder) for run, folder in folders.items() if not finished(folder)}
    with progress(total=len(runs) * args.steps, unit="step", smoothing=0.05) as bar:
        failed = run_all(starts, [{}], bar, lambda: sum(steps_done(folder, args.steps) for folder in folders.values()))
    if failed:
        print(f"demo: error: {failed} failed; {failed}/err.txt says why", file=sys.stderr)
        return 1
    print_table({run: read(folder) for run, folder in folders.items()}, args)
    return 0


def start(algorithm: str, seed: int, steps: int, folder: str) -> jobs.Start:
    """Starts the host's script."""
    words = ["--dataset", "DebugDigitsOnPhotos", "--algorithm", algorithm, "--test_envs", str(TEST_ENVIRONMENT)]
    words += ["--steps", str(steps), "--checkpoint_freq", "20"]
    words += ["--seed", str(seed), "--trial_seed", str(seed), "--output_dir", folder]

    def start(environment: jobs.Environment) -> jobs.Process:
        with contextlib.suppress(FileNotFoundError):  # of a run that was stopped: the host would append to it
            os.remove(os.path.join(folder, RESULTS))
        os.makedirs(folder, exist_ok=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return jobs.command([sys.executable, "-m", "domainbed.scripts.train", *words], **quiet)(environment)

    return start


def finished(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "done"))


def steps_done(folder: str, steps: int) -> int:
    if finished(folder):
        return steps
    return read(folder)[-1]["step"] + 1 if os.path.exists(os.path.join(folder, RESULTS)) else 0


def read(folder: str) -> list[dict]:
    """The records that a run has written so far."""
    path = os.path.join(folder, RESULTS)
    *lines, _ = read_text(path).split("\n")  # the last one is empty, or being written
    return [parse_json(line, path, number) for number, line in enumerate(lines, 1)] or [{"step": -1}]


def print_table(records: dict, args: argparse.Namespace) -> None:
    """Accuracy on the held-out environment by training-domain validation, as DomainBed defines it."""
    print(
        f"\nDebugDigitsOnPhotos, test environment -90%, {args.steps} steps, seeds: {args.seeds}; training-domain "
        f"validation"
    )
    print(f"{'algorithm':10} {'validation':>11} {'test':>15} {'step time':>10} {'to ERM':>7}")
    erm_time = None
    for algorithm in ALGORITHMS:
        chosen = [max(records[algorithm, seed], key=validation) for seed in range(args.seeds)]
        tests = [100 * record[f"env{TEST_ENVIRONMENT}_in_acc"] for record in chosen]
        step_time = statistics.median(
            record["step_time"] for seed in range(args.seeds) for record in records[algorithm, seed][1:]
        )
        erm_time = erm_time or step_time
        spread = f" ± {statistics.stdev(tests):.1f}" if len(tests) > 1 else ""
        accuracy = f"{statistics.mean(tests):.1f}{spread}"
        print(
            f"{algorithm:10} {100 * statistics.mean(map(validation, chosen)):10.1f}% {accuracy:>14}% "
            f"{1000 * step_time:7.0f} ms {step_time / erm_time:6.2f}x"
        )
    print("Small synthetic task with few seeds: it shows that everything runs, not which method is better.")


def validation(record: dict) -> float:
    """Mean accuracy on the training environments' held-out images."""
    return statistics.mean(record[f"env{environment}_out_acc"] for environment in TRAINING_ENVIRONMENTS)
