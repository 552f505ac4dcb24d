"""The triplet of MS-SSIM, forward and backward, against two calls of pytorch_msssim: time and memory.

Below 161 pixels ``pytorch_msssim.ms_ssim`` refuses; the comparison is then with its own loop, made of its own
``_ssim`` and the same pooling, with the scales that fit and their weights renormalised, as ours are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import machine
import pytorch_msssim
import torch
import torch.nn.functional as F
from pytorch_msssim.ssim import _fspecial_gauss_1d, _ssim
from startup import number_of_pairs
from torch import Tensor

from cim_plugin.algorithms.fused_triplet import fused_triplet
from cim_plugin.algorithms.similarity import WEIGHTS, choose_scales, scale_weights, triplet


class Case(NamedTuple):
    """One size of batch, and what psi is compared with."""

    images: int
    side: int
    targets: str  #: "input": x, without a gradient; "morphed": psi itself, with gradient through both sides

    def __str__(self) -> str:
        return f"({self.images}, 3, {self.side}, {self.side}) {self.targets}"


#: batch size and side -> by how much ours is to be faster
TARGETS = {(32, 224): 5.0, (64, 96): 5.0, (128, 28): 4.0}
MORPHED_TARGET, MEMORY_TARGET = 4.0, 0.35
QUICK = 4  #: --quick divides batches by this


def library(a: Tensor, b: Tensor, scales: int) -> Tensor:
    if scales == len(WEIGHTS):
        return pytorch_msssim.ms_ssim(a, b, data_range=1.0, size_average=False)
    window = _fspecial_gauss_1d(11, 1.5).repeat(a.shape[1], 1, 1, 1)
    terms = []
    for level in range(scales):
        ssim, cs = _ssim(a, b, data_range=1.0, win=window, size_average=False)
        terms.append(torch.relu(cs if level < scales - 1 else ssim))
        padding = [side % 2 for side in a.shape[2:]]
        a, b = (F.avg_pool2d(images, kernel_size=2, padding=padding) for images in (a, b))
    return torch.prod(torch.stack(terms) ** a.new_tensor(scale_weights(scales)).view(-1, 1, 1), dim=0).mean(1)


def two_library_calls(anchor: Tensor, reference: Tensor, positive: Tensor, negative: Tensor, scales: int, floor: str) -> tuple[Tensor, Tensor]:
    return library(anchor, reference[positive], scales), library(anchor, reference[negative], scales)


METHODS = {"pytorch_msssim, twice": two_library_calls, "plain autograd": triplet, "fused": fused_triplet}


def step(method: str, case: Case, channels: int = 3):
    """A function that runs forward and backward once."""
    torch.manual_seed(0)
    shape = (case.images, channels, case.side, case.side)
    x = (F.interpolate(torch.rand(*shape[:2], 8, 8), size=shape[2:], mode="bilinear") + torch.rand(shape)) / 2
    psi = (x * F.interpolate(torch.rand(case.images, 1, 5, 5), size=shape[2:], mode="bilinear")).requires_grad_()
    positive, negative = torch.randint(case.images, (2, case.images))
    scales = choose_scales(case.side, case.side)

    def run() -> None:
        psi.grad = None
        s_pos, s_neg = METHODS[method](psi, x if case.targets == "input" else psi, positive, negative, scales, "exact")
        (s_pos - s_neg).sum().backward()

    return run


def seconds(run) -> tuple[float, float]:
    """Wall and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def added_bytes(method: str, case: Case) -> int:
    """What one step adds to the peak memory of this process; a small step before it loads the libraries."""
    step(method, case._replace(images=1), channels=1)()
    run = step(method, case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)


def in_fresh_process(function, *arguments):
    """The result of a call in a fork, which is to be made before this process has used and freed much memory itself."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=number_of_pairs, default=7, help="runs of every method, in turn")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--quick", action="store_true", help=f"batches {QUICK} times smaller, 5 pairs")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def run(args: argparse.Namespace) -> int:
    """Print how many times faster than two calls of the library every method is, and its share of the library's memory."""
    torch.set_num_threads(args.threads)
    pairs = 5 if args.quick else args.pairs
    if not args.json:
        print(machine.describe())
        print(f"forward and backward, torch threads: {args.threads}; ratios to two calls of pytorch_msssim, median [quartiles] of {pairs} paired runs")
        print(f"{'':30} {'':16} {'times faster, wall':>22} {'CPU':>22} {'ms':>8} {'extra memory':>14} {'target':>7}")
    cases = [Case(images // QUICK if args.quick else images, side, targets) for images, side in TARGETS for targets in ("input", "morphed")]
    peaks = {case: {method: in_fresh_process(added_bytes, method, case) for method in METHODS} for case in cases}
    for case in cases:
        for row in compare(case, pairs, peaks[case]):
            print(json.dumps(row) if args.json else text(row), flush=True)
    if not args.json:
        print(f"targets: times faster as shown, extra memory at most {MEMORY_TARGET:g} of the library's")
    return 0


def compare(case: Case, pairs: int, peaks: dict[str, int]) -> list[dict]:
    """One row per method other than the library's."""
    runs = {method: step(method, case) for method in METHODS}
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for _ in range(pairs + 1):  # the first round only fills the caches
        for method, once in runs.items():
            times[method].append(seconds(once))
    base, *others = METHODS
    rows = []
    for method in others:
        wall, cpu = ([theirs[kind] / ours[kind] for theirs, ours in zip(times[base][1:], times[method][1:])] for kind in (0, 1))
        rows.append(
            {
                "name": method,
                "shape": [case.images, 3, case.side, case.side],
                "targets": case.targets,
                "ratio": statistics.median(wall),
                "spread": statistics.quantiles(wall, n=4)[::2],
                "cpu_ratio": statistics.median(cpu),
                "cpu_spread": statistics.quantiles(cpu, n=4)[::2],
                "milliseconds": 1000 * statistics.median(time[0] for time in times[method][1:]),
                "memory_ratio": peaks[method] / peaks[base],
                "memory_mib": peaks[method] / 2**20,
            }
        )
    return rows


def text(row: dict) -> str:
    images, _, side, _ = row["shape"]
    goal = MORPHED_TARGET if row["targets"] == "morphed" else next(goal for (_, of_side), goal in TARGETS.items() if of_side == side)
    ratios = [f"{row[name]:.1f} [{low:.1f}, {high:.1f}]" for name, (low, high) in (("ratio", row["spread"]), ("cpu_ratio", row["cpu_spread"]))]
    memory = f"{row['memory_mib']:.0f} MiB {row['memory_ratio']:.2f}"
    return f"{str(Case(images, side, row['targets'])):30} {row['name']:16} {ratios[0]:>22} {ratios[1]:>22} {row['milliseconds']:8.1f} {memory:>14} {goal:6.0f}x"
