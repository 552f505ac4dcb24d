"""Other shapes of the transformation network: parameters, and the price of one forward and backward beside the present
one's.
"""

from __future__ import annotations

import argparse
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import measuring


class Layer(NamedTuple):
    """A convolution and what follows it."""

    outputs: int  #: channels
    kernel: int = 3  #: odd ones keep the size but for the stride, even ones are patches without padding
    stride: int = 1
    depthwise: bool = False
    relu: bool = True


class Shape(NamedTuple):
    """Layers up to the 1x1 convolution that makes the mask, and how the mask gets the image's size."""

    layers: tuple[Layer, ...]
    upsampling: str = "bilinear"


PRESENT = "present, 16-32-32"
DEPTHWISE = (
    Layer(16, stride=2, depthwise=True, relu=False),
    Layer(32, 1),
    Layer(32, depthwise=True, relu=False),
    Layer(32, 1),
)
STRIDED = (Layer(16, stride=2), Layer(32, stride=2), Layer(32))
#: name -> shape; the first one is that of TransformationNetwork, which the others are compared with
NETWORKS = {
    PRESENT: Shape(STRIDED),
    "nearest upsampling": Shape(STRIDED, "nearest"),
    "8-16-16": Shape((Layer(8, stride=2), Layer(16, stride=2), Layer(16))),
    "8-32-32": Shape((Layer(8, stride=2), Layer(32, stride=2), Layer(32))),
    "patch32": Shape((Layer(32, 4, 4), Layer(32))),
    "patch16": Shape((Layer(16, 4, 4), Layer(16))),
    "7x7 stem": Shape((Layer(32, 7, 4), Layer(32))),
    "depthwise": Shape((Layer(16, stride=2), *DEPTHWISE)),
}
SIDES = {224: (8, 2), 28: (96, 16)}  #: side -> batch size, batch size with --quick


class Network(nn.Module):
    """Pixels (N, 3, H, W) in [0, 1] -> m (N, 1, H, W) in (0, 1), with weights named as TransformationNetwork's."""

    def __init__(self, shape: Shape):
        super().__init__()
        modules: list[nn.Module] = []
        inputs = 3
        for outputs, kernel, stride, depthwise, relu in shape.layers:
            padding = kernel // 2 if kernel % 2 else 0
            modules.append(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=inputs if depthwise else 1))
            modules += [nn.ReLU(inplace=True)] if relu else []
            inputs = outputs
        self.features = nn.Sequential(*modules, nn.Conv2d(inputs, 1, 1))
        self.options = {"mode": shape.upsampling} | ({"align_corners": False} if shape.upsampling == "bilinear" else {})

    def forward(self, pixels: Tensor) -> Tensor:
        return F.interpolate(self.features(pixels), size=pixels.shape[-2:], **self.options).sigmoid()


def step(network: Network, pixels: Tensor) -> Callable[[], None]:
    """psi(x) = m∘x and the gradient of its sum to the weights."""

    def run() -> None:
        network.zero_grad()
        (network(pixels) * pixels).sum().backward()
        if pixels.is_cuda:
            torch.cuda.synchronize()

    return run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 15, f"batches of {', '.join(str(quick) for _, quick in SIDES.values())} images")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to run")


def run(args: argparse.Namespace) -> int:
    """A row per image size and network; one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pairs = 5 if args.quick else args.pairs
    title = (
        f"the transformation network alone, forward and backward, weights in channels_last, {args.device}, one thread"
    )
    title += f"; as a ratio to the present one, median [quartiles] of {pairs} paired runs"
    report = measuring.Report(args.json, title, "ratio")
    networks = {
        name: Network(shape).to(args.device, memory_format=torch.channels_last) for name, shape in NETWORKS.items()
    }
    for side, sizes in SIDES.items():
        pixels = torch.rand(sizes[args.quick], 3, side, side, device=args.device)
        times = measuring.in_turn({name: step(network, pixels) for name, network in networks.items()}, pairs)
        for name, network in networks.items():
            parameters = sum(weight.numel() for weight in network.parameters())
            cpu = 1000 * measuring.cpu_median(times[name])
            row = measuring.row(
                name,
                pixels.shape,
                times[name],
                times[PRESENT],
                times[name],
                note=f"{parameters:,} parameters, {cpu:.1f} CPU ms",
            )
            report.add({**row, "parameters": parameters})
    return 0
