"""The flags of ``cim-plugin train``, named as WILDS' ``run_expt.py`` names them, and the configuration that they
make.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
from typing import Any, Callable

from .. import catalog
from ..catalog import parse_bool
from ..data.releases import is_own
from ..errors import InputError
from ..flags import SEED, is_finite, is_whole, number, shortened, whole
from . import defaults

TRANSFORMS = ("image_base", "image_resize", "image_resize_and_center_crop", "rxrx1")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
PRECISIONS = ("32", "bf16-mixed", "16-mixed")
PROCESSES = 1 << 16  #: on a machine, and machines: more is a slip of the hand
TILES = 4  #: per side, of --cross_fit; docs/study.md has what they are worth


class KeyValues(argparse.Action):
    """``key=value ...`` as a dictionary; values are Python literals, true, false, or strings."""

    def __call__(self, parser, namespace, values, option_string=None):
        pairs = {}
        for word in values:
            key, separator, text = word.partition("=")
            if not (key and separator):
                parser.error(f"{option_string} takes key=value, {shortened(word, 80)!r} was given")
            pairs[key] = _literal(text)
            if not _usable(pairs[key]):
                parser.error(f"{option_string} {shortened(word, 80)}: numbers are finite, and whole ones below 2**63")
        setattr(namespace, self.dest, pairs)


def _usable(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_usable, value))
    return not isinstance(value, (int, float)) or abs(value) < (2**63 if isinstance(value, int) else math.inf)


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        text = text.capitalize()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two where brackets nest deep
        return text


_FLAG = catalog.BOOL_FLAG
_PAIRS = {"nargs": "*", "action": KeyValues, "metavar": "KEY=VALUE"}

#: group of flags -> flag -> argparse's keywords. No default: it is set by dataset, algorithm, model or scheduler. A
#: default of None: off.
FLAGS: dict[str, dict[str, dict[str, Any]]] = {
    "data": {
        "dataset": {
            "required": True,
            "help": f"one of {', '.join(defaults.DATASETS)}, or a folder that 'cim-plugin data folder' made",
        },
        "root_dir": {
            "help": "folder that holds <dataset>_v<version>; 'cim-plugin data check' says what is there (own data needs "
            "none)",
        },
        "split_scheme": {"help": "how splits are made; the dataset's own choices"},
        "dataset_kwargs": {**_PAIRS, "default": {}, "help": "passed to the dataset"},
        "download": {**_FLAG, "default": False, "help": "get a missing dataset first, as 'cim-plugin data get' does"},
        "version": {"help": "release of the dataset; the newest by default"},
        "frac": {
            "type": number(0, strict=True, high=1),
            "default": 1.0,
            "help": "use this fraction of every split, for trying things out",
        },
        "transform": {"choices": TRANSFORMS, "help": "how images are made the same size"},
        "additional_train_transform": {
            "choices": ("randaugment", "weak", "resized_crop"),
            "default": None,
            "help": "random augmentation of training images: flip and crop, and RandAugment after it; or flip and "
            "RandomResizedCrop, which WILDS does not have",
        },
        "target_resolution": {"type": whole(1), "nargs": "+", "help": "height and width that images are resized to"},
        "resize_scale": {
            "type": number(0, True),
            "help": "for image_resize*: size relative to the original resolution",
        },
        "randaugment_n": {
            "type": whole(1),
            "help": "operations per image of randaugment, torchvision's RandAugment; 2 by default",
        },
        "cache": {
            "type": lambda text: "auto" if text == "auto" else parse_bool(text),
            "const": True,
            "nargs": "?",
            "default": "auto",
            "help": "keep decoded images in a memory-mapped file below ~/.cache/cim_plugin (XDG_CACHE_HOME moves it), "
            "which may be deleted; auto: where it fits --cache_limit",
        },
        "cache_limit": {"type": number(0), "default": 16.0, "help": "size in GB up to which --cache auto is on"},
    },
    "loaders": {
        "loader_kwargs": {
            **_PAIRS,
            "default": {},
            "help": "num_workers, pin_memory and other arguments of torch's DataLoader",
        },
        "train_loader": {"choices": ("standard", "group"), "help": "group: batches of n_groups_per_batch groups"},
        "uniform_over_groups": {**_FLAG, "help": "sample the groups equally often"},
        "distinct_groups": {**_FLAG, "help": "with train_loader group: no group twice in a batch"},
        "n_groups_per_batch": {"type": whole(1), "help": "with train_loader group"},
        "batch_size": {"type": whole(1), "help": "images per step, over all processes"},
        "gradient_accumulation_steps": {
            "type": whole(1),
            "default": 1,
            "help": "batches whose gradients are summed before a step",
        },
        "cross_fit": {
            "type": whole(1),
            "default": None,
            "metavar": "STEPS",
            "help": "pseudo-environments without labels of groups: four reference models of so many steps (in our "
            "study 300 with tiles, 100 without) on each half of the training images "
            "predict the other half; batches are balanced by them, and 'cross_environment' pairs go by them",
        },
        "cross_fit_tiles": {
            "type": whole(1),
            "default": None,
            "metavar": "N",
            "help": f"with cross_fit: the reference models see every image as N times N tiles in random order, so they "
            f"go by colours and textures, not by shape; 1: whole images (default: {TILES} with cross_fit)",
        },
    },
    "model": {
        "model": {"help": "small_cnn, a torchvision model, or a timm model (timm/NAME where both have the name)"},
        "model_kwargs": {**_PAIRS, "default": {}, "help": "pretrained=true|false and other arguments of the model"},
        "pretrained_model_path": {
            "default": None,
            "help": "file with a state dict to start the encoder from; loaded without executing anything",
        },
    },
    "algorithm": {
        "algorithm": {"required": True, "help": f"one of {', '.join(catalog.TRAINABLE)}"},
        "groupby_fields": {"nargs": "+", "help": "metadata fields whose combinations are the groups"},
        "no_group_logging": {**_FLAG, "help": "leave the groups out of the logs"},
    },
    "optimization": {
        "n_epochs": {"type": whole(1), "help": "passes over the training split"},
        "optimizer": {"choices": OPTIMIZERS, "help": "optimizer"},
        "optimizer_kwargs": {**_PAIRS, "default": {}, "help": "its other arguments"},
        "lr": {"type": number(0, True), "help": "learning rate"},
        "weight_decay": {"type": number(0), "help": "weight decay"},
        "max_grad_norm": {"type": number(0, True), "default": None, "help": "clip the gradient's norm to this"},
        "scheduler": {"choices": tuple(defaults.SCHEDULERS), "help": "of the learning rate"},
        "scheduler_kwargs": {**_PAIRS, "default": {}, "help": "its arguments"},
        "scheduler_metric_split": {"choices": ("train", "val"), "default": "val", "help": "for ReduceLROnPlateau"},
        "scheduler_metric_name": {"default": None, "help": "for ReduceLROnPlateau: a metric of that split"},
    },
    "evaluation": {
        "val_metric": {"help": "metric of the validation split that names the best epoch"},
        "val_metric_decreasing": {**_FLAG, "help": "a smaller val_metric is better"},
        "evaluate_all_splits": {**_FLAG, "default": True, "help": "evaluate every split in every epoch"},
        "eval_splits": {
            "nargs": "+",
            "default": [],
            "help": "splits to evaluate beside train and val where not all are",
        },
        "eval_only": {**_FLAG, "default": False, "help": "evaluate a saved model and write its predictions"},
        "eval_epoch": {"type": whole(0), "help": "with eval_only: the epoch; the best one by default"},
    },
    "device": {
        "device": {
            "type": whole(0),
            "nargs": "+",
            "help": "numbers of the GPUs to use, one process each; the first by default",
        },
        "devices": {
            "type": whole(1, PROCESSES),
            "default": 1,
            "help": "processes on this machine, one GPU each where there are GPUs",
        },
        "num_nodes": {
            "type": whole(1, PROCESSES),
            "default": 1,
            "help": "machines; start the command on each with torchrun",
        },
        "precision": {
            "choices": PRECISIONS,
            "default": "32",
            "help": "of encoder and network; MS-SSIM stays in float32",
        },
        "compile": {
            **_FLAG,
            "default": False,
            "help": "torch.compile encoder and network, which takes up to minutes at the first step; needs a C++ "
            "compiler on a CPU",
        },
    },
    "run": {
        "seed": {"type": whole(0, SEED), "default": 0, "help": "everything random follows from it"},
        "log_dir": {"default": "./logs", "help": "where everything is written"},
        "log_every": {"type": whole(1), "default": 50, "help": "steps between two lines of train_algo.csv"},
        "save_step": {"type": whole(1), "default": None, "help": "also keep the model of every so many epochs"},
        "save_best": {**_FLAG, "default": True, "help": "keep the model and predictions of every selection rule"},
        "save_last": {**_FLAG, "default": True, "help": "keep the last epoch's"},
        "save_pred": {**_FLAG, "default": True, "help": "write predictions"},
        "progress_bar": {**_FLAG, "help": "show a progress bar; by default on a terminal"},
        "resume": {**_FLAG, "default": False, "help": "go on where a stopped run of this log_dir stood"},
        "tensorboard": {**_FLAG, "default": False, "help": "also write TensorBoard events"},
    },
}

#: flags that do nothing but with another one: that one and its values, None: any
_ONLY_WITH: dict[str, tuple[str, tuple | None]] = {
    "cross_fit_tiles": ("cross_fit", None),
    "n_groups_per_batch": ("train_loader", ("group",)),
    "distinct_groups": ("train_loader", ("group",)),
    "resize_scale": ("transform", ("image_resize", "image_resize_and_center_crop")),
    "randaugment_n": ("additional_train_transform", ("randaugment",)),
    "scheduler_kwargs": ("scheduler", tuple(defaults.SCHEDULERS)),
    "scheduler_metric_name": ("scheduler", ("ReduceLROnPlateau",)),
    "eval_epoch": ("eval_only", (True,)),
}

#: flags that may differ when a run is resumed: where and how it runs, not what it computes
MAY_DIFFER = {
    "root_dir",
    "log_dir",
    "download",
    "cache",
    "cache_limit",
    "loader_kwargs",
    "device",
    "resume",
    "progress_bar",
    "tensorboard",
    "eval_only",
    "eval_epoch",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.allow_abbrev = False
    for title, flags in FLAGS.items():
        group = parser.add_argument_group(title)
        for name, keywords in flags.items():
            words = ["-d", "--dataset"] if name == "dataset" else [f"--{name}"]
            group.add_argument(*words, **_described(keywords))
    group = parser.add_argument_group("hyperparameters of the algorithm")
    for name, entry in catalog.all_hyperparameters().items():
        group.add_argument(f"--{name}", **{**entry.flag, "help": entry.flag["help"] + SAID})
    for name, keywords in catalog.RETIRED_FLAGS.items():
        group.add_argument(f"--{name}", **keywords)


_DEFAULTS = {
    name: keywords["default"] for flags in FLAGS.values() for name, keywords in flags.items() if "default" in keywords
}

SAID = "%(default).0s"  #: no characters: tells argparse's formatter that the help has the default already


def _described(keywords: dict[str, Any]) -> dict[str, Any]:
    if keywords.get("required") or "(default:" in keywords["help"] or "by default" in keywords["help"]:
        return {**keywords, "help": keywords["help"] + SAID}
    default = keywords.get("default", {})
    text = "off" if default in (None, []) else "set by dataset, algorithm and model" if default == {} else default
    return {**keywords, "help": f"{keywords['help']} (default: {text})" + SAID}


def completed(before: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run that may be older than a flag or a hyperparameter: it was trained as their defaults
    are.
    """
    own = before.get("hyperparameters")
    hyperparameters = (
        {"hyperparameters": catalog.complete(before.get("algorithm"), own)} if isinstance(own, dict) else {}
    )
    return {**_DEFAULTS, **before, **hyperparameters}


