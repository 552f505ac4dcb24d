"""From the rows of a mirror's parquet files to the release that a host reads. File names are the mirror's where it has
any, else made of split and row.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Hashable, Iterable, Sequence

import pandas

from ..errors import InputError
from . import celeba, waterbirds
from .conversion import Plan
from .images import SUFFIXES, suffix
from .parquet import Parquet
from .releases import SPLITS, Release
from .subset import part

WILDS_SPLITS = {"train": 0, "validation": 1, "valid": 1, "test": 2}  #: the Hub's -> the numbers in wilds' tables
CENTERS = {"train-center1": 0, "validation-center": 1, "test-center": 2, "train-center2": 3, "train-center3": 4}
TUMOR = {"non-tumor": 0, "tumor": 1}


def plan_waterbirds(source: Parquet, release: Release, most: int | None) -> Plan:
    """``split/file`` and a metadata.csv in the order of the mirror's rows.

    Raises:
        InputError: a label or a place is not 0 or 1, or two images would have one name.
    """
    table = source.table(("label", "place"))
    for column in ("label", "place"):
        _check(source, table, column, (0, 1))
    split = table["split"].map(WILDS_SPLITS)
    table = table.iloc[part(_strata(table, "split", "label", "place"), most)]
    paths = [f"{part}/{name}" for part, name in zip(table["split"], _file_names(source, table))]
    rows = pandas.DataFrame(
        dict(
            zip(
                waterbirds.COLUMNS,
                (range(1, len(table) + 1), paths, table["label"], split[table.index], table["place"], ""),
            )
        )
    )
    return _plan(source, release, table, paths, {waterbirds.METADATA: _csv(rows)}, split[table.index])


def plan_celeba(source: Parquet, release: Release, most: int | None) -> Plan:
    """Kaggle's tables: attributes of -1 and 1, and the number of the split. Images without a name are numbered in the
    mirror's order, which is the official one where it begins with the training split.

    Raises:
        InputError: an attribute is neither true nor false, or two images would have one name.
    """
    table = source.table(celeba.ATTRIBUTES)
    for attribute in celeba.ATTRIBUTES:
        _check(source, table, attribute, (False, True))
    numbers = [f"{row:06}.jpg" for row in range(1, len(table) + 1)]
    names = numbers if table["file"].isna().any() else _file_names(source, table)
    table = table.assign(image_id=names, partition=table["split"].map(WILDS_SPLITS))
    table = table.iloc[part(_strata(table, "split", "Blond_Hair", "Male"), most)]
    signs = table[list(celeba.ATTRIBUTES)].astype(int) * 2 - 1
    texts = {
        "list_attr_celeba.csv": _csv(pandas.concat([table[["image_id"]], signs], axis=1)),
        "list_eval_partition.csv": _csv(table[["image_id", "partition"]]),
    }
    paths = [f"{celeba.IMAGES}/{name}" for name in table["image_id"]]
    return _plan(source, release, table, paths, texts, table["partition"])


def plan_camelyon17(source: Parquet, release: Release, most: int | None) -> Plan:
    """Patches where wilds looks for them, and a metadata.csv in the order of ``image_id``, which is the row's number in
    WILDS' own. Of its two validation splits the one of the training hospitals is written as 1; the loader goes by
    the hospital elsewhere.

    Raises:
        InputError: ``image_id`` does not count the images, or two images would have one path.
    """
    numbers = ("image_id", "patient", "node", "x_coord", "y_coord", "slide")
    table = source.table((*numbers, "center", "label"), named=("center", "label"))
    for column, numbered, known in (("center", "center", CENTERS), ("label", "tumor", TUMOR)):
        table[numbered] = pandas.Series([known.get(value, value) for value in table[column]], dtype=object)
    _check(source, table, "center", range(5))
    _check(source, table, "tumor", (0, 1))
    for number in numbers:
        _check_numbers(source, table, number)
    table = table.sort_values("image_id", kind="stable")
    if table["image_id"].tolist() != list(range(len(table))):
        raise InputError(f"{source.path}: image_id does not count the images from 0 to {len(table) - 1:,}")
    table["split"] = (table["split"] == "validation").astype(int)
    table = table.iloc[part(_strata(table, "split", "center", "tumor"), most)]
    table["patient"] = [f"{int(patient):03}" for patient in table["patient"]]
    paths = [
        f"patches/patient_{p}_node_{n}/patch_patient_{p}_node_{n}_x_{x}_y_{y}.png"
        for p, n, x, y in table[["patient", "node", "x_coord", "y_coord"]].itertuples(index=False, name=None)
    ]
    columns = ["patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"]
    rows = table[columns].reset_index(drop=True)
    text = rows.to_csv(lineterminator="\n").encode()
    official = [
        "val" if c == 1 else "test" if c == 2 else "id_val" if s else "train"
        for c, s in zip(table["center"], table["split"])
    ]
    counts = {split: official.count(split) for split in release.counts}
    return Plan(release, {"metadata.csv": text}, _images(source, table, paths), counts)


def plan_environments(source: Parquet, release: Release) -> Plan:
    """``environment/class/file``, as DomainBed reads it.

    Raises:
        InputError: the mirror has other environments, or not the same classes in each, or two images would have one
            path.
    """
    table = source.table(("domain", "label"), named=("domain", "label"))
    for column in ("domain", "label"):
        _check_folders(source, table, column)
    classes = {domain: set(rows["label"]) for domain, rows in table.groupby("domain")}
    if sorted(classes) != sorted(release.needs):
        raise InputError(
            f"{source.path} has the environments {', '.join(sorted(classes))}, not {', '.join(release.needs)}"
        )
    first, *others = classes
    for domain in others:
        if differ := sorted(classes[domain] ^ classes[first]):
            raise InputError(f"{source.path}: only one of {first} and {domain} has the class {differ[0]!r}")
    paths = [
        f"{domain}/{label}/{name}"
        for domain, label, name in zip(table["domain"], table["label"], _file_names(source, table))
    ]
    counts = Counter(table["domain"])
    return Plan(release, {}, _images(source, table, paths), {domain: counts[domain] for domain in release.needs})


def _strata(table: pandas.DataFrame, *columns: str) -> list[Hashable]:
    return list(zip(*(table[column] for column in columns)))


def _check(source: Parquet, table: pandas.DataFrame, column: str, allowed: Sequence[Any]) -> None:
    wrong = [row for row, value in enumerate(table[column]) if value not in allowed]
    if wrong:
        raise InputError(
            f"{source.path}: row {table['name'].iloc[wrong[0]]}: {column} is {table[column].iloc[wrong[0]]!r}, it must "
            f"be one of {', '.join(map(str, allowed))}"
        )


def _check_numbers(source: Parquet, table: pandas.DataFrame, column: str) -> None:
    for name, value in zip(table["name"], table[column]):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{source.path}: row {name}: {column} is {value!r}, it must be a whole number from 0 on")


def _check_folders(source: Parquet, table: pandas.DataFrame, column: str) -> None:
    """Every value is a name that a folder can have."""
    for value in table[column].unique():
        if (
            not isinstance(value, str)
            or not value.isprintable()
            or value.startswith(".")
            or set(value) & set("/\\")
            or not value
        ):
            raise InputError(f"{source.path}: {column} {value!r} is no name of a folder; it is refused")


def _file_names(source: Parquet, table: pandas.DataFrame) -> list[str]:
    """Of every image: the mirror's, where all have one; else split and row, with the suffix of the first image."""
    if not table["file"].isna().any():
        wrong = [name for name in table["file"] if not name.lower().endswith(SUFFIXES)]
        if wrong:
            raise InputError(f"{source.path}: the image {wrong[0]!r} does not end in {' or '.join(SUFFIXES)}")
        return table["file"].tolist()
    end = suffix(source.read(table["name"].iloc[0]))
    return [name.replace("/", "_") + end for name in table["name"]]


def _images(source: Parquet, table: pandas.DataFrame, paths: list[str]) -> dict[str, str]:
    """Row -> path in the release, in the table's order; a path belongs to one row."""
    repeated = [path for path, count in Counter(paths).items() if count > 1]
    if repeated:
        raise InputError(f"{source.path} holds two images that would become {repeated[0]}")
    return dict(zip(table["name"], paths))


def _plan(
    source: Parquet,
    release: Release,
    table: pandas.DataFrame,
    paths: list[str],
    texts: dict[str, bytes],
    split: Iterable[int],
) -> Plan:
    found = Counter(split)
    counts = {name: found[number] for number, name in enumerate(SPLITS)}
    return Plan(release, texts, _images(source, table, paths), counts)


def _csv(table: pandas.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()
