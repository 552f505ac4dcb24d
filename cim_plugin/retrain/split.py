"""``--method split``: a mask over the frozen encoder's maps, of training and validation images, see
:mod:`..algorithms.split_maps`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..algorithms.split_maps import LARGEST_SIDE, SplitMaps, fit, map_names
from ..errors import InputError
from ..models.assembly import over_maps
from ..progress import progress
from ..wilds_runner import pseudo
from ..wilds_runner.loading import Images, Loader, to_pixels
from .heads import Head, halves, worst_accuracy

if TYPE_CHECKING:
    from ..show.train import OpenedModel

MEMORY = 2 * 2**30  #: of the maps of training images, in bytes; of more images so many are drawn
BATCH = 64


class Kept(NamedTuple):
    """Maps of the images that the mask is taught by."""

    maps: Tensor  #: (N, c, h, w) float16, standardised
    labels: Tensor  #: (N,) int64
    environments: Tensor  #: (N,) int64
    groups: Tensor  #: (N,) int64, a pseudo-group
    of_val: Tensor  #: (N,) bool


class Fitted(NamedTuple):
    """A mask and its head."""

    encoder: SplitMaps
    shape: tuple  #: of the recipe's ``split``
    head: Head
    score: float  #: worst accuracy over the pseudo-groups of the half of val that did not teach


def fit_split(opened: OpenedModel, weight: float, masked: bool) -> Fitted:
    """The mask of all training and validation images, and how one of half of the latter does on the others.

    Args:
        opened: a run with pseudo-environments, without psi and without a bottleneck.
        weight: of the loss of what is taken away.
        masked: False leaves m out, for comparison.

    Raises:
        InputError: the run has a psi or a bottleneck, or no pseudo-environments; the encoder has no maps; an image
            cannot be read.
    """
    split, shape, kept = open_maps(opened, masked)
    one = _first_half(kept)
    head = nn.Linear(split.n_features, opened.data.n_classes)
    _teach(split, head, kept, one, weight, opened.config.seed)
    score = _score(split, head, kept, ~one)
    _teach(split, head, kept, torch.ones_like(one), weight, opened.config.seed)
    numbers = (value.detach().double().numpy() for value in (head.weight, head.bias))
    return Fitted(split, shape, Head(*numbers), score)


def open_maps(opened: OpenedModel, masked: bool) -> tuple[SplitMaps, tuple, Kept]:
    """The encoder of a run with a mask over its maps that is not taught yet, on the CPU; the recipe's ``split``; and
    the maps that teach it.

    Raises:
        InputError: see :func:`fit_split`.
    """
    model = opened.model.eval()
    if model.morphing is not None or model.bottleneck is not None:
        raise InputError(
            f"{opened.folder} is a run of {opened.config.algorithm}, and --method split needs an encoder alone; take a "
            f"run of ERM"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    standardise, encoder = (part.to(device) for part in model.encoder)
    found = map_names(encoder, standardise(torch.zeros(1, 3, *opened.transform.size, device=device)))
    if not found:
        raise InputError(f"--model {opened.config.model} has no maps to put a mask over; take a convolutional network")
    side = min(LARGEST_SIDE, next(iter(found.values()))[1])
    shape = (side, sum(channels for channels, _ in found.values()), masked, *found)
    split = over_maps(encoder, shape).to(device).eval()
    kept = _keep(opened, split, standardise)
    return split.cpu(), shape, kept


def _keep(opened: OpenedModel, split: SplitMaps, standardise: nn.Module) -> Kept:
    """Maps of all validation images, and of as many training images as fit the memory, of every pseudo-group equally
    many as far as there are so many; the mean and spread of the channels go into ``split``.
    """
    data, found = opened.data, pseudo.read(opened.folder, opened.data)
    size = 2 * split.mean.numel() * split.side**2
    rows = {
        "train": _equally(found.groups["train"], max(1, MEMORY // size), opened.config.seed),
        "val": torch.arange(len(data.splits["val"].labels)),
    }
    maps = {key: _maps(opened, split, standardise, key, part) for key, part in rows.items()}
    std, mean = torch.std_mean(maps["train"].float(), dim=(0, 2, 3), unbiased=False)
    split.mean.copy_(mean.view(-1, 1, 1))
    split.std.copy_(std.clamp(min=1e-3).view(-1, 1, 1))
    mean, std = (values.half().cpu() for values in (split.mean, split.std))
    columns = {
        "labels": {key: data.splits[key].labels for key in rows},
        "environments": found.environments,
        "groups": found.groups,
        "of_val": {key: torch.full((len(data.splits[key].labels),), key == "val") for key in rows},
    }
    joined = {name: torch.cat([values[key][rows[key]] for key in rows]) for name, values in columns.items()}
    return Kept(torch.cat([(maps[key] - mean) / std for key in rows]), **joined)


def _equally(groups: Tensor, most: int, seed: int) -> Tensor:
    """At most about ``most`` rows, in order; of every group equally many as far as there are so many."""
    if len(groups) <= most:
        return torch.arange(len(groups))
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    n_groups = len(groups.unique())
    parts = [order[groups[order] == group][: max(1, most // n_groups)] for group in groups.unique()]
    return torch.cat(parts).sort().values


@torch.no_grad()
def _maps(opened: OpenedModel, split: SplitMaps, standardise: nn.Module, key: str, rows: Tensor) -> Tensor:
    device, parts = split.mean.device, []
    batches = [[(row, 0) for row in part.tolist()] for part in rows.split(BATCH)]
    images = Images(opened.data.wilds, opened.data.splits[key].indices, opened.transform, augment=False)
    loader = Loader(images, {})(batches)
    for batch in progress(loader, total=len(batches), unit="batch", desc=f"maps of {key}", leave=False):
        parts.append(split.maps(standardise(to_pixels(batch.images, device))).half().cpu())
    return torch.cat(parts)


def _first_half(kept: Kept) -> Tensor:
    """(N,) bool: all training images, and a half of every pseudo-group of the others."""
    of_val = kept.of_val.nonzero().flatten()
    one, _ = halves(kept.groups[of_val].numpy(), np.random.default_rng(0))
    chosen = ~kept.of_val
    chosen[of_val[torch.from_numpy(one)]] = True
    return chosen


def _teach(split: SplitMaps, head: nn.Linear, kept: Kept, rows: Tensor, weight: float, seed: int) -> None:
    fit(split, head, kept.maps[rows], kept.labels[rows], kept.environments[rows], weight, seed)


@torch.no_grad()
def _score(split: SplitMaps, head: nn.Linear, kept: Kept, rows: Tensor) -> float:
    predicted = torch.cat([head(split.split(part.float()).kept).argmax(1) for part in kept.maps[rows].split(BATCH)])
    return worst_accuracy(predicted.numpy(), kept.labels[rows].numpy(), kept.groups[rows].numpy())
