"""What an unset flag means: the defaults of WILDS' ``run_expt.py``, for every dataset, algorithm, model and scheduler.

Later tables fill only what the user and the earlier ones left open, in the order dataset, algorithm, loader, model,
scheduler.
"""

from __future__ import annotations

from typing import Any

_SGD = {"optimizer": "SGD", "optimizer_kwargs": {"momentum": 0.9}, "scheduler": None}
_PRETRAINED_RESNET = {"model": "resnet50", "model_kwargs": {"pretrained": True}}
_SUBGROUPS = {"split_scheme": "official", "val_metric": "acc_wg", "val_metric_decreasing": False}
_BENCHMARK = {"split_scheme": "official", "val_metric": "acc_avg", "val_metric_decreasing": False}

DATASETS: dict[str, dict[str, Any]] = {
    "waterbirds": {
        **_SUBGROUPS,
        **_PRETRAINED_RESNET,
        **_SGD,
        "transform": "image_resize_and_center_crop",
        "resize_scale": 256 / 224,
        "groupby_fields": ["background", "y"],
        "batch_size": 128,
        "lr": 1e-5,
        "weight_decay": 1.0,
        "n_epochs": 300,
    },
    "celebA": {
        **_SUBGROUPS,
        **_PRETRAINED_RESNET,
        **_SGD,
        "transform": "image_base",
        "groupby_fields": ["male", "y"],
        "batch_size": 64,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "n_epochs": 200,
    },
    "iwildcam": {
        **_BENCHMARK,
        **_PRETRAINED_RESNET,
        "val_metric": "F1-macro_all",
        "transform": "image_base",
        "target_resolution": [448, 448],
        "groupby_fields": ["location"],
        "no_group_logging": True,
        "n_groups_per_batch": 2,
        "optimizer": "Adam",
        "batch_size": 16,
        "lr": 3e-5,
        "weight_decay": 0.0,
        "n_epochs": 12,
    },
    "camelyon17": {
        **_BENCHMARK,
        **_SGD,
        "model": "densenet121",
        "model_kwargs": {"pretrained": False},
        "transform": "image_base",
        "target_resolution": [96, 96],
        "groupby_fields": ["hospital"],
        "n_groups_per_batch": 2,
        "batch_size": 32,
        "lr": 1e-3,
        "weight_decay": 0.01,
        "n_epochs": 10,
    },
    "rxrx1": {
        **_BENCHMARK,
        **_PRETRAINED_RESNET,
        "transform": "rxrx1",
        "target_resolution": [256, 256],
        "groupby_fields": ["experiment"],
        "n_groups_per_batch": 9,
        "optimizer": "Adam",
        "scheduler": "cosine_schedule_with_warmup",
        "scheduler_kwargs": {"num_warmup_steps": 5415},
        "batch_size": 72,
        "lr": 1e-3,
        "weight_decay": 1e-5,
        "n_epochs": 90,
    },
    "fmow": {
        **_BENCHMARK,
        "dataset_kwargs": {"seed": 111, "use_ood_val": True},
        "val_metric": "acc_worst_region",
        "model": "densenet121",
        "model_kwargs": {"pretrained": True},
        "transform": "image_base",
        "groupby_fields": ["year"],
        "n_groups_per_batch": 8,
        "optimizer": "Adam",
        "scheduler": "StepLR",
        "scheduler_kwargs": {"gamma": 0.96},
        "batch_size": 32,
        "lr": 1e-4,
        "weight_decay": 0.0,
        "n_epochs": 60,
    },
}

#: own data, which 'cim-plugin data folder' made; its kinds of group are its own
OWN: dict[str, Any] = {
    **_SUBGROUPS,
    **_PRETRAINED_RESNET,
    "transform": "image_base",
    "target_resolution": [224, 224],
    "optimizer": "AdamW",
    "batch_size": 64,
    "lr": 1e-4,
    "weight_decay": 1e-4,
    "n_epochs": 20,
}

#: datasets of the ``wilds`` package that are not classification of images of one label, and why
OTHER_DATASETS = {
    "amazon": "text",
    "bdd100k": "driving scenes with several labels each",
    "civilcomments": "text",
    "encode": "genome sequences",
    "globalwheat": "object detection",
    "ogb-molpcba": "molecular graphs",
    "poverty": "regression on 8-channel satellite images",
    "py150": "source code",
    "sqf": "tables",
    "yelp": "text",
    "domainnet": "domain adaptation between two of its domains",
}

_UNIFORM = {"train_loader": "standard", "uniform_over_groups": True, "distinct_groups": True}

ALGORITHMS: dict[str | None, dict[str, Any]] = {
    "groupDRO": _UNIFORM,
    "CIM+groupDRO": _UNIFORM,
    None: {"train_loader": "standard", "uniform_over_groups": False},  #: every other one
}

LOADER = {"loader_kwargs": {"num_workers": 4, "pin_memory": True}, "n_groups_per_batch": 4, "randaugment_n": 2}

MODELS: dict[str | None, dict[str, Any]] = {
    "small_cnn": {},
    None: {"model_kwargs": {"pretrained": True}, "target_resolution": [224, 224]},
}

SCHEDULERS: dict[str, dict[str, Any]] = {
    "linear_schedule_with_warmup": {"scheduler_kwargs": {"num_warmup_steps": 0}},
    "cosine_schedule_with_warmup": {"scheduler_kwargs": {"num_warmup_steps": 0}},
    "ReduceLROnPlateau": {
        "scheduler_kwargs": {"mode": "max"}
    },  # of run_expt's defaults not this one: its "min" waits for metrics to fall, and all of them are accuracies
    "StepLR": {"scheduler_kwargs": {"step_size": 1}},
    "MultiStepLR": {"scheduler_kwargs": {"gamma": 0.1}},
}


TILES = 4  #: per side, of --cross_fit; docs/study.md has what they are worth


def of(dataset: str) -> dict[str, Any]:
    """What a dataset's unset flags mean."""
    return DATASETS.get(dataset, OWN)


def fill(config: dict[str, Any], dataset: str, algorithm: str) -> None:
    """Fill what is ``None`` in ``config``, and the missing keys of its dictionaries, in place."""
    of_dataset = of(dataset)
    for choice, arguments in (("optimizer", "optimizer_kwargs"), ("scheduler", "scheduler_kwargs")):
        if config[choice] not in (None, of_dataset.get(choice)):  # the arguments of another optimizer do not fit
            of_dataset = {name: value for name, value in of_dataset.items() if name != arguments}
    _fill(config, of_dataset)
    of_groups = None if config.get("groups") == "pseudo" else algorithm  # then pseudo-groups balance the batches
    _fill(config, ALGORITHMS.get(of_groups, ALGORITHMS[None]))
    _fill(config, LOADER)
    _fill(config, MODELS.get(config["model"], MODELS[None]))
    if config["scheduler"] is not None:
        _fill(config, SCHEDULERS[config["scheduler"]])
    if config.get("cross_fit") is not None:
        _fill(config, {"cross_fit_tiles": TILES})
    config["no_group_logging"] = bool(config["no_group_logging"])


def _fill(config: dict[str, Any], defaults: dict[str, Any]) -> None:
    for name, value in defaults.items():
        if isinstance(value, dict):
            config[name] = {**value, **(config[name] or {})}
        elif config[name] is None:
            config[name] = value
