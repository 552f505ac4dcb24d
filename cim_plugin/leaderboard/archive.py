"""The files of a submission, read one after the other: a folder, a zip or a tar archive. Nothing is ever unpacked to
the disk.

An archive is hostile until shown otherwise. What a member claims and what is really read are both bounded, and a member
that is
no plain file at a plain path is named and not read.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, NamedTuple

from ..data.paths import outside
from ..errors import InputError
from ..files import reason

MAX_MEMBERS = 10_000  #: a submission to all boards has 135 files
MAX_MEMBER = 256 << 20  #: bytes; the largest known are the 128 columns of ogb-molpcba
MAX_TOTAL = 2 << 30  #: bytes of an archive, unpacked
MAX_HEADER = 1 << 13  #: bytes of a tar archive's extended header
MAX_DIRECTORY = 4 << 20  #: bytes of a zip archive's directory
CHUNK = 1 << 16
SPECIAL = "is a link or a device, not a plain file"

#: what reading a damaged archive raises
DAMAGE = (
    EOFError,
    OSError,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    RuntimeError,
    ValueError,
    LookupError,
    ArithmeticError,
    struct.error,
)
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Member(NamedTuple):
    """One file of a submission. Read it before the next one is asked for."""

    name: str  #: path inside the submission, with slashes
    problem: str | None  #: why it must not be read, in words
    chunks: Callable[
        [], Iterator[bytes]
    ]  #: its content, at most MAX_MEMBER bytes; raises InputError where it cannot be read


def members(path: str | os.PathLike, total: int = MAX_TOTAL) -> Iterator[Member]:
    """Every file of a submission, folders left out.

    Args:
        total: bytes of an archive, unpacked, at most.

    Raises:
        InputError: it cannot be read at all: it is not there, no archive, truncated, damaged, or too much.
    """
    path = Path(path).expanduser()
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path} does not exist, or is neither a folder nor a file")
    with _reading(path):
        for count, member in enumerate(_folder(path) if path.is_dir() else _archive(path, total), 1):
            if count > MAX_MEMBERS:
                raise InputError(
                    f"{path} holds more than {MAX_MEMBERS:,} files and folders; a submission to every board has 135 "
                    f"files"
                )
            if member is not None:
                yield member


def shown(text: str) -> str:
    """A name or text as it can be printed on a terminal: what is not printable is escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        why = reason(error).rstrip(":")
        if path.is_dir():
            raise InputError(
                f"{shown(str(getattr(error, 'filename', None) or path))} cannot be read ({why})"
            ) from error
        raise InputError(
            f"{path} is no tar, tar.gz or zip archive, or is truncated or damaged ({shown(why)})"
        ) from error


def _read(path: Path, open_member: Callable[[], BinaryIO]) -> Iterator[bytes]:
    left = MAX_MEMBER
    with _reading(path), open_member() as file:
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _wrong_path(name: str) -> str | None:
    if not name:
        return "has no name"
    if wrong := outside(name):
        return wrong
    if "\\" in name or not name.isprintable():
        return "has a name with backslashes, unprintable characters, or bytes that are not UTF-8"
    return None


def _too_large(size: int) -> str | None:
    return f"has {size:,} bytes, more than {MAX_MEMBER:,}" if size > MAX_MEMBER else None


# --- a folder: None stands for a folder in it
# --------------------------------------------------------------------------


def _folder(path: Path) -> Iterator[Member | None]:
    for folder, names, files in os.walk(path, onerror=_raise):
        names.sort()
        yield None
        for name in sorted(files + [name for name in names if os.path.islink(os.path.join(folder, name))]):
            file = Path(folder, name)
            relative = file.relative_to(path).as_posix()
            status = file.lstat()
            problem = (
                (None if stat.S_ISREG(status.st_mode) else SPECIAL)
                or _wrong_path(relative)
                or _too_large(status.st_size)
            )
            yield Member(relative, problem, lambda file=file: _read(path, lambda: open(file, "rb")))


def _raise(error: OSError) -> None:
    raise error


# --- archives
# -----------------------------------------------------------------------------------------------------------


def _archive(path: Path, total: int) -> Iterator[Member | None]:
    with open(path, "rb") as file:
        start = file.read(2)
        file.seek(0)
        if start == b"PK":
            yield from _zip(path, total)
        elif start == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                yield from _tar(path, _Bounded(unpacked, total, path))
        else:
            yield from _tar(path, _Bounded(file, total, path))


class _Bounded:
    """A stream of which no more than ``limit`` bytes are ever read."""

    def __init__(self, file: BinaryIO, limit: int, path: Path):
        self.file, self.left, self.limit, self.path = file, limit, limit, path

    def read(self, size: int) -> bytes:
        data = self.file.read(min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise _too_much(self.path, self.limit)
        return data


def _too_much(path: Path, limit: int) -> InputError:
    return InputError(f"{path} unpacks to more than {limit:,} bytes; it is refused")


class _TarInfo(tarfile.TarInfo):
    """A header whose extension is bounded before it is read: by its size, and a sparse member's list of holes
    altogether.
    """

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _TarInfo:
        member = super().frombuf(buf, encoding, errors)
        if member.type in EXTENDED and member.size > MAX_HEADER:
            raise InputError(f"the archive has an extended header of {member.size:,} bytes; it is refused")
        if member.type == tarfile.GNUTYPE_SPARSE:
            member._proc_gnusparse_10()
        if member.size > MAX_TOTAL:  # tarfile would go on reading at the end of the file, for hours
            raise InputError(f"the archive has a member of {member.size:,} bytes; it is refused")
        if member.size < 0:
            raise tarfile.ReadError("negative size")
        return member

    def _proc_gnusparse_10(self, *_) -> None:  # what tarfile calls for the newer kind
        raise InputError("the archive has a sparse member; it is refused")


def _tar(path: Path, stream: _Bounded) -> Iterator[Member | None]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarInfo) as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # it would keep every header
            problem = (
                (None if member.isreg() and not member.issparse() else SPECIAL)
                or _wrong_path(member.name)
                or _too_large(member.size)
            )
            yield (
                None
                if member.isdir()
                else Member(member.name, problem, lambda member=member: _read(path, lambda: tar.extractfile(member)))
            )
    while stream.read(CHUNK):  # to the end of the compressed file, where its checksum is
        pass


class _ZipFile(io.FileIO):
    """A file of which a zip archive's directory is read only if it is small; nothing else is read in one piece."""

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY:
            raise InputError(
                f"{self.name} has a directory of {size:,} bytes; a submission to every board has 135 files"
            )
        return super().read(size)


def _zip(path: Path, total: int) -> Iterator[Member | None]:
    left = total
    with _ZipFile(path) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            problem = _wrong_in_zip(member) or _wrong_path(member.filename) or _too_large(member.file_size)
            left -= 0 if problem else member.file_size  # reading gives no more than that
            if left < 0:
                raise _too_much(path, total)
            yield (
                None
                if member.filename.endswith("/")
                else Member(member.filename, problem, lambda member=member: _read(path, lambda: archive.open(member)))
            )


def _wrong_in_zip(member: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return SPECIAL
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is neither stored nor deflated"
    return None
