"""A dataset of the ``wilds`` package, opened, checked, and cut into splits."""

from __future__ import annotations

import errno
import hashlib
import os
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas
import torch
from torch import Tensor

from ..algorithms.inputs import class_numbers
from ..data.releases import RELEASES, folder_of, how_to_get, is_own, is_subset, is_synthetic
from ..errors import InputError
from ..files import pipe_in
from ..runs.configuration import Configuration
from . import groupwise

MOST_GROUPS = 1_000_000


class Split(NamedTuple):
    """One split: what the evaluator, the loaders and the logs need of it."""

    name: str  #: in words, e.g. "Validation"
    subset: Any  #: wilds' WILDSSubset, for its evaluator and its samplers
    indices: np.ndarray  #: (N,) rows of the whole dataset
    labels: Tensor  #: (N,) int64
    metadata: Tensor  #: (N, fields) int64
    groups: Tensor  #: (N,) int64


class Dataset(NamedTuple):
    """What a run knows of its data."""

    wilds: Any  #: wilds' WILDSDataset
    grouper: Any  #: wilds' CombinatorialGrouper
    splits: dict[str, Split]  #: "train", "val", ..., in the dataset's order
    n_classes: int
    synthetic: bool  #: made by 'cim-plugin data demo'
    subset: bool = False  #: a part that 'cim-plugin data get --subset' took

    def group_names(self) -> list[str]:
        """A name per group, e.g. "y:landbird_background:land"."""
        return [self.grouper.group_field_str(group) for group in range(self.grouper.n_groups)]


def open_dataset(config: Configuration) -> Dataset:
    """Open and check the dataset that the configuration names.

    Raises:
        InputError: it is not there, its files contradict each other, or a split cannot be trained on or evaluated.
    """
    from wilds.common.grouper import CombinatorialGrouper

    groupwise.install()
    name = config.dataset
    if config.download and name in RELEASES:
        _download(name, config.root_dir)
    if not os.path.isdir(config.root_dir):  # wilds would make it
        raise InputError(f"{name} is not in --root_dir {config.root_dir}; {_how_to_get(config)}")
    if strange := pipe_in(folder_of(name, config.root_dir)):
        raise InputError(f"{strange}; put the data set's own there")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            dataset = _open(config)
    except FileNotFoundError as error:
        missing = error.filename or f"{name} is not in --root_dir {config.root_dir}"
        raise InputError(
            f"{missing if not error.filename else error.filename + ' does not exist'}; {_how_to_get(config)}"
        ) from error
    except KeyError as error:
        raise InputError(
            f"the tables of {name} in {config.root_dir} have no column {error}; 'cim-plugin data check' says what "
            f"they need"
        ) from error
    except (ValueError, TypeError, RuntimeError, OSError, AssertionError) as error:
        raise InputError(f"{name} in {config.root_dir} cannot be read: {_reason(error)}") from error
    fields = config.groupby_fields
    unknown = [field for field in fields if field not in dataset.metadata_fields]
    if unknown:
        raise InputError(
            f"--groupby_fields {unknown[0]!r} is not a metadata field of {name}; it has "
            f"{', '.join(dataset.metadata_fields)}"
        )
    _check_rows(dataset, name)
    _check_names(dataset, name)
    try:
        grouper = CombinatorialGrouper(dataset, fields)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"--groupby_fields {' '.join(fields)} makes no groups of {name}: {_reason(error)}") from error
    if grouper.n_groups > MOST_GROUPS:
        raise InputError(
            f"--groupby_fields {' '.join(fields)} makes {grouper.n_groups:,} groups of {name}; name fields with fewer "
            f"values"
        )
    splits = {key: _split(dataset, key, grouper, config.frac) for key in dataset.split_dict}
    _check_splits(splits, config)
    marks = (is_synthetic(dataset.data_dir), is_subset(dataset.data_dir))
    return Dataset(dataset, grouper, splits, dataset.n_classes, *marks)


def _open(config: Configuration):
    folder = folder_of(config.dataset, config.root_dir)
    if is_own(folder):
        from ..data.own import OwnDataset

        return OwnDataset(folder)
    import wilds

    if config.dataset not in wilds.supported_datasets:
        raise FileNotFoundError(errno.ENOENT, "no own data", str(folder))
    options = {key: value for key in ("version", "split_scheme") if (value := getattr(config, key)) is not None}
    kwargs = {**options, **config.dataset_kwargs}
    return wilds.get_dataset(dataset=config.dataset, root_dir=config.root_dir, download=False, **kwargs)


def _how_to_get(config: Configuration) -> str:
    if config.dataset in RELEASES:
        return how_to_get(config.dataset, config.root_dir)
    return "own data is made by 'cim-plugin data folder'"


