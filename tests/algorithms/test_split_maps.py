"""The mask over an encoder's maps: which maps it takes, what it gives, and that its fit finds what tells the class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cim_plugin.algorithms.split_maps import PER_STEP, STEPS, SplitMaps, _draws, fit, map_names, outputs


def encoder() -> nn.Module:
    """Strides 2, 4, 4 again, 8 and 32, then a vector."""
    return nn.Sequential(
        *(nn.Conv2d(3 if n == 0 else 4 + n - 1, 4 + n, 3, s, 1) for n, s in enumerate((2, 2, 1, 2, 4))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Nested(nn.Module):
    """A stem and a row of stages, as in torchvision and timm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, 8, 1)
        self.blocks = nn.Sequential(nn.Conv2d(5, 6, 1), nn.Sequential(nn.Conv2d(6, 7, 3, 2, 1), nn.ReLU()))

    def forward(self, images):
        return self.blocks(self.stem(images)).mean((2, 3))


def test_the_last_stage_of_each_of_the_two_coarsest_strides_up_to_16():
    assert map_names(encoder(), torch.zeros(1, 3, 64, 64)) == {"2": (6, 16), "3": (7, 8)}
    assert map_names(Nested(), torch.zeros(1, 3, 64, 64)) == {"blocks.0": (6, 8), "blocks.1": (7, 4)}


def test_an_encoder_without_maps_has_none():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    assert map_names(flat, torch.zeros(1, 3, 8, 8)) == {}


def test_hooks_are_gone_afterwards_even_where_the_encoder_fails():
    network = encoder()
    with pytest.raises(RuntimeError):
        outputs(network, ["0"], torch.zeros(1, 5, 8, 8))
    outputs(network, ["0"], torch.zeros(1, 3, 64, 64))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("masked", [True, False])
def test_kept_and_taken_are_weighted_means(masked):
    torch.manual_seed(0)
    network = SplitMaps(encoder(), ["2", "3"], 13, 8, masked).eval()
    network.mean.uniform_(-1, 1)
    network.std.uniform_(0.5, 2)
    maps = network.maps(torch.rand(2, 3, 64, 64))
    m, kept, taken = (part.detach().numpy() for part in network.split(maps))
    values = network.values(maps).detach().numpy()
    for image in range(2):
        for weights, found in ((m[image, 0], kept[image]), (1 - m[image, 0], taken[image])):
            wanted = np.einsum("chw,hw->c", values[image], weights) / (weights.sum() + 1e-3)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert (m == 1).all() != masked


def test_maps_are_standardised_and_of_one_grid():
    torch.manual_seed(0)
    network = SplitMaps(encoder(), ["2", "3"], 13, 8).eval()
    images = torch.rand(2, 3, 64, 64)
    raw = network.maps(images)
    network.mean.fill_(0.5)
    network.std.fill_(2.0)
    assert raw.shape == (2, 13, 8, 8)
    torch.testing.assert_close(network.maps(images), (raw - 0.5) / 2)
    torch.testing.assert_close(raw[:, 6:], outputs(network.encoder, ["3"], images)["3"])


def test_every_pair_of_class_and_environment_is_drawn_equally_often():
    torch.manual_seed(0)
    labels = torch.tensor([0] * 90 + [1] * 10)
    environments = torch.tensor([0] * 85 + [1] * 5 + [0] * 3 + [1] * 7)
    rows = _draws(labels, environments)
    assert rows.shape == (STEPS, PER_STEP)
    shares = torch.bincount((2 * labels + environments)[rows].flatten()) / rows.numel()
    assert (shares - 0.25).abs().max() < 0.02


def planted(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps (n, 4, 6, 6): a figure of 2×2 somewhere says the class, all the ground says the environment, which goes with
    the class in nine of ten. Maps, labels, environments, and where the figure is.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    environments = torch.where(torch.rand(n, generator=generator) < 0.9, labels, 1 - labels)
    maps, figure = 0.5 * torch.randn(n, 4, 6, 6, generator=generator), torch.zeros(n, 6, 6, dtype=torch.bool)
    for image, (top, left) in enumerate(torch.randint(5, (n, 2), generator=generator).tolist()):
        figure[image, top : top + 2, left : left + 2] = True
    maps[:, 0] += torch.where(figure, 0.0, 2.0 * environments[:, None, None] - 1)
    maps[:, 1] += torch.where(figure, 2.0 * labels[:, None, None] - 1, 0.0)
    return maps, labels, environments, figure


def test_the_mask_keeps_the_figure_and_the_head_goes_by_it():
    network, head = SplitMaps(nn.Identity(), [], 4, 6), nn.Linear(SplitMaps.n_features, 2)
    maps, labels, environments, _ = planted(400, 0)
    fit(network, head, maps, labels, environments, 1.0, seed=0)
    maps, labels, environments, figure = planted(400, 1)
    with torch.no_grad():
        m, kept, _ = network.split(maps)
        right = head(kept).argmax(1) == labels
    assert m[:, 0][figure].mean() > 3 * m[:, 0][~figure].mean()
    assert right[labels != environments].double().mean() > 0.85


def test_a_seed_gives_the_same_weights_and_leaves_other_random_numbers_alone():
    maps, labels, environments, _ = planted(60, 0)
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        network, head = SplitMaps(nn.Identity(), [], 4, 6), nn.Linear(SplitMaps.n_features, 2)
        before = torch.get_rng_state()
        fit(network, head, maps, labels, environments, 1.0, seed=3)
        assert torch.equal(torch.get_rng_state(), before) and not network.training
        weights.append(head.weight.detach().clone())
        torch.rand(1)
    assert torch.equal(*weights)


def test_lengths_that_differ_are_refused():
    network, head = SplitMaps(nn.Identity(), [], 4, 6), nn.Linear(SplitMaps.n_features, 2)
    with pytest.raises(ValueError, match="3 maps came with 2 labels and 3 environments"):
        fit(network, head, torch.zeros(3, 4, 6, 6), torch.tensor([0, 1]), torch.tensor([0, 1, 0]), 1.0, 0)
