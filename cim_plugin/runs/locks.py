"""Two commands that share the runs of a folder: each run has a lock, which ends with the processes that hold it."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import Iterator


class Taken(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold a lock file, which is made and stays; its descriptor, by which processes that inherit it hold it as well.

    Raises:
        Taken: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Taken(path) from error
        yield file.fileno()
