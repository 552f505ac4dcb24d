"""``--pseudo_environments FILE``: environments of training and validation images that another method has found."""

from __future__ import annotations

import os
import re
from typing import Callable, NamedTuple, NoReturn, Sequence

import torch
from torch import Tensor

from ..data.releases import RELEASES
from ..errors import InputError
from ..files import csv_lines, read_text
from ..flags import shortened
from .datasets import Dataset

SPLITS = ("train", "val")
#: columns -> the names that each may have
COLUMNS = {"split": ("split",), "place": ("row", "image"), "environment": ("environment", "pseudo_environment")}
FIX = "correct the file; docs/pseudo_environments.md says what belongs there"


class Line(NamedTuple):
    """What a line says."""

    number: int
    split: str
    place: str  #: a row of the split, or the name of an image
    environment: str


def read_environments(path: str | os.PathLike, data: Dataset) -> dict[str, Tensor]:
    """The environments of a table with the columns split, row or image, and environment; others are not looked at.

    Every training and every validation image has one line, in any order; lines of other splits are passed over. A row
    is counted from 0 in its split; an image is named as the data set's own table names it. An environment is any word:
    equal words are one environment.

    Returns:
        "train" and "val" -> (N,) int64 in [0, E), numbered in the order of the words, whole numbers by their value.

    Raises:
        InputError: a line is wrong or doubled, or an image has none.
    """
    lines, by_image = _lines(path, data)
    found = {key: _of_split(path, data, key, [line for line in lines if line.split == key], by_image) for key in SPLITS}
    words = sorted({word for of_split in found.values() for word in of_split}, key=_in_order)
    numbers = {word: number for number, word in enumerate(words)}
    return {key: torch.tensor([numbers[word] for word in of_split]) for key, of_split in found.items()}


def _lines(path: str | os.PathLike, data: Dataset) -> tuple[list[Line], bool]:
    """All lines but the header, and whether they name images."""
    table = csv_lines(read_text(path), path)
    first, names = next(table, (1, []))
    names = [name.strip() for name in names]
    chosen = {column: [name for name in allowed if name in names] for column, allowed in COLUMNS.items()}
    for column, of_column in chosen.items():
        if len(of_column) != 1 or names.count(of_column[0]) > 1:
            wanted = " or ".join(map(repr, COLUMNS[column]))
            _refuse(path, first, f"{shortened(','.join(names), 80)!r} has not one column {wanted}")
    places = [names.index(of_column[0]) for of_column in chosen.values()]
    found = []
    for number, cells in table:
        if len(cells) != len(names):
            _refuse(path, number, f"{len(cells)} cells where line {first} names {len(names)} columns")
        found.append(Line(number, *(cells[place].strip() for place in places)))
        _check(path, data, found[-1])
    return found, chosen["place"] == ["image"]


def _check(path: str | os.PathLike, data: Dataset, line: Line) -> None:
    if line.split not in data.splits:
        _refuse(path, line.number, f"{shortened(line.split, 40)!r} is not a split ({', '.join(data.splits)})")
    if not line.environment:
        _refuse(path, line.number, "the environment is empty")


def _of_split(path: str | os.PathLike, data: Dataset, key: str, lines: Sequence[Line], by_image: bool) -> list[str]:
    """The environment of every row of a split, in order."""
    row_of = _by_image(data, key) if by_image else _by_number(len(data.splits[key].labels))
    found: dict[int, Line] = {}
    for line in lines:
        row = row_of(line.place)
        if row is None:
            what = "image" if by_image else "row"
            _refuse(path, line.number, f"{shortened(line.place, 80)!r} is no {what} of {key}")
        earlier = found.setdefault(row, line)
        if earlier is not line:
            _refuse(path, line.number, f"{key} {line.place} stands in line {earlier.number} already")
    count = len(data.splits[key].labels)
    if len(found) < count:
        row = next(row for row in range(count) if row not in found)
        name = _image_names(data)[data.splits[key].indices[row]]
        raise InputError(
            f"{path}: no line for {count - len(found)} of the {count} images of {key}, first row {row}, {name}; {FIX}"
        )
    return [found[row].environment for row in range(count)]


def _by_number(count: int) -> Callable[[str], int | None]:
    def row(text: str) -> int | None:
        return int(text) if re.fullmatch("[0-9]{1,9}", text) and int(text) < count else None

    return row


def _by_image(data: Dataset, key: str) -> Callable[[str], int | None]:
    names = _image_names(data)
    return {names[index]: row for row, index in enumerate(data.splits[key].indices)}.get


def _image_names(data: Dataset) -> Sequence[str]:
    """Of every image of the data set, as its table has them."""
    release = RELEASES.get(getattr(data.wilds, "dataset_name", ""))
    return [str(name) for name in getattr(data.wilds, release.image_names if release is not None else "_input_array")]


def _in_order(word: str) -> tuple[int, str, str]:
    """Whole numbers by their value, before other words."""
    is_number = re.fullmatch("[0-9]{1,100}", word) is not None
    return (0, word.lstrip("0").zfill(100), word) if is_number else (1, word, word)


def _refuse(path: str | os.PathLike, number: int, what: str) -> NoReturn:
    raise InputError(f"{path}, line {number}: {what}; {FIX}")
