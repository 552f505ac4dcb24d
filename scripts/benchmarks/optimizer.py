"""A step of the optimizers that ``cim-plugin train`` knows: torch's fused kernel against torch's default.

The default is a loop over the weights on a CPU, and one over lists of weights ("foreach") on a GPU. Weights are laid
out
as in ``cim-plugin train``, channels_last, and as they are made, contiguous: the fused kernels of a CPU work on the
latter
and copy what is laid out otherwise.
"""

from __future__ import annotations

import argparse
from typing import Any, Callable

import torch
from torch import nn

from cim_plugin.models.encoders import make_encoder

from . import measuring

#: optimizer -> its class in torch.optim and its arguments
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}),
    "Adam": ("Adam", {"lr": 1e-3}),
    "AdamW": ("AdamW", {"lr": 1e-3}),
}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
WAYS: dict[str, dict[str, bool]] = {"default": {}, "fused": {"fused": True}}


def step(encoder: nn.Module, optimizer: str, way: str) -> Callable[[], None]:
    """A step on fixed random gradients of the encoder's weights."""
    weights = list(encoder.parameters())
    torch.manual_seed(0)
    for weight in weights:
        weight.grad = 1e-3 * torch.randn_like(weight)
    kind, options = OPTIMIZERS[optimizer]
    own = getattr(torch.optim, kind)(weights, **options, **WAYS[way])

    def run() -> None:
        own.step()
        if weights[0].is_cuda:
            torch.cuda.synchronize()

    return run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 25, "the same models")
    parser.add_argument(
        "--model",
        nargs="+",
        default=["resnet18", "resnet50"],
        help="encoders whose weights move, by the names of cim-plugin train",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to run")


def run(args: argparse.Namespace) -> int:
    """A row per model, layout and optimizer; one thread."""
    torch.set_num_threads(1)
    pairs = 5 if args.quick else args.pairs
    title = f"a step of the fused optimizer (SGD with momentum) on {args.device}, one thread"
    title += f"; times faster than torch's default, median [quartiles] of {pairs} paired runs; ms are the fused one's"
    report = measuring.Report(args.json, title, "times faster")
    for model in args.model:
        for layout, memory_format in LAYOUTS.items():
            encoders = {
                way: make_encoder(model, {}, None)[0].to(args.device, memory_format=memory_format) for way in WAYS
            }
            parameters = sum(weight.numel() for weight in encoders["fused"].parameters())
            for optimizer in OPTIMIZERS:
                times = measuring.in_turn(
                    {way: step(encoder, optimizer, way) for way, encoder in encoders.items()}, pairs
                )
                default, fused = (1000 * measuring.cpu_median(times[way]) for way in WAYS)
                name, note = f"{model}, {layout}, {optimizer}", f"{default:.1f} to {fused:.1f} CPU ms"
                row = measuring.row(name, (parameters,), times["default"], times["fused"], times["fused"], note=note)
                report.add({**row, "default_cpu_milliseconds": default})
    return 0
