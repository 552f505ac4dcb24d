"""What is logged of psi, against numbers by numpy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cim_plugin.algorithms.contrastive import READINGS, contrastive_loss, gap
from cim_plugin.algorithms.mask_statistics import NAMES, MaskStatistics, constant_in_words


@pytest.mark.parametrize("reading", READINGS)
def test_the_gap_is_that_of_the_anchors_with_a_triplet(reading):
    s_pos, s_neg = torch.rand(2, 20, dtype=torch.float64, requires_grad=True)
    valid = torch.arange(20) % 3 > 0
    found = gap(contrastive_loss(s_pos, s_neg, valid, reading), valid, reading)
    differences = (s_pos - s_neg).detach().numpy()[valid.numpy()]
    assert found.tolist() == pytest.approx([np.mean(differences), np.std(differences)], rel=1e-12)
    assert not found.requires_grad


def test_the_gap_of_no_anchor_is_zero():
    none = torch.zeros(4, dtype=torch.bool)
    assert gap(contrastive_loss(*torch.rand(2, 4), none), none).tolist() == [0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_spread_of_m_are_those_inside_every_image(channels):
    mask = torch.rand(4, channels, 5, 7, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([True, False, True, True])
    found = MaskStatistics.of(mask, torch.rand(4, dtype=torch.float64), valid, "distance")
    planes = [image.numpy() for image in mask.detach()]
    assert found.mask_mean.tolist() == pytest.approx([np.mean(plane) for plane in planes])
    assert found.mask_std.tolist() == pytest.approx([np.std(plane) for plane in planes])
    assert found.without_triplet == 1 and not any(value.requires_grad for value in found)


def test_per_image_and_per_batch_say_the_same():
    mask, valid = torch.rand(8, 1, 3, 3), torch.arange(8) > 2
    statistics = MaskStatistics.of(mask, torch.rand(8), valid, "distance")
    images, batch = statistics.per_image(), statistics.of_batch()
    assert tuple(images) == tuple(batch) == NAMES
    assert {values.shape for values in images.values()} == {(8,)} and {value.shape for value in batch.values()} == {()}
    assert batch["no_triplet"] == 3
    for name, values in images.items():
        assert values.mean().item() == pytest.approx(batch[name].item() / (8 if name == "no_triplet" else 1)), name


@pytest.mark.parametrize(
    "mean, std, words",
    [
        (1e-5, 1e-6, "m has a mean below 0.0001"),
        (1 - 1e-5, 1e-6, "m is 1 everywhere"),
        (0.507, 0.003, "m is a constant (its standard deviation inside images is below 0.004)"),
        (0.8, 0.003, "m is a constant"),
        (0.5, 0.005, None),
    ],
)
def test_a_constant_is_said_whatever_its_value(mean, std, words):
    said = constant_in_words(mean, std)
    assert said is None if words is None else said.startswith(words) and "\n" not in said
