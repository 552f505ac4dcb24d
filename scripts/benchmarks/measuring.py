"""Paired runs, peak memory, and one row per result: what the benchmarks share."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, Sequence

import torch

from cim_plugin.flags import whole

from . import machine

Times = list[tuple[float, float]]  #: wall and CPU seconds of every run


number_of_pairs = whole(2, 1_000_000)  #: a spread needs two


def add_arguments(parser: argparse.ArgumentParser, pairs: int, quick: str) -> None:
    parser.add_argument(
        "--pairs", type=number_of_pairs, default=pairs, help="runs of everything that is compared, in turn"
    )
    parser.add_argument("--quick", action="store_true", help=f"under a minute: {quick}, 5 pairs")
    parser.add_argument("--json", action="store_true", help="one JSON object per row, with the machine in each")


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_turn(runs: dict[Any, Callable[[], Any]], pairs: int) -> dict[Any, Times]:
    """A B C A B C ...: the times of every run. The first round only fills the caches."""
    times: dict[Any, Times] = {name: [] for name in runs}
    for _ in range(pairs + 1):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {name: all_rounds[1:] for name, all_rounds in times.items()}


def cpu_median(times: Times) -> float:
    return statistics.median(cpu for _, cpu in times)


def added_bytes(prepare: Callable[[], Callable[[], Any]]) -> int:
    """What a run adds to the peak of this process's resident memory. Call it by :func:`in_fresh_process`."""
    run = prepare()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)


def added_gpu_bytes(run: Callable[[], Any]) -> int:
    """What a run adds to the peak of the memory that torch has allocated on the GPU."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


def in_fresh_process(function: Callable, *arguments):
    """The result of a call in a fork, which is to be made before this process has used and freed much memory itself."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def row(
    name: str,
    shape: Sequence[int],
    over: Times,
    under: Times,
    own: Times,
    memory_ratio: float | None = None,
    target: str = "",
    note: str = "",
) -> dict[str, Any]:
    """A result: the median and the quartiles of over / under, run by run, in wall and CPU time; how long ``own``
    took.
    """
    wall, cpu = ([a[kind] / b[kind] for a, b in zip(over, under)] for kind in (0, 1))
    return {
        "name": name,
        "shape": list(shape),
        "ratio": statistics.median(wall),
        "spread": statistics.quantiles(wall, n=4, method="inclusive")[::2],
        "cpu_ratio": statistics.median(cpu),
        "cpu_spread": statistics.quantiles(cpu, n=4, method="inclusive")[::2],
        "milliseconds": 1000 * statistics.median(wall for wall, _ in own),
        "cpu_milliseconds": 1000 * cpu_median(own),
        "memory_ratio": memory_ratio,
        "target": target,
        "note": note,
    }


def skipped(name: str, shape: Sequence[int], reason: str) -> dict[str, Any]:
    """The row of what could not be run."""
    return {
        **dict.fromkeys(
            ["ratio", "spread", "cpu_ratio", "cpu_spread", "milliseconds", "cpu_milliseconds", "memory_ratio"]
        ),
        "name": name,
        "shape": list(shape),
        "target": "",
        "note": f"skipped: {reason}",
    }


class Report:
    """The rows of :func:`row` and :func:`skipped` as they come: lines under the machine, a title and a heading, or JSON
    objects.
    """

    def __init__(self, as_json: bool, title: str, ratio: str):
        self.as_json = as_json
        if not as_json:
            heading = f"{'':34} {'shape':>20} {ratio + ', wall':>22} {'CPU':>20} {'ms':>9} {'memory':>8}  target"
            print(f"{machine.describe()}\n{title}\n{heading}", flush=True)

    def add(self, row: dict[str, Any]) -> None:
        print(json.dumps({**row, "machine": machine.describe()}) if self.as_json else _text(row), flush=True)


def _text(row: dict[str, Any]) -> str:
    start = f"{row['name']:34} {'x'.join(map(str, row['shape'])):>20}"
    if row["ratio"] is None:
        return f"{start}  {row['note']}"
    wall, cpu = (
        f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"
        for name, (low, high) in (("ratio", row["spread"]), ("cpu_ratio", row["cpu_spread"]))
    )
    memory = "" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}"
    return (
        f"{start} {wall:>22} {cpu:>20} {row['milliseconds']:9.1f} {memory:>8}  "
        f"{row['target']}{'  ' + row['note'] if row['note'] else ''}"
    )
