"""SubpopBench's ``model.pkl``: what a model is rebuilt from, and its weights."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from .. import catalog
from ..algorithms.morphing import IMAGENET
from ..errors import InputError
from ..hyperparameter import plain, shown
from . import domainbed_files
from .recipe import Recipe, from_dict, numbered

KEYS = {
    "args": dict,
    "model_hparams": dict,
    "model_input_shape": (tuple, list),
    "num_labels": int,
    "num_attributes": int,
    "model_dict": dict,
}
LARGEST = 10_000  #: of the numbers that layers are made by
#: of the one data set whose pixels are not normalised by ImageNet's mean and standard deviation
CMNIST = (0.1307, 0.1307, 0.0), (0.3081, 0.3081, 0.3081)
ONLY_CMNIST = "cmnist_flip_prob"  #: a hyperparameter that the train script adds for it alone

_CROPPED = [["shorter_side", 256], ["center_crop", 224, 224]]
#: data set -> how its photographs are prepared; those of others are resized to the model's size
PREPARATIONS: dict[str, list[list]] = {
    "Waterbirds": [["resize", 256, 256], ["center_crop", 224, 224]],
    "CelebA": [["square"], ["shorter_side", 224]],  # its images have 178x218 pixels, of which the host takes 178x178
    **dict.fromkeys(("MetaShift", "ImagenetBG", "NICOpp"), _CROPPED),
    **dict.fromkeys(("MIMICNoFinding", "CheXpertNoFinding", "CXRMultisite"), _CROPPED),
    **dict.fromkeys(("Living17", "Entity13", "Entity30", "Nonliving26"), _CROPPED),
}
#: data set -> its classes, as the host's script of downloads numbers them; the host itself knows numbers only
CLASSES = {
    "Waterbirds": "landbird, waterbird",
    "CelebA": "not blond, blond",
    "MetaShift": "dog, cat",
    "ImagenetBG": "dog, bird, wheeled vehicle, reptile, carnivore, insect, musical instrument, primate, fish",
}
RESNET = "resnet_sup_in1k"  #: the host's default --image_arch, and the one that hyperparameter resnet18 shapes
#: --image_arch -> the network, by the names of 'cim-plugin train'
ARCHITECTURES = {
    "resnet_sup_in21k": "tresnet_m",
    "vit_sup_in1k": "vit_base_patch32_224",
    "vit_sup_in21k": "vit_base_patch32_224",
    "vit_clip_oai": "vit_base_patch32_clip_224",
    "vit_clip_laion": "vit_base_patch32_clip_224",
    "vit_dino_in1k": "vit_base_patch16_224",
    "vit_sup_swag": "vit_b_16",
}
#: the others, all of them torchvision's ResNet-50 or 18
RESNETS = (RESNET, "resnet_simclr_in1k", "resnet_barlow_in1k", "resnet_dino_in1k")


class _Ignored:
    """In place of the object for early stopping that the host saves beside the weights."""


@contextlib.contextmanager
def object_ignored():
    """Lets torch.load read the host's files without the host; the class of theirs becomes an empty one."""
    name = "subpopbench.learning.early_stopping.EarlyStopping"
    with torch.serialization.safe_globals([(_Ignored, name)]):
        yield


def is_one(saved: dict[str, Any]) -> bool:
    """Whether this looks like what the host's train script saves."""
    return "model_dict" in saved and "num_labels" in saved


def check(saved: dict[str, Any], file: str) -> None:
    """Raise InputError unless it is what the host's train script saves, with sizes that a machine can hold."""
    where = f"{file} is not a model.pkl of SubpopBench"
    for key, kind in KEYS.items():
        if not isinstance(saved.get(key), kind):
            raise InputError(f"{where}: it has no {key!r}")
    for key in ("algorithm", "dataset", "data_dir"):
        if not isinstance(saved["args"].get(key), str) or "\0" in saved["args"][key]:
            raise InputError(f"{where}: its args have no {key!r}")
    numbers = [*saved["model_input_shape"], saved["num_labels"], saved["num_attributes"]]
    if not all(isinstance(number, int) and 0 < number <= LARGEST for number in numbers):
        raise InputError(f"{where}: a size in it is not a number from 1 to {LARGEST}")


def recipe_and_weights(saved: dict[str, Any], file: str) -> tuple[Recipe, dict[str, Tensor]]:
    """Of a dictionary that ``file`` held.

    Raises:
        InputError: it is damaged, or of an algorithm, a network or a size of images that is not loaded.
    """
    check(saved, file)
    algorithm, dataset = saved["args"]["algorithm"], saved["args"]["dataset"]
    if algorithm not in (*catalog.ALGORITHMS, "ERM"):
        raise InputError(
            f"{file} is a model of {shown(algorithm)}; of SubpopBench's algorithms those of this plugin "
            f"({', '.join(catalog.ALGORITHMS)}) and ERM are loaded"
        )
    if len(saved["model_input_shape"]) != 3:
        raise InputError(f"{file} is a model of inputs of shape {tuple(saved['model_input_shape'])}, not of images")
    channels, *size = saved["model_input_shape"]
    hparams = {name: plain(value) for name, value in saved["model_hparams"].items()}
    library, encoder, options = _network(hparams, size, file)
    mean, std = CMNIST if ONLY_CMNIST in hparams else IMAGENET
    recipe = from_dict(
        {
            "algorithm": algorithm,
            "hyperparameters": domainbed_files.own_hyperparameters(algorithm, hparams),
            "library": library,
            "encoder": encoder,
            "encoder_options": options,
            "class_names": _class_names(dataset, saved["num_labels"]),
            "image_size": size,
            "mean": mean,
            "std": std,
            "preparation": PREPARATIONS.get(dataset, [["resize", *size]]),
            "nonlinear_head": bool(hparams.get("nonlinear_classifier")),
            "n_environments": saved["num_attributes"],
        },
        file,
    )
    weights = domainbed_files.renamed(saved["model_dict"], algorithm)
    if library == "named":  # the host wraps it
        weights = {name.replace("encoder.network.", "encoder.", 1): value for name, value in weights.items()}
    return recipe, weights


def _network(hparams: dict[str, Any], size: list[int], file: str) -> tuple[str, str, dict[str, Any]]:
    """Library, name and options of the encoder, as a recipe has them."""
    if "model" in hparams:
        return "named", hparams["model"], hparams.get("model_kwargs") or {}
    if size != [224, 224]:  # the host's small networks are DomainBed's
        return "domainbed", "", {}
    name = hparams.get("image_arch")
    if name in ARCHITECTURES:
        return "named", ARCHITECTURES[name], {}
    if name in RESNETS:
        return "domainbed", "", {"resnet18": name == RESNET and bool(hparams.get("resnet18"))}
    raise InputError(f"{file} has a network --image_arch {shown(name)}, which is none of SubpopBench's")


def _class_names(dataset: str, n_classes: int) -> list[str]:
    names = CLASSES.get(dataset, "").split(", ")
    return names if len(names) == n_classes else numbered(n_classes)
