"""Pseudo-environments on batches of tensors: tiles, models that are trained and asked, and predictions out of fold."""

from __future__ import annotations

import contextlib
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cim_plugin.algorithms.pseudo_environments import fit, mean_probabilities, out_of_fold, pseudo_groups, shuffle_tiles

# --- predictions ------------------------------------------------------------------------------------------------------


def test_every_row_has_the_class_that_the_models_of_the_other_folds_give_it():
    labels, fold = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 0, 2, 0, 1])
    others = {0: [[0.6, 0.4, 0.0], [0.1, 0.5, 0.4]], 1: [[0.4, 0.6, 0.0], [0.5, 0.1, 0.4]]}
    asked = []

    def probabilities(held_out, training, rows):
        asked.append((held_out, training.tolist(), rows.tolist()))
        return F.one_hot((labels[rows] + held_out) % 3, 3).double(), torch.tensor(others[min(held_out, 1)])

    predictions, of_others = out_of_fold(labels, fold, probabilities)
    assert asked == [(0, [0, 2, 4], [1, 3]), (1, [1, 2, 3], [0, 4]), (2, [0, 1, 3, 4], [2])]
    assert predictions.tolist() == [1, 1, 1, 0, 2]
    assert of_others.tolist() == [1, 2]  # by the sums 1.4, 1.6, 0 and 1.1, 0.7, 1.2: no fold alone says 2


def test_groups_are_cells_of_label_and_agreement():
    labels, environments = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 2, 1, 0, 2])
    assert pseudo_groups(labels, environments).tolist() == [0, 1, 2, 3, 4]


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
