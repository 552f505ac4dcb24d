"""DomainBed's ``model.pkl``: what a model is rebuilt from, and its weights."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor

from .. import catalog, retired
from ..algorithms.morphing import IMAGENET
from ..errors import InputError
from ..hyperparameter import plain, shown
from . import extra_state
from .encoders import read_checkpoint
from .recipe import Recipe, from_dict, numbered

KEYS = {
    "args": dict,
    "model_hparams": dict,
    "model_input_shape": (tuple, list),
    "model_num_classes": int,
    "model_num_domains": int,
    "model_dict": dict,
}
#: of the host's arguments those that are used, by what they may be
ARGS: dict[str, Callable[[Any], bool]] = {
    "dataset": lambda value: isinstance(value, str),
    "data_dir": lambda value: value is None or (isinstance(value, str) and "\0" not in value),
    "test_envs": lambda value: isinstance(value, (list, tuple)) and all(isinstance(number, int) for number in value),
    "holdout_fraction": lambda value: isinstance(value, (int, float)) and 0 <= value < 1,
    "trial_seed": lambda value: isinstance(value, int),
    "seed": lambda value: isinstance(value, int),
}
LARGEST = 100_000  #: of the numbers that layers are made by
#: hyperparameters of the host that shape its network
OPTIONS = ("resnet18", "resnet50_augmix", "vit", "dinov2")
RAW = ([28, 28], [32, 32])  #: sizes of images that the host leaves in [0, 1]; it standardises photographs
#: the host's name of an algorithm -> ours
ALIASES = {f"{catalog.COMPOSITION}ERM": "CIM"}
#: how the weights' names begin there -> here
_OURS, _ERM = {"model.": ""}, {"featurizer.": "encoder.", "classifier.": "head."}


#: what a file with numpy's numbers is made by; nothing of it executes anything
NUMBERS = [
    np.float64(0).__reduce__()[0],
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("float64", "int64", "bool", "U1")},
]


def read_checkpoint_with_numbers(file: str) -> dict[str, Any]:
    """The dictionary of a file, whose random hyperparameters are numpy's numbers."""
    with torch.serialization.safe_globals(NUMBERS):
        return read_checkpoint(file, "load")


def is_one(saved: dict[str, Any]) -> bool:
    """Whether this looks like what the host's train script saves."""
    return "model_dict" in saved or "model_hparams" in saved


def check(saved: dict[str, Any], file: str) -> None:
    """Raise InputError unless it is what the host's train script saves, with sizes that a machine can hold."""
    for key, kind in KEYS.items():
        if not isinstance(saved.get(key), kind):
            raise InputError(f"{file} is not a model.pkl of DomainBed: it has no {key!r}")
    for key, fits in ARGS.items():
        if key not in saved["args"]:
            raise InputError(f"{file} is not a model.pkl of DomainBed: its args have no {key!r}")
        if not fits(saved["args"][key]):
            raise InputError(f"{file} is not a model.pkl of DomainBed: its {key} is {repr(saved['args'][key])[:80]}")
    numbers = [*saved["model_input_shape"], saved["model_num_classes"], saved["model_num_domains"]]
    numbers += [value for value in saved["model_hparams"].values() if isinstance(value, Integral)]
    if not all(isinstance(number, Integral) and 0 <= number <= LARGEST for number in numbers):
        raise InputError(f"{file} is not a model.pkl of DomainBed: a size in it is not a number from 0 to {LARGEST}")


def algorithm_of(saved: dict[str, Any], file: str) -> str:
    """Which of our algorithms a file's model is: one that the host has by this plugin, or its ERM.

    Raises:
        InputError: another one of the host's.
    """
    name = saved["args"].get("algorithm")
    name = ALIASES.get(name, name) if isinstance(name, str) else name
    if name not in (*catalog.ALGORITHMS, "ERM"):
        raise InputError(
            f"{file} is a model of {shown(name)}; of DomainBed's algorithms those of this plugin "
            f"({', '.join(catalog.ALGORITHMS)}, CIM+ERM) and ERM are loaded"
        )
    return name


def recipe_and_weights(saved: dict[str, Any], file: str) -> tuple[Recipe, dict[str, Tensor]]:
    """Of a dictionary that ``file`` held.

    Raises:
        InputError: it is damaged, or of an algorithm or a size of images that is not loaded.
    """
    check(saved, file)
    algorithm = algorithm_of(saved, file)
    if len(saved["model_input_shape"]) != 3:
        raise InputError(f"{file} is a model of inputs of shape {tuple(saved['model_input_shape'])}, not of images")
    channels, *size = map(int, saved["model_input_shape"])
    hparams = {name: plain(value) for name, value in saved["model_hparams"].items()}
    normalised = channels == 3 and size not in RAW
    mean, std = IMAGENET if normalised else ([0.0] * channels, [1.0] * channels)
    weights = dict(saved["model_dict"])
    extra = weights.pop(extra_state.KEY, None)
    names = extra_state.from_tensor(extra, file).get("class_names") if extra is not None else None
    recipe = from_dict(
        {
            "algorithm": algorithm,
            "hyperparameters": own_hyperparameters(algorithm, hparams),
            "library": "domainbed",
            **_encoder(hparams),
            "class_names": names or numbered(saved["model_num_classes"]),
            "image_size": size,
            "mean": mean,
            "std": std,
            "preparation": [["resize", *size]],
            "nonlinear_head": bool(hparams.get("nonlinear_classifier")),
            "n_environments": int(saved["model_num_domains"]),
        },
        file,
    )
    return recipe, renamed(weights, algorithm)


def _encoder(hparams: dict[str, Any]) -> dict[str, Any]:
    """The network: one that ``model`` names, or the host's."""
    if "model" in hparams:
        return {"encoder": hparams["model"], "encoder_options": hparams.get("model_kwargs") or {}}
    return {"encoder": "", "encoder_options": {name: hparams[name] for name in OPTIONS if name in hparams}}


def own_hyperparameters(algorithm: str, hparams: dict[str, Any]) -> dict[str, Any]:
    """Of a host's hyperparameters those of one of our algorithms, complete; ERM has none."""
    own = (*catalog.all_hyperparameters(), *retired.RETIRED)
    values = {name: hparams[name] for name in own if name in hparams}
    return catalog.complete_old(algorithm, values) if algorithm != "ERM" else {}


def renamed(weights: dict[str, Tensor], algorithm: str) -> dict[str, Tensor]:
    """A host's weights of an algorithm by the names that a classifier has for them; its second copies left out."""
    prefixes = _ERM if algorithm == "ERM" else _OURS
    return {
        after + name.removeprefix(before): value
        for name, value in weights.items()
        for before, after in prefixes.items()
        if isinstance(name, str) and name.startswith(before)
    }
