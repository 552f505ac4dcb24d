"""Train on the offline Waterbirds stand-in with ``cim-plugin train``; one table, what it says, a page of pictures."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from typing import Any, Callable

from cim_plugin.files import read_json, read_text
from cim_plugin.progress import progress
from cim_plugin.runs import jobs
from cim_plugin.runs.jobs import Job

BALANCED = ["--cross_fit", "150"]  #: a number, as choosing one takes longer; 300 flag the same training images
#: row of the table -> flags of cim-plugin train
ROWS = {
    "ERM": ["--algorithm", "ERM"],
    "ERM, balanced": ["--algorithm", "ERM", *BALANCED],
    "groupDRO": ["--algorithm", "groupDRO"],
    "CIM": ["--algorithm", "CIM"],
    "CIM, λ=0": ["--algorithm", "CIM", "--cim_lambda", "0"],
}
WHAT = {
    "ERM, balanced": f"without labels of groups: {' '.join(BALANCED)}",
    "groupDRO": "sees the group of every training image",
    "CIM": "the poster's loss",
    "CIM, λ=0": "its control: the same network without that loss",
}
#: selection rule -> what it needs, in the head of the table
RULES = {"worst_group": "by groups of validation data", "last": "without labels of groups"}
SETTINGS = "-d waterbirds --model small_cnn --transform image_base --target_resolution 28 --optimizer AdamW --lr 1e-3"
SETTINGS = f"{SETTINGS} --weight_decay 1e-4 --batch_size 32 --loader_kwargs num_workers=0".split()
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
EVALUATED = "train_eval.csv"  #: gets a line per epoch


def train(args: argparse.Namespace) -> int:
    """Make the data and train what is not finished. Exit status 1 where a run failed."""
    runs = {folder: [*ROWS[row], "--seed", str(seed)] for (row, seed), folder in folders_of(args).items()}
    return train_on_demo(data_of(args), runs, args.epochs)


def train_on_demo(data: str, runs: dict[str, list[str]], epochs: int) -> int:
    """Make the data and train what is not finished. Exit status 1 where a run failed.

    Args:
        runs: the folder of each -> flags of cim-plugin train.
    """
    if status := subprocess.call([*PLUGIN, "data", "demo", "--root", data], env={**os.environ, **ONE_THREAD}):
        return status
    starts = {
        folder: start(folder, [*flags, "--root_dir", data, "--n_epochs", str(epochs), "--resume"])
        for folder, flags in runs.items()
        if not finished(folder)
    }
    with progress(total=len(runs) * epochs, unit="epoch", smoothing=0.1) as bar:
        return said(run_all(starts, bar, lambda: sum(min(epochs, epochs_done(folder)) for folder in runs)))


def data_of(args: argparse.Namespace) -> str:
    return os.path.join(args.output_dir, "data")


def folders_of(args: argparse.Namespace) -> dict[tuple[str, int], str]:
    """(row, seed) -> the folder of its run."""
    return {
        (row, seed): os.path.join(args.output_dir, "wilds", f"{row.replace(', ', '-')}-{args.epochs}-{seed}")
        for seed in range(args.seeds)
        for row in ROWS
    }


def said(failed: str | None) -> int:
    """Exit status of trainings, of which one failed or none."""
    if failed:
        print(f"demo: error: a run failed; {failed}/err.txt says why", file=sys.stderr)
    return int(bool(failed))


def show(args: argparse.Namespace) -> int:
    """The table, what it says, and the page."""
    folders = folders_of(args)
    runs = {key: results(folder) for key, folder in folders.items()}
    print_table(runs, args)
    print(f"\n{meaning(runs, args.seeds)}")
    page = os.path.join(args.output_dir, "masks.html")
    status = subprocess.call(
        [*PLUGIN, "show", folders["CIM", 0], "--root_dir", data_of(args), "-o", page], stdout=subprocess.DEVNULL
    )
    if not status:
        print(f"\nAll runs side by side: .venv/bin/cim-plugin compare {args.output_dir} -o report.html")
        print(f"Pictures of x, m and psi(x): {page}")
    return status


PLUGIN = [sys.executable, "-m", "cim_plugin.cli"]


def start(folder: str, flags: list[str]) -> jobs.Start:
    """Starts a training, whose errors go to a file."""

    def start(environment: jobs.Environment) -> jobs.Process:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "err.txt"), "w") as errors:
            words = [*PLUGIN, "train", *SETTINGS, *flags, "--log_dir", folder]
            return jobs.command(words, stdout=subprocess.DEVNULL, stderr=errors)(environment)

    return start


def run_all(starts: dict[str, jobs.Start], bar: Any, done: Callable[[], int]) -> str | None:
    """Run what stands under the names of folders, one per core, with a bar that shows how much is done; the folder of
    the first that fails, which stops the others, or None.
    """

    def watch() -> None:
        bar.update(done() - bar.n)

    def say(job: Job, slot: jobs.Environment) -> None:
        bar.set_description(os.path.basename(job.name))

    todo = [Job(folder, start) for folder, start in starts.items()]
    slots = [ONE_THREAD] * (os.cpu_count() or 1)
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


def print_table(runs: dict[tuple[str, int], dict], args: argparse.Namespace) -> None:
    """Test accuracy, average and worst group, at the epoch that every rule selects."""
    print(
        f"\nSYNTHETIC Waterbirds (digits on photographs), {args.epochs} epochs, {args.seeds} seeds: test accuracy in %"
    )
    print(f"{'chosen':14}" + "".join(f"  {what:>29}" for what in RULES.values()))
    print(f"{'':14}" + "  {:>13}  {:>14}".format("average", "worst group") * len(RULES))
    for row in ROWS:
        cells = ""
        for rule in RULES:
            tests = [of_test(runs[row, seed], rule) for seed in range(args.seeds)]
            cells += f"  {spread([test['accuracy'] for test in tests]):>13}  {spread(worst(tests)):>14}"
        print(f"{row:14}{cells}  {WHAT.get(row, '')}".rstrip())


def of_test(run: dict, rule: str) -> dict:
    return run["selection"][rule]["splits"]["test"]


def worst(tests: list[dict]) -> list[float]:
    return [test["metrics"]["acc_wg"] for test in tests]


def meaning(runs: dict[tuple[str, int], dict], seeds: int) -> str:
    """Two sentences, by the numbers of the rule that needs no labels of groups."""
    found = {row: statistics.mean(worst([of_test(runs[row, seed], "last") for seed in range(seeds)])) for row in ROWS}
    percent = {row: f"{100 * value:.0f}%" for row, value in found.items()}
    gain = 100 * (found["CIM"] - found["CIM, λ=0"])
    loss = "gains nothing" if gain < 1 else f"gains {gain:.0f} points"
    return (
        f"Without labels of groups ERM has {percent['ERM']} in its worst group, and {percent['ERM, balanced']} on "
        f"balanced batches; group DRO, which sees the groups, has {percent['groupDRO']}.\n"
        f"The poster's loss {loss} here over the same network without it ({percent['CIM']} and "
        f"{percent['CIM, λ=0']}), on a small synthetic task with few seeds, which says little about real data."
    )


def spread(values: list[float]) -> str:
    percent = [100 * value for value in values]
    return f"{statistics.mean(percent):.1f}" + (f" ± {statistics.stdev(percent):.1f}" if len(percent) > 1 else "")
