"""The configuration of a run of ``cim-plugin train``: every field with its type, its default and its flag, once. The
parser and what results.json keeps of it are made from here.
"""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Mapping

from .. import catalog
from ..flags import SEED, KeyValues, number, whole
from ..hyperparameter import BOOL_FLAG, parse_bool
from . import defaults

TRANSFORMS = ("image_base", "image_resize", "image_resize_and_center_crop", "rxrx1")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
TRACKERS = ("tensorboard", "wandb", "trackio")
PRECISIONS = ("32", "bf16-mixed", "16-mixed")
AUGMENTATIONS = ("randaugment", "weak", "resized_crop")
PROCESSES = 1 << 16  #: on a machine, and machines: more is a slip of the hand

OPEN = object()  #: a default that is set by dataset, algorithm, model or scheduler


def _flag(group: str, help: str, *, default: Any = OPEN, may_differ: bool = False, **keywords: Any) -> Any:
    """A field that a flag sets.

    Args:
        group: of flags, in --help.
        default: None: off. A field without one must be given, or filled by :func:`filled`.
        may_differ: when a run is resumed: it says where and how the run goes, not what it computes.
        keywords: argparse's, beside those that follow from the field's type.
    """
    if default is not OPEN:
        keywords["default"] = default
    metadata = {"group": group, "may_differ": may_differ, "keywords": {**keywords, "help": help}}
    if default is OPEN:
        return field(metadata=metadata)
    return field(default_factory=partial(copy.copy, default), metadata=metadata)


def _auto_or_steps(text: str) -> int | str:
    return "auto" if text == "auto" else whole(1)(text)


def _auto_or_bool(text: str) -> bool | str:
    return "auto" if text == "auto" else parse_bool(text)


