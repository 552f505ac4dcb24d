"""``cim-plugin compare`` on thousands of runs: its time, and the ratio to another installation's in paired runs."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

GROUPS = [f"y:{bird}_background:{place}" for bird in ("landbird", "waterbird") for place in ("land", "water")]
RULES = ("best", "worst_group", "average", "worst_class", "last", "oracle")
HELD_OUT = [[i] for i in range(4)] + [[i, j] for i in range(4) for j in range(i + 1, 4)]
STEPS = range(0, 5400, 300)  #: of the evaluations of a job of 5,001 steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=5000, help="folders of DomainBed, shown as text")
    parser.add_argument("--runs", type=int, default=2000, help="folders of 'cim-plugin train', shown as a web page")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--against", metavar="FILE", help="cim-plugin of another installation to compare with")


def run(args: argparse.Namespace) -> int:
    """Print two rows."""
    here = os.path.join(sysconfig.get_path("scripts"), "cim-plugin")
    plugins = [here, *([args.against] if args.against else [])]
    print(f"seconds of 'cim-plugin compare': medians of {args.pairs} paired runs, CPU and wall")
    with tempfile.TemporaryDirectory() as folder:
        draw = random.Random(0)
        for what, write, count, name in (
            ("DomainBed jobs as text", write_jobs, args.jobs, "report.txt"),
            ("runs as a web page", write_runs, args.runs, "report.html"),
        ):
            top = Path(folder, name.partition(".")[2])
            write(top, count, draw)
            rounds = [[seconds(plugin, top, Path(folder, name)) for plugin in plugins] for _ in range(args.pairs + 1)]
            print(f"{count:6,} {what:24} {_words(rounds[1:])}", flush=True)  # the first round fills the disk's cache
    return 0


def _words(rounds: list[list[tuple[float, float]]]) -> str:
    words = []
    for kind, name in enumerate(("CPU", "wall")):
        times = [[plugin[kind] for plugin in one] for one in rounds]
        words.append(f"{name} {statistics.median(time[0] for time in times):.2f}")
        if len(times[0]) > 1:
            ratio = statistics.median(ours / theirs for ours, theirs in times)
            words[-1] += f" against {statistics.median(time[1] for time in times):.2f}: {ratio:.2f} times"
    return "; ".join(words)


def seconds(plugin: str, top: Path, report: Path) -> tuple[float, float]:
    """CPU and wall time of one report."""
    begin = time.perf_counter()
    child = os.posix_spawn(plugin, [plugin, "compare", str(top), "-o", str(report)], os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{plugin} compare ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begin


def write_jobs(top: Path, count: int, draw: random.Random) -> None:
    """A sweep over four environments: five algorithms, five trials, as many draws of hyperparameters as it takes."""
    for number in range(count):
        rest, held_out = divmod(number, len(HELD_OUT))
        rest, algorithm = divmod(rest, 5)
        hyperparameters, trial = divmod(rest, 5)
        arguments = {
            "algorithm": ("ERM", "CIM", "CIM_VIB", "VIB", "CORAL")[algorithm],
            "checkpoint_freq": None,
            "data_dir": "/data",
            "dataset": "VLCS",
            "holdout_fraction": 0.2,
            "hparams": None,
            "hparams_seed": hyperparameters,
            "output_dir": f"sweep/{number:032x}",
            "seed": number,
            "steps": None,
            "task": "domain_generalization",
            "test_envs": HELD_OUT[held_out],
            "trial_seed": trial,
            "uda_holdout_fraction": 0,
        }
        folder = top / f"{number:032x}"
        folder.mkdir(parents=True)
        (folder / "results.jsonl").write_text("".join(_evaluation(arguments, step, draw) for step in STEPS))
        (folder / "done").write_text("done")


def _evaluation(arguments: dict[str, Any], step: int, draw: random.Random) -> str:
    record = {"args": arguments, "hparams": {f"hyperparameter_{number}": number / 7 for number in range(15)}}
    record |= {f"env{number}_{split}_acc": draw.random() for number in range(4) for split in ("in", "out")}
    record |= {"epoch": step / 17, "loss": draw.random(), "mem_gb": 0.5, "step": step, "step_time": draw.random()}
    return json.dumps(record, sort_keys=True) + "\n"


def write_runs(top: Path, count: int, draw: random.Random) -> None:
    """Four algorithms with as many seeds as it takes, ten epochs each."""
    for number in range(count):
        seed, algorithm = divmod(number, 4)
        folder = top / str(number)
        folder.mkdir(parents=True)
        record = _results(("ERM", "CIM", "CIM_VIB", "groupDRO")[algorithm], seed, draw)
        (folder / "results.json").write_text(json.dumps(record, indent=2))
        lines = (f"{epoch},{draw.random()},{draw.random()}\n" for epoch in range(10))
        (folder / "val_eval.csv").write_text("epoch,acc_wg,adj_acc_avg\n" + "".join(lines))


def _results(algorithm: str, seed: int, draw: random.Random) -> dict[str, Any]:
    def test() -> dict[str, Any]:
        accuracies = [draw.random() for _ in GROUPS]
        metrics = {"acc_wg": min(accuracies), "adj_acc_avg": max(accuracies)}
        groups = {name: {"accuracy": value, "count": 25} for name, value in zip(GROUPS, accuracies)}
        return {"metrics": metrics, "accuracy": sum(accuracies) / len(accuracies), "groups": groups}

    return {
        "status": "finished",
        "epochs": 10,
        "dataset": "waterbirds",
        "algorithm": algorithm,
        "seed": seed,
        "synthetic": False,
        "selection": {rule: {"epoch": draw.randrange(10), "splits": {"test": test()}} for rule in RULES},
        "config": {"n_epochs": 10, "val_metric": "acc_wg", "lr": 0.001, "seed": seed, "hyperparameters": {}},
        "seconds": {"train": 6.0},
        "steps": 60,
        "peak_memory_bytes": {"resident": 2**30},
        "device": "a device",
        "versions": {"python": "3.11", "torch": "2.5"},
    }
