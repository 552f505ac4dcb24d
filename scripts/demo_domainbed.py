"""Train ERM, CIM and CIM_VIB on DebugDigitsOnPhotos with DomainBed's own train script, and print one table."""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time

from cim_plugin.errors import InputError, exit_status
from cim_plugin.files import parse_json, read_text
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress

ALGORITHMS = ("ERM", "CIM", "CIM_VIB")
TEST_ENVIRONMENT = 2  #: "-90%": the background that went with one label goes with the other
TRAINING_ENVIRONMENTS = (0, 1)


def main() -> int:
    return exit_status("scripts/demo", run, "stopped; finished runs are kept, the same command goes on")


def run() -> int:
    """Train what is not finished and print the table. Exit status 1 where a run failed."""
    parser = Parser(prog="scripts/demo", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=whole(1), default=201, help="training steps per run")
    parser.add_argument("--seeds", type=whole(1, 1000), default=1, help="runs per algorithm, with seeds 0, 1, ...")
    parser.add_argument(
        "--output_dir", default="demo_output", help="where runs are kept; a finished run is not done again"
    )
    args = parser.parse_args()
    if importlib.util.find_spec("domainbed") is None:
        raise InputError(
            "DomainBed is not found; run '.venv/bin/cim-plugin get-domainbed', or set DOMAINBED_HOME to a checkout"
        )
    runs = [(algorithm, seed) for seed in range(args.seeds) for algorithm in ALGORITHMS]
    records = {}
    with progress(total=len(runs) * args.steps, unit="step", smoothing=0.05) as bar:
        for algorithm, seed in runs:
            bar.set_description(f"{algorithm}, seed {seed}")
            folder = os.path.join(args.output_dir, f"{algorithm}-{args.steps}-{seed}")
            if not train(algorithm, seed, args.steps, folder, bar):
                bar.close()
                print(f"demo: error: {algorithm} failed; {folder}/err.txt says why", file=sys.stderr)
                return 1
            records[algorithm, seed] = read(folder)
    print_table(records, args)
    return 0


def train(algorithm: str, seed: int, steps: int, folder: str, bar) -> bool:
    """One run of the host's script, the bar following its results file; False when it failed."""
    if os.path.exists(os.path.join(folder, "done")):
        bar.update(steps)
        return True
    os.makedirs(folder, exist_ok=True)
    results = os.path.join(folder, "results.jsonl")
    if os.path.exists(results):  # of a run that was stopped: the host would append to it
        os.remove(results)
    command = [
        sys.executable,
        "-m",
        "domainbed.scripts.train",
        "--dataset",
        "DebugDigitsOnPhotos",
        "--algorithm",
        algorithm,
    ]
    command += ["--test_envs", str(TEST_ENVIRONMENT), "--steps", str(steps), "--checkpoint_freq", "20"]
    command += ["--seed", str(seed), "--trial_seed", str(seed), "--output_dir", folder]
    done = 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(0.3)
            reached = read(folder)[-1]["step"] + 1 if os.path.exists(results) else 0
            bar.update(reached - done)
            done = reached
    finally:
        process.terminate()
        process.wait()
    bar.update(steps - done)
    return process.returncode == 0


def read(folder: str) -> list[dict]:
    """The records that a run has written so far."""
    path = os.path.join(folder, "results.jsonl")
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


if __name__ == "__main__":
    sys.exit(main())
