"""A mask over the feature maps of a frozen encoder: what it keeps has to tell the class, what it takes away the
environment.

CIM compares psi(x) with a positive of another environment and a negative of the same one, by how alike images look. On
photographs that says next to nothing of where the figure is (docs/evidence.md). Here the same two questions are asked
by classification, of what is kept and of what is taken away:

    L = CE(class | mean of v weighted by m) + w · CE(environment | mean of v weighted by 1 - m)

m and v are 1×1 convolutions of the encoder's maps, and batches hold every pair of class and environment equally often.
Of our own; attention that is taught by environments which nobody labelled is older (Wang et al., 2021,
arXiv:2108.08782, of which we have read the abstract). With pseudo-environments no label of a group is needed. Where
w = 0, m is attention that only the class teaches.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inputs import class_numbers

HIDDEN, FEATURES = 32, 64  #: channels inside m's network, and of v
STEPS, PER_STEP = 300, 48  #: of the fit, and images of each
RATE, DECAY, DROPOUT = 3e-3, 0.05, 0.2  #: of AdamW, to 0 by a cosine
LARGEST_SIDE = 14  #: of the grid of m
LARGEST_STRIDE = 16  #: coarser maps see the whole image everywhere


class Split(NamedTuple):
    """Of a batch of maps."""

    m: Tensor  #: (N, 1, h, w) in (0, 1)
    kept: Tensor  #: (N, F), the mean of v weighted by m
    taken: Tensor  #: (N, F), weighted by 1 - m


class SplitMaps(nn.Module):
    """An encoder that gives the mean of v weighted by m, in the place of the encoder whose maps it looks at.

    Args:
        encoder: images (N, C, H, W) -> anything.
        names: of submodules of ``encoder`` whose outputs are maps (N, c, h, w), see :func:`map_names`.
        channels: of those maps together.
        side: height and width of the grid that they are brought to.
        masked: False leaves m out (it is 1 everywhere), for comparison.
    """

    n_features = FEATURES
    mean: Tensor  #: (c, 1, 1), of the channels of the maps
    std: Tensor  #: (c, 1, 1), positive

    def __init__(self, encoder: nn.Module, names: Sequence[str], channels: int, side: int, masked: bool = True):
        super().__init__()
        self.encoder, self.names, self.side, self.masked = encoder, tuple(names), side, masked
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.mask = nn.Sequential(
            nn.Conv2d(channels, HIDDEN, 1), nn.ReLU(), nn.Dropout2d(DROPOUT), nn.Conv2d(HIDDEN, 1, 1)
        )
        self.values = nn.Sequential(nn.Conv2d(channels, FEATURES, 1), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> (N, F)."""
        return self.split(self.maps(images)).kept

    def maps(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> (N, c, side, side), each channel standardised."""
        found = outputs(self.encoder, self.names, images)
        size = (self.side, self.side)
        grids = [F.interpolate(found[name], size, mode="bilinear", align_corners=False) for name in self.names]
        return (torch.cat(grids, 1) - self.mean) / self.std

    def split(self, maps: Tensor) -> Split:
        """Of maps (N, c, h, w)."""
        m, values = self.mask(maps).sigmoid(), self.values(maps)
        if not self.masked:
            m = torch.ones_like(m)
        return Split(m, weighted_mean(values, m), weighted_mean(values, 1 - m))


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """(N, c, h, w), weighted by (N, 1, h, w) of at least 0 -> (N, c)."""
    return (values * weights).sum((2, 3)) / (weights.sum((2, 3)) + 1e-3)


# --- which maps -------------------------------------------------------------------------------------------------------


def outputs(module: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """What some submodules give for a batch: name -> output.

    Raises:
        AttributeError: there is no submodule of a name.
    """
    found: dict[str, Tensor] = {}
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
        for name in names
    ]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


@torch.no_grad()
def map_names(encoder: nn.Module, images: Tensor) -> dict[str, tuple[int, int]]:
    """The maps to look at: of each stride up to 16 the output of the last stage, the two coarsest.

    Stages are the encoder's children, and the children of those that are an ``nn.Sequential``.

    Args:
        images: (N, C, H, W), any that the encoder takes.

    Returns:
        Name -> channels and height, the finer one first; empty where no stage gives maps.
    """
    stages: list[str] = []
    for name, child in encoder.named_children():
        inner = [f"{name}.{part}" for part, _ in child.named_children()] if isinstance(child, nn.Sequential) else []
        stages += inner or [name]
    last: dict[int, tuple[str, int, int]] = {}
    for name, output in outputs(encoder, stages, images).items():
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] > 1:
            stride = round(images.shape[2] / output.shape[2])
            if stride <= LARGEST_STRIDE:
                last[stride] = (name, output.shape[1], output.shape[2])
    return {last[stride][0]: last[stride][1:] for stride in sorted(last)[-2:]}


# --- the fit ----------------------------------------------------------------------------------------------------------


@torch.random.fork_rng(devices=[])
def fit(
    model: SplitMaps,
    head: nn.Linear,
    maps: Tensor,
    labels: Tensor,
    environments: Tensor,
    weight: float,
    seed: int,
    extra: nn.Module | None = None,
) -> None:
    """Train m, v and the head, in place; the encoder is not looked at.

    Args:
        head: (N, F) -> logits (N, K).
        maps: (N, c, h, w) of :meth:`SplitMaps.maps`, any floats.
        labels: (N,) int64 in [0, K).
        environments: (N,) int64, at least 0.
        weight: w, of the loss of what is taken away.
        seed: of the initial weights, the batches and the dropout.
        extra: a further loss, (maps, :class:`Split`, labels, environments) of a batch -> scalar, trained with the rest.

    Raises:
        ValueError: lengths differ.
    """
    labels, environments = class_numbers(labels), class_numbers(environments)
    if not len(maps) == len(labels) == len(environments):
        raise ValueError(f"{len(maps)} maps came with {len(labels)} labels and {len(environments)} environments")
    torch.manual_seed(seed)
    model.train()
    weight = weight if model.masked else 0.0
    of_environment = nn.Linear(FEATURES, int(environments.max()) + 1)
    for part in (*model.mask, *model.values, head):
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    trained = nn.ModuleList([model.mask, model.values, head, of_environment, *([extra] if extra is not None else [])])
    optimizer = torch.optim.AdamW(trained.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for rows in _draws(labels, environments):
        batch = maps[rows].float()
        batch = batch.flip(-1) if torch.rand(()) < 0.5 else batch
        split = model.split(batch)
        loss = F.cross_entropy(head(F.dropout(split.kept, DROPOUT)), labels[rows])
        if weight:
            taken = of_environment(F.dropout(split.taken, DROPOUT))
            loss = loss + weight * F.cross_entropy(taken, environments[rows])
        if extra is not None:
            loss = loss + extra(batch, split, labels[rows], environments[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def _draws(labels: Tensor, environments: Tensor) -> Tensor:
    """(STEPS, PER_STEP) rows, every pair of class and environment that there is equally often."""
    pairs = torch.stack([labels, environments], 1).unique(dim=0, return_inverse=True)[1]
    counts = torch.bincount(pairs).double()
    return torch.multinomial(1 / counts[pairs], STEPS * PER_STEP, replacement=True).view(STEPS, PER_STEP)
