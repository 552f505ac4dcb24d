"""Reference models on batches of tensors: draws, steps, probabilities, and tiles."""

from __future__ import annotations

import contextlib
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from cim_plugin.algorithms.reference_models import (
    ReferenceModels,
    balanced_draws,
    fit,
    mean_probabilities,
    shuffle_tiles,
)

# --- draws ------------------------------------------------------------------------------------------------------------

#: name -> images of every class
SIZES = {
    "95 to 5": [1900, 100],
    "85 to 15": [850, 150],
    "a class of 30 images": [5000, 800, 30],
    "182 classes": [1 + 7 * number for number in range(182)],
    "a class without images": [40, 0, 20],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_class_is_drawn_equally_often_and_of_it_every_image(sizes):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    rows = torch.nonzero(torch.arange(len(labels)) % 3 > 0).flatten()
    drawn = balanced_draws(labels, rows, (400, 50), torch.Generator().manual_seed(0))
    assert drawn.shape == (400, 50) and set(drawn.flatten().tolist()) <= set(rows.tolist())
    present = set(labels[rows].tolist())
    counts = Counter(labels[drawn.flatten()].tolist())
    chance = 1 / len(present)
    assert set(counts) == present
    assert all(abs(count - 20_000 * chance) < 5 * (20_000 * chance * (1 - chance)) ** 0.5 for count in counts.values())
    smallest = min(present, key=sizes.__getitem__)
    of_smallest = Counter(row for row in drawn.flatten().tolist() if labels[row] == smallest)
    each = counts[smallest] / len(of_smallest)
    assert len(of_smallest) == int((labels[rows] == smallest).sum())
    assert all(abs(count - each) < 5 * each**0.5 for count in of_smallest.values())


def test_draws_follow_from_the_generator_alone():
    labels = torch.arange(60) % 3
    one, two, other = (
        balanced_draws(labels, torch.arange(60), (5, 4), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


# --- side by side -----------------------------------------------------------------------------------------------------


def _references(seen: list) -> ReferenceModels:
    """Two models whose one weight counts their steps, on images that are their rows."""
    labels = torch.arange(20) % 2

    class Counting(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number, self.weight = number, nn.Parameter(torch.zeros(1))

        def forward(self, rows):
            seen.append((self.number, rows.tolist(), torch.rand(1).item()))
            return torch.stack([rows * 0 + self.weight, rows * (1.0 + self.number)], 1)

    models = [Counting(0), Counting(1)]

    def step_of(model):
        def step(loss):
            with torch.no_grad():
                model.weight.add_(1)

        return step

    def images(split, batches, seeds):
        for rows, words in zip(batches, seeds):
            torch.manual_seed(sum(map(ord, "".join(map(str, (split, *words))))))
            yield rows.float()

    draws = [torch.arange(12).view(6, 2), torch.arange(8, 20).view(6, 2)]
    return ReferenceModels(models, list(map(step_of, models)), draws, labels, images)


def test_steps_in_parts_are_the_steps_at_once():
    whole, parts = [], []
    _references(whole).train(0, 6)
    references = _references(parts)
    references.train(0, 1)
    references.train(1, 4)
    references.train(4, 6)
    assert len(whole) == 12 and sorted(whole) == sorted(parts)
    assert [rows for number, rows, _ in whole if number == 1] == [[8 + 2 * n, 9 + 2 * n] for n in range(6)]
    assert [model.weight.item() for model in references.models] == [6, 6]


def test_weights_that_were_kept_come_back():
    references = _references([])
    references.train(0, 2)
    references.keep()
    references.train(2, 5)
    references.restore()
    assert [model.weight.item() for model in references.models] == [2, 2]


def test_probabilities_are_of_the_models_that_are_asked():
    references = _references([])
    rows = torch.tensor([0, 3, 1])
    found = references.probabilities([1], "val", rows)
    torch.testing.assert_close(found, torch.stack([rows * 0.0, rows * 2.0], 1).softmax(1))
    both = references.probabilities([0, 1], "val", rows)
    torch.testing.assert_close(both, (found + torch.stack([rows * 0.0, rows * 1.0], 1).softmax(1)) / 2)


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_model_is_trained_by_the_mean_cross_entropy_of_every_batch():
    torch.manual_seed(0)
    model, batches = nn.Linear(6, 3).eval(), [(torch.rand(n, 6), torch.arange(n) % 3) for n in (4, 5)]
    weight, bias, seen = *(value.detach().clone() for value in model.parameters()), []

    def step(loss):
        seen.append((loss.item(), model.training))
        with torch.no_grad():
            for value in model.parameters():
                value.add_(1.0)

    inside = []

    @contextlib.contextmanager
    def forward():
        inside.append(True)
        yield

    fit(model, iter(batches), step, forward=forward)
    expected = []
    for number, (images, labels) in enumerate(batches):
        logits = (images.double() @ (weight + number).double().T + (bias + number).double()).numpy()
        of_labels = logits[np.arange(len(labels)), labels]
        expected.append(np.mean(np.log(np.exp(logits).sum(1)) - of_labels))
    assert [loss for loss, _ in seen] == pytest.approx(expected, rel=1e-5)
    assert all(training for _, training in seen) and len(inside) == 2


def test_probabilities_are_the_mean_over_models_not_that_of_logits():
    sharp, flat = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        sharp.weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 4.0]]))
        flat.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    images = torch.eye(2)
    found = mean_probabilities([sharp, flat], images.split(1))
    high, low = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(1))
    expected = torch.tensor([[high + low, 2 - high - low]] * 2) / 2
    torch.testing.assert_close(found, torch.stack([expected[0], expected[1].flip(0)]).float())
    assert not sharp.training and not found.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_said(value):
    with pytest.raises(FloatingPointError, match="logits of a reference model are not finite"):
        mean_probabilities([nn.Identity()], [torch.zeros(2, 3), torch.tensor([[0.0, value, 1.0]])])


