"""A training step of CIM and CIM_VIB against ERM's, with the same backbone, batch, optimizer and precision: time and
peak memory.

Images of 224 train as in ``cim-plugin train``; 28x28 is ColoredMNIST's shape as DomainBed trains it, by the host's ERM
and by ours in the host. Memory is what a classifier's making and two steps of it add to the peak of a fresh process's
resident memory, on a GPU to torch's allocated memory.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from typing import Callable, NamedTuple

import torch
from torch import nn

from cim_plugin import catalog
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.errors import InputError
from cim_plugin.flags import whole
from cim_plugin.models import from_catalog
from cim_plugin.models.encoders import make_encoder
from cim_plugin.models.transforms import StandardiseImageNet
from cim_plugin.wilds_runner.model import compile_modules

from . import measuring

ALONE = "CIM, L_con alone"  #: trains the transformation network
VARIANTS = {ALONE: ("CIM", {"cim_gradient": "contrastive"})}  #: name -> algorithm, and what differs from its defaults
ALGORITHMS = ("ERM", "CIM", ALONE, "CIM_VIB")
MEMORY_TARGET = 1.25


class Case(NamedTuple):
    """What is trained on what."""

    model: str  #: encoder, by the names of cim-plugin train, or "DomainBed"
    batch_size: int
    side: int


class How(NamedTuple):
    """How a step is trained, outside DomainBed."""

    layout: torch.memory_format = torch.channels_last  #: of the weights
    autocast: bool = False  #: to bfloat16
    compiled: bool = False  #: as by --compile


COLORED_MNIST = Case("DomainBed", 128, 28)  #: two training environments of 64 images
#: model -> algorithm -> ratio of times to ERM's that is wanted on a CPU
TARGETS = {
    "resnet18": {"CIM": "1.25", ALONE: "1.18"},
    "resnet50": {"CIM": "1.12"},
    "DomainBed": {"CIM": "1.6"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 5, "2 images at 224")
    parser.add_argument(
        "--model", nargs="+", default=["resnet18", "resnet50"], help="encoders, by the names of cim-plugin train"
    )
    parser.add_argument("--side", type=whole(1, 1_000_000), default=224, help="side of the images in pixels")
    parser.add_argument("--batch_size", type=whole(1, 1_000_000), default=8, help="images per step")
    parser.add_argument(
        "--algorithm",
        nargs="+",
        default=list(ALGORITHMS[1:]),
        choices=[
            *(name for name in catalog.TRAINABLE if name != "ERM" and not catalog.needs_uniform_groups(name)),
            *VARIANTS,
        ],
        help="what is compared with ERM",
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"), help="where to run"
    )


def run(args: argparse.Namespace) -> int:
    """One row per model and algorithm; on a CPU one thread is used.

    Raises:
        InputError: there is no such device.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; leave it out, or install torch for CUDA")
    torch.set_num_threads(1)
    pairs, batch_size = (5, 2) if args.quick else (args.pairs, args.batch_size)
    title = (
        f"a training step on {args.device} as a ratio to ERM's, median [quartiles] of {pairs} paired runs; peak memory "
        f"of the step as a ratio to ERM's, to be at most {MEMORY_TARGET:g}"
    )
    report = measuring.Report(args.json, title, "ratio to ERM")
    targets = TARGETS if args.device == "cpu" else {}
    cases = [*(Case(model, batch_size, args.side) for model in args.model), COLORED_MNIST]
    reason = no_domainbed()
    algorithms = ("ERM", *args.algorithm)
    peaks = {
        (case, name): added_bytes(case, name, args.device)
        for case in cases
        for name in algorithms
        if case != COLORED_MNIST or not reason
    }
    for case in cases:
        shape = (case.batch_size, 2 if case == COLORED_MNIST else 3, case.side, case.side)
        if case == COLORED_MNIST and reason:
            report.add(measuring.skipped("ColoredMNIST in DomainBed", shape, reason))
            continue
        times = measuring.in_turn({name: make_step(case, name, args.device) for name in algorithms}, pairs)
        for name in args.algorithm:
            report.add(
                measuring.row(
                    f"{case.model}, {name}",
                    shape,
                    times[name],
                    times["ERM"],
                    times[name],
                    peaks[case, name] / peaks[case, "ERM"],
                    targets.get(case.model, {}).get(name, ""),
                )
            )
    return 0


def no_domainbed() -> str | None:
    """Why DomainBed cannot be compared with, or None."""
    try:
        import domainbed.algorithms  # noqa: F401
    except ImportError as error:
        return f"{error}; 'cim-plugin get-domainbed' brings it"
    return None


def make_step(case: Case, algorithm: str, device: str, how: How = How()) -> Callable[[], None]:
    """A function that does one optimizer step on fixed random images."""
    torch.manual_seed(0)
    run = (
        _domainbed_step(case, algorithm, device) if case == COLORED_MNIST else _plain_step(case, algorithm, device, how)
    )

    def step() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _plain_step(case: Case, algorithm: str, device: str, how: How) -> Callable[[], None]:
    backbone, n_features = make_encoder(case.model, {}, None)
    algorithm, changes = VARIANTS.get(algorithm, (algorithm, {}))
    model = from_catalog.build(
        algorithm,
        {**catalog.complete(algorithm, {}), **changes},
        encoder=nn.Sequential(StandardiseImageNet(), backbone),
        n_features=n_features,
        make_head=lambda n: nn.Linear(n, 2),
        image_size=(case.side, case.side),
        pixel_space=PixelSpace.raw(3),
        n_environments=None,
    ).to(device, memory_format=how.layout)
    if how.compiled:
        compile_modules(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=device == "cuda")
    images = torch.rand(case.batch_size, 3, case.side, case.side, device=device)
    labels = torch.arange(case.batch_size, device=device) % 2

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=how.autocast):
            loss = model.total(model.loss_terms(images, labels).losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def _domainbed_step(case: Case, algorithm: str, device: str) -> Callable[[], None]:
    from domainbed import algorithms, hparams_registry

    algorithm, changes = VARIANTS.get(algorithm, (algorithm, {}))
    hparams = {**hparams_registry.default_hparams(algorithm, "ColoredMNIST"), **changes}
    with contextlib.redirect_stdout(sys.stderr):  # what the plugin says when it is made is no row
        own = algorithms.get_algorithm_class(algorithm)((2, case.side, case.side), 2, 2, hparams).to(device)
    half = case.batch_size // 2
    minibatches = [
        (torch.rand(half, 2, case.side, case.side, device=device), torch.arange(half, device=device) % 2)
        for _ in range(2)
    ]
    return lambda: own.update(minibatches)


def added_bytes(case: Case, algorithm: str, device: str, how: How = How()) -> int:
    if device == "cpu":
        return measuring.in_fresh_process(measuring.added_bytes, functools.partial(_prepared, case, algorithm, how))
    return measuring.added_gpu_bytes(lambda: _two_steps(case, algorithm, device, how))


def _prepared(case: Case, algorithm: str, how: How) -> Callable[[], None]:
    """A step on small images before it loads the libraries."""
    torch.set_num_threads(1)
    make_step(Case("small_cnn", 2, 28), algorithm, "cpu")()
    return functools.partial(_two_steps, case, algorithm, "cpu", how)


def _two_steps(case: Case, algorithm: str, device: str, how: How) -> None:
    step = make_step(case, algorithm, device, how)
    step()
    step()
