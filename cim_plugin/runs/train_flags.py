"""The flags of ``cim-plugin train`` and what one that is not given means: what the configuration in a record of it
holds.
"""

from __future__ import annotations

import argparse
import ast
import math
from typing import Any

from .. import catalog
from ..catalog import parse_bool
from ..flags import SEED, number, shortened, whole
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
            "help": "folder that holds <dataset>_v<version>; 'cim-plugin data check' says what is there (own data "
            "needs "
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

_DEFAULTS = {
    name: keywords["default"] for flags in FLAGS.values() for name, keywords in flags.items() if "default" in keywords
}


def completed(before: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run that may be older than a flag or a hyperparameter: it was trained as their defaults
    are.
    """
    own = before.get("hyperparameters")
    hyperparameters = (
        {"hyperparameters": catalog.complete(before.get("algorithm"), own)} if isinstance(own, dict) else {}
    )
    return {**_DEFAULTS, **before, **hyperparameters}
