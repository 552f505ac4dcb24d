"""SubpopBench's ``model.pkl``, opened for ``cim-plugin show``."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import warnings
from typing import Any, Callable

import torch

from .. import autoload, catalog
from ..errors import InputError
from ..models import foreign, subpopbench_files
from ..models.encoders import read_checkpoint
from .domainbed import random_weights
from .opened_run import OpenedRun, check_algorithm, not_opened, other_version, stacked

SPLITS = {"train": "tr", "val": "va", "test": "te"}
FETCHED = ("dino", "simclr", "barlow", "swag")  #: in the names of --image_arch whose weights the host always downloads
#: the hyperparameters that a network is made by, by what a file may say
NETWORK: dict[str, Callable[[Any], bool]] = {
    "model": foreign.VALUES["model"][0],
    "model_kwargs": lambda value: all(
        name in foreign.MODEL_KWARGS and foreign.MODEL_KWARGS[name](of_it) for name, of_it in value.items()
    ),
    "image_arch": lambda value: isinstance(value, str) and not any(word in value for word in FETCHED),
}


def is_run(folder: str) -> bool:
    """Whether a folder was written by the host's train script."""
    return all(os.path.isfile(os.path.join(folder, name)) for name in ("args.json", "model.pkl"))


def open_subpopbench(folder: str, split: str, data_folder: str | None) -> OpenedRun:
    """The saved model and the images of "train", "val" or "test". Nothing of the file is executed, and nothing fetched.

    Raises:
        InputError: the file is no model of SubpopBench, SubpopBench is not importable, or the data are not to be had.
    """
    file = os.path.join(folder, "model.pkl")
    if split not in SPLITS:
        raise InputError(f"--split {split!r}: for SubpopBench it is one of {', '.join(SPLITS)}")
    algorithms, datasets = _import_host(file)
    saved = _read(file)
    args = saved["args"]
    check_algorithm(args["algorithm"], file)
    model = _build(algorithms, saved, file)
    data = _open_data(datasets, saved, SPLITS[split], data_folder)
    labels = torch.tensor([int(data.y[row]) for row in data.idx])
    attributes = torch.tensor([int(data.a[row]) for row in data.idx])
    pairs = [(label, attribute) for label in range(saved["num_labels"]) for attribute in range(data.num_attributes)]
    return OpenedRun(
        run=file,
        algorithm=args["algorithm"],
        dataset=args["dataset"],
        split=split,
        chosen="after its last evaluation",
        synthetic=False,
        model=model.eval(),
        labels=labels,
        groups=labels * data.num_attributes + attributes,
        environments=attributes,
        unit="group",
        group_names=[f"y={label},a={attribute}" for label, attribute in pairs],
        class_names=[f"class {number}" for number in range(saved["num_labels"])],
        read=lambda rows: stacked(data[row][1] for row in rows),
        figure=None,
        data=None if data_folder is not None else f"{args['data_dir']}, as the model's file says",
    )


def _import_host(file: str) -> tuple[Any, Any]:
    """The host's algorithms and data sets; with them torch.load knows the one class that its files hold."""
    autoload.install()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("subpopbench.learning.early_stopping")
            return tuple(
                importlib.import_module(f"subpopbench.{name}") for name in ("learning.algorithms", "dataset.datasets")
            )
    except ImportError as error:
        raise InputError(
            f"{file} needs SubpopBench to build its model ({error}); set SUBPOPBENCH_HOME to a checkout, and see "
            f"'cim-plugin doctor' for what it needs"
        ) from error


def _read(file: str) -> dict[str, Any]:
    saved = read_checkpoint(file, "show")
    subpopbench_files.check(saved, file)
    for name, fits in NETWORK.items():
        value = saved["model_hparams"].get(name)
        if value is not None and not fits(value):
            raise InputError(f"{file}: a network of {name} {str(value)[:60]!r} is not made from a file")
    return saved


def _build(algorithms: Any, saved: dict[str, Any], file: str) -> torch.nn.Module:
    name, shape = saved["args"]["algorithm"], tuple(saved["model_input_shape"])
    hparams = catalog.complete_old(name, {**saved["model_hparams"], "pretrained": False, "pretrained_model_path": None})
    try:
        with random_weights(algorithms.networks), contextlib.redirect_stdout(io.StringIO()):
            make = algorithms.get_algorithm_class(name)
            algorithm = make("images", shape, saved["num_labels"], saved["num_attributes"], 1, hparams)
        algorithm.load_state_dict(saved["model_dict"])
    except InputError:
        raise
    except Exception as error:  # whatever the host raises for hyperparameters that it does not know
        raise other_version("SubpopBench", file, error) from error
    return algorithm.model


def _open_data(datasets: Any, saved: dict[str, Any], split: str, data_folder: str | None) -> Any:
    name, folder = saved["args"]["dataset"], data_folder or saved["args"]["data_dir"]
    if name not in datasets.DATASETS:
        raise InputError(
            f"the SubpopBench that is found here has no data set {name!r}; use the one that trained the model"
        )
    try:
        return vars(datasets)[name](folder, split, saved["model_hparams"])
    except (OSError, RuntimeError, KeyError) as error:
        raise not_opened(name, folder, error) from error
