"""Files of tensors that tell when they are not what was saved any more.

torch.save writes a ZIP file, and torch.load does not look at the checksums in it. What we save carries the SHA-256 of
the whole file as the comment that a ZIP file may end in: it comes and goes with the file, and torch.load and older
versions of this package read the file as before. A file without one, of an older version, is held to its ZIP checksums.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
from typing import Any, BinaryIO

import torch

MARK = "cim_plugin sha256 "
END = b"PK\x05\x06"  #: how the record begins that ends a ZIP file, of 22 bytes and the comment


class _Hashed:
    """A file to write to, with the digest of what has been written."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save(state: dict[str, Any], file: BinaryIO) -> None:
    """As :func:`torch.save`, with the digest as the comment."""
    hashed = _Hashed(file)
    torch.save(state, hashed)
    comment = f"{MARK}{hashed.digest.hexdigest()}".encode()
    file.seek(-2, 2)  # the length of the comment, 0 so far
    file.write(struct.pack("<H", len(comment)) + comment)


def fault(file: BinaryIO, ours: bool = True) -> str | None:
    """Why a file is not what was saved, None where nothing speaks against it; of other formats nothing is known.

    Args:
        ours: a file without a digest is held to its ZIP checksums, which not everybody's are right in.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 66_000))
    tail = file.read()
    start = tail.rfind(END)
    if start < 0:
        return None
    record, comment = tail[start : start + 22], tail[start + 22 :]
    if len(record) < 22 or struct.unpack("<H", record[20:])[0] != len(comment):
        return "its end is not that of a whole file"
    if not comment:
        return _zip_fault(file) if ours else None
    expected = re.fullmatch(rf"{MARK}([0-9a-f]{{64}})", comment.decode("latin-1"))
    if expected is None:
        return "its checksum is damaged"
    return None if _digest(file, size - len(comment) - 2) == expected[1] else "its content does not fit its checksum"


def _digest(file: BinaryIO, n_bytes: int) -> str:
    """Of the file as torch wrote it: so many bytes, and the length of no comment."""
    digest = hashlib.sha256()
    file.seek(0)
    while n_bytes and (block := file.read(min(n_bytes, 1 << 20))):
        digest.update(block)
        n_bytes -= len(block)
    digest.update(bytes(2))
    return digest.hexdigest()


def _zip_fault(file: BinaryIO) -> str | None:
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            wrong = archive.testzip()
    except Exception as error:  # of many kinds, where headers are damaged
        return f"it is not a whole ZIP file ({str(error) or type(error).__name__})"
    return f"its part {wrong!r} does not fit its checksum" if wrong else None
