"""Folders that appear whole: files written in one go, a manifest of their checksums, and the renaming at the end.

The manifest is in the format of ``sha256sum``: ``sha256sum --check MANIFEST.sha256`` verifies a folder, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Iterator

from ..errors import InputError
from ..files import read_text, write_whole
from ..progress import progress
from .paths import outside

NAME = "MANIFEST.sha256"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_manifest(folder: Path, digests: dict[str, str]) -> None:
    """``digests``: path inside the folder, with slashes -> SHA-256 in hexadecimal."""
    write_whole(folder / NAME, "".join(f"{value}  {path}\n" for path, value in sorted(digests.items())).encode())


def read_manifest(folder: Path) -> dict[str, str]:
    """What `write_manifest` wrote; empty if there is none.

    Raises:
        InputError: it is damaged.
    """
    if not os.path.lexists(folder / NAME):
        return {}
    parts = [line.partition("  ") for line in read_text(folder / NAME).splitlines()]
    for number, (value, _, path) in enumerate(parts, 1):
        if not (path and len(value) == 64) or outside(path):
            raise InputError(f"{folder / NAME}, line {number}: no checksum and a file of the folder; restore the file")
    return {path: value for value, _, path in parts}


def changed(folder: Path) -> str | None:
    """The first file of the manifest that is missing or has other content; None if there is none."""
    for path, value in progress(
        read_manifest(folder).items(), desc=f"verifying {folder.name}", unit="file", leave=False
    ):
        file = folder / path
        if not file.is_file() or digest(file.read_bytes()) != value:
            return path
    return None


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full disk, a missing right and the like become one line that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror or error}") from error
