"""Positives and negatives of every image, drawn inside its minibatch (CIM's x+ and x- on the poster).

Everything is vectorised over the batch and nothing synchronises with the device. The cost is a few (N, N) masks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Triplets(NamedTuple):
    """One positive and one negative per anchor, as rows of the batch; all (N,)."""

    positive: Tensor  #: int64
    negative: Tensor  #: int64
    valid: Tensor  #: bool; False where the batch holds no positive or no negative: the rows are then the anchor's own


def random_candidates(labels: Tensor, environments: Tensor | None) -> tuple[Tensor, Tensor]:
    """Any other image of the same class, any image of another class. Masks (N, N) of bool."""
    same_class = labels[:, None] == labels
    return same_class & _others(labels), ~same_class


def cross_environment_candidates(labels: Tensor, environments: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positives from another environment, negatives from the same one: what a class shares, not where it was seen. The
    pairs are those of Correct-n-Contrast (Zhang et al., 2022, arXiv:2203.01517).
    """
    if environments is None:
        raise ValueError(
            "'cross_environment' pairs need the environment of every image; use 'random' where there is none"
        )
    same_class = labels[:, None] == labels
    same_environment = environments[:, None] == environments
    return same_class & ~same_environment, ~same_class & same_environment


#: Which rows may be a positive or a negative, by the name that a user gives.
CANDIDATES = {"random": random_candidates, "cross_environment": cross_environment_candidates}


def draw_triplets(labels: Tensor, environments: Tensor | None = None, pairs: str = "random") -> Triplets:
    """Draw one positive and one negative per anchor, uniformly among the candidates.

    Args:
        labels: (N,) int64.
        environments: (N,) int64, or ``None`` where the host has none.
        pairs: a key of ``CANDIDATES``.

    >>> labels, environments = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 0])
    >>> positive, negative, valid = draw_triplets(labels, environments, "cross_environment")
    >>> valid.tolist()  # the second and third have no other class in their environment, the last no other of its class
    [True, False, False, False]
    >>> negative[0].item(), positive[0].item() in (1, 2)
    (3, True)
    """
    own = torch.arange(len(labels), device=labels.device)
    rows, found = zip(*(_draw(candidates) for candidates in CANDIDATES[pairs](labels, environments)))
    valid = found[0] & found[1]
    positive, negative = (torch.where(valid, row, own) for row in rows)
    return Triplets(positive, negative, valid)


def _draw(candidates: Tensor) -> tuple[Tensor, Tensor]:
    """A uniformly drawn column per row of an (N, N) mask, and whether the row has any."""
    scores = torch.rand(candidates.shape, device=candidates.device)
    return torch.where(candidates, scores, -1.0).argmax(1), candidates.any(1)


def _others(labels: Tensor) -> Tensor:
    return ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
