"""What a converter reads: the files of a folder or of a tar archive, by name. Nothing is ever unpacked to where an
archive says.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import posixpath
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Iterable, Iterator

from ..errors import InputError, first_line
from ..files import read_bytes
from ..progress import progress
from .paths import outside

MAX_FILE = 64 << 20  #: bytes; the largest file of the known archives is the 25 MB attribute table of CelebA
MAX_TOTAL = 16 << 30  #: bytes in all files of an archive; the largest known, VLCS, holds under 4 GB
MAX_MEMBERS = 1_000_000  #: CelebA has 202,599 images


class Source:
    """Files by name, whatever holds them. ``names``: paths with slashes, relative, without "..", in the holder's
    order.
    """

    path: Path
    names: list[str]

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of each of ``names``, in the holder's order.

        Raises:
            InputError: it cannot be read.
        """
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """The content of one file."""
        return next(content for _, content in self.contents([name]))

    def find(self, *basenames: str) -> str:
        """The one file of this name, in whatever folder; of several names the first that is there.

        Raises:
            InputError: there is none, or there are several.
        """
        for basename in basenames:
            found = [name for name in self.names if posixpath.basename(name) == basename]
            if len(found) > 1:
                raise InputError(f"{self.path} holds {found[0]} and {found[1]}; pass the folder of one of them")
            if found:
                return found[0]
        raise InputError(f"{self.path} holds no {' or '.join(basenames)}")


class Folder(Source):
    """A folder and its subfolders, links followed; what is hidden (".git", an unfinished conversion) is not looked
    at.
    """

    def __init__(self, path: Path):
        self.path = path
        self.names = sorted(_walk(path, "", ()))

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            yield name, read_bytes(self.path / name, MAX_FILE)


def _walk(folder: Path, prefix: str, parents: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in parents:  # a link to a folder that holds it
        return
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    for entry in visible:
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*parents, real))
        else:
            yield prefix + entry.name


class _Member(tarfile.TarInfo):
    """A member whose size is bounded before anything of that size is read, the headers of long names included."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        _check_size(member)
        return member


def _check_size(member: tarfile.TarInfo) -> None:
    if not 0 <= member.size <= MAX_FILE:
        raise InputError(
            f"member {member.name!r} has {member.size:,} bytes, more than {MAX_FILE:,}; the archive is refused"
        )


class Archive(Source):
    """A tar archive, compressed or not. Every member is checked before the content of any is used.

    Args:
        most: bytes in all files.
        members: files.

    Raises:
        InputError: it is truncated or damaged, holds a link, a device, a name that leads out of a folder, a name twice,
            or too much.
    """

    def __init__(self, path: Path, most: int = MAX_TOTAL, members: int = MAX_MEMBERS):
        self.path = path
        found: dict[str, None] = {}
        total = 0
        with self._reading() as tar:
            for member in progress(tar, desc=f"checking {path.name}", unit="file", leave=False):
                self._check(member)
                name, total = posixpath.normpath(member.name), total + member.size
                if total > most or len(found) >= members:
                    raise InputError(f"{path} holds more than {most:,} bytes or {members:,} files; it is refused")
                if name in found:
                    raise InputError(f"{path} holds {name!r} twice; it is refused")
                if member.isreg():
                    found[name] = None
            for _ in range(most >> 20):  # to the end of the compressed file, where its checksum is
                if not tar.fileobj.read(1 << 20):
                    break
        self.names = list(found)

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(names)
        with self._reading() as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                if name in wanted:
                    yield name, tar.extractfile(member).read()
                    wanted.remove(name)
                if not wanted:
                    return

    @contextlib.contextmanager
    def _reading(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self.path, tarinfo=_Member) as tar:
                yield tar
        except (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, RecursionError, OSError) as error:
            reason = first_line(error).rstrip(":")
            raise InputError(
                f"{self.path} is no tar archive, or is truncated or damaged ({reason}); get it again"
            ) from error

    def _check(self, member: tarfile.TarInfo) -> None:
        where = f"member {member.name!r} of {self.path}"
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise InputError(f"{where} is neither a plain file nor a folder; the archive is refused")
        if wrong := outside(member.name):
            raise InputError(f"{where} {wrong}; the archive is refused")
        _check_size(member)  # an extended header may have changed it


class Several(Source):
    """The files of several sources, in their order. No two may have a file of the same name."""

    def __init__(self, path: Path, sources: list[Source]):
        self.path, self.sources = path, sources
        self.names = [name for source in sources for name in source.names]
        if len(set(self.names)) < len(self.names):
            raise InputError(f"{path}: two archives hold a file of the same name")

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(names)
        for source in self.sources:
            here = wanted.intersection(source.names)
            if here:
                yield from source.contents(here)


class Copies(Source):
    """Files of a source under other names, some of them under several.

    Args:
        source: the files.
        originals: name here -> name in the source.
    """

    def __init__(self, source: Source, originals: dict[str, str]):
        self.path, self.source, self.originals = source.path, source, originals
        self.names = list(originals)

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        copies: dict[str, list[str]] = {}
        for name in names:
            copies.setdefault(self.originals[name], []).append(name)
        for original, content in self.source.contents(copies):
            for name in copies[original]:
                yield name, content


def open_source(path: str | os.PathLike) -> Source:
    """The files of a folder or a tar archive.

    Raises:
        InputError: there is nothing, it cannot be read, or it is refused.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise InputError(f"--from {path} " + ("is neither a folder nor a file" if path.exists() else "does not exist"))
    if zipfile.is_zipfile(path):
        raise InputError(f"--from {path} is a zip archive; unzip it and pass the folder")
    return Archive(path)
