"""The classifier of a run, and the environments that its pairs go by."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import torch
from torch import Tensor, nn

from .. import catalog
from ..algorithms.classifier import RobustClassifier
from ..algorithms.morphing import PixelSpace
from ..errors import InputError
from ..models.encoders import make_encoder
from ..models.transforms import Transform
from ..runs.configuration import Configuration
from .datasets import Dataset
from .loading import seed_of, seeded


def without_weights(config: Configuration) -> Configuration:
    """The configuration of a model whose weights a file replaces anyhow: no pretrained ones are needed."""
    return replace(config, model_kwargs={**config.model_kwargs, "pretrained": False}, pretrained_model_path=None)


def build_model(config: Configuration, data: Dataset, transform: Transform) -> RobustClassifier:
    """The classifier of the configured algorithm. It takes pixels in [0, 1]; the encoder standardises what it is
    given.
    """
    with seeded(seed_of(config.seed, "model")):
        backbone, n_features = make_encoder(config.model, config.model_kwargs, config.pretrained_model_path)
        train = data.splits["train"].groups
        return catalog.build(
            config.algorithm,
            config.hyperparameters,
            encoder=nn.Sequential(transform.standardise, backbone),
            n_features=n_features,
            make_head=lambda n_inputs: nn.Linear(n_inputs, data.n_classes),
            image_size=transform.training_size,
            pixel_space=PixelSpace.raw(3),
            n_environments=data.n_classes
            if config.cross_fit
            else len(group_environments(config, data, "train").unique()),
            groups_in_training=torch.bincount(train, minlength=data.grouper.n_groups) > 0,
        ).to(memory_format=torch.channels_last)  # convolutions are faster, on a CPU as on a GPU


def compile_modules(classifier: RobustClassifier) -> None:
    """torch.compile for encoder and transformation network, in place: names of weights stay.

    The triplet has a gradient of its own that is not to be traced, and the rest costs nothing or draws noise. Random
    numbers
    are drawn as without compiling.

    Raises:
        InputError: there is no compiler.
    """
    if torch.cuda.is_available():  # Triton compiles what starts its kernels
        language, usual, found = "C", "gcc", (os.environ.get("CC", "gcc"), "clang")
    else:
        language, usual, found = "C++", "g++", (os.environ.get("CXX", "g++"), "c++", "clang++")
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
