"""Single images of a run: x, m, psi(x), what psi(x) is compared with, and what the classifier says before and after
morphing.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor

from ..algorithms.classifier import RobustClassifier
from ..algorithms.triplets import draw_triplets
from ..errors import InputError
from .opened_run import OpenedRun

POOL = 1000  #: images of the split that positives and negatives are drawn from; in training it is the minibatch
LARGEST = 100  #: images in a picture
BATCH = 32


class Prediction(NamedTuple):
    """The class with the highest probability."""

    label: int
    probability: float


class Comparison(NamedTuple):
    """A positive or a negative: its row of the split, the image compared with, and the similarity to psi(x)."""

    row: int
    image: Tensor  #: x+ or x-, with morphed targets psi of it; (C, H, W) in [0, 1]
    similarity: float


class Example(NamedTuple):
    """All there is to see of one image; images are (C, H, W) float in [0, 1]."""

    row: int  #: of the split
    label: int
    group: int
    x: Tensor
    mask: Tensor  #: m, (1 or C, H, W)
    psi: Tensor
    positive: Comparison | None  #: None where the pool holds no positive or no negative
    negative: Comparison | None
    before: Prediction  #: for x, fed to the encoder past the morphing
    after: Prediction  #: for psi(x)


def choose_rows(
    learnt: OpenedRun, images: Sequence[int] | None, per_group: int, seed: int, most: int = LARGEST
) -> list[int]:
    """The rows to show, in the order of their groups.

    Args:
        images: rows that the user names; None samples.
        per_group: how many of each group; the largest groups where there are too many for one picture.
        most: images in a picture.

    Raises:
        InputError: a row is not in the split.
    """
    if images is None:
        return _sample(learnt.groups, per_group, seed, most)
    wrong = [row for row in images if not 0 <= row < len(learnt.labels)]
    if wrong:
        raise InputError(
            f"--images {wrong[0]}: split {learnt.split!r} of {learnt.dataset} has images 0 to {len(learnt.labels) - 1}"
        )
    if len(images) > most:
        raise InputError(f"--images names {len(images)} images; a picture holds up to {most}")
    return sorted(dict.fromkeys(images), key=lambda row: int(learnt.groups[row]))


def sample_of_groups(groups: Tensor, per_group: int, seed: int) -> list[int]:
    """Up to ``per_group`` random rows of every group, (N,) int64 -> rows in the order of groups."""
    return _sample(groups, per_group, seed, len(groups))


def _sample(groups: Tensor, per_group: int, seed: int, limit: int) -> list[int]:
    rng = np.random.default_rng(seed)
    members = {group: np.flatnonzero(groups.numpy() == group) for group in groups.unique().tolist()}
    drawn = {group: sorted(rng.permutation(rows)[:per_group].tolist()) for group, rows in members.items()}
    kept, total = set(), 0
    for group in sorted(members, key=lambda group: -len(members[group])):
        total += len(drawn[group])
        if kept and total > limit:
            break
        kept.add(group)
    return [row for group in drawn if group in kept for row in drawn[group][:limit]]


def examples(learnt: OpenedRun, rows: list[int], seed: int) -> Iterator[Example]:
    """The examples of these rows, in their order, with triplets drawn as in training but from ``POOL`` images of the
    split.
    """
    model = learnt.model
    past_morphing = RobustClassifier(model.encoder, model.head, model.weights, bottleneck=model.bottleneck).eval()
    others = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(learnt.labels)), rows))
    pool = torch.tensor([*rows, *others[: max(0, POOL - len(rows))].tolist()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        positive, negative, valid = draw_triplets(learnt.labels[pool], learnt.environments[pool], model.contrast.pairs)
    for start in range(0, len(rows), BATCH):
        part = slice(start, min(start + BATCH, len(rows)))
        yield from _batch(
            learnt,
            past_morphing,
            rows[part],
            [pool[side[part]].tolist() for side in (positive, negative)],
            valid[part].tolist(),
        )


@torch.no_grad()
def _batch(
    learnt: OpenedRun, past_morphing: RobustClassifier, rows: list[int], drawn: list[list[int]], valid: list[bool]
) -> Iterator[Example]:
    contrast = learnt.model.contrast
    images = learnt.read(rows)
    morphed, after, before = (
        learnt.model.morphing(images),
        learnt.model(images).softmax(1),
        past_morphing(images).softmax(1),
    )
    compared = learnt.model.morphing(learnt.read([row for side in drawn for row in side]))  # positives, then negatives
    reference = compared.psi if contrast.targets == "morphed" else compared.pixels
    first = torch.arange(len(rows))
    similarities = contrast.similarity.compare(
        contrast.views(morphed)[0], contrast.views(compared)[1], first, first + len(rows)
    )
    for i, row in enumerate(rows):
        sides = [
            Comparison(drawn[side][i], reference[side * len(rows) + i], float(similarities[side][i]))
            if valid[i]
            else None
            for side in (0, 1)
        ]
        predictions = [Prediction(int(of_all[i].argmax()), float(of_all[i].max())) for of_all in (before, after)]
        label, group = int(learnt.labels[row]), int(learnt.groups[row])
        yield Example(
            row,
            label,
            group,
            morphed.pixels[i].clamp(0, 1),
            morphed.mask[i],
            morphed.psi[i].clamp(0, 1),
            *sides,
            *predictions,
        )
