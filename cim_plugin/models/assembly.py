"""From a recipe to a network, for training and for loading: the one place where a classifier's parts are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

import torch
from torch import Tensor, nn

from .. import retired
from ..algorithms.classifier import RobustClassifier
from ..algorithms.morphing import PixelSpace
from ..algorithms.split_maps import SplitMaps
from ..errors import InputError, first_line
from . import domainbed_networks, from_catalog
from .encoders import make_encoder
from .transforms import StandardiseImageNet, StandardisePerImage

if TYPE_CHECKING:
    from .recipe import Recipe

STANDARDISE = {"imagenet": StandardiseImageNet, "per_image": StandardisePerImage}


def assemble(recipe: Recipe, encoder: nn.Module | None = None, n_features: int | None = None) -> RobustClassifier:
    """The classifier of a recipe, with new weights.

    Args:
        encoder: images (N, C, H, W) as the model takes them -> features (N, F); None makes the recipe's, with random
            weights.
        n_features: F; found by a dry run where it is None and an encoder is given.

    Raises:
        InputError: the recipe's encoder is a module that only its user has, or a value of the recipe cannot be used.
    """
    if encoder is None:
        encoder, n_features = make_encoder_of(recipe)
    elif n_features is None:
        n_features = count_features(encoder, recipe.channels, recipe.image_size)
    if recipe.split:
        encoder, n_features = over_maps(encoder, recipe.split), SplitMaps.n_features
    if recipe.standardise != "none":
        encoder = nn.Sequential(STANDARDISE[recipe.standardise](), encoder)
    with retired.allowed():
        classifier = from_catalog.build(
            recipe.algorithm,
            recipe.hyperparameters,
            encoder=encoder,
            n_features=n_features,
            make_head=lambda n: domainbed_networks.make_head(n, len(recipe.class_names), recipe.nonlinear_head),
            image_size=recipe.training_size or recipe.image_size,
            pixel_space=PixelSpace(recipe.mean, recipe.std),
            n_environments=recipe.n_environments,
            groups_in_training=torch.tensor(recipe.groups_in_training, dtype=torch.bool),
        )
    return classifier.to(memory_format=torch.channels_last) if recipe.channels_last else classifier


def over_maps(encoder: nn.Module, split: tuple[Any, ...]) -> SplitMaps:
    """The mask over an encoder's maps that a recipe names, with new weights.

    Raises:
        InputError: the encoder has no such stage.
    """
    side, channels, masked, *names = split
    if lost := [name for name in names if not _has(encoder, name)]:
        raise InputError(f"the encoder has no stage {lost[0]!r}, whose maps the model's mask looks at")
    return SplitMaps(encoder, names, channels, side, masked)


def _has(module: nn.Module, name: str) -> bool:
    try:
        return module.get_submodule(name) is not None
    except AttributeError:
        return False


def make_encoder_of(recipe: Recipe) -> tuple[nn.Module, int]:
    """The encoder that a recipe names, with random weights and without fetching any, and its number of features.

    Raises:
        InputError: nobody but its user has it, or its library is not installed.
    """
    if recipe.library == "own":
        raise InputError(
            "the encoder of this model is a module of yours; give one of the same kind: "
            "cim_plugin.load(path, encoder=...)"
        )
    if recipe.library == "domainbed" and not recipe.encoder:
        return domainbed_networks.make_featurizer(recipe.channels, recipe.image_size, recipe.encoder_options)
    encoder, n_features = make_encoder(recipe.encoder, {**recipe.encoder_options, "pretrained": False}, None)
    return (domainbed_networks.named(encoder) if recipe.library == "domainbed" else encoder), n_features


@torch.no_grad()
def count_features(encoder: nn.Module, channels: int, image_size: tuple[int, int]) -> int:
    """How many features an encoder gives for one image: a dry run in evaluation mode, which leaves no trace in it.

    Raises:
        InputError: it cannot take such an image, or gives something else than (1, F).
    """
    weight = next(encoder.parameters(), torch.zeros(()))
    image = torch.zeros(1, channels, *image_size, dtype=weight.dtype, device=weight.device)
    modes = {module: module.training for module in encoder.modules()}
    try:
        features = encoder.eval()(image)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"the encoder cannot take images of {channels}x{image_size[0]}x{image_size[1]} "
            f"({first_line(error)}); give another image_size"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(features, Tensor) or features.dim() != 2:
        what = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"a {type(features).__name__}"
        raise InputError(
            f"the encoder gives {what} for one image, and features (1, F) are needed; end it in pooling and "
            f"nn.Flatten(), and leave its classification layer out"
        )
    return features.shape[1]


def load_weights(classifier: RobustClassifier, weights: Mapping[str, Tensor], where: str) -> None:
    """Load all weights of a classifier.

    Raises:
        InputError: they are not those of this network.
    """
    try:
        classifier.load_state_dict(dict(weights))
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"{where} holds weights of another network ({' '.join(lines[1:2] or lines[:1])[:200]})"
        ) from error
