"""The log files of WILDS' ``run_expt.py``: log.txt, {split}_eval.csv and {split}_algo.csv.

Files are appended to. A checkpoint records their sizes, and a resumed run cuts them back to it, so that no line is
lost or doubled however a run was stopped.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from typing import Any, Iterable

from ..errors import InputError
from ..files import reason
from .checkpoint import FIX
from .tracking import Tracker

LOG = "log.txt"
KINDS = ("eval", "algo")  #: of the CSV files of a split


def is_log_file(name: Any, splits: Iterable[str]) -> bool:
    """Whether a run over these splits writes a file of this name."""
    return name == LOG or name in [f"{split}_{kind}.csv" for split in splits for kind in KINDS]


class LogFiles:
    """Append-only text files of a folder.

    Args:
        folder: where they are; None writes nothing, for all processes but the first.
        sizes: file name -> bytes to keep of what is there; other files are started anew.
        echo: a function that also gets what goes to log.txt, or None.
        tracker: also gets the numbers of CSV files, or None.
    """

    def __init__(self, folder: str | None, sizes: dict[str, int], echo=None, tracker: Tracker | None = None):
        self.folder = folder
        self.echo = echo
        self.tracker = tracker
        self.sizes: dict[str, int] = {}
        self.columns: dict[str, list[str]] = {}  #: of CSV files
        there = (
            {} if folder is None else {os.path.join(folder, name): name for name in sizes if _is_there(folder, name)}
        )
        for path, name in there.items():
            os.truncate(path, min(sizes[name], os.path.getsize(path)))
            self.sizes[name] = os.path.getsize(path)

    def write(self, text: str) -> None:
        """Append to log.txt."""
        self._append(LOG, text)
        if self.echo is not None:
            self.echo(text)

    def row(self, name: str, values: dict[str, Any], step: int) -> None:
        """Append a line to a CSV file, the header before the first; ``step`` is its place on a tracker's axis.

        A file that an older version began keeps its columns.
        """
        if name not in self.columns:
            header = self._header(name)
            self.columns[name] = header if header and set(header) < set(values) else list(values)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns[name], extrasaction="ignore", lineterminator="\n")
        if name not in self.sizes:
            writer.writeheader()
        writer.writerow(values)
        self._append(name, buffer.getvalue())
        if self.tracker is not None:
            self.tracker.numbers({f"{name.removesuffix('.csv')}/{key}": value for key, value in values.items()}, step)

    def _header(self, name: str) -> list[str] | None:
        """Of a CSV file that is there already."""
        if self.folder is None or name not in self.sizes:
            return None
        with open(os.path.join(self.folder, name), newline="", encoding="utf-8", errors="surrogateescape") as file:
            return next(csv.reader(file), None)

    def _append(self, name: str, text: str) -> None:
        if self.folder is None:
            return
        data = text.encode("utf-8", "surrogateescape")  # the bytes of a path that are no text, as they are
        path = os.path.join(self.folder, name)
        if name not in self.sizes:
            _is_there(self.folder, name)
        try:
            with open(path, "ab" if name in self.sizes else "wb") as file:
                file.write(data)
        except OSError as error:
            raise InputError(f"cannot write {path} ({reason(error)}); {FIX}") from error
        self.sizes[name] = self.sizes.get(name, 0) + len(data)


def _is_there(folder: str, name: str) -> bool:
    """Whether there is a file of this name in the folder.

    Raises:
        InputError: it is none, or a link, through which another folder's file would be written.
    """
    path = os.path.join(folder, name)
    if not os.path.lexists(path):
        return False
    if os.path.basename(name) != name or not stat.S_ISREG(os.lstat(path).st_mode):
        raise InputError(f"{path} is not an ordinary file of this folder, so nothing is written there; move it away")
    return True
