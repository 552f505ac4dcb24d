"""Models of ``cim-plugin train``: which file a selection rule chose, and what a model is rebuilt from."""

from __future__ import annotations

import os
from typing import Any, Mapping

from torch import Tensor

from .. import catalog
from ..errors import InputError
from ..files import Unreadable, read_json
from ..runs.layout import RESULTS, SELECTION, model_file, place
from ..runs.rules import RULES
from .foreign import taken_from
from .preparation import steps_of
from .recipe import Recipe, from_dict, numbered
from .transforms import StandardisePerImage, Transform, make_transform

#: what the wilds package says of the size of a data set's images, for runs of version 0.1, which saved no recipe
SIZES = {
    "waterbirds": (224, 224),
    "celebA": (178, 218),
    "iwildcam": None,
    "camelyon17": (96, 96),
    "rxrx1": None,
    "fmow": (224, 224),
}


def read_results(folder: str) -> dict[str, Any]:
    """results.json of a run.

    Raises:
        InputError: it is damaged, or not of this command.
    """
    file = os.path.join(folder, RESULTS)
    try:
        results = read_json(file)
    except Unreadable as error:
        raise InputError(f"{error}; the run must be repeated, or the file restored") from error
    for name, kind in (("algorithm", str), ("config", dict), ("selection", dict)):
        if not isinstance(results.get(name), kind):
            raise InputError(f"{file} is not a file of 'cim-plugin train': it has no {name!r}")
    return results


def model_of_rule(folder: str, rule: str, results: dict[str, Any] | None = None) -> str:
    """The file of the model that a selection rule chose.

    Raises:
        InputError: the rule has chosen none, or the file was removed.
    """
    results = results or read_results(folder)
    config, chosen = results["config"], results["selection"]
    if rule not in RULES or not isinstance(chosen.get(rule), dict) or "epoch" not in chosen[rule]:
        raise InputError(
            f"--rule {rule!r} has chosen no epoch in {folder}; "
            + (f"it has {', '.join(chosen)}" if chosen else "no epoch has ended yet")
        )
    try:
        where, word = place(folder, rule)
        file = os.path.join(where, model_file(config["dataset"], config["seed"], word))
    except KeyError as error:
        raise InputError(
            f"{os.path.join(folder, RESULTS)} is not a file of 'cim-plugin train': its configuration has no {error}"
        ) from error
    if not os.path.isfile(file):
        raise InputError(
            f"{file} is missing: it was removed, or the run had --save_best false; choose another --rule of "
            f"{', '.join(chosen)}"
        )
    return file


def recipe_and_weights(saved: dict[str, Any], file: str) -> tuple[Recipe, dict[str, Tensor]]:
    """Of a dictionary that ``file`` held; a run that is older than recipes has results.json beside it.

    Raises:
        InputError: it is no model of this command, or its configuration is none that may be taken out of a file.
    """
    weights = saved.get("algorithm")
    if not isinstance(weights, dict):
        raise InputError(f"{file} holds no model of this plugin: it has no 'algorithm'")
    if "recipe" in saved:
        return from_dict(saved["recipe"], file), weights
    return _recipe_before_recipes(_folder_of_run(file), weights), weights


def recipe_of(
    config: Any,
    hyperparameters: Mapping[str, Any],
    transform: Transform,
    class_names: list[str],
    n_environments: int,
    groups_in_training: list[bool],
) -> Recipe:
    """The recipe of a run's model.

    Args:
        config: the run's configuration, or run_expt's: its algorithm, model and model_kwargs.
        hyperparameters: of the algorithm.
        transform: of its images.
        class_names: in the order of their numbers.
        n_environments: in training.
        groups_in_training: per group whether the training split holds it.

    A command line may name arguments of models that a file may not: of such a model the weights cannot be loaded.
    """
    per_image = isinstance(transform.standardise, StandardisePerImage)
    options = {name: value for name, value in config.model_kwargs.items() if name not in ("pretrained", "progress")}
    return Recipe(
        algorithm=config.algorithm,
        hyperparameters=hyperparameters,
        library="named",
        encoder=config.model,
        encoder_options=options,
        class_names=tuple(" ".join(str(name).split()) for name in class_names),
        image_size=transform.size,
        training_size=transform.training_size,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        preparation=steps_of(transform.resize),
        standardise="per_image" if per_image else "imagenet",
        n_environments=n_environments,
        groups_in_training=tuple(groups_in_training) if catalog.needs_uniform_groups(config.algorithm) else (),
        channels_last=True,  # convolutions are faster, on a CPU as on a GPU
    )


def _folder_of_run(file: str) -> str:
    """Where results.json is: beside the file, or above ``selection/RULE``."""
    folder = os.path.dirname(os.path.abspath(file))
    above = os.path.dirname(os.path.dirname(folder))
    folder = above if os.path.basename(os.path.dirname(folder)) == SELECTION else folder
    if not os.path.isfile(os.path.join(folder, RESULTS)):
        raise InputError(
            f"{file} is older than version 0.2 and does not say what its network is, and {RESULTS} is not beside it; "
            f"put it there, or load the folder of the run"
        )
    return folder


def _recipe_before_recipes(folder: str, weights: dict[str, Tensor]) -> Recipe:
    results, file = read_results(folder), os.path.join(folder, RESULTS)
    config = taken_from(results["config"], file)
    n_classes = _rows(weights, "head.weight", file)
    n_groups = _rows(weights, "group_weights.weights", file) if "group_weights.weights" in weights else 0
    transform = make_transform(config, SIZES.get(config.dataset))
    return recipe_of(config, config.hyperparameters, transform, numbered(n_classes), 2, [True] * n_groups)


def _rows(weights: dict[str, Tensor], name: str, file: str) -> int:
    if not isinstance(weights.get(name), Tensor) or not weights[name].dim():
        raise InputError(f"the model of {file} has no {name!r}; it is damaged")
    return len(weights[name])
