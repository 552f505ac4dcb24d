"""``python -m scripts.evidence forms RUN``: forms of a mask over maps, judged on validation images.

A form is taught by all training images and half of the validation images, with pseudo-environments, and judged on the
other half by true groups; then the other way round. No test image is read.
"""

from __future__ import annotations

import argparse
import os
from statistics import mean
from typing import Callable, NamedTuple, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_plugin.algorithms.split_maps import FEATURES, Split, SplitMaps, fit, weighted_mean
from cim_plugin.flags import whole
from cim_plugin.progress import progress
from cim_plugin.retrain.heads import halves, worst_accuracy
from cim_plugin.retrain.split import Kept, open_maps
from cim_plugin.show.train import OpenedModel, open_model

from . import figures_only, overlap
from .settings import RULE
from .tables import markdown


class Contrast(nn.Module):
    """L_con by cosines of what m keeps, centred in the batch: of positives, of the class and another environment, and
    negatives, of another class and the environment.
    """

    def forward(self, maps: Tensor, split: Split, labels: Tensor, environments: Tensor) -> Tensor:
        kept = F.normalize(split.kept - split.kept.mean(0), dim=1)
        alike, same, near = kept @ kept.T, labels[:, None] == labels, environments[:, None] == environments
        return 0.5 * (alike[~same & near].mean() - alike[same & ~near].mean())


class Adversary(nn.Module):
    """A network of its own tells the environment by what m keeps, and m is taught the opposite."""

    def __init__(self, channels: int):
        super().__init__()
        self.values = nn.Sequential(nn.Conv2d(channels, FEATURES, 1), nn.ReLU())
        self.head = nn.Linear(FEATURES, 2)

    def forward(self, maps: Tensor, split: Split, labels: Tensor, environments: Tensor) -> Tensor:
        m = 2 * split.m.detach() - split.m  # its value, and minus its gradient
        return F.cross_entropy(self.head(weighted_mean(self.values(maps), m)), environments)


class Form(NamedTuple):
    """One form."""

    says: str
    taken: float = 0.0  #: weight of the loss of what m takes away
    masked: bool = True
    extra: Callable[[int], nn.Module] | None = None  #: channels of the maps -> a further loss


FORMS = (
    Form("a head on the maps, no m", masked=False),
    Form("no m, L_con by cosines: CnC's control", masked=False, extra=lambda channels: Contrast()),
    Form("m by the class alone"),
    Form("m by the class and L_con by cosines of what it keeps", extra=lambda channels: Contrast()),
    Form("what m takes away has to tell the environment: `split`", taken=1.0),
    Form("`split`, with three times that weight", taken=3.0),
    Form("`split` and L_con", taken=1.0, extra=lambda channels: Contrast()),
    Form("`split` and an adversary on what m keeps", taken=1.0, extra=Adversary),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="folder of a run of ERM with pseudo-environments, as 'subgroups' makes"
    )
    parser.add_argument("--root_dir", required=True, help="holds waterbirds_v1.0 and its masks")
    parser.add_argument("--seeds", type=whole(1, 100), default=2, help="fits per form and half, with seeds 0, 1, ...")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    torch.set_num_threads(1)
    print(table(FORMS, args.run, args.root_dir, args.seeds))
    return 0


def table(chosen: Sequence[Form], folder: str, root: str, seeds: int) -> str:
    """Of each form the worst group by seed, and how well m finds the birds.

    Raises:
        InputError: the run is not one of ERM, or has no pseudo-environments; there are no masks.
    """
    opened = open_model(folder, RULE, root)
    birds = validation_birds(opened, root)
    split, _, kept = open_maps(opened, masked=True)
    rows = []
    for form in progress(chosen, unit="form"):
        judged = [judge(form, split, kept, opened, birds, seed) for seed in range(seeds)]
        worst = ", ".join(f"{100 * one.worst:.1f}" for one in judged)
        rows.append([form.says, worst, f"{mean(one.auc for one in judged):.3f}" if form.masked else ""])
    return markdown(["form", "worst group of validation images, %, by seed", "AUC of m"], rows)


def validation_birds(opened: OpenedModel, root: str) -> list[np.ndarray]:
    """Of every validation image how much of a pixel is the bird, (H, W) in [0, 1], as the network's input is cut."""
    release = os.path.join(root, figures_only.RELEASE)
    names = [row["img_filename"] for row in figures_only.read_table(release) if row["split"] == overlap.VALIDATION]
    return [overlap.bird(release, name, opened.transform.resize) for name in names]


class Judged(NamedTuple):
    """Of a form and a seed."""

    worst: float  #: accuracy in the worst true group, in [0, 1]
    auc: float  #: of m for pixels of the bird


def judge(form: Form, split: SplitMaps, kept: Kept, opened: OpenedModel, birds: list[np.ndarray], seed: int) -> Judged:
    """Every validation image is predicted by the fit whose half it is not in."""
    of_val = kept.of_val.nonzero().flatten()
    parts = [torch.from_numpy(rows) for rows in halves(kept.groups[of_val].numpy(), np.random.default_rng(0))]
    split.masked, head = form.masked, nn.Linear(split.n_features, opened.data.n_classes)
    predicted, areas = torch.zeros(len(of_val), dtype=torch.int64), []
    for taught, judged in (parts, parts[::-1]):
        torch.manual_seed(seed)
        extra = form.extra(split.mean.numel()) if form.extra is not None else None
        rows = torch.cat([(~kept.of_val).nonzero().flatten(), of_val[taught]])
        fit(split, head, kept.maps[rows], kept.labels[rows], kept.environments[rows], form.taken, seed, extra)
        with torch.no_grad():
            for number, maps in zip(judged.tolist(), kept.maps[of_val[judged]].float().unsqueeze(1)):
                found = split.split(maps)
                predicted[number] = head(found.kept).argmax()
                m = F.interpolate(found.m, birds[number].shape, mode="bilinear", align_corners=False)
                areas.append(overlap.of_image(m[0, 0].double().numpy(), birds[number])[2])
    val = opened.data.splits["val"]
    worst = worst_accuracy(predicted.numpy(), val.labels.numpy(), val.groups.numpy())
    return Judged(worst, float(np.nanmean(areas)))
