"""A classifier of the catalog around a small encoder, with the defaults of its hyperparameters."""

from __future__ import annotations

from torch import nn

from cim_plugin import catalog
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.models import from_catalog


def defaults(algorithm: str, **changes) -> dict:
    return {**{name: entry.default for name, entry in catalog.hyperparameters(algorithm).items()}, **changes}


def encoder(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def build(algorithm: str, channels: int = 3, side: int = 28, n_environments: int | None = 2, **changes):
    return from_catalog.build(
        algorithm,
        defaults(algorithm, **changes),
        encoder=encoder(channels),
        n_features=32,
        make_head=lambda n_inputs: nn.Linear(n_inputs, 2),
        image_size=(side, side),
        pixel_space=PixelSpace.raw(channels),
        n_environments=n_environments,
    )