def make_config(args: argparse.Namespace) -> dict[str, Any]:
    """The whole configuration of a run, as JSON-able values: flags, defaults, and the algorithm's hyperparameters.

    Raises:
        InputError: a value is unknown or does not go with another one.
    """
    values = vars(args)
    config = {name: values[name] for flags in FLAGS.values() for name in flags}
    _check_names(config)
    given = {name: value for name, value in config.items() if value not in (None, {})}
    defaults.fill(config, config["dataset"], config["algorithm"])
    _check_used(given, config)
    config["target_resolution"] = _square(config["target_resolution"])
    if config["cross_fit"] is not None and config["cross_fit_tiles"] is None:
        config["cross_fit_tiles"] = TILES
    config["hyperparameters"] = _hyperparameters(config["algorithm"], values)
    _check_together(config)
    return config


def is_pretrained(config: dict[str, Any]) -> bool:
    """Whether the encoder starts from weights of an earlier training."""
    return config["pretrained_model_path"] is not None or (
        config["model"] != "small_cnn" and bool(config["model_kwargs"].get("pretrained"))
    )


def _check_names(config: dict[str, Any]) -> None:
    dataset, algorithm = config["dataset"], config["algorithm"]
    if algorithm not in catalog.TRAINABLE:
        raise InputError(f"algorithm {algorithm!r} is unknown; choose from {', '.join(catalog.TRAINABLE)}")
    if _is_own(config):
        return
    if dataset in defaults.OTHER_DATASETS:
        raise InputError(
            f"dataset {dataset!r} is {defaults.OTHER_DATASETS[dataset]}; morphing works on images with one label: "
            f"{', '.join(defaults.DATASETS)}"
        )
    if dataset not in defaults.DATASETS:
        raise InputError(
            f"dataset {dataset!r} is unknown; choose from {', '.join(defaults.DATASETS)}, or make a folder of your own "
            f"images one with 'cim-plugin data folder' and name the folder that it makes"
        )
    if config["root_dir"] is None:
        raise InputError(f"the following argument is required: --root_dir, the folder that holds {dataset}")


