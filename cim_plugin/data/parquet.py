"""Images in parquet files as the Hub keeps them: a column ``image`` of bytes and file name, and columns of labels.

Images are read page by page: a file of any size and any row groups needs little memory.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Iterable, Iterator

import pandas

from ..errors import InputError, first_line
from .source import MAX_FILE, Source

BATCH = 64  #: images in memory at once
BUFFER = 1 << 20  #: bytes that are read ahead of each column


class Parquet(Source):
    """Rows of parquet files. A row's name is its split and its number in it, "train/000000".

    Args:
        path: what messages call it.
        files: split -> its files, in order.

    Raises:
        InputError: a file is no parquet file, is truncated, or has no column ``image``.
    """

    def __init__(self, path: Path, files: dict[str, list[Path]]):
        self.path = path
        self.files = {split: [_open(file) for file in names] for split, names in files.items()}
        self.counts = {split: sum(file.metadata.num_rows for file in opened) for split, opened in self.files.items()}
        self.names = [name for split in files for name in self._names(split)]

    def table(self, columns: Iterable[str], named: Iterable[str] = ()) -> pandas.DataFrame:
        """A row per image, in the order of ``names``: ``columns``, those of ``named`` with classes by their names where
        the file names them, and

        - name: of the row,
        - split,
        - file: the image's file name in the mirror; None where it has none.

        Raises:
            InputError: a column is missing or has an empty cell, or a file name is a path.
        """
        parts = [
            self._read(split, file, list(columns), set(named))
            for split, opened in self.files.items()
            for file in opened
        ]
        table = pandas.concat(parts, ignore_index=True)
        table.insert(0, "name", self.names)
        for column in columns:
            empty = table[column].isna().to_numpy().nonzero()[0]
            if len(empty):
                raise InputError(f"{self.path}: row {table['name'][empty[0]]} has no {column}")
        return table

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(names)
        for split, opened in self.files.items():
            left = iter(self._names(split))
            for file in opened:
                yield from self._images(file, wanted, left)

    def _names(self, split: str) -> Iterator[str]:
        return (f"{split}/{row:06}" for row in range(self.counts[split]))

    def _images(self, file, wanted: set[str], names: Iterator[str]) -> Iterator[tuple[str, bytes]]:
        for group in range(file.metadata.num_row_groups):
            rows = [next(names) for _ in range(file.metadata.row_group(group).num_rows)]
            if wanted.isdisjoint(rows):
                continue
            left = iter(rows)
            for batch in self._batches(file, group):
                for content in batch:
                    name = next(left)
                    if name in wanted:
                        yield name, self._checked(name, content)

    def _batches(self, file, group: int) -> Iterator[Iterator[bytes | None]]:
        batches = file.iter_batches(BATCH, row_groups=[group], columns=["image.bytes"], use_threads=False)
        with _damage(self.path):
            for batch in batches:
                yield (value.as_py() for value in batch.column("image").field("bytes"))

    def _checked(self, name: str, content: bytes | None) -> bytes:
        if not content:
            raise InputError(f"{self.path}: row {name} holds no image")
        if len(content) > MAX_FILE:
            raise InputError(f"{self.path}: the image of row {name} has {len(content):,} bytes, more than {MAX_FILE:,}")
        return content

    def _read(self, split: str, file, columns: list[str], named: set[str]) -> pandas.DataFrame:
        there = file.schema_arrow.names
        missing = [column for column in columns if column not in there]
        if missing:
            raise InputError(f"{self.path} has no column {missing[0]!r}; it has {', '.join(there)}")
        with _damage(self.path):
            read = file.read(columns=[*columns, "image.path"], use_threads=False)
        classes = _class_names(file)
        values = {
            column: _named(read.column(column).to_pylist(), classes.get(column) if column in named else None)
            for column in columns
        }
        paths = [path for chunk in read.column("image").chunks for path in chunk.field("path").to_pylist()]
        return pandas.DataFrame({"split": split, "file": [self._plain(path) for path in paths], **values}, dtype=object)

    def _plain(self, path: Any) -> str | None:
        if path in (None, ""):
            return None
        if not isinstance(path, str) or "/" in path or "\\" in path or path.startswith(".") or not path.isprintable():
            raise InputError(f"{self.path} names an image {path!r}, which is not a plain file name; it is refused")
        return path


def _open(path: Path):
    import pyarrow.parquet

    with _damage(path):
        file = pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
    image = file.schema_arrow.field("image").type if "image" in file.schema_arrow.names else None
    if image is None or {"bytes", "path"} - {field.name for field in getattr(image, "fields", ())}:
        raise InputError(f"{path} has no column 'image' of bytes and path; it has {', '.join(file.schema_arrow.names)}")
    return file


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What pyarrow raises on a damaged file becomes one line."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, EOFError, OSError) as error:
        if getattr(error, "errno", None):  # the disk's
            raise
        reason = first_line(error).rstrip(".")
        raise InputError(f"{path} is no parquet file, or is truncated or damaged ({reason})") from error


def _class_names(file) -> dict[str, list[str]]:
    """Column -> names of its classes, as the Hub's library notes them in the file."""
    try:
        features = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError):  # no such note
        return {}


def _named(values: list, names: list[str] | None) -> list:
    """Numbers of classes as their names; a number without a name stays one."""
    if names is None:
        return values
    return [
        names[value] if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names) else value
        for value in values
    ]
