"""The profile of a CIM step: the operations that take most of it, with plain autograd's triplet (before) and the fused
one (after).
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from typing import Any, Callable
from unittest import mock

os.environ.setdefault(
    "KINETO_LOG_LEVEL", "6"
)  # to be set before torch is imported; else every start of the profiler is a line on stderr

import torch
from torch.profiler import ProfilerActivity, profile

from cim_plugin.algorithms.similarity import fused, ms_ssim
from cim_plugin.flags import whole

from . import measuring
from .step import Case, make_step

TRIPLETS = {"before": ms_ssim.triplet, "after": fused.fused_triplet}


class Spent:
    """What the profiled steps of one version took, added up."""

    def __init__(self) -> None:
        self.microseconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.times: measuring.Times = []

    def add(self, version: str, step: Callable[[], None], device: str) -> None:
        """Profile one step."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
        with (
            mock.patch.object(fused, "fused_triplet", TRIPLETS[version]),
            profile(activities=activities) as profiler,
        ):
            self.times.append(measuring.seconds(step))
        for operation in profiler.key_averages():
            self.microseconds[operation.key] += (
                operation.self_device_time_total if device == "cuda" else operation.self_cpu_time_total
            )
            self.calls[operation.key] += operation.count

    def rows(self, version: str, top: int) -> list[dict[str, Any]]:
        """The ``top`` operations, per step; milliseconds are the profiler's."""
        total, steps = self.microseconds.total(), len(self.times)
        return [
            {
                "version": version,
                "name": name,
                "share": spent / total,
                "calls": round(self.calls[name] / steps),
                "milliseconds": spent / 1000 / steps,
            }
            for name, spent in self.microseconds.most_common(top)
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 5, "2 images at 96")
    parser.add_argument("--model", default="resnet18", help="encoder, by the names of cim-plugin train")
    parser.add_argument("--top", type=whole(1, 1_000_000), default=12, help="operations that are shown")
    parser.add_argument(
        "--device",
        default="cpu",
        choices=("cpu", "cuda"),
        help="where to run; on cuda the time of an operation is that of its kernels",
    )


def run(args: argparse.Namespace) -> int:
    """A row per operation and version, and one for the whole step; one thread."""
    torch.set_num_threads(1)
    pairs, images, side = (5, 2, 96) if args.quick else (args.pairs, 8, 224)
    title = f"one CIM step, {args.model}, {images} images at {side}, channels_last, SGD, {args.device}, one thread"
    title += f", average of {pairs} profiled steps; before: plain autograd's triplet, after: the fused one"
    heading = f"{'':8} {'':46} {'share':>7} {'calls':>6} {'ms':>9}  (the operation's own time, without what it calls)"
    table = measuring.Table(args.json, title, heading, _text)
    spent = profiled(Case(args.model, images, side), pairs, args.device)
    for version in TRIPLETS:
        for row in spent[version].rows(version, args.top):
            table.add(row)
    table.add(
        measuring.row(
            "whole step, before / after",
            (images, 3, side, side),
            spent["before"].times,
            spent["after"].times,
            spent["after"].times,
        )
    )
    return 0


def profiled(case: Case, pairs: int, device: str) -> dict[str, Spent]:
    """Before, after, before, after ...; the first round only fills the caches."""
    steps = {version: make_step(case, "CIM", device) for version in TRIPLETS}
    for version, step in steps.items():
        Spent().add(version, step, device)
    spent = {version: Spent() for version in TRIPLETS}
    for _ in range(pairs):
        for version, step in steps.items():
            spent[version].add(version, step, device)
    return spent


def _text(row: dict[str, Any]) -> str:
    if "share" in row:
        return (
            f"{row['version']:8} {row['name'][:46]:46} {row['share']:7.1%} {row['calls']:6} {row['milliseconds']:9.1f}"
        )
    low, high = row["cpu_spread"]
    return (
        f"{row['name']} in CPU seconds, under the profiler: {row['cpu_ratio']:.2f} [{low:.2f}, {high:.2f}]; after: "
        f"{row['cpu_milliseconds']:.1f} CPU ms"
    )
