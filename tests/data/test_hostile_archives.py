"""Archives that would write elsewhere, are too large or damaged, whatever data set they are said to hold: refused in
one line, nothing is written.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
import small_archives as archives

from cim_plugin.data import source as source_module
from cim_plugin.errors import InputError


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"x", link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content) if kind == tarfile.REGTYPE else 0, link
    return member, content


HOSTILE = {
    "member above": _member("../evil.txt"),
    "member above, hidden": _member("good/../../evil.txt"),
    "absolute member": _member("/tmp/evil_member_of_a_test.txt"),
    "symbolic link": _member("link", tarfile.SYMTYPE, link="/etc"),
    "symbolic link inside": _member("link", tarfile.SYMTYPE, link="metadata.csv"),
    "hard link": _member("link", tarfile.LNKTYPE, link="/etc/passwd"),
    "device": _member("device", tarfile.CHRTYPE),
    "named pipe": _member("pipe", tarfile.FIFOTYPE),
    "sparse file": _member("sparse", tarfile.GNUTYPE_SPARSE),
    "long name above": _member("a/" * 80 + "../" * 81 + "evil.txt"),
}


@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("member, content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_member_is_named_and_nothing_is_written(refuse, tmp_path, member, content, last):
    """Also where it comes after everything that is needed."""
    source = archives.waterbirds(tmp_path / "unpacked")
    with tarfile.open(tmp_path / "w.tar.gz", "w:gz") as tar:
        for step in ("good", "bad") if last else ("bad", "good"):
            tar.add(source, source.name) if step == "good" else tar.addfile(member, io.BytesIO(content))
    line = refuse("waterbirds", "--from", tmp_path / "w.tar.gz")
    assert repr(member.name) in line and "refused" in line
    assert not (tmp_path / "root").exists() and not os.path.exists("/tmp/evil_member_of_a_test.txt")


@pytest.mark.parametrize(
    "name, wrong", [("/etc/job", "has an absolute path"), ("good/../job", "has a path that leads out of the folder")]
)
def test_paths_are_judged_without_tarfiles_filters(refuse, tmp_path, monkeypatch, name, wrong):
    """Python 3.10 and 3.11 have them from 3.10.12 and 3.11.4 on only."""
    for attribute in ("data_filter", "FilterError"):
        monkeypatch.delattr(tarfile, attribute, raising=False)
    source = archives.waterbirds(tmp_path / "unpacked")
    with tarfile.open(tmp_path / "good.tar", "w") as tar:
        tar.add(source, source.name)
    assert f"{source.name}/metadata.csv" in source_module.open_source(tmp_path / "good.tar").names
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member, content = _member(name)
        tar.addfile(member, io.BytesIO(content))
    assert f"member {name!r} of {tmp_path / 'bad.tar'} {wrong}; the archive is refused" in refuse(
        "waterbirds", "--from", tmp_path / "bad.tar"
    )


def test_a_name_twice_is_refused(refuse, tmp_path):
    source = archives.waterbirds(tmp_path / "unpacked")
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        tar.add(source, source.name)
        tar.add(source / "metadata.csv", f"./{source.name}/metadata.csv")
    assert "metadata.csv' twice" in refuse("waterbirds", "--from", tmp_path / "w.tar")


def _bomb(path: Path, *members: tarfile.TarInfo) -> Path:
    """Members of zeros, whose content ends early: reading them would show."""
    with gzip.open(path, "wb") as file:
        for member in members:
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.write(bytes(1 << 20))
    return path


def _sized(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member


@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME], ids=["file", "pax header", "long name"]
)
def test_a_giant_member_is_refused_before_it_is_read(refuse, tmp_path, kind):
    line = refuse("waterbirds", "--from", _bomb(tmp_path / "bomb.tar.gz", _sized("giant", 1 << 40, kind)))
    assert "'giant'" in line and "1,099,511,627,776 bytes" in line and "refused" in line


def test_a_size_that_an_extended_header_gives_counts(refuse, tmp_path):
    member = _sized("grown", 0)
    member.pax_headers = {"size": str(1 << 40)}
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(member.tobuf(tarfile.PAX_FORMAT))
    assert "'grown'" in refuse("waterbirds", "--from", tmp_path / "bomb.tar.gz")


@pytest.mark.parametrize("limit, value", [("most", 3000), ("members", 5)])
def test_too_much_in_all_is_refused(tmp_path, limit, value):
    archive = archives.pack(archives.waterbirds(tmp_path / "unpacked"), tmp_path / "w.tar.gz")
    assert len(source_module.Archive(archive).names) > 5
    with pytest.raises(InputError, match=f"{value:,} .*refused"):
        source_module.Archive(archive, **{limit: value})


def _truncate(share: float):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


DAMAGES = {
    "truncated": _truncate(0.6),
    "last byte missing": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "no archive": lambda path: path.write_bytes(b"<html>404 Not Found</html>"),
    "empty": lambda path: path.write_bytes(b""),
    "damaged inside": lambda path: path.write_bytes(path.read_bytes()[:2000] + bytes(500) + path.read_bytes()[2500:]),
}


@pytest.mark.parametrize("mode", ["gz", "xz", "bz2"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_archive_is_named(refuse, tmp_path, damage, mode):
    archive = archives.pack(archives.waterbirds(tmp_path / "unpacked"), tmp_path / f"w.tar.{mode}", f"w:{mode}")
    damage(archive)
    line = refuse("waterbirds", "--from", archive)
    assert f"w.tar.{mode}" in line and "get it again" in line


def test_headers_that_refer_to_each_other_without_end_are_damage(refuse, tmp_path):
    with gzip.open(tmp_path / "w.tar.gz", "wb") as file:
        file.write(_sized("x", 0, tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) * 5000)
    assert "w.tar.gz" in refuse("waterbirds", "--from", tmp_path / "w.tar.gz")


def test_a_plain_tar_that_ends_early_is_refused(refuse, tmp_path):
    archive = archives.pack(archives.waterbirds(tmp_path / "unpacked"), tmp_path / "w.tar", "w")
    _truncate(0.5)(archive)
    assert "w.tar" in refuse("waterbirds", "--from", archive)


def test_a_zip_archive_is_to_be_unzipped(refuse, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.zip", "w") as file:
        file.writestr("metadata.csv", "x")
    assert "unzip it" in refuse("waterbirds", "--from", tmp_path / "w.zip")