def _is_own(config: dict[str, Any]) -> bool:
    """Whether the dataset is a folder of own data, by its path or its name in root_dir; from then on it goes by its
    name and its groups by its columns.
    """
    if config["dataset"] in defaults.DATASETS:
        return False
    folder = os.path.abspath(os.path.join(config["root_dir"] or "", config["dataset"]))
    if not is_own(folder):
        return False
    useless = [name for name in ("version", "split_scheme", "dataset_kwargs", "download") if config[name]]
    if useless:
        raise InputError(f"--{useless[0]} does nothing with own data, {folder}; leave it out")
    from ..data.folder import group_fields

    config["root_dir"], config["dataset"] = os.path.split(folder)
    config["groupby_fields"] = config["groupby_fields"] or group_fields(folder)
    return True


def _check_used(given: dict[str, Any], config: dict[str, Any]) -> None:
    """Nothing that the user gave is to be without effect."""
    for name, (partner, values) in _ONLY_WITH.items():
        if name in given and (config[partner] is None if values is None else config[partner] not in values):
            value = given[name]
            text = " ".join(f"{key}={part}" for key, part in value.items()) if isinstance(value, dict) else value
            wanted = "" if values in (None, (True,)) else f" {' or '.join(values)}"
            raise InputError(f"--{name} {text} does nothing without --{partner}{wanted}; leave it out or give both")
    resolution = _square(given.get("target_resolution"))
    own_size = config["transform"] in ("rxrx1", "image_resize") and config["additional_train_transform"] is None
    if own_size and resolution not in (None, defaults.of(config["dataset"]).get("target_resolution")):
        side = " ".join(map(str, given["target_resolution"]))
        raise InputError(
            f"--target_resolution {side} does nothing with --transform {config['transform']}, which has its own size; "
            f"leave it out or take another transform, e.g. image_base"
        )
    if config["model"] == "small_cnn" and given.get("model_kwargs", {}).get("pretrained"):
        raise InputError(
            "--model_kwargs pretrained=true does nothing with --model small_cnn, of which there are no pretrained "
            "weights; leave it out or name another model, e.g. resnet18"
        )


