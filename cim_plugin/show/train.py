"""A run folder of ``cim-plugin train``, opened for ``cim-plugin show``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..files import Unreadable, read_json
from ..runs.configuration import Configuration
from ..runs.layout import RESULTS, model_file, place
from .figures import release_figures
from .opened_run import OpenedRun, check_algorithm

if TYPE_CHECKING:
    from ..algorithms.classifier import RobustClassifier
    from ..models.transforms import Transform
    from ..wilds_runner.datasets import Dataset
    from ..wilds_runner.session import Session


class OpenedModel(NamedTuple):
    """One of a run's models, with the data that it was trained on."""

    folder: str  #: the run's
    results: dict[str, Any]  #: its results.json
    config: Configuration
    file: str  #: the model's
    choice: dict[str, Any]  #: what the selection rule has recorded of it
    session: Session  #: its classifier has the model's weights; in evaluation mode, on the CPU

    @property
    def data(self) -> Dataset:
        return self.session.data

    @property
    def transform(self) -> Transform:
        return self.session.transform

    @property
    def model(self) -> RobustClassifier:
        return self.session.classifier


def open_train(path: str, split: str, rule: str, data_folder: str | None) -> OpenedRun:
    """The model of a selection rule and the images of a split. Nothing of the folder is executed, and nothing fetched.

    Raises:
        InputError: results.json or the model's file is damaged or of another configuration, or the data are not to be
            had.
    """
    results = _read_results(path)
    for algorithm in (results["algorithm"], results["config"].get("algorithm")):
        check_algorithm(algorithm, path)
    opened = open_model(path, rule, data_folder, "show")
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
        class_names=opened.session.facts.class_names,
        read=lambda rows: _read(data, part, transform, rows),
        figure=release_figures(data, part, transform),
        data=None if data_folder is not None else f"{config.root_dir}, as {RESULTS} says",
    )


def open_model(path: str, rule: str, data_folder: str | None, command: str) -> OpenedModel:
    """The model of a selection rule. Nothing of the folder is executed, and nothing fetched.

    Args:
        path: the run's folder.
        data_folder: of the data sets, where it is not the one that the run was trained with.
        command: that asks, for messages.

    Raises:
        InputError: see :func:`open_train`.
    """
    from ..models.foreign import taken_from
    from ..wilds_runner.session import open_session

    results = _read_results(path)
    config = replace(taken_from(results["config"], os.path.join(path, RESULTS)), log_dir=path)
    file, choice = _model_file(path, results, config, rule)
    if data_folder is not None:
        config = replace(config, root_dir=data_folder)
    if not os.path.isdir(config.root_dir):  # the wilds package would make the folder
        raise InputError(f"{config.root_dir} with the data of the run does not exist; name the folder by --root_dir")
    try:
        session = open_session(config, fresh=False)  # the file's weights replace pretrained ones
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
    _load(session.classifier, file, config, command)
    session.classifier.eval()
    return OpenedModel(path, results, config, file, choice, session)


def _read_results(path: str) -> dict[str, Any]:
    file = os.path.join(path, RESULTS)
    try:
        results = read_json(file)
    except Unreadable as error:
        raise InputError(f"{error}; the run must be repeated, or the file restored") from error
    for name, kind in (("algorithm", str), ("config", dict), ("selection", dict)):
        if not isinstance(results.get(name), kind):
            raise InputError(f"{file} is not a file of 'cim-plugin train': it has no {name!r}")
    return results


def _model_file(path: str, results: dict[str, Any], config: Configuration, rule: str) -> tuple[str, dict[str, Any]]:
    from ..wilds_runner.selection import RULES

    chosen = results["selection"]
    if rule not in ("best", *RULES) or not isinstance(chosen.get(rule), dict) or "epoch" not in chosen[rule]:
        raise InputError(
            f"--rule {rule!r} has chosen no epoch in {path}; "
            + (f"it has {', '.join(chosen)}" if chosen else "no epoch has ended yet")
        )
    try:
        folder, word = place(config.log_dir, rule)
        file = os.path.join(folder, model_file(config.dataset, config.seed, word))
    except KeyError as error:
        raise InputError(
            f"{os.path.join(path, RESULTS)} is not a file of 'cim-plugin train': its configuration has no {error}"
        ) from error
    if not os.path.isfile(file):
        raise InputError(
            f"{file} is missing: it was removed, or the run had --save_best false; choose another --rule of "
            f"{', '.join(chosen)}"
        )
    return file, chosen[rule]


def _load(model: torch.nn.Module, file: str, config: Configuration, command: str) -> None:
    from ..models.encoders import read_checkpoint

    saved = read_checkpoint(file, command)
    try:
        model.load_state_dict(saved["algorithm"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{file} is not a model of {config.algorithm} with --model {config.model}, as {RESULTS} beside it says"
        ) from error


def _environments(config: Configuration, data, split: str) -> Tensor:
    """(N,) int64, as the trainer has them for the training split: pseudo-environments, or the combination of the group
    fields other than the label.
    """
    from ..wilds_runner import cross_fit
    from ..wilds_runner.model import group_environments

    if (
        config.cross_fit
        and split in cross_fit.SPLITS
        and config.hyperparameters.get("cim_pairs") == "cross_environment"
    ):
        return cross_fit.read(config.log_dir, data)[split]
    return group_environments(config, data, split)


def _read(data, part, transform, rows: list[int]) -> Tensor:
    from ..wilds_runner.loading import Images, to_pixels

    batch = Images(data.wilds, part.indices, transform, augment=False)[[(row, 0) for row in rows]]
    if isinstance(batch, InputError):
        raise batch
    return to_pixels(batch.images, "cpu")
