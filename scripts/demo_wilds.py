"""Train on the offline Waterbirds stand-in with ``cim-plugin train`` and print one table by selection rule."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from typing import Any, Callable

from cim_plugin.files import read_json, read_text
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress
from cim_plugin.runs import jobs
from cim_plugin.runs.jobs import Job

#: row of the table -> flags of cim-plugin train
ROWS = {
    "ERM": ["--algorithm", "ERM"],
    "groupDRO (sees groups)": ["--algorithm", "groupDRO"],
    "VIB": ["--algorithm", "VIB"],
    "CIM": ["--algorithm", "CIM"],
    "CIM, λ=0 (control)": ["--algorithm", "CIM", "--cim_lambda", "0"],
    "CIM_VIB": ["--algorithm", "CIM_VIB"],
}
RULES = ("worst_group", "average", "worst_class")
SETTINGS = "-d waterbirds --model small_cnn --transform image_base --target_resolution 28 --optimizer AdamW --lr 1e-3"
SETTINGS = f"{SETTINGS} --weight_decay 1e-4 --batch_size 32 --loader_kwargs num_workers=0".split()
EVALUATED = "train_eval.csv"  #: gets a line per epoch


def main() -> int:
    """Make the data, train what is not finished, and print the table. Exit status 1 where a run failed."""
    parser = Parser(prog="scripts/demo", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=whole(1), default=20, help="epochs per run")
    parser.add_argument("--seeds", type=whole(1, 1000), default=2, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument(
        "--output_dir", default="demo_output", help="where data and runs are kept; a finished run is not done again"
    )
    args = parser.parse_args()
    data = os.path.join(args.output_dir, "data")
    status = subprocess.call([*PLUGIN, "data", "demo", "--root", data])
    if status:  # it has said why
        return status
    folders = {
        (row, seed): os.path.join(
            args.output_dir, "wilds", f"{row.partition(' (')[0].replace(', ', '-')}-{args.epochs}-{seed}"
        )
        for seed in range(args.seeds)
        for row in ROWS
    }
    starts = {
        folder: start(
            folder, [*ROWS[row], "--root_dir", data, "--n_epochs", str(args.epochs), "--seed", str(seed), "--resume"]
        )
        for (row, seed), folder in folders.items()
        if not finished(folder)
    }
    with progress(total=len(folders) * args.epochs, unit="epoch", smoothing=0.1) as bar:
        failed = run_all(
            starts,
            [{"OMP_NUM_THREADS": "1"}] * (os.cpu_count() or 1),
            bar,
            lambda: sum(min(args.epochs, epochs_done(folder)) for folder in folders.values()),
        )
    if failed:
        print(f"demo: error: a run failed; {failed}/err.txt says why", file=sys.stderr)
        return 1
    print_table(folders, args)
    return 0


PLUGIN = [sys.executable, "-m", "cim_plugin.cli"]


def start(folder: str, flags: list[str]) -> jobs.Start:
    """Starts a training, whose errors go to a file."""

    def start(environment: jobs.Environment) -> jobs.Process:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "err.txt"), "w") as errors:
            words = [*PLUGIN, "train", *SETTINGS, *flags, "--log_dir", folder]
            return jobs.command(words, stdout=subprocess.DEVNULL, stderr=errors)(environment)

    return start


def run_all(
    starts: dict[str, jobs.Start], slots: list[jobs.Environment], bar: Any, done: Callable[[], int]
) -> str | None:
    """Run what stands under the names of folders, with a bar that shows how much is done; the folder of the first that
    fails, which stops the others, or None.
    """

    def watch() -> None:
        bar.update(done() - bar.n)

    def say(job: Job, slot: jobs.Environment) -> None:
        bar.set_description(os.path.basename(job.name))

    todo = [Job(folder, start) for folder, start in starts.items()]
    statuses = jobs.run(todo, slots, started=say, watch=watch, go_on=False)
    return next(iter(jobs.failed(statuses)), None)


def results(folder: str) -> dict:
    path = os.path.join(folder, "results.json")
    if not os.path.exists(path):
        return {}
    return read_json(path)


def finished(folder: str) -> bool:
    return results(folder).get("status") == "finished"


def epochs_done(folder: str) -> int:
    path = os.path.join(folder, EVALUATED)
    if not os.path.exists(path):
        return 0
    return max(0, read_text(path).count("\n") - 1)


def print_table(folders: dict, args: argparse.Namespace) -> None:
    """Test accuracy, average and worst group, at the epoch that every rule selects on validation data."""
    runs = {key: results(folder) for key, folder in folders.items()}
    print(
        f"\nSYNTHETIC Waterbirds stand-in (digits on photographs), {args.epochs} epochs, {args.seeds} seeds. Test "
        f"accuracy in %, mean ± std"
    )
    print(f"{'':24}" + "".join(f"  selected by {rule:17}" for rule in RULES) + "   train")
    print(f"{'':24}" + "".join(f"  {'average':>13} {'worst group':>15}" for _ in RULES) + "   s/run")
    for row in ROWS:
        cells = ""
        for rule in RULES:
            tests = [runs[row, seed]["selection"][rule]["splits"]["test"] for seed in range(args.seeds)]
            cells += (
                f"  {spread([t['accuracy'] for t in tests]):>13} {spread([t['metrics']['acc_wg'] for t in tests]):>15}"
            )
        seconds = statistics.mean(runs[row, seed]["seconds"]["train"] for seed in range(args.seeds))
        print(f"{row:24}{cells} {seconds:7.1f}")
    print("worst_group needs group labels of validation data; average and worst_class need none.")
    print("A small task with few seeds: it shows that everything runs, not which method is better.")


def spread(values: list[float]) -> str:
    percent = [100 * value for value in values]
    return f"{statistics.mean(percent):.1f}" + (f" ± {statistics.stdev(percent):.1f}" if len(percent) > 1 else "")
