"""Reference models: trained for few steps, on batches that hold every class equally often, and asked about images that
they have not seen.

A model that has been trained for few steps goes by what is easiest. Where many different grounds make the figure the
easier of the two, it must not see the figure: tiles of the image in random order keep colours and textures.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, ContextManager, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def balanced_draws(labels: Tensor, rows: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Rows with replacement, every class equally often and of a class every row, whatever the classes' shares (Idrissi
    et al., 2022, arXiv:2110.14503, balance classes so; Pezeshki et al., 2024, arXiv:2309.16748, weigh the losses of
    such models).

    Args:
        labels: (N,) int64 in [0, K).
        rows: (n,) int64, those of the N that may be drawn; a class that they do not hold is left out.
        shape: of what is drawn.
        generator: what is drawn follows from it.

    Returns:
        int64 of that shape.
    """
    of_rows = labels[rows]
    counts = torch.bincount(of_rows)
    present, starts = torch.nonzero(counts).flatten(), counts.cumsum(0) - counts
    classes = present[torch.randint(len(present), shape, generator=generator)]
    places = (torch.rand(shape, generator=generator, dtype=torch.float64) * counts[classes]).long()
    return rows[of_rows.argsort(stable=True)][starts[classes] + places]


class ReferenceModels:
    """Models that are trained side by side, each on batches of its own.

    Args:
        models: images -> logits (B, K).
        steps: of every model: takes the loss, (), and steps the optimizer.
        draws: of every model: (S, B) int64, the training images of each of its steps, see :func:`balanced_draws`.
        labels: (N,) int64 in [0, K), of the training images.
        images: (split, batches, seeds) -> the images (B, C, H, W) of every batch of rows (B,) of "train" or "val", in
            order, as the models take them; before it gives one, torch's generator is to be seeded by the batch's seed,
            a tuple of words and whole numbers.
        tiles: see :func:`shuffle_tiles`.
        training, evaluating: around the forward passes, for their precision.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        steps: Sequence[Callable[[Tensor], Any]],
        draws: Sequence[Tensor],
        labels: Tensor,
        images: Callable[[str, list[Tensor], list[tuple]], Iterator[Tensor]],
        tiles: int = 1,
        training: Callable[[], ContextManager] = contextlib.nullcontext,
        evaluating: Callable[[], ContextManager] = contextlib.nullcontext,
    ):
        self.models, self.steps, self.draws, self.labels, self.images = models, steps, draws, labels, images
        self.tiles, self.training, self.evaluating = tiles, training, evaluating
        self.kept: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return len(self.models)

    def train(self, start: int, stop: int) -> None:
        """Take the steps from ``start`` up to ``stop``: one model after the other, whose steps do not depend on each
        other.
        """
        for number, (model, step) in enumerate(zip(self.models, self.steps)):
            rows = list(self.draws[number][start:stop])
            images = self.images("train", rows, [("step", number, place) for place in range(start, stop)])
            fit(model, zip(images, (self.labels[of_batch] for of_batch in rows)), step, self.tiles, self.training)

    def probabilities(self, numbers: Sequence[int], split: str, rows: Tensor) -> Tensor:
        """The mean over some models of the probabilities of rows (n,) of a split, (n, K) float32 on the CPU.

        Raises:
            FloatingPointError: see :func:`mean_probabilities`.
        """
        batches = list(rows.split(self.draws[0].shape[1]))
        images = self.images(split, batches, [("tiles", number) for number in range(len(batches))])
        return mean_probabilities([self.models[number] for number in numbers], images, self.tiles, self.evaluating)

    def keep(self) -> None:
        """Remember all weights as they are, on the CPU, and forget those that were kept before."""
        self.kept = [
            {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
            for model in self.models
        ]

    def restore(self) -> None:
        """Go back to the weights that were kept; the models are not to be trained any further."""
        for model, weights in zip(self.models, self.kept):
            model.load_state_dict(weights)


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    step: Callable[[Tensor], Any],
    tiles: int = 1,
    forward: Callable[[], ContextManager] = contextlib.nullcontext,
) -> None:
    """Train a reference model by cross-entropy.

    Args:
        model: images -> logits (B, K).
        batches: images (B, C, H, W), as the model takes them, and labels (B,) int64.
        step: takes the loss, (), and steps the optimizer.
        tiles: see :func:`shuffle_tiles`.
        forward: around the model's forward pass, for its precision.
    """
    model.train()
    for images, labels in batches:
        images = shuffle_tiles(images, tiles)
        with forward():
            logits = model(images)
        step(F.cross_entropy(logits.float(), labels.to(logits.device)))


@torch.no_grad()
def mean_probabilities(
    models: Sequence[nn.Module],
    batches: Iterable[Tensor],
    tiles: int = 1,
    forward: Callable[[], ContextManager] = contextlib.nullcontext,
) -> Tensor:
    """The mean over the models of every image's probabilities, (N, K) float32 on the CPU.

    Args:
        models: images -> logits (B, K).
        batches: images (B, C, H, W), as the models take them.
        tiles: see :func:`shuffle_tiles`; all models see the same.
        forward: around the models' forward passes, for their precision.

    Raises:
        FloatingPointError: logits are NaN or infinite.
    """
    for model in models:
        model.eval()
    parts = []
    for images in batches:
        images = shuffle_tiles(images, tiles)
        with forward():
            logits = torch.stack([model(images).float() for model in models])
        if not logits.isfinite().all():
            raise FloatingPointError("the logits of a reference model are not finite")
        parts.append(logits.softmax(-1).mean(0).cpu())
    return torch.cat(parts)


def shuffle_tiles(images: Tensor, tiles: int) -> Tensor:
    """Cut every image into equal tiles and put them into an order of its own, drawn from torch's generator.

    What fills a ground, its colours and its texture, is left; the shape of what is larger than a tile is not. Puli et
    al. (2022, arXiv:2210.01302) corrupt the images of a biased model so, among other ways.

    Args:
        images: (N, C, H, W), any dtype.
        tiles: per side; 1 leaves the images as they are. Where it does not divide a side, the pixels left over at the
            end stay in place.

    Returns:
        (N, C, H, W), as the images.
    """
    if tiles == 1:
        return images
    n, channels, height, width = images.shape
    h, w = height // tiles, width // tiles
    cut = (
        images[:, :, : tiles * h, : tiles * w]
        .reshape(n, channels, tiles, h, tiles, w)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(n, tiles * tiles, -1)
    )
    order = torch.rand(n, tiles * tiles, device=images.device).argsort(1)
    moved = (
        cut.gather(1, order[:, :, None].expand_as(cut))
        .reshape(n, tiles, tiles, channels, h, w)
        .permute(0, 3, 1, 4, 2, 5)
    )
    images = images.clone()
    images[:, :, : tiles * h, : tiles * w] = moved.reshape(n, channels, tiles * h, tiles * w)
    return images
