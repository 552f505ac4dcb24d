"""How time grows with batch size, image side and classes: time per image, and the exponent of a power law through the
times.

An exponent of 1 is linear growth: time per image stays. The choice of positives and negatives compares all labels of a
batch with all others, so it grows with the square of the batch; its share of a step is shown.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import Callable, NamedTuple

import torch
from torch import nn

from cim_plugin import catalog
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.algorithms.similarity.fused import fused_triplet
from cim_plugin.algorithms.similarity.ms_ssim import choose_scales
from cim_plugin.algorithms.triplets import draw_triplets
from cim_plugin.models import from_catalog
from cim_plugin.models.encoders import SmallCNN

from . import measuring
from .step import Case, make_step


class Series(NamedTuple):
    """One thing that grows."""

    make: Callable[[int], Callable[[], object]]
    values: tuple[int, ...]
    quick: tuple[int, ...]
    shape: Callable[[int], tuple[int, ...]]
    size: Callable[[int], int]  #: what the exponent refers to
    limit: float  #: exponent that is wanted at most


def triplet_step(images: int, side: int) -> Callable[[], None]:
    x = torch.rand(images, 3, side, side)
    psi = (0.5 * x).requires_grad_()
    rows = torch.randint(images, (2, images))
    scales = choose_scales(side, side)

    def run() -> None:
        psi.grad = None
        s_pos, s_neg = fused_triplet(psi, x, *rows, scales, "smooth")
        (s_pos - s_neg).sum().backward()

    return run


def choice(images: int) -> Callable[[], object]:
    labels = torch.arange(images) % 10
    return lambda: draw_triplets(labels, None, "random")


def classes_step(classes: int, images: int = 64) -> Callable[[], None]:
    model = from_catalog.build(
        "CIM",
        {name: entry.default for name, entry in catalog.hyperparameters("CIM").items()},
        encoder=SmallCNN(),
        n_features=SmallCNN.n_features,
        make_head=lambda n: nn.Linear(n, classes),
        image_size=(28, 28),
        pixel_space=PixelSpace.raw(3),
        n_environments=None,
    )
    x, labels = torch.rand(images, 3, 28, 28), torch.arange(images) % classes
    return lambda: model.total(model.loss_terms(x, labels).losses).backward()


def pixels(algorithm: str) -> Series:
    """The encoder grows too; ERM's series shows how."""
    return Series(
        lambda side: make_step(Case("small_cnn", 4, side), algorithm, "cpu"),
        (28, 56, 112, 224, 448),
        (28, 112, 224),
        lambda side: (4, 3, side, side),
        lambda side: side * side,
        1.0,
    )


CHOICE, BATCH = "choice of positives, negatives", "CIM step, small_cnn: batch"
#: name -> what grows; sides from 161 on have five scales of MS-SSIM, smaller ones fewer
SERIES = {
    "triplet: batch": Series(
        lambda n: triplet_step(n, 28),
        (8, 16, 32, 64, 128, 256),
        (8, 32, 128),
        lambda n: (n, 3, 28, 28),
        lambda n: n,
        1.0,
    ),
    "triplet: pixels": Series(
        lambda side: triplet_step(4, side),
        (28, 56, 112, 224, 448),
        (28, 112, 224),
        lambda side: (4, 3, side, side),
        lambda side: side * side,
        1.0,
    ),
    BATCH: Series(
        lambda n: make_step(Case("small_cnn", n, 28), "CIM", "cpu"),
        (8, 16, 32, 64, 128, 256),
        (8, 32, 128),
        lambda n: (n, 3, 28, 28),
        lambda n: n,
        1.0,
    ),
    "CIM step, small_cnn: pixels": pixels("CIM"),
    "ERM step, small_cnn: pixels": pixels("ERM"),
    "CIM step, small_cnn: classes": Series(
        classes_step, (2, 10, 100, 1000), (2, 1000), lambda k: (64, 3, 28, 28, k), lambda k: k, 1.0
    ),
    CHOICE: Series(choice, (8, 16, 32, 64, 128, 256), (8, 32, 128), lambda n: (n,), lambda n: n, 2.0),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 5, "fewer and smaller sizes")


def run(args: argparse.Namespace, table: dict[str, Series] = SERIES) -> int:
    """A row per size with its time per image relative to the smallest size's, and the exponent of the series; one
    thread.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pairs = 5 if args.quick else args.pairs
    report = measuring.Report(
        args.json,
        f"time per image (by class: time), relative to the series' first row, median [quartiles] of {pairs} paired "
        f"runs",
        "relative",
    )
    times: dict[str, dict[int, measuring.Times]] = {}
    for name, series in table.items():
        values = series.quick if args.quick else series.values
        times[name] = measuring.in_turn({value: series.make(value) for value in values}, pairs)
        first = values[0]
        for value in values:
            scale = series.shape(value)[0] / series.shape(first)[0]
            own = [(wall / scale, cpu / scale) for wall, cpu in times[name][value]]
            report.add(measuring.row(name, series.shape(value), own, times[name][first], times[name][value]))
        exponent = fitted_exponent([(series.size(value), measuring.cpu_median(times[name][value])) for value in values])
        growth = fitted_exponent(
            [(series.size(value), measuring.cpu_median(times[name][value])) for value in values[-2:]]
        )
        summary = measuring.skipped(f"  exponent of '{name}'", (), "")
        report.add(
            {
                **summary,
                "exponent": exponent,
                "last_exponent": growth,
                "target": f"{series.limit:g}",
                "note": f"{exponent:.2f} over all sizes, {growth:.2f} between the last two; at most {series.limit:g} "
                f"is wanted",
            }
        )
    for value in times[CHOICE]:
        share = measuring.cpu_median(times[CHOICE][value]) / measuring.cpu_median(times[BATCH][value])
        summary = measuring.skipped(f"  share of '{CHOICE}'", (value,), "")
        report.add({**summary, "share": share, "note": f"{100 * share:.1f}% of a CIM step of {value} images"})
    return 0


def fitted_exponent(points: list[tuple[int, float]]) -> float:
    """The slope of the least-squares line through the logarithms."""
    xs, ys = zip(*((math.log(size), math.log(time)) for size, time in points))
    return statistics.linear_regression(xs, ys).slope