def _square(resolution: list[int] | None) -> list[int] | None:
    if resolution is not None and len(resolution) > 2:
        raise InputError(f"--target_resolution takes a side or height and width, {len(resolution)} numbers were given")
    return resolution * 2 if resolution is not None and len(resolution) == 1 else resolution


def _hyperparameters(algorithm: str, values: dict[str, Any]) -> dict[str, Any]:
    hyperparameters = catalog.complete(
        algorithm, {name: values[name] for name in catalog.all_hyperparameters() if values[name] is not None}
    )
    catalog.check(algorithm, hyperparameters)
    return hyperparameters


def _check_together(config: dict[str, Any]) -> None:
    if config["cross_fit"] is not None:
        _check_cross_fit(config)
    if catalog.needs_uniform_groups(config["algorithm"]) and not config["uniform_over_groups"]:
        raise InputError(
            f"{config['algorithm']} needs --uniform_over_groups true: its weights assume that the groups are sampled "
            f"equally often"
        )
    if config["scheduler"] == "ReduceLROnPlateau" and not config["scheduler_metric_name"]:
        raise InputError(f"--scheduler ReduceLROnPlateau needs --scheduler_metric_name, e.g. {config['val_metric']}")
    if config["transform"] in ("image_resize", "image_resize_and_center_crop") and config["resize_scale"] is None:
        raise InputError(f"--transform {config['transform']} needs --resize_scale")
    _check_loader(config["loader_kwargs"])
    if config["resume"] and config["eval_only"]:
        raise InputError("--resume and --eval_only exclude each other")


