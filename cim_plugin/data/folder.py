"""Own images as a release: from folders or a table to `NAME/<environment>/<class>/<image>` and a metadata.csv with the
columns path, label, split and one per kind of group, which `own` opens and DomainBed's image folders read.
"""

from __future__ import annotations

import csv
import os
import posixpath
import shlex
from collections import Counter, defaultdict
from pathlib import Path
from typing import Iterator

import pandas

from ..errors import InputError
from .conversion import Plan, building, convert, is_finished, listed_images
from .images import SUFFIXES
from .releases import OWN, OWN_NAME, RELEASES, SPLITS, Release
from .source import Folder, Source
from .table import check_paths, check_values, commas, read_table

METADATA = "metadata.csv"
COLUMNS = ("path", "label", "split")
ENVIRONMENT = "environment"
CYCLE = ("train", "train", "train", "val", "test")  #: of a group's images, where no split is given


def make(source: str, root: Path, name: str | None) -> Iterator[str]:
    """Make the release; the lines to print.

    Raises:
        InputError: the table or the folders are wrong, an image is missing or cannot be decoded.
    """
    given = Path(source).expanduser()
    release = _release(given.stem if given.suffix == ".csv" else given.resolve().name, name)
    folder = release.path(root)
    if is_finished(folder):
        yield f"{folder} is complete, and its files are as its manifest says"
        return
    images, table = _from_table(given) if given.suffix == ".csv" else _from_folders(given)
    plan = _plan(release, images, table, given)
    with building(folder):
        convert(images, plan, root)
    yield f"{release.name} is in {folder}: " + ", ".join(f"{part} {count:,}" for part, count in plan.counts.items())
    yield from _unlike_environments(plan)
    words = f"cim-plugin train -d {shlex.quote(str(folder))} --algorithm CIM --log_dir logs/{release.name}"
    yield f"train on it with:\n{words}"


def group_fields(folder: str | os.PathLike) -> list[str]:
    """The kinds of group of a release, and the label last, as `own` names them.

    Raises:
        InputError: its table cannot be read.
    """
    try:
        with open(Path(folder, METADATA), encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
    except OSError as error:
        raise InputError(f"{Path(folder, METADATA)} cannot be read: {error.strerror}") from error
    return [*(column for column in header if column not in COLUMNS), "y"]


def _release(found: str, name: str | None) -> Release:
    name = name or found
    if not OWN_NAME.fullmatch(name):
        raise InputError(f"--name {name!r} is not made of letters, digits, '_', '-' and '.'; give another one")
    if name in RELEASES:
        raise InputError(f"--name {name} is a published data set; give yours another name")
    return Release(name, name, (METADATA,), {}, "")


def _from_folders(folder: Path) -> tuple[Source, pandas.DataFrame]:
    if not folder.is_dir():
        raise InputError(f"--from {folder} does not exist")
    source = Folder(folder)
    images = [name for name in source.names if name.lower().endswith(SUFFIXES)]
    wrong = [name for name in images if name.count("/") != 2]
    if wrong or not images:
        found = f"it has {wrong[0]!r}" if wrong else f"it has no file that ends in {' or '.join(SUFFIXES)}"
        raise InputError(f"--from {folder} must hold images as environment/class/image.jpg; {found}")
    rows = [(name, *reversed(name.split("/")[:2])) for name in images]
    return source, pandas.DataFrame(rows, columns=["path", "label", ENVIRONMENT], dtype=object)


def _from_table(file: Path) -> tuple[Source, pandas.DataFrame]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"--from {file} cannot be read: {error.strerror}") from error
    header = next(iter(commas(content.decode("utf-8-sig", "replace"))), [])
    table = read_table(content, file.name, dict.fromkeys([*("path", "label"), *header]), commas)
    check_paths(table, file.name, "path")
    if "y" in table.columns:
        raise InputError(f"{file.name} has a column 'y', which is what the label is called; name it otherwise")
    return Folder(file.parent), table


def _plan(release: Release, source: Source, table: pandas.DataFrame, given: Path) -> Plan:
    groups = [column for column in table.columns if column not in COLUMNS]
    for column in ("label", *groups):
        _check_folder_names(table, given, column)
    if "split" not in table.columns:
        table = table.assign(split=_splits(table, groups))
    check_values(table, given.name, "split", SPLITS)
    counts = {split: int((table["split"] == split).sum()) for split in SPLITS}
    _check_trainable(table, counts, given)
    first = table[groups[0]] if groups else ["all"] * len(table)
    paths = [
        f"{environment}/{label}/{_file(path, given)}"
        for environment, label, path in zip(first, table["label"], table["path"])
    ]
    places = dict(zip(table["path"], paths))
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise InputError(f"{given} holds two images that would become {twice[0]}; rename one")
    text = table.assign(path=paths)[[*COLUMNS, *groups]].to_csv(index=False, lineterminator="\n").encode()
    origin = f"{OWN} data, made by 'cim-plugin data folder' from {given.name}"
    return Plan(release, {METADATA: text}, listed_images(source, places, given.name), counts, origin)


def _file(path: str, given: Path) -> str:
    """The name of an image: a table may have the same one in several folders."""
    return path.replace("/", "_") if given.suffix == ".csv" else posixpath.basename(path)


def _check_folder_names(table: pandas.DataFrame, given: Path, column: str) -> None:
    for row, value in enumerate(table[column]):
        if not value or not value.isprintable() or value.startswith(".") or set(value) & set("/\\"):
            raise InputError(f"{given.name} row {row}: {column} {value!r} is no name of a folder; give another one")


def _splits(table: pandas.DataFrame, groups: list[str]) -> list[str]:
    """Of the images of a label in a group, in order: three of five for training, one for validation, one for test."""
    seen: dict[tuple, int] = defaultdict(int)
    splits = []
    for key in zip(*(table[column] for column in ("label", *groups))):
        splits.append(CYCLE[seen[key] % len(CYCLE)])
        seen[key] += 1
    return splits


def _check_trainable(table: pandas.DataFrame, counts: dict[str, int], given: Path) -> None:
    for split in ("train", "val"):
        if not counts[split]:
            raise InputError(f"{given}: no image is in the split {split!r}; a group needs four images, or give a split")
    classes = table.loc[table["split"] == "train", "label"].unique()
    if len(classes) < 2:
        raise InputError(f"{given}: the training split has the one class {classes[0]!r}; at least two are needed")


def _unlike_environments(plan: Plan) -> Iterator[str]:
    classes: dict[str, set[str]] = defaultdict(set)
    for path in plan.images.values():
        environment, label, _ = path.split("/")
        classes[environment].add(label)
    lacking = [(name, label) for name in classes for label in set().union(*classes.values()) - classes[name]]
    if lacking:
        environment, label = lacking[0]
        yield f"note: {environment} has no {label}; DomainBed numbers the classes of each environment, and wrongly here"
