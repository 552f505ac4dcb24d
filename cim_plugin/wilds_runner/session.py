"""What a run is made of, opened: data, transform and model, once for ``train``, ``show`` and ``doctor``."""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch

from ..algorithms.classifier import RobustClassifier
from ..errors import InputError
from ..models.transforms import Transform, make_transform
from ..runs.configuration import Configuration
from .datasets import Dataset, open_dataset
from .facts import Facts
from .loading import seed_of, seeded
from .model import build_model, facts_of, without_weights

OpenData = Callable[[Configuration], Dataset]


class Session(NamedTuple):
    """A configuration and what it names."""

    config: Configuration
    data: Dataset
    facts: Facts  #: of the data, what the transform and the model follow from
    transform: Transform
    classifier: RobustClassifier


def open_images(config: Configuration, open_data: OpenData | None = None) -> tuple[Dataset, Facts, Transform]:
    """Open the data, split as the run does or did it: --frac draws.

    Args:
        open_data: by default the data sets of the ``wilds`` package and own data.

    Raises:
        InputError: see :func:`~.datasets.open_dataset`; or the size of the images stays open.
    """
    with seeded(seed_of(config.seed, "splits")):
        data = (open_data or open_dataset)(config)
    facts = facts_of(config, data)
    return data, facts, make_transform(config, facts.original_resolution)


def open_session(config: Configuration, fresh: bool, open_data: OpenData | None = None) -> Session:
    """Open everything.

    Args:
        fresh: False where a file will replace the weights, so that no pretrained ones are needed.

    Raises:
        InputError: see :func:`open_images` and :func:`with_model`.
    """
    return with_model(config, *open_images(config, open_data), fresh)


def with_model(config: Configuration, data: Dataset, facts: Facts, transform: Transform, fresh: bool) -> Session:
    """A session of data that are open.

    Raises:
        InputError: the model is unknown, or cannot take images of this size.
    """
    classifier = build_model(config if fresh else without_weights(config), facts, transform)
    _check_size(classifier, config, transform)
    return Session(config, data, facts, transform, classifier)


@torch.no_grad()
def _check_size(classifier: RobustClassifier, config: Configuration, transform: Transform) -> None:
    """Raise InputError where the model, or --cross_fit_tiles, cannot take images of this size."""
    if (config.cross_fit_tiles or 1) > min(transform.size):
        raise InputError(
            f"--cross_fit_tiles {config.cross_fit_tiles} is more than a side of {min(transform.size)} pixels can be "
            f"cut into; give a smaller number"
        )
    try:
        classifier.eval()(torch.zeros(1, 3, *transform.size))
    except (AssertionError, RuntimeError, ValueError) as error:
        height, width = transform.size
        raise InputError(
            f"--model {config.model} cannot take images of {height}x{width} ({str(error) or type(error).__name__}); "
            f"give another --target_resolution"
        ) from error
    finally:
        classifier.train()
