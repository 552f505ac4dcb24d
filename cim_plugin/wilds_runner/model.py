"""The classifier of a run, from its configuration and the facts of its data."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..algorithms.classifier import RobustClassifier
from ..errors import InputError
from ..models.assembly import assemble
from ..models.encoders import make_encoder
from ..models.recipe import Recipe
from ..models.train_files import recipe_of
from ..models.transforms import Transform
from ..runs.configuration import Configuration
from . import pseudo
from .datasets import Dataset
from .facts import Facts
from .loading import seed_of, seeded


def without_weights(config: Configuration) -> Configuration:
    """The configuration of a model whose weights a file replaces anyhow: no pretrained ones are needed."""
    return replace(config, model_kwargs={**config.model_kwargs, "pretrained": False}, pretrained_model_path=None)


def facts_of(config: Configuration, data: Dataset) -> Facts:
    """The facts of the data that a configuration names."""
    resolution = data.wilds.original_resolution
    return Facts(
        n_classes=data.n_classes,
        class_names=class_names(data),
        original_resolution=resolution and (int(resolution[0]), int(resolution[1])),
        **_groups(config, data),
    )


def _groups(config: Configuration, data: Dataset) -> dict[str, Any]:
    """What pairs and the weights of group DRO go by; with --cross_fit all pseudo-groups that there may be."""
    by_file = pseudo.of_config(config, data)
    if by_file is not None:
        count = pseudo.n_environments(by_file.environments)
    elif config.cross_fit is not None:
        count = data.n_classes
    else:
        count = len(group_environments(config, data, "train").unique())
    groups = {"n_groups": data.grouper.n_groups, "groups_in_training": data.splits["train"].groups.unique().tolist()}
    if config.groups == "pseudo":
        n_groups = 2 * data.n_classes if by_file is None else by_file.n_groups
        groups = {"n_groups": n_groups, "groups_in_training": list(range(n_groups))}
    return {"n_environments": count, **groups}


def build_model(config: Configuration, facts: Facts, transform: Transform) -> RobustClassifier:
    """The classifier of the configured algorithm. It takes pixels in [0, 1]; the encoder standardises what it is
    given.
    """
    with seeded(seed_of(config.seed, "model")):
        encoder = make_encoder(config.model, config.model_kwargs, config.pretrained_model_path)
        classifier = assemble(recipe_of_run(config, facts, transform), *encoder)
    classifier.frozen_batch_norm = config.freeze_bn
    return classifier.train()


def recipe_of_run(config: Configuration, facts: Facts, transform: Transform) -> Recipe:
    """What the files of the run's models say that they are rebuilt from."""
    in_training = set(facts.groups_in_training)
    return recipe_of(
        config,
        config.hyperparameters,
        transform,
        facts.class_names,
        facts.n_environments,
        [group in in_training for group in range(facts.n_groups)],
    )


def compile_modules(classifier: RobustClassifier) -> None:
    """torch.compile for encoder and transformation network, in place: names of weights stay.

    The triplet has a gradient of its own that is not to be traced, and the rest costs nothing or draws noise. Random
    numbers
    are drawn as without compiling.

    Raises:
        InputError: there is no compiler.
    """
    if torch.cuda.is_available():  # Triton compiles what starts its kernels
        language, usual, found = "C", "gcc", [os.environ.get("CC", "gcc"), "clang"]
    else:
        language, usual, found = "C++", "g++", [os.environ.get("CXX", "g++"), "c++", "clang++"]
    if not any(map(shutil.which, found)):
        raise InputError(
            f"--compile true needs a {language} compiler, e.g. {usual}; install one, or leave --compile out"
        )
    for module in (classifier.encoder, classifier.morphing):
        if module is not None:
            module.compile(options={"fallback_random": True})


def group_environments(config: Configuration, data: Dataset, split: str) -> Tensor:
    """(N,) int64 of a split: the combination of the group fields other than the label."""
    from wilds.common.grouper import CombinatorialGrouper

    fields = [field for field in config.groupby_fields if field != "y"]
    return CombinatorialGrouper(data.wilds, fields or None).metadata_to_group(data.splits[split].metadata)


def class_names(data: Dataset) -> list[str]:
    """As the data set has them; "class 0" and so on where it has none."""
    names = (getattr(data.wilds, "metadata_map", None) or {}).get("y")
    if names is None or len(names) != data.n_classes:
        return [f"class {number}" for number in range(data.n_classes)]
    return [str(name).strip() for name in names]
