"""Archives that were made to do harm, for every converter and for ``leaderboard check``."""

from __future__ import annotations

import functools
import io
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Callable

from .judging import refused
from .running import Room
from .sections import Case

READERS = {
    "waterbirds": ("data", "waterbirds", "--root", "data", "--from"),
    "celebA": ("data", "celebA", "--root", "data", "--from"),
    "vlcs": ("data", "vlcs", "--root", "data", "--from"),
    "check": ("leaderboard", "check"),
}
LIMIT = 30.0


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _file(name: str, **fields) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def _one(path: Path, name: str, content: bytes = b"img_id\n", **fields) -> None:
    _tar(path, (_file(name, **fields), content))


def _link(path: Path, kind: bytes, target: str) -> None:
    """A link, then a file through it."""
    _tar(path, (_file("metadata.csv", type=kind, linkname=target), b""), (_file("metadata.csv/canary"), b"changed"))


def _claims(path: Path, size: int) -> None:
    """A header that announces more than there is."""
    header = _file("metadata.csv", size=size).tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(header + b"x" * 1024)


def _bomb(path: Path) -> None:
    """A gigabyte of zeros in a megabyte."""
    packer = zlib.compressobj(9, wbits=31)
    header = _file("metadata.csv", size=1 << 30).tobuf(tarfile.GNU_FORMAT)
    zeros = b"\0" * (1 << 24)
    path.write_bytes(packer.compress(header) + b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush())


def _many(path: Path) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for number in range(20_000):
            tar.addfile(_file(f"{number}/../{number}"))


def _long_header(path: Path) -> None:
    """An extended header of 100 MB, of which almost nothing is there."""
    path.write_bytes(
        _file("././@PaxHeader", type=tarfile.XHDTYPE, size=100 << 20).tobuf(tarfile.GNU_FORMAT) + b"9 a=b\n"
    )


def _sparse(path: Path) -> None:
    """A sparse member that pretends to hold a terabyte."""
    header = bytearray(_file("metadata.csv", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" + b"00000000000\0"
    header[483:495] = b"\x80\0\0\0\0\0\0\x01" + struct.pack(">I", 0)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path.write_bytes(bytes(header) + b"\0" * 1024)


def _zip(path: Path, name: str = "metadata.csv", content: bytes = b"img_id\n", mode: int = 0o100644) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content, zipfile.ZIP_DEFLATED)


def _zip_twice(path: Path) -> None:
    _zip(path)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("metadata.csv", b"another")


def _truncated(path: Path, keep: float) -> None:
    _one(path, "metadata.csv", bytes(range(256)) * 400)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def _flipped(path: Path, place: float) -> None:
    _one(path, "metadata.csv", bytes(range(256)) * 400)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


HOSTILE: dict[str, Callable[[Path], None]] = {
    "absolute path": lambda path: _one(path, str(path.parent.parent / "canary"), b"changed"),
    "..": lambda path: _one(path, "../canary", b"changed"),
    ".. inside": lambda path: _one(path, "a/../../../canary", b"changed"),
    "backslashes": lambda path: _one(path, "..\\..\\canary", b"changed"),
    "drive": lambda path: _one(path, "C:\\canary", b"changed"),
    "NUL in the name": lambda path: _one(path, "metadata.csv\0/../canary"),
    "newline in the name": lambda path: _one(path, "metadata\n.csv"),
    "escape sequence in the name": lambda path: _one(path, "\x1b[2Jmetadata.csv"),
    "name that is not UTF-8": lambda path: _one(path, "\udcff.csv"),
    "name of 5,000 letters": lambda path: _one(path, "a" * 5000),
    "path of 2,000 folders": lambda path: _one(path, "a/" * 2000 + "metadata.csv"),
    "symbolic link outside": lambda path: _link(path, tarfile.SYMTYPE, ".."),
    "symbolic link to a file": lambda path: _link(path, tarfile.SYMTYPE, "/etc/hostname"),
    "hard link outside": lambda path: _link(path, tarfile.LNKTYPE, "../canary"),
    "device": lambda path: _one(path, "metadata.csv", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "FIFO": lambda path: _one(path, "metadata.csv", b"", type=tarfile.FIFOTYPE),
    "name twice": lambda path: _tar(path, (_file("metadata.csv"), b"1"), (_file("metadata.csv"), b"2")),
    "name twice, written in two ways": lambda path: _tar(path, (_file("a/b.csv"), b"1"), (_file("a/./b.csv"), b"2")),
    "file and folder of one name": lambda path: _tar(
        path, (_file("metadata.csv"), b"1"), (_file("metadata.csv/b"), b"2")
    ),
    "announces a terabyte": lambda path: _claims(path, 1 << 40),
    "announces 8 GB less a byte": lambda path: _claims(path, (8 << 30) - 1),
    "negative size": lambda path: _claims(path, -1),
    "bomb": _bomb,
    "20,000 members": _many,
    "extended header of 100 MB": _long_header,
    "sparse": _sparse,
    "truncated in the header": lambda path: _truncated(path, 0.02),
    "truncated in the middle": lambda path: _truncated(path, 0.5),
    "truncated before the checksum": lambda path: _truncated(path, 0.99),
    "flipped at the beginning": lambda path: _flipped(path, 0.0),
    "flipped in the middle": lambda path: _flipped(path, 0.5),
    "flipped checksum": lambda path: _flipped(path, 0.99),
    "empty file": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("this is no archive\n"),
    "zeros": lambda path: path.write_bytes(b"\0" * 100_000),
    "gzip of nothing": lambda path: path.write_bytes(zlib.compressobj(wbits=31).flush()),
    "zip with an absolute path": lambda path: _zip(path, "/canary", b"changed"),
    "zip with ..": lambda path: _zip(path, "../canary", b"changed"),
    "zip with a link": lambda path: _zip(path, "metadata.csv", b"../canary", 0o120777),
    "zip with a name twice": _zip_twice,
    "zip bomb": lambda path: _zip(path, "metadata.csv", b"\0" * (300 << 20)),
    "truncated zip": lambda path: (_zip(path), path.write_bytes(path.read_bytes()[:-10])),
    "folder": lambda path: path.mkdir(),
    "nothing": lambda path: None,
}


def _try(argv: tuple[str, ...], make: Callable[[Path], None], room: Room) -> list[str]:
    archive = room.folder / "archive.tar.gz"
    make(archive)
    before = {path.name for path in room.folder.iterdir()}
    outcome = room.run(*argv, archive, limit=LIMIT)
    faults = _findings(outcome) if argv[1] == "check" and outcome.status == 1 else refused(outcome)
    left = {path.name for path in room.folder.iterdir()} - before
    return faults + ([f"left behind: {', '.join(sorted(left))}"] if left else [])


def _findings(outcome) -> list[str]:
    """``leaderboard check`` prints what it finds, a line for each, and ends with status 1."""
    if "Traceback" in outcome.errors or not outcome.output.strip():
        return [f"status 1 without findings: {outcome.errors.strip().splitlines()[-1:]}"]
    return [] if all(line.isprintable() for line in outcome.output.splitlines()) else ["unprintable output"]


def cases(material) -> list[Case]:
    """Every hostile archive for every command that reads one."""
    return [
        Case(f"{reader}, {name}", functools.partial(_try, argv, make))
        for reader, argv in READERS.items()
        for name, make in HOSTILE.items()
    ]