_data, _loaders, _model, _algorithm = (partial(_flag, group) for group in ("data", "loaders", "model", "algorithm"))
_optimization, _evaluation = partial(_flag, "optimization"), partial(_flag, "evaluation")
_device, _run = partial(_flag, "device"), partial(_flag, "run")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A run's whole configuration; all values are JSON-able.

    Raises:
        TypeError: a value is not of its field's type.
    """

    dataset: str = _data(
        f"one of {', '.join(defaults.DATASETS)}, or a folder that 'cim-plugin data folder' made", required=True
    )
    root_dir: str = _data(
        "folder that holds <dataset>_v<version>; 'cim-plugin data check' says what is there (own data needs none)",
        may_differ=True,
    )
    split_scheme: str | None = _data("how splits are made; the dataset's own choices")
    dataset_kwargs: dict[str, Any] = _data("passed to the dataset", default={})
    download: bool = _data("get a missing dataset first, as 'cim-plugin data get' does", default=False, may_differ=True)
    version: str | None = _data("release of the dataset; the newest by default")
    frac: float = _data(
        "use this fraction of every split, for trying things out", type=number(0, strict=True, high=1), default=1.0
    )
    transform: str = _data("how images are made the same size", choices=TRANSFORMS)
    additional_train_transform: str | None = _data(
        "random augmentation of training images: flip and crop, and RandAugment after it; or flip and "
        "RandomResizedCrop, which WILDS does not have",
        choices=AUGMENTATIONS,
        default=None,
    )
    target_resolution: list[int] | None = _data("height and width that images are resized to", type=whole(1))
    resize_scale: float | None = _data(
        "for image_resize*: size relative to the original resolution", type=number(0, True)
    )
    randaugment_n: int = _data(
        "operations per image of randaugment, torchvision's RandAugment; 2 by default", type=whole(1)
    )
    cache: bool | str = _data(
        "keep decoded images in a memory-mapped file below ~/.cache/cim_plugin (XDG_CACHE_HOME moves it), "
        "which may be deleted; auto: where it fits --cache_limit",
        type=_auto_or_bool,
        default="auto",
        may_differ=True,
    )
    cache_limit: float = _data(
        "size in GB up to which --cache auto is on", type=number(0), default=16.0, may_differ=True
    )
    loader_kwargs: dict[str, Any] = _loaders(
        "num_workers, pin_memory and other arguments of torch's DataLoader", default={}, may_differ=True
    )
    train_loader: str = _loaders("group: batches of n_groups_per_batch groups", choices=("standard", "group"))
    uniform_over_groups: bool = _loaders("sample the groups equally often")
    distinct_groups: bool | None = _loaders("with train_loader group: no group twice in a batch")
    n_groups_per_batch: int = _loaders("with train_loader group", type=whole(1))
    batch_size: int = _loaders("images per step, over all processes", type=whole(1))
    gradient_accumulation_steps: int = _loaders(
        "batches whose gradients are summed before a step", type=whole(1), default=1
    )
    cross_fit: int | str | None = _loaders(
        "pseudo-environments without labels of groups: four reference models on each half of the training images "
        "predict the other half; batches are balanced by them, and 'cross_environment' pairs go by them; alone or "
        "auto: as many steps as both halves agree best after, at most 640; or a number of steps",
        type=_auto_or_steps,
        nargs="?",
        const="auto",
        metavar="STEPS",
        default=None,
    )
    cross_fit_tiles: int | None = _loaders(
        f"with cross_fit: the reference models see every image as N times N tiles in random order, so they "
        f"go by colours and textures, not by shape; 1: whole images (default: {defaults.TILES} with cross_fit)",
        type=whole(1),
        metavar="N",
        default=None,
    )
    pseudo_environments: str | None = _loaders(
        "pseudo-environments from a table that any other method has made, with the columns split, row or image, and "
        "environment, in the place of those of cross_fit",
        metavar="FILE",
        default=None,
    )
    balance_batches: bool = _loaders(
        "with cross_fit or pseudo_environments: batches hold pseudo-groups equally often; false: batches are drawn as "
        "without them, and pseudo-environments serve 'cross_environment' pairs and the rule worst_pseudo_group only",
        default=True,
    )
    model: str = _model("small_cnn, a torchvision model, or a timm model (timm/NAME where both have the name)")
    model_kwargs: dict[str, Any] = _model("pretrained=true|false and other arguments of the model", default={})
    pretrained_model_path: str | None = _model(
        "file with a state dict to start the encoder from; loaded without executing anything", default=None
    )
    freeze_bn: bool = _model(
        "the encoder's batch normalisation, and that of reference models, goes by its running statistics in training, "
        "too, and does not move them, as DomainBed's freeze_bn; for fine-tuning on small batches",
        default=False,
    )
    algorithm: str = _algorithm(f"one of {', '.join(catalog.TRAINABLE)}", required=True)
    groupby_fields: list[str] = _algorithm("metadata fields whose combinations are the groups")
    groups: str = _algorithm(
        "whose losses group DRO weighs: those of groupby_fields, or pseudo: a class and a pseudo-environment, without "
        "labels of groups",
        choices=("true", "pseudo"),
        default="true",
    )
    no_group_logging: bool = _algorithm("leave the groups out of the logs")
    n_epochs: int = _optimization("passes over the training split", type=whole(1))
    optimizer: str = _optimization("optimizer", choices=OPTIMIZERS)
    optimizer_kwargs: dict[str, Any] = _optimization("its other arguments", default={})
    lr: float = _optimization("learning rate", type=number(0, True))
    weight_decay: float = _optimization("weight decay", type=number(0))
    max_grad_norm: float | None = _optimization("clip the gradient's norm to this", type=number(0, True), default=None)
    scheduler: str | None = _optimization("of the learning rate", choices=tuple(defaults.SCHEDULERS))
    scheduler_kwargs: dict[str, Any] = _optimization("its arguments", default={})
    scheduler_metric_split: str = _optimization("for ReduceLROnPlateau", choices=("train", "val"), default="val")
    scheduler_metric_name: str | None = _optimization("for ReduceLROnPlateau: a metric of that split", default=None)
    val_metric: str = _evaluation("metric of the validation split that names the best epoch")
    val_metric_decreasing: bool = _evaluation("a smaller val_metric is better")
    evaluate_all_splits: bool = _evaluation("evaluate every split in every epoch", default=True)
    eval_splits: list[str] = _evaluation("splits to evaluate beside train and val where not all are", default=[])
    eval_only: bool = _evaluation("evaluate a saved model and write its predictions", default=False, may_differ=True)
    eval_epoch: int | None = _evaluation(
        "with eval_only: the epoch; the best one by default", type=whole(0), may_differ=True
    )
    device: list[int] | None = _device(
        "numbers of the GPUs to use, one process each; the first by default", type=whole(0), may_differ=True
    )
    devices: int = _device(
        "processes on this machine, one GPU each where there are GPUs", type=whole(1, PROCESSES), default=1
    )
    num_nodes: int = _device("machines; start the command on each with torchrun", type=whole(1, PROCESSES), default=1)
    precision: str = _device("of encoder and network; MS-SSIM stays in float32", choices=PRECISIONS, default="32")
    compile: bool = _device(
        "torch.compile encoder and network, which takes up to minutes at the first step; needs a C++ compiler on a CPU",
        default=False,
    )
    seed: int = _run("everything random follows from it", type=whole(0, SEED), default=0)
    log_dir: str = _run("where everything is written", default="./logs", may_differ=True)
    log_every: int = _run("steps between two lines of train_algo.csv", type=whole(1), default=50)
    save_step: int | None = _run("also keep the model of every so many epochs", type=whole(1), default=None)
    save_best: bool = _run("keep the model and predictions of every selection rule", default=True)
    save_last: bool = _run("keep the last epoch's", default=True)
    save_pred: bool = _run("write predictions", default=True)
    progress_bar: bool | None = _run("show a progress bar; by default on a terminal", may_differ=True)
    resume: bool = _run("go on where a stopped run of this log_dir stood", default=False, may_differ=True)
    track: str | None = _run(
        "also send the numbers of the log to a tracker; a resumed run goes on in the tracked run that it began",
        choices=TRACKERS,
        default=None,
        may_differ=True,
    )
    hyperparameters: dict[str, Any] = field(default_factory=dict)  #: the algorithm's own, see catalog.py

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            if not _is_of(getattr(self, name), hint):
                raise TypeError(f"{name} is {getattr(self, name)!r}, which is not of type {hint}")

    def as_record(self) -> dict[str, Any]:
        """What results.json and a state keep of it: the fields by name, in their order."""
        return {entry.name: copy.deepcopy(getattr(self, entry.name)) for entry in dataclasses.fields(self)}

    @property
    def has_first_phase(self) -> bool:
        """Whether pseudo-environments come before the training: a file's, or those that models tell, of --cross_fit or
        JTT's.
        """
        brought = self.cross_fit is not None or self.pseudo_environments is not None
        return brought or catalog.trains_twice(self.algorithm)

    @property
    def is_pretrained(self) -> bool:
        """Whether the encoder starts from weights of an earlier training."""
        return self.pretrained_model_path is not None or (
            self.model != "small_cnn" and bool(self.model_kwargs.get("pretrained"))
        )


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as the fields have them: plain ones, lists, dictionaries and unions of those."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return any(_is_of(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(_is_of(part, parts[0]) for part in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


# --- what follows from the fields -------------------------------------------------------------------------------------


def _keywords(entry: dataclasses.Field, hint: Any) -> dict[str, Any]:
    """argparse's, of a field's flag."""
    if isinstance(hint, types.UnionType):
        hint = typing.get_args(hint)[0]
    kind = typing.get_origin(hint) or hint
    return {**_OF_TYPE.get(kind, {}), **entry.metadata["keywords"]}


#: type of a field -> argparse's keywords
_OF_TYPE: dict[type, dict[str, Any]] = {
    bool: BOOL_FLAG,
    list: {"nargs": "+"},
    dict: {"nargs": "*", "action": KeyValues, "metavar": "KEY=VALUE"},
}


def _flags() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    hints = typing.get_type_hints(Configuration)
    for entry in dataclasses.fields(Configuration):
        if entry.metadata:
            found.setdefault(entry.metadata["group"], {})[entry.name] = _keywords(entry, hints[entry.name])
    return found


#: group of flags -> flag -> argparse's keywords. No default: see :data:`OPEN`
FLAGS = _flags()
FLAG_NAMES = tuple(name for flags in FLAGS.values() for name in flags)
MAY_DIFFER = {entry.name for entry in dataclasses.fields(Configuration) if entry.metadata.get("may_differ")}
MAY_DIFFER |= {"tensorboard"}  #: of older runs, --track tensorboard now


def open_values() -> dict[str, Any]:
    """Field -> its default, None where that is open: what a command without flags says."""
    return {name: copy.copy(keywords.get("default")) for flags in FLAGS.values() for name, keywords in flags.items()}


def filled(dataset: str, algorithm: str, **given: Any) -> Configuration:
    """The configuration that these values make, with every default. What they say together is not checked.

    Args:
        given: field -> value.
    """
    values = {**open_values(), "root_dir": ".", **given, "dataset": dataset, "algorithm": algorithm}
    defaults.fill(values, dataset, algorithm)
    return Configuration(**values)


def completed(before: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that may be older than a flag or a hyperparameter: it was trained as their defaults are."""
    known = {
        name: keywords["default"]
        for flags in FLAGS.values()
        for name, keywords in flags.items()
        if "default" in keywords
    }
    own = before.get("hyperparameters")
    hyperparameters = (
        {"hyperparameters": catalog.complete_old(before.get("algorithm"), own)} if isinstance(own, dict) else {}
    )
    return {**known, **before, **hyperparameters}
