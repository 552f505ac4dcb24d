"""A model for a training loop of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence

from torch import nn

from .. import catalog
from ..algorithms.morphing import IMAGENET
from ..errors import InputError
from .assembly import assemble
from .encoders import make_encoder
from .model import Model
from .recipe import Recipe, from_dict, numbered

Normalisation = tuple[Sequence[float], Sequence[float]]


def build(
    algorithm: str,
    *,
    encoder: nn.Module | str,
    n_classes: int | None = None,
    image_size: int | tuple[int, int],
    inputs: str | Normalisation = "imagenet",
    channels: int = 3,
    class_names: Sequence[str] | None = None,
    n_groups: int | None = None,
    encoder_options: dict[str, Any] | None = None,
    **hyperparameters: Any,
) -> Model:
    """A model to train in one's own loop: ``model.loss(images, labels).backward()``.

    Args:
        algorithm: "CIM", "CIM_VIB", "VIB", "SCL_E2E", "ERM", "groupDRO" or "CIM+groupDRO".
        encoder: a module, images (N, C, H, W) -> features (N, F), whose F is found by a dry run; or the name of a model
            of torchvision or timm, or "small_cnn" for images of 28 to 64 pixels. A model with a named encoder can be
            loaded without anything else.
        n_classes: K, the number of classes; may be left out beside ``class_names``.
        image_size: height and width of the images in pixels, one number where they are equal.
        inputs: what the images are: "imagenet", normalised by ImageNet's mean and standard deviation; "pixels" in
            [0, 1]; or the (mean, std) that they are normalised by, one number per channel each.
        channels: of the images, 1 to 3, where ``inputs`` is "pixels".
        class_names: K names; by default their numbers.
        n_groups: number of groups, which group DRO needs.
        encoder_options: with a name: arguments of the model, such as ``pretrained=True``.
        hyperparameters: those of the algorithm, such as ``cim_lambda=0.5``; docs/hyperparameters.md has them all.

    Raises:
        InputError: an argument is unknown or out of range, or the encoder does not fit the images.
    """
    if algorithm not in catalog.TRAINABLE:
        raise InputError(f"algorithm {algorithm!r} is unknown; choose from {', '.join(catalog.TRAINABLE)}")
    names = numbered(n_classes or 0) if class_names is None else list(class_names)
    if not names or (n_classes is not None and n_classes != len(names)):
        raise InputError(
            f"n_classes={n_classes} and {len(names)} class_names were given; give one of them, or as many names as "
            f"classes"
        )
    catalog.check(algorithm, values := catalog.complete(algorithm, hyperparameters))
    mean, std = _normalisation(inputs, channels)
    side = image_size if isinstance(image_size, int) else None
    by_name = isinstance(encoder, str)
    options = dict(encoder_options or {})
    recipe = _recipe(
        algorithm=algorithm,
        hyperparameters=values,
        library="named" if by_name else "own",
        encoder=encoder if by_name else "",
        encoder_options={},
        class_names=names,
        image_size=[side, side] if side is not None else list(image_size),
        mean=list(mean),
        std=list(std),
        n_environments=2 if values.get("cim_pairs") == "cross_environment" else None,
        groups_in_training=_groups(algorithm, n_groups),
    )
    shape = {name: value for name, value in options.items() if name != "pretrained"}
    recipe = replace(recipe, encoder_options=shape)  # of which a file may have no more than some
    made = make_encoder(encoder, options, None) if by_name else (encoder, None)
    return Model(assemble(recipe, *made), recipe)


def _normalisation(inputs: str | Normalisation, channels: int) -> Normalisation:
    if inputs == "imagenet":
        return IMAGENET
    if inputs == "pixels":
        return [0.0] * channels, [1.0] * channels
    if isinstance(inputs, str) or len(inputs) != 2:
        raise InputError(f"inputs={inputs!r} is not 'imagenet', 'pixels' or a pair of mean and std, a list each")
    return tuple(list(map(float, numbers)) for numbers in inputs)


def _groups(algorithm: str, n_groups: int | None) -> list[bool]:
    if not catalog.needs_uniform_groups(algorithm):
        return []
    if n_groups is None:
        raise InputError(f"{algorithm} weighs groups; give n_groups, and loss(images, labels, groups=...)")
    return [True] * n_groups


def _recipe(**values: Any) -> Recipe:
    """Checked as one of a file is: what is built can be saved and loaded."""
    return from_dict(values, "cim_plugin.build")
