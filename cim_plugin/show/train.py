"""A run folder of ``cim-plugin train``, opened for ``cim-plugin show``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ..data.releases import folder_of, is_own
from ..errors import InputError
from ..models import train_files
from ..runs.configuration import Configuration
from ..runs.defaults import DATASETS
from ..runs.layout import RESULTS
from .figures import release_figures
from .opened_run import OpenedRun, check_algorithm

if TYPE_CHECKING:
    from ..algorithms.classifier import RobustClassifier
    from ..models.recipe import Recipe
    from ..models.transforms import Transform
    from ..wilds_runner.datasets import Dataset
    from ..wilds_runner.facts import Facts


class OpenedModel(NamedTuple):
    """One of a run's models, with the data that it was trained on."""

    folder: str  #: the run's
    results: dict[str, Any]  #: its results.json
    config: Configuration
    file: str  #: the model's
    choice: dict[str, Any]  #: what the selection rule has recorded of it
    data: Dataset
    facts: Facts  #: of the data
    transform: Transform
    model: RobustClassifier  #: in evaluation mode, on the CPU
    recipe: Recipe  #: of the model


def open_train(path: str, split: str, rule: str, data_folder: str | None) -> OpenedRun:
    """The model of a selection rule and the images of a split. Nothing of the folder is executed, and nothing fetched.

    Raises:
        InputError: results.json or the model's file is damaged or of another configuration, or the data are not to be
            had.
    """
    results = train_files.read_results(path)
    for algorithm in (results["algorithm"], results["config"].get("algorithm")):
        check_algorithm(algorithm, path)
    opened = open_model(path, rule, data_folder)
    check_algorithm(opened.recipe.algorithm, opened.file)
    config, data, transform = opened.config, opened.data, opened.transform
    if split not in data.splits or not len(data.splits[split].labels):
        filled = [key for key, of_key in data.splits.items() if len(of_key.labels)]
        raise InputError(f"--split {split!r} has no images in {config.dataset}; it has {', '.join(filled)}")
    part = data.splits[split]
    return OpenedRun(
        run=path,
        algorithm=config.algorithm,
        dataset=config.dataset,
        split=split,
        chosen=f"rule {rule}, epoch {opened.choice['epoch']}"
        + ("" if results.get("status") == "finished" else ", run not finished"),
        synthetic=data.synthetic,
        model=opened.model,
        labels=part.labels,
        groups=part.groups,
        environments=_environments(config, data, split),
        unit="group",
        group_names=[" ".join(data.grouper.group_str(group).split()) for group in range(data.grouper.n_groups)],
        class_names=opened.facts.class_names,
        read=lambda rows: _read(data, part, transform, rows),
        figure=release_figures(data, part, transform),
        data=None if data_folder is not None else f"{config.root_dir}, as {RESULTS} says",
    )


def open_model(path: str, rule: str, data_folder: str | None) -> OpenedModel:
    """The model of a selection rule. Nothing of the folder is executed, and nothing fetched.

    Args:
        path: the run's folder.
        data_folder: of the data sets, where it is not the one that the run was trained with.

    Raises:
        InputError: see :func:`open_train`.
    """
    from ..models.foreign import taken_from
    from ..models.load import load
    from ..wilds_runner.session import open_images

    results = train_files.read_results(path)
    config = replace(taken_from(results["config"], os.path.join(path, RESULTS)), log_dir=path)
    file, choice = train_files.model_of_rule(path, rule, results), results["selection"][rule]
    if data_folder is not None:
        config = replace(config, root_dir=data_folder)
    if not os.path.isdir(config.root_dir):  # the wilds package would make the folder
        raise InputError(f"{config.root_dir} with the data of the run does not exist; name the folder by --root_dir")
    if config.dataset not in DATASETS and not is_own(folder_of(config.dataset, config.root_dir)):
        raise InputError(
            f"{config.dataset} in {config.root_dir} is not what 'cim-plugin data folder' has made; name the "
            f"folder that holds it by --root_dir"
        )
    try:
        data, facts, transform = open_images(config)
    except InputError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"the configuration in {os.path.join(path, RESULTS)} is not one of this version ({type(error).__name__}: "
            f"{error})"
        ) from error
    model = load(file)
    return OpenedModel(path, results, config, file, choice, data, facts, transform, model.classifier, model.recipe)


def _environments(config: Configuration, data, split: str) -> Tensor:
    """(N,) int64, as the trainer has them for the training split: pseudo-environments, or the combination of the group
    fields other than the label.
    """
    from ..wilds_runner import pseudo
    from ..wilds_runner.model import group_environments

    if (
        pseudo.name_of(config) is not None
        and split in pseudo.SPLITS
        and config.hyperparameters.get("cim_pairs") == "cross_environment"
    ):
        return pseudo.read(config.log_dir, data).environments[split]
    return group_environments(config, data, split)


def _read(data, part, transform, rows: list[int]) -> Tensor:
    from ..wilds_runner.loading import Images, to_pixels

    batch = Images(data.wilds, part.indices, transform, augment=False)[[(row, 0) for row in rows]]
    if isinstance(batch, InputError):
        raise batch
    return to_pixels(batch.images, "cpu")
