"""The triplet of MS-SSIM, forward and backward, against two calls of pytorch_msssim: time and memory.

Below 161 pixels ``pytorch_msssim.ms_ssim`` refuses; the comparison is then with its own loop, made of its own
``_ssim`` and the same pooling, with the scales that fit and their weights renormalised, as ours are.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
from typing import Callable, NamedTuple

import pytorch_msssim
import torch
import torch.nn.functional as F
from pytorch_msssim.ssim import _fspecial_gauss_1d, _ssim
from torch import Tensor

from cim_plugin.algorithms.similarity.colours import Colours, colour_embedding
from cim_plugin.algorithms.similarity.fused import fused_triplet
from cim_plugin.algorithms.similarity.ms_ssim import WEIGHTS, choose_scales, scale_weights, triplet

from . import measuring


class Case(NamedTuple):
    """One size of batch, and what psi is compared with."""

    images: int
    side: int
    targets: str  #: "input": x, without a gradient; "morphed": psi itself, with gradient through both sides


#: side -> batch size, batch size with --quick, by how much ours is to be faster
SIDES = {224: (32, 4, 5.0), 96: (64, 12, 5.0), 28: (128, 32, 4.0)}
MORPHED_TARGET, MEMORY_TARGET = 4.0, 0.35


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


def fused_ssim(a: Tensor, b: Tensor, scales: int) -> Tensor:
    from fused_ssim import fused_ssim as ssim

    return ssim(a, b, padding="valid")


BASE, PEER = "pytorch_msssim, twice", "fused_ssim"  #: the peer needs a GPU


def twice(
    call: Callable, anchor: Tensor, reference: Tensor, positive: Tensor, negative: Tensor, scales: int, floor: str
) -> tuple[Tensor, Tensor]:
    return call(anchor, reference[positive], scales), call(anchor, reference[negative], scales)


def colours(
    anchor: Tensor, reference: Tensor, positive: Tensor, negative: Tensor, scales: int, floor: str
) -> list[Tensor]:
    """``cim_similarity=colours``; m is not there, and psi as the weights costs the same."""
    own = colour_embedding(anchor, anchor)
    other = own if reference is anchor else colour_embedding(reference, torch.ones_like(reference[:, :1]))
    return Colours(anchor.shape[2:]).compare(own, other, positive, negative)


NOTES = {"colours": "another number, see docs/study.md", PEER: "another number: SSIM at one scale"}
METHODS = {
    BASE: functools.partial(twice, library),
    "plain autograd": triplet,
    "fused": fused_triplet,
    "colours": colours,
    PEER: functools.partial(twice, fused_ssim),
}


def step(method: str, case: Case, device: str = "cpu", channels: int = 3) -> Callable[[], None]:
    """A function that runs forward and backward once."""
    torch.manual_seed(0)
    shape = (case.images, channels, case.side, case.side)
    x = (F.interpolate(torch.rand(*shape[:2], 8, 8), size=shape[2:], mode="bilinear") + torch.rand(shape)) / 2
    psi = (
        (x * F.interpolate(torch.rand(case.images, 1, 5, 5), size=shape[2:], mode="bilinear"))
        .to(device)
        .requires_grad_()
    )
    x = x.to(device)
    positive, negative = torch.randint(case.images, (2, case.images)).to(device)
    scales = choose_scales(case.side, case.side)

    def run() -> None:
        psi.grad = None
        s_pos, s_neg = METHODS[method](psi, x if case.targets == "input" else psi, positive, negative, scales, "exact")
        (s_pos - s_neg).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def prepared(method: str, case: Case) -> Callable[[], None]:
    """A small step before it loads the libraries."""
    step(method, case._replace(images=1), channels=1)()
    return step(method, case)


def added_bytes(method: str, case: Case, device: str) -> int:
    if device == "cpu":
        return measuring.in_fresh_process(measuring.added_bytes, functools.partial(prepared, method, case))
    run = step(method, case, device)
    run()
    return measuring.added_gpu_bytes(run)


def obstacle(name: str, case: Case, device: str) -> str | None:
    """Why a library cannot be compared with, or None."""
    if name != PEER:
        return None
    if case.targets != "input":
        return "compared where targets are input"
    if device != "cuda":
        return "it needs a GPU"
    if importlib.util.find_spec(name) is None:
        return f"{name} is not installed; 'pip install {name.replace('_', '-')}' brings it"
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 7, f"batches of {', '.join(str(quick) for _, quick, _ in SIDES.values())} images")


def run(args: argparse.Namespace, sides: dict[int, tuple] = SIDES) -> int:
    """How many times faster than two calls of the library every method is, and its share of the library's memory; on a
    CPU, one thread.
    """
    torch.set_num_threads(1)
    pairs = 5 if args.quick else args.pairs
    title = (
        f"MS-SSIM with a positive and a negative, forward and backward, one thread; times faster than two calls of "
        f"pytorch_msssim, median [quartiles] of {pairs} paired runs"
    )
    report = measuring.Report(
        args.json, f"{title}; extra memory as a share of the library's, to be at most {MEMORY_TARGET:g}", "times faster"
    )
    cases = [
        Case(sizes[args.quick], side, targets) for side, sizes in sides.items() for targets in ("input", "morphed")
    ]
    methods = [method for method in METHODS if method != PEER]
    peaks = {case: {method: added_bytes(method, case, "cpu") for method in methods} for case in cases}
    for case in cases:
        shape = (case.images, 3, case.side, case.side)
        times = measuring.in_turn({method: step(method, case) for method in methods}, pairs)
        goal = sides[case.side][2] if case.targets == "input" else MORPHED_TARGET
        for method in methods:
            report.add(
                measuring.row(
                    method if method == BASE else f"{method}, targets={case.targets}",
                    shape,
                    times[BASE],
                    times[method],
                    times[method],
                    peaks[case][method] / peaks[case][BASE],
                    f"{goal:g}" if method == "fused" else "",
                    NOTES.get(method, ""),
                )
            )
    return 0
