"""A training step of every algorithm against ERM's, in CPU or GPU time: ERM, CIM, ERM, CIM ..., and the median of the paired ratios."""

from __future__ import annotations

import argparse
import statistics
import time

import machine
import torch
from torch import nn

from cim_plugin import catalog
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.wilds_runner.backbones import make_encoder
from cim_plugin.wilds_runner.transforms import StandardiseImageNet

ALGORITHMS = ("CIM", "CIM_VIB", "VIB", "SCL_E2E")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="resnet18", help="encoder, by the names of cim-plugin train")
    parser.add_argument("--side", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch_size", type=int, default=8, help="images per step")
    parser.add_argument("--pairs", type=int, default=5, help="paired steps per algorithm")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")


def run(args: argparse.Namespace) -> int:
    """Print one row per algorithm; on a CPU one thread is used and CPU seconds are counted beside wall ones."""
    torch.set_num_threads(1)
    print(f"{machine.describe()}, {args.device}\n{args.model} at {args.side}, batch {args.batch_size}: step time as a ratio to ERM's, median [lowest, highest] of {args.pairs} pairs")
    erm = Step("ERM", args)
    for name in ALGORITHMS:
        own = Step(name, args)
        own(), erm()
        pairs = [(own(), erm()) for _ in range(args.pairs)]
        wall, cpu = ([a[kind] / b[kind] for a, b in pairs] for kind in (0, 1))
        print(f"{name:8} wall {summary(wall)}   CPU {summary(cpu)}   {1000 * statistics.median(a[0] for a, _ in pairs):7.0f} ms a step", flush=True)
    return 0


class Step:
    """One optimiser step on fixed random images; call it for (wall, CPU) seconds."""

    def __init__(self, algorithm: str, args: argparse.Namespace):
        torch.manual_seed(0)
        backbone, n_features = make_encoder(args.model, {}, None)
        values = {name: entry.default for name, entry in catalog.hyperparameters(algorithm).items()}
        self.model = catalog.build(
            algorithm,
            values,
            encoder=nn.Sequential(StandardiseImageNet(), backbone),
            n_features=n_features,
            make_head=lambda n: nn.Linear(n, 2),
            image_size=(args.side, args.side),
            pixel_space=PixelSpace.raw(3),
            n_environments=None,
        ).to(args.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.images = torch.rand(args.batch_size, 3, args.side, args.side, device=args.device)
        self.labels = torch.arange(args.batch_size, device=args.device) % 2

    def __call__(self) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        loss = self.model.total(self.model.loss_terms(self.images, self.labels).losses)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu


def summary(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):5.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
