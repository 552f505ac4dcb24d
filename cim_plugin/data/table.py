"""Metadata tables, read strictly: every cell stays the text that it was until it is checked. Rows count from 0, as the
loaders count.
"""

from __future__ import annotations

import csv
import posixpath
from typing import Callable, Iterable, Sequence

import pandas

from ..errors import InputError
from .images import SUFFIXES
from .releases import SPLITS


def read_table(
    content: bytes, name: str, columns: Iterable[str], split: Callable[[str], Iterable[list[str]]]
) -> pandas.DataFrame:
    """A table of texts whose first line names ``columns``, in any order.

    Args:
        content: the file.
        name: of the file, for messages.
        columns: that it must have, no more and no fewer.
        split: from the whole text to lists of cells, the first of them the header.

    Raises:
        InputError: no UTF-8, no rows, a missing or extra column, a row of another length.
    """
    try:
        rows = list(split(content.decode("utf-8-sig")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} is not a table in UTF-8: {error}") from error
    if len(rows) < 2:
        raise InputError(f"{name} has no rows")
    header, *rows = rows
    _check_header(header, name, list(columns))
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise InputError(f"{name} row {number} has {len(row)} cells, the header has {len(header)}")
    return pandas.DataFrame(rows, columns=header, dtype=object)


def _check_header(header: list[str], name: str, columns: list[str]) -> None:
    for what, wrong in (
        ("no column", [c for c in columns if c not in header]),
        ("an unexpected column", [c for c in header if c not in columns]),
    ):
        if wrong:
            raise InputError(f"{name} has {what} {wrong[0]!r}; it must have {', '.join(columns)}")
    if len(header) != len(columns):
        raise InputError(f"{name} has a column twice; it must have {', '.join(columns)}")


def commas(text: str) -> list[list[str]]:
    """Cells of a CSV file; empty lines are left out."""
    return [row for row in csv.reader(text.splitlines()) if row]


def check_values(table: pandas.DataFrame, name: str, column: str, allowed: Sequence[str]) -> None:
    """Every cell of a column is one of ``allowed``.

    Raises:
        InputError: names the first row where it is not.
    """
    wrong = (~table[column].isin(allowed)).to_numpy().nonzero()[0]
    if len(wrong):
        raise InputError(
            f"{name} row {wrong[0]}: {column} is {table[column].iloc[wrong[0]]!r}, it must be {' or '.join(allowed)}"
        )


def check_paths(table: pandas.DataFrame, name: str, column: str) -> None:
    """Every cell of a column is the path of an image that stays inside a folder, and none is there twice.

    Raises:
        InputError: names the first row where it is not.
    """
    for row, path in enumerate(table[column]):
        if (
            path != posixpath.normpath(path)
            or path.startswith(("/", "..", "."))
            or "\\" in path
            or not path.isprintable()
        ):
            raise InputError(f"{name} row {row}: {column} {path!r} is not a plain path inside the release")
        if not path.lower().endswith(SUFFIXES):
            raise InputError(f"{name} row {row}: {column} {path!r} does not end in {' or '.join(SUFFIXES)}")
    repeated = table[column].duplicated().to_numpy().nonzero()[0]
    if len(repeated):
        raise InputError(f"{name} row {repeated[0]}: {column} {table[column].iloc[repeated[0]]!r} is there twice")


def count_splits(table: pandas.DataFrame, name: str, column: str) -> dict[str, int]:
    """Rows of the splits "0", "1" and "2", by their words.

    Raises:
        InputError: a value is no split, or a split has no rows.
    """
    check_values(table, name, column, [str(number) for number in range(len(SPLITS))])
    counts = {split: int((table[column] == str(number)).sum()) for number, split in enumerate(SPLITS)}
    for number, (split, count) in enumerate(counts.items()):
        if not count:
            raise InputError(f"{name}: no row has {column} {number}, the {split} split is empty")
    return counts