def _download(name: str, root: str) -> None:
    """Get the dataset, unless something is in its place: then its loader says what it is."""
    folder = RELEASES[name].path(root)
    if folder.is_dir() and any(folder.iterdir()):
        return
    try:
        from ..data.get import get

        get(name, Path(root))
    except ModuleNotFoundError as error:
        raise InputError(f"--download needs the package {error.name!r}; pip install 'cim_plugin[data]'") from error


def _reason(error: Exception) -> str:
    """The first line of what an exception says; of a bare assertion, what it asserts."""
    if "read-only" in str(error):
        return (
            f"this version of wilds writes into a table that pandas {pandas.__version__} protects; pip install "
            f"'pandas<3'"
        )
    lines = str(error).strip().splitlines()
    return lines[0] if lines else f"{type(error).__name__} at '{traceback.extract_tb(error.__traceback__)[-1].line}'"


def _split(dataset, key: str, grouper, frac: float) -> Split:
    subset = dataset.get_subset(key, frac=frac)
    metadata = subset.metadata_array
    labels = class_numbers(subset.y_array.reshape(-1))
    groups = grouper.metadata_to_group(metadata) if len(labels) else labels
    return Split(dataset.split_names[key], subset, np.asarray(subset.indices), labels, metadata, groups)


def _check_rows(dataset, name: str) -> None:
    n_rows = {
        "labels": len(dataset.y_array),
        "metadata": len(dataset.metadata_array),
        "splits": len(dataset.split_array),
    }
    images = getattr(dataset, "_input_array", None)
    if images is not None:
        n_rows["images"] = len(images)
    if len(set(n_rows.values())) > 1:
        raise InputError(
            f"the tables of {name} have different lengths: "
            + ", ".join(f"{count} {what}" for what, count in n_rows.items())
        )
    nowhere = np.flatnonzero(np.isnan(np.asarray(dataset.split_array, dtype=float)))
    if len(nowhere):
        raise InputError(f"row {nowhere[0]} of {name} has no number of a split; 'cim-plugin data check' has a look")
    if dataset.y_array[:1].numel() > 1:
        raise InputError(
            f"the labels of {name} have the shape {tuple(dataset.y_array.shape)}; one class number per image is needed"
        )
    try:
        labels = class_numbers(dataset.y_array.reshape(-1), f"the labels of {name}")
    except ValueError as error:
        raise InputError(str(error)) from error
    wrong = torch.nonzero((labels < 0) | (labels >= dataset.n_classes)).reshape(-1)
    if len(wrong):
        raise InputError(
            f"label {int(labels[wrong[0]])} of row {int(wrong[0])} of {name} is out of range: it has "
            f"{dataset.n_classes} classes, from 0 on"
        )


def _check_names(dataset, name: str) -> None:
    """Values of the metadata have a name where the data set has a table of names."""
    for column, field in enumerate(dataset.metadata_fields):
        names = (dataset.metadata_map or {}).get(field)
        if names is None:
            continue
        values = dataset.metadata_array[:, column]
        wrong = torch.nonzero((values < 0) | (values >= len(names))).reshape(-1)
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{field} {int(values[row])} of row {row} of {name} has no name: its table has {len(names)} names, "
                f"from 0 on"
            )


def _check_splits(splits: dict[str, Split], config: Configuration) -> None:
    for key in ("train", "val"):
        if key not in splits or not len(splits[key].labels):
            purpose = "train on" if key == "train" else "select by"
            raise InputError(
                f"split {key!r} of {config.dataset} is empty (--frac {config.frac}); there is nothing to {purpose}"
            )
    classes = splits["train"].labels.unique().tolist()
    if len(classes) == 1:
        raise InputError(
            f"the training split of {config.dataset} holds only class {classes[0]}; at least two are needed"
        )


def fingerprint(data: Dataset) -> dict[str, str]:
    """What a run's numbers depend on beside the pixels, in words -> digest: a run is not to go on with other data."""
    splits = data.splits
    release = RELEASES.get(getattr(data.wilds, "dataset_name", ""))
    attribute = release.image_names if release is not None else "_input_array"
    names = "\n".join(map(str, getattr(data.wilds, attribute, ())))
    return {
        "the splits": digest_of(split.indices for split in splits.values()),
        "the labels": digest_of(split.labels for split in splits.values()),
        "the metadata": digest_of(split.metadata for split in splits.values()),
        "the names of the images": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def digest_of(arrays) -> str:
    """Of whole numbers, whatever their type."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array, dtype="<i8")
        digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()


def difference_of_data(before: dict[str, str] | None, now: dict[str, str]) -> str | None:
    """What is not as it was, of two fingerprints, in words; None where nothing differs or an older run has none."""
    return next((what for what, digest in (before or {}).items() if now.get(what, digest) != digest), None)


def image_path(dataset, row: int) -> str:
    """The file of an image."""
    if dataset.dataset_name not in RELEASES:  # own data
        return os.path.join(dataset.data_dir, dataset._input_array[row])
    return RELEASES[dataset.dataset_name].image_path(dataset, row)
