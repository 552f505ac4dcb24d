"""What L_con alone makes of m on Waterbirds' training images: by the network's first weights, its start and its rate.

Of docs/mask.md. The whole CIM is ``cim-plugin train``; here is no classifier, so that a row takes a minute.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cim_plugin.algorithms.contrastive import TripletContrast
from cim_plugin.algorithms.mask_statistics import NAMES, MaskStatistics
from cim_plugin.algorithms.morphing import InputMorphing, PixelSpace, TransformationNetwork
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.errors import InputError
from cim_plugin.flags import any_number, whole

LAST = 55  #: steps that a row's numbers are means of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root_dir", default="data", help="folder that holds waterbirds_v1.0")
    parser.add_argument("--side", type=whole(11, 1000), default=48, help="of the images, in pixels")
    parser.add_argument("--steps", type=whole(1, 1_000_000), default=440, help="of Adam, on batches of 32")
    parser.add_argument("--rates", type=any_number, nargs="+", default=[1e-4, 1e-3], help="learning rates")
    parser.add_argument("--starts", type=any_number, nargs="+", default=[0.5, 0.9], help="m before training")
    parser.add_argument("--seeds", type=whole(0, 1_000_000), nargs="+", default=[0, 1], help="of weights and batches")
    parser.add_argument("--torchs_draw", action="store_true", help="the first weights as torch draws them, m at 0.5")


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    images, labels = _read(Path(args.root_dir) / "waterbirds_v1.0", args.side)
    print(
        f"{'rate':>8} {'start':>6} {'seed':>4}  {'m before: mean':>15} {'inside':>7}  ",
        *(f"{n:>10}" for n in NAMES[1:]),
    )
    for rate in args.rates:
        for start in [0.5] if args.torchs_draw else args.starts:
            for seed in args.seeds:
                torch.manual_seed(seed)
                before, after = train(images, labels, network(start, args.torchs_draw), rate, args.steps)
                print(
                    f"{rate:8g} {start:6g} {seed:4}  {before[1]:15.3f} {before[2]:7.4f}  ",
                    *(f"{value:10.4f}" for value in after[1:]),
                    flush=True,
                )
    return 0


def network(start: float, torchs_draw: bool) -> TransformationNetwork:
    """With its first weights."""
    made = TransformationNetwork(3)
    if torchs_draw:
        for layer in made.features:
            if isinstance(layer, torch.nn.Conv2d):
                layer.reset_parameters()
    else:
        made.start = start
        made.reset_parameters()
    return made


def train(images: Tensor, labels: Tensor, made: TransformationNetwork, rate: float, steps: int) -> list[list[float]]:
    """Of the first step and of the last ``LAST``, means: the values of ``NAMES``.

    Args:
        images: (N, 3, S, S) uint8.
        labels: (N,) int64.
    """
    morphing, optimizer = InputMorphing(PixelSpace.raw(3), made), torch.optim.Adam(made.parameters(), rate)
    contrast = TripletContrast(MSSSIM(tuple(images.shape[-2:])))
    found = []
    for _ in range(steps):
        rows = torch.randperm(len(images))[:32]
        morphed = morphing(images[rows].float() / 255)
        losses, valid = contrast(morphed, labels[rows], None)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        found.append([float(v) for v in MaskStatistics.of(morphed.mask, losses, valid, "distance").of_batch().values()])
    return [found[0], np.mean(found[-LAST:], 0).tolist()]


def _read(folder: Path, side: int) -> tuple[Tensor, Tensor]:
    """The training images (N, 3, side, side) uint8, and y (N,)."""
    table = folder / "metadata.csv"
    if not table.is_file():
        raise InputError(f"--root_dir {folder.parent} holds no {table.relative_to(folder.parent)}")
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "0"]
    images = [Image.open(folder / row["img_filename"]).convert("RGB").resize((side, side)) for row in rows]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor([int(row["y"]) for row in rows])