# --- tiles ------------------------------------------------------------------------------------------------------------


def _tiles_of(image: np.ndarray, tiles: int) -> list[bytes]:
    """The tiles of an image (C, H, W), sorted, cut by numpy alone."""
    rows = [part for strip in np.array_split(image, tiles, 1) for part in np.array_split(strip, tiles, 2)]
    return sorted(part.tobytes() for part in rows)


@pytest.mark.parametrize(
    "shape, tiles", [((5, 3, 12, 8), 4), ((5, 1, 13, 11), 3), ((2, 3, 4, 4), 4), ((3, 2, 30, 29), 7)]
)
def test_shuffled_tiles_are_whole_and_what_is_left_over_stays(shape, tiles):
    images = torch.arange(np.prod(shape)).reshape(shape)
    kept = images.clone()
    torch.manual_seed(0)
    moved = shuffle_tiles(images, tiles)
    h, w = shape[2] // tiles * tiles, shape[3] // tiles * tiles
    assert torch.equal(images, kept) and not torch.equal(moved, images) and moved.dtype == images.dtype
    assert torch.equal(moved[:, :, h:], images[:, :, h:]) and torch.equal(moved[:, :, :, w:], images[:, :, :, w:])
    for before, after in zip(images.numpy(), moved.numpy()):
        assert _tiles_of(before[:, :h, :w], tiles) == _tiles_of(after[:, :h, :w], tiles)


def test_one_tile_changes_nothing_and_draws_nothing():
    images = torch.rand(2, 3, 8, 8)
    state = torch.get_rng_state()
    assert shuffle_tiles(images, 1) is images and torch.equal(torch.get_rng_state(), state)


def test_tiles_come_in_every_order_equally_often():
    torch.manual_seed(0)
    images = torch.arange(4.0).reshape(1, 1, 2, 2).expand(24_000, 1, 2, 2)
    counts = Counter(tuple(order) for order in shuffle_tiles(images, 2).flatten(1).tolist())
    assert len(counts) == 24 and all(
        850 < count < 1150 for count in counts.values()
    )  # within 4.7 standard deviations of 1000
