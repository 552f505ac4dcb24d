"""``python -m scripts.evidence forms RUN``: forms of a mask over maps, judged on validation images.

A form is taught by all training images and half of the validation images, with pseudo-environments, and judged on the
other half by true groups; then the other way round. No test image is read, but with ``--test``: there a form is taught
by all training and validation images, as ``cim-plugin retrain`` does, and judged by the test, a seed per run.
"""

from __future__ import annotations

import argparse
import os
from statistics import mean
from typing import Callable, Iterator, NamedTuple, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_plugin.algorithms.split_maps import FEATURES, Split, SplitMaps, fit, weighted_mean
from cim_plugin.errors import InputError
from cim_plugin.flags import whole
from cim_plugin.progress import progress
from cim_plugin.retrain.features import computed
from cim_plugin.retrain.heads import Head, halves, worst_accuracy
from cim_plugin.retrain.record import evaluated, with_split
from cim_plugin.retrain.split import Fitted, Kept, open_maps
from cim_plugin.show.train import OpenedModel, open_model
from cim_plugin.wilds_runner.evaluation import Outcome

from ..experiments.tables import spread
from . import figures_only, overlap
from .comparisons import OF_FORMS
from .tables import compared, markdown

START = "last"  #: the model of a run whose maps are taken, as ``cim-plugin retrain`` does by itself


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

    name: str
    says: str
    taken: float = 0.0  #: weight of the loss of what m takes away
    masked: bool = True
    extra: Callable[[int], nn.Module] | None = None  #: channels of the maps -> a further loss


FORMS = (
    Form("maps", "a head on the maps, no m", masked=False),
    Form("cosines", "no m, L_con by cosines: CnC's control", masked=False, extra=lambda channels: Contrast()),
    Form("class", "m by the class alone"),
    Form("class-cosines", "m by the class and L_con by cosines of what it keeps", extra=lambda channels: Contrast()),
    Form("split", "what m takes away has to tell the environment: `split`", taken=1.0),
    Form("split-3", "`split`, with three times that weight", taken=3.0),
    Form("split-cosines", "`split` and L_con", taken=1.0, extra=lambda channels: Contrast()),
    Form("adversary", "`split` and an adversary on what m keeps", taken=1.0, extra=Adversary),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="folder of a run of ERM with pseudo-environments, as 'subgroups' makes"
    )
    parser.add_argument("--root_dir", required=True, help="holds waterbirds_v1.0 and its masks")
    parser.add_argument("--seeds", type=whole(1, 100), default=2, help="fits per form and half, with seeds 0, 1, ...")
    parser.add_argument(
        "--test", action="store_true", help="the form with an adversary and its controls, on the test; a seed per RUN"
    )


def run(args: argparse.Namespace) -> int:
    """Print a table of each run, or the one of the test."""
    torch.set_num_threads(1)
    if args.test:
        chosen = [form for form in FORMS if form.name in {name for pair in OF_FORMS for name in pair}]
        print(table_of_test(chosen, args.runs, args.root_dir))
    else:
        for folder in args.runs:
            print(table(FORMS, folder, args.root_dir, args.seeds))
    return 0


def table(chosen: Sequence[Form], folder: str, root: str, seeds: int) -> str:
    """Of each form the worst group by seed, and how well m finds the birds.

    Raises:
        InputError: the run is not one of ERM, or has no pseudo-environments; there are no masks.
    """
    opened = open_model(folder, START, root)
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


def teach(form: Form, split: SplitMaps, head: nn.Linear, kept: Kept, rows: Tensor, seed: int) -> None:
    """A fit of the images in some rows."""
    torch.manual_seed(seed)
    split.masked = form.masked
    extra = form.extra(split.mean.numel()) if form.extra is not None else None
    fit(split, head, kept.maps[rows], kept.labels[rows], kept.environments[rows], form.taken, seed, extra)


class Judged(NamedTuple):
    """Of a form and a seed."""

    worst: float  #: accuracy in the worst true group, in [0, 1]
    auc: float  #: of m for pixels of the bird


def judge(form: Form, split: SplitMaps, kept: Kept, opened: OpenedModel, birds: list[np.ndarray], seed: int) -> Judged:
    """Every validation image is predicted by the fit whose half it is not in."""
    of_val = kept.of_val.nonzero().flatten()
    parts = [torch.from_numpy(rows) for rows in halves(kept.groups[of_val].numpy(), np.random.default_rng(0))]
    head = nn.Linear(split.n_features, opened.data.n_classes)
    predicted, areas = torch.zeros(len(of_val), dtype=torch.int64), []
    for taught, judged in (parts, parts[::-1]):
        teach(form, split, head, kept, torch.cat([(~kept.of_val).nonzero().flatten(), of_val[taught]]), seed)
        with torch.no_grad():
            for number, maps in zip(judged.tolist(), kept.maps[of_val[judged]].float().unsqueeze(1)):
                found = split.split(maps)
                predicted[number] = head(found.kept).argmax()
                m = F.interpolate(found.m, birds[number].shape, mode="bilinear", align_corners=False)
                areas.append(overlap.of_image(m[0, 0].double().numpy(), birds[number])[2])
    val = opened.data.splits["val"]
    worst = worst_accuracy(predicted.numpy(), val.labels.numpy(), val.groups.numpy())
    return Judged(worst, float(np.nanmean(areas)))


# --- the test ---------------------------------------------------------------------------------------------------------


def table_of_test(chosen: Sequence[Form], folders: Sequence[str], root: str) -> str:
    """Of each form the test, mean and standard deviation over the runs, and the differences of :data:`OF_FORMS`.

    Raises:
        InputError: see :func:`table`; or two runs have one seed.
    """
    found: dict[str, dict[int, Outcome]] = {form.name: {} for form in chosen}
    for folder in progress(folders, unit="run"):
        opened = open_model(folder, START, root)
        seed = opened.config.seed
        if any(seed in of_form for of_form in found.values()):
            raise InputError(f"{folder} has seed {seed}, as another of these runs has; name one run per seed")
        for form, outcome in tested(chosen, opened):
            found[form.name][seed] = outcome
    worst, average = (
        {name: {seed: 100 * value(one) for seed, one in of_form.items()} for name, of_form in found.items()}
        for value in (lambda one: one.worst_group_metric, lambda one: one.accuracy)
    )
    rows = [
        [form.says, str(len(folders)), *(spread(values[form.name].values()) for values in (worst, average))]
        for form in chosen
    ]
    return f"{markdown(['form', 'seeds', 'worst group', 'average'], rows)}\n\n{compared(worst, OF_FORMS)}"


def tested(chosen: Sequence[Form], opened: OpenedModel) -> Iterator[tuple[Form, Outcome]]:
    """What ``cim-plugin retrain`` would give by each form, with the run's seed."""
    split, shape, kept = open_maps(opened, masked=True)
    for form in chosen:
        head = nn.Linear(split.n_features, opened.data.n_classes)
        teach(form, split, head, kept, torch.arange(len(kept.labels)), opened.config.seed)
        own = Head(*(value.detach().double().numpy() for value in (head.weight, head.bias)))
        masked = with_split(opened, Fitted(split, shape, own, float("nan")))
        features = computed(masked.model, opened.data, opened.transform, ["test"])
        yield form, evaluated(opened.data, features, own)["test"][1]
        split.cpu()
