"""What CIM adds to ERM's step, part by part, each run alone; and the same steps with contiguous weights.

ERM never computes the gradient of the encoder's first convolution to its input; CIM does, and it costs what that
convolution takes more where its input has a gradient.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any, Callable

import torch
from torch import nn

from cim_plugin.algorithms.first_convolution import phased
from cim_plugin.algorithms.morphing import TransformationNetwork
from cim_plugin.models.encoders import make_encoder

from . import measuring
from .scaling import triplet_step
from .step import Case, How, make_step

ERM = "ERM step"
FIRST = "first convolution"
FIRST_TO_INPUT = "first convolution, to its input too"
FIRST_IN_PHASES = "first convolution, that in phases"  #: as CIM has it


def make_parts(case: Case) -> dict[str, Callable[[], None]]:
    """Name -> one forward and backward of it; of a step also the optimizer's step."""
    shape = (case.batch_size, 3, case.side, case.side)
    network = TransformationNetwork(3).to(memory_format=torch.channels_last)
    encoder = make_encoder(case.model, {}, None)[0].to(memory_format=torch.channels_last)
    convolution = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    return {
        ERM: make_step(case, "ERM", "cpu"),
        "CIM step": make_step(case, "CIM", "cpu"),
        "ERM step, contiguous": make_step(case, "ERM", "cpu", How(torch.contiguous_format)),
        "CIM step, contiguous": make_step(case, "CIM", "cpu", How(torch.contiguous_format)),
        FIRST: _convolve(convolution, torch.rand(shape)),
        FIRST_TO_INPUT: _convolve(convolution, torch.rand(shape).requires_grad_()),
        FIRST_IN_PHASES: _convolve(convolution, torch.rand(shape).requires_grad_(), phased),
        "fused triplet": triplet_step(case.batch_size, case.side),
        "transformation network": _morph(network, torch.rand(shape)),
    }


def _morph(network: TransformationNetwork, pixels: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        network.zero_grad()
        (network(pixels) * pixels).sum().backward()

    return run


def _as_it_is(images: torch.Tensor, encoder: nn.Module) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _convolve(
    convolution: nn.Conv2d, images: torch.Tensor, around: Callable[..., Any] = _as_it_is
) -> Callable[[], None]:
    gradient = torch.rand_like(convolution(images))

    def run() -> None:
        convolution.zero_grad()
        images.grad = None
        with around(images, convolution):
            output = convolution(images)
        output.backward(gradient)

    return run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 9, "2 images at 96")
    parser.add_argument("--model", default="resnet18", help="encoder, by the names of cim-plugin train")


def run(args: argparse.Namespace) -> int:
    """A row per part; one thread, on a CPU."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pairs, images, side = (5, 2, 96) if args.quick else (args.pairs, 8, 224)
    title = (
        f"steps of {args.model} and what CIM adds to them, alone, forward and backward, channels_last where nothing is "
        f"said, one thread"
    )
    title += f"; as a ratio to ERM's step, median [quartiles] of {pairs} paired runs"
    report = measuring.Report(args.json, title, "ratio to ERM")
    times = measuring.in_turn(make_parts(Case(args.model, images, side)), pairs)
    for name, own in times.items():
        note = f"{1000 * measuring.cpu_median(own):.1f} CPU ms"
        if name in (FIRST_TO_INPUT, FIRST_IN_PHASES):
            note += (
                f", {1000 * (measuring.cpu_median(own) - measuring.cpu_median(times[FIRST])):.1f} of them for its input"
            )
        report.add(measuring.row(name, (images, 3, side, side), own, times[ERM], own, note=note))
    return 0