#: argument of torch's DataLoader -> (whether it accepts a value, the values in words); the others are the trainer's
_LOADER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_workers": (lambda value: is_whole(value, 0, 1024), "a whole number from 0 to 1024"),
    "pin_memory": (lambda value: isinstance(value, bool), "true or false"),
    "persistent_workers": (lambda value: isinstance(value, bool), "true or false"),
    "prefetch_factor": (lambda value: is_whole(value, 1, 1024), "a whole number from 1 to 1024"),
    "timeout": (lambda value: is_finite(value) and value >= 0, "a number of seconds of at least 0"),
    "multiprocessing_context": (lambda value: value in ("fork", "spawn", "forkserver"), "fork, spawn or forkserver"),
    "in_order": (lambda value: isinstance(value, bool), "true or false"),
}


def _check_loader(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if name not in _LOADER:
            raise InputError(f"--loader_kwargs {name} is not one of {', '.join(_LOADER)}")
        accepts, words = _LOADER[name]
        if not accepts(value):
            raise InputError(f"--loader_kwargs {name}={shortened(str(value), 40)} is not {words}")
    of_workers = [name for name in ("persistent_workers", "prefetch_factor", "timeout") if arguments.get(name)]
    if of_workers and not arguments.get("num_workers"):
        raise InputError(f"--loader_kwargs {of_workers[0]} does nothing without num_workers of at least 1")


def _check_cross_fit(config: dict[str, Any]) -> None:
    """Two cannot both decide which images a batch holds."""
    ours = f"--cross_fit {config['cross_fit']} balances batches by pseudo-environments"
    if catalog.needs_uniform_groups(config["algorithm"]):
        raise InputError(f"{ours}, {config['algorithm']} needs them balanced by groups; leave one out")
    for name, unwanted in (("uniform_over_groups", True), ("train_loader", "group")):
        if config[name] == unwanted:
            raise InputError(f"{ours}, --{name} {str(unwanted).lower()} by groups; leave one out")
