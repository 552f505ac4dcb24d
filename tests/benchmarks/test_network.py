"""Shapes of the transformation network, and the rows of ``scripts/bench network``."""

from __future__ import annotations

import pytest
import torch
from paired_rows import check_ratio

from cim_plugin.algorithms.morphing import TransformationNetwork
from scripts.benchmarks import network

#: counted by hand: weights and biases of every convolution
PARAMETERS = {
    "present, 16-32-32": (27 + 1) * 16 + (144 + 1) * 32 + (288 + 1) * 32 + 33,
    "nearest upsampling": 14_369,
    "8-16-16": (27 + 1) * 8 + (72 + 1) * 16 + (144 + 1) * 16 + 17,
    "8-32-32": (27 + 1) * 8 + (72 + 1) * 32 + (288 + 1) * 32 + 33,
    "patch32": (48 + 1) * 32 + (288 + 1) * 32 + 33,
    "patch16": (48 + 1) * 16 + (144 + 1) * 16 + 17,
    "7x7 stem": (147 + 1) * 32 + (288 + 1) * 32 + 33,
    "depthwise": (27 + 1) * 16 + (9 + 1) * 16 + (16 + 1) * 32 + (9 + 1) * 32 + (32 + 1) * 32 + 33,
}


def test_the_first_shape_is_the_packages_network():
    theirs, ours = TransformationNetwork(3), network.Network(network.NETWORKS[network.PRESENT])
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.rand(2, 3, 45, 28)
    assert list(network.NETWORKS)[0] == network.PRESENT
    assert torch.equal(ours(pixels), theirs(pixels))


@pytest.mark.parametrize("name", network.NETWORKS)
def test_every_shape_gives_a_mask_of_the_images_size(name):
    mask = network.Network(network.NETWORKS[name])(torch.rand(2, 3, 45, 28))
    assert mask.shape == (2, 1, 45, 28)
    assert 0 < mask.min() < mask.max() < 1


def test_nearest_upsampling_repeats_and_bilinear_does_not():
    pixels = torch.rand(1, 3, 28, 28)
    blocks = {
        name: network.Network(network.NETWORKS[name])(pixels).unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
        for name in ("nearest upsampling", network.PRESENT)
    }
    constant = {name: bool((values == values[..., :1]).all()) for name, values in blocks.items()}
    assert constant == {"nearest upsampling": True, network.PRESENT: False}


def test_rows(bench, monkeypatch):
    monkeypatch.setattr(network, "SIDES", {32: (8, 2), 28: (4, 1)})
    rows = bench("network", "--quick")
    assert [(row["name"], row["shape"]) for row in rows] == [
        (name, shape) for shape in ([2, 3, 32, 32], [1, 3, 28, 28]) for name in PARAMETERS
    ]
    for row in rows:
        check_ratio(row)
        assert row["parameters"] == PARAMETERS[row["name"]]
        assert row["name"] != network.PRESENT or row["cpu_ratio"] == row["ratio"] == 1
