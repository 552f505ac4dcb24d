"""The flags of ``cim-plugin train``, named as WILDS' ``run_expt.py`` names them, and the configuration that they
make.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Callable

from .. import catalog, retired
from ..data.releases import is_own
from ..errors import InputError
from ..flags import is_finite, is_whole, shortened
from ..runs import defaults
from ..runs.configuration import FLAG_NAMES, FLAGS, Configuration

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


#: flags that most commands have, before the others in --help
COMMON = (
    "dataset",
    "root_dir",
    "algorithm",
    "model",
    "n_epochs",
    "lr",
    "batch_size",
    "seed",
    "log_dir",
    "resume",
)
MOST_USED = "flags that people use most"  #: title of their group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.allow_abbrev = False
    keywords = {name: of for flags in FLAGS.values() for name, of in flags.items()}
    titles = {MOST_USED: COMMON, **{title: [name for name in of if name not in COMMON] for title, of in FLAGS.items()}}
    for title, names in titles.items():
        group = parser.add_argument_group(title)
        for name in names:
            words = ["-d", "--dataset"] if name == "dataset" else [f"--{name}"]
            group.add_argument(*words, **_described(keywords[name]))
    group = parser.add_argument_group("hyperparameters of the algorithm")
    for name, entry in catalog.all_hyperparameters().items():
        group.add_argument(f"--{name}", **{**entry.flag, "help": entry.flag["help"] + SAID})
    for name, answer in retired.FLAGS.items():
        group.add_argument(f"--{name}", **answer)


SAID = "%(default).0s"  #: no characters: tells argparse's formatter that the help has the default already


def _described(keywords: dict[str, Any]) -> dict[str, Any]:
    if keywords.get("required") or "(default:" in keywords["help"] or "by default" in keywords["help"]:
        return {**keywords, "help": keywords["help"] + SAID}
    default = keywords.get("default", {})
    text = "off" if default in (None, []) else "set by dataset, algorithm and model" if default == {} else default
    return {**keywords, "help": f"{keywords['help']} (default: {text})" + SAID}


def make_config(args: argparse.Namespace) -> Configuration:
    """The configuration of a run: flags, defaults, and the algorithm's hyperparameters.

    Raises:
        InputError: a value is unknown or does not go with another one.
    """
    words = vars(args)
    values = {name: words[name] for name in FLAG_NAMES}
    _check_names(values)
    given = {name: value for name, value in values.items() if value not in (None, {})}
    defaults.fill(values, values["dataset"], values["algorithm"])
    _check_used(given, values)
    values["target_resolution"] = _square(values["target_resolution"])
    config = Configuration(**values, hyperparameters=_hyperparameters(values["algorithm"], words))
    _check_together(config)
    return config


def _check_names(values: dict[str, Any]) -> None:
    dataset, algorithm = values["dataset"], values["algorithm"]
    if algorithm not in catalog.TRAINABLE:
        raise InputError(f"algorithm {algorithm!r} is unknown; choose from {', '.join(catalog.TRAINABLE)}")
    if _is_own(values):
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
    if values["root_dir"] is None:
        raise InputError(f"the following argument is required: --root_dir, the folder that holds {dataset}")


def _is_own(values: dict[str, Any]) -> bool:
    """Whether the dataset is a folder of own data, by its path or its name in root_dir; from then on it goes by its
    name and its groups by its columns.
    """
    if values["dataset"] in defaults.DATASETS:
        return False
    folder = os.path.abspath(os.path.join(values["root_dir"] or "", values["dataset"]))
    if not is_own(folder):
        return False
    useless = [name for name in ("version", "split_scheme", "dataset_kwargs", "download") if values[name]]
    if useless:
        raise InputError(f"--{useless[0]} does nothing with own data, {folder}; leave it out")
    from ..data.folder import group_fields

    values["root_dir"], values["dataset"] = os.path.split(folder)
    values["groupby_fields"] = values["groupby_fields"] or group_fields(folder)
    return True


def _check_used(given: dict[str, Any], values: dict[str, Any]) -> None:
    """Nothing that the user gave is to be without effect."""
    for name, (partner, partners) in _ONLY_WITH.items():
        if name in given and (values[partner] is None if partners is None else values[partner] not in partners):
            value = given[name]
            text = " ".join(f"{key}={part}" for key, part in value.items()) if isinstance(value, dict) else value
            wanted = "" if partners in (None, (True,)) else f" {' or '.join(partners)}"
            raise InputError(f"--{name} {text} does nothing without --{partner}{wanted}; leave it out or give both")
    resolution = _square(given.get("target_resolution"))
    own_size = values["transform"] in ("rxrx1", "image_resize") and values["additional_train_transform"] is None
    if own_size and resolution not in (None, defaults.of(values["dataset"]).get("target_resolution")):
        side = " ".join(map(str, given["target_resolution"]))
        raise InputError(
            f"--target_resolution {side} does nothing with --transform {values['transform']}, which has its own size; "
            f"leave it out or take another transform, e.g. image_base"
        )
    if values["model"] == "small_cnn" and given.get("model_kwargs", {}).get("pretrained"):
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


def _check_together(config: Configuration) -> None:
    _check_pseudo_environments(config)
    weighs_groups = catalog.needs_uniform_groups(config.algorithm) and config.groups != "pseudo"
    if weighs_groups and not config.uniform_over_groups:
        raise InputError(
            f"{config.algorithm} needs --uniform_over_groups true: its weights assume that the groups are sampled "
            f"equally often"
        )
    if config.scheduler == "ReduceLROnPlateau" and not config.scheduler_metric_name:
        raise InputError(f"--scheduler ReduceLROnPlateau needs --scheduler_metric_name, e.g. {config.val_metric}")
    if config.transform in ("image_resize", "image_resize_and_center_crop") and config.resize_scale is None:
        raise InputError(f"--transform {config.transform} needs --resize_scale")
    _check_loader(config.loader_kwargs)
    if config.resume and config.eval_only:
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


def _check_pseudo_environments(config: Configuration) -> None:
    """Two cannot both say what the pseudo-environments are, or which images a batch holds."""
    weighs, twice = catalog.needs_uniform_groups(config.algorithm), catalog.trains_twice(config.algorithm)
    sources = [name for name in ("cross_fit", "pseudo_environments") if getattr(config, name) is not None]
    if len(sources) == 2:
        raise InputError("--cross_fit and --pseudo_environments both bring pseudo-environments; leave one out")
    if config.groups == "pseudo" and not weighs:
        raise InputError(f"--groups pseudo does nothing with {config.algorithm}, which weighs no groups; leave it out")
    if config.groups == "pseudo" and not sources:
        raise InputError("--groups pseudo does nothing without --cross_fit or --pseudo_environments; give one of them")
    if not config.balance_batches and not sources:
        raise InputError(
            "--balance_batches false does nothing without --cross_fit or --pseudo_environments; give one of them"
        )
    if not config.balance_batches and config.groups == "pseudo":
        raise InputError(
            "--groups pseudo needs --balance_batches true: its weights assume that the pseudo-groups are sampled "
            "equally often"
        )
    if not sources and not twice:
        return
    ours = "JTT draws what its first model gets wrong more often"
    if sources:
        does = "balances batches by" if config.balance_batches else "brings"
        by = f"--{sources[0]} {getattr(config, sources[0])} {does} pseudo-environments"
        if twice:
            raise InputError(f"{by}, {ours}; leave one out")
        if not config.balance_batches:
            return
        ours = by
    if weighs and config.groups != "pseudo":
        raise InputError(
            f"{ours}, {config.algorithm} needs them balanced by groups; add --groups pseudo, or leave one out"
        )
    for name, unwanted in (("uniform_over_groups", True), ("train_loader", "group")):
        if getattr(config, name) == unwanted:
            raise InputError(f"{ours}, --{name} {str(unwanted).lower()} by groups; leave one out")
