"""Submissions as archives, good and hostile: nothing is written, nothing runs out of bounds, everything is one line."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import random
import tarfile
import zipfile

import pytest
from submissions import good, member, name, write_folder, write_tar, write_zip

from cim_plugin.errors import InputError
from cim_plugin.leaderboard import archive

SPECIAL = "is a link or a device, not a plain file"
LEADS_OUT = "has a path that leads out of the folder"
ABSOLUTE = "has an absolute path"
UNPRINTABLE = "has a name with backslashes, unprintable characters, or bytes that are not UTF-8"


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path, monkeypatch):
    """Every test works in a folder of its own, in which no file may appear, nor beside it."""
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    yield
    assert list(here.iterdir()) == [] and list(here.parent.iterdir()) == [here]


# --- good ones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, ending", [("w", ".tar"), ("w:gz", ".tar.gz"), ("w:gz", ".anything")])
def test_a_tar_archive_is_read_whatever_its_name(findings, tmp_path, mode, ending):
    assert findings(
        write_tar(tmp_path / f"s{ending}", good(), member("./iwildcam", type=tarfile.DIRTYPE), mode=mode), 0
    ) == ([], [])


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_every_format(findings, tmp_path, tar_format):
    folder = "/".join(["a" * 40] * 3)
    with tarfile.open(tmp_path / "s.tar", "w", format=tar_format) as tar:
        for path, text in good().items():
            tar.addfile(member(f"{folder}/{path}", size=len(text)), io.BytesIO(text))
    assert findings(tmp_path / "s.tar", 0) == ([], [])


def test_a_zip_archive_is_read(findings, tmp_path):
    assert findings(write_zip(tmp_path / "s.zip", good(), (zipfile.ZipInfo("iwildcam/"), b"")), 0) == ([], [])


def test_a_finding_in_an_archive_has_file_and_line(findings, tmp_path):
    files = {**good(), name(): b"0\n" * 7 + b"dog\n"}
    expected = f"{name()}:8: 'dog' is no label, a whole number from 0 to 181; WILDS' evaluate.py stops at it"
    assert findings(write_tar(tmp_path / "s.tar.gz", files), 1)[0] == [expected]
    assert findings(write_zip(tmp_path / "s.zip", files), 1)[0] == [expected]


def test_a_file_that_stands_twice_in_an_archive_is_named(findings, tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for path, text in [*good().items(), (name(), b"0\n")]:
            tar.addfile(member(path, size=len(text)), io.BytesIO(text))
    assert findings(tmp_path / "s.tar", 1)[0] == [f"{name()}: split val of seed:1 is there twice, also as {name()}"]


# --- members that are named and not read -----------------------------------------------------------------------------

#: what a member is -> (its header, how its name is shown, what is said)
MEMBERS = {
    "an absolute path": (member("/etc/cron.d/job"), "/etc/cron.d/job", ABSOLUTE),
    "a path out of the folder": (member("../escaped.csv"), "../escaped.csv", LEADS_OUT),
    "a path out of the folder, hidden in the middle": (
        member("iwildcam/../../escaped"),
        "iwildcam/../../escaped",
        LEADS_OUT,
    ),
    "a path of Windows": (member("..\\escaped.csv"), "..\\escaped.csv", UNPRINTABLE),
    "a symbolic link": (
        member("iwildcam/x.csv", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "iwildcam/x.csv",
        SPECIAL,
    ),
    "a hard link": (
        member(f"{name('val', 0)}", type=tarfile.LNKTYPE, linkname="../../secret"),
        name("val", 0),
        SPECIAL,
    ),
    "a device": (member("iwildcam/zero", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "iwildcam/zero", SPECIAL),
    "a pipe": (member("pipe.csv", type=tarfile.FIFOTYPE), "pipe.csv", SPECIAL),
    "bytes that are not UTF-8": (member("caf\udce9.csv"), "caf\\udce9.csv", UNPRINTABLE),
    "a line break": (member("a\nb.csv"), "a\\nb.csv", UNPRINTABLE),
    "an escape sequence": (member("\x1b]0;title\x07.csv"), "\\x1b]0;title\\x07.csv", UNPRINTABLE),
}


@pytest.mark.parametrize("header, shown, words", MEMBERS.values(), ids=MEMBERS)
def test_a_hostile_member_of_a_tar_archive_is_a_finding(findings, tmp_path, header, shown, words):
    found, _ = findings(write_tar(tmp_path / "s.tar.gz", good(), header), 1)
    assert found == [f"{shown}: {words}"]


def zip_member(path: str, mode: int = 0, flags: int = 0) -> zipfile.ZipInfo:
    header = zipfile.ZipInfo(path)
    header.external_attr = mode << 16
    header.flag_bits = flags
    return header


#: what a member is -> (its header, what is said)
ZIP_MEMBERS = {
    "an absolute path": (zip_member("/etc/job"), ABSOLUTE),
    "a path out of the folder": (zip_member("../../escaped"), LEADS_OUT),
    "a symbolic link": (zip_member("iwildcam/x.csv", 0o120777), SPECIAL),
    "a device": (zip_member("iwildcam/x.csv", 0o020666), SPECIAL),
}


@pytest.mark.parametrize("header, words", ZIP_MEMBERS.values(), ids=ZIP_MEMBERS)
def test_a_hostile_member_of_a_zip_archive_is_a_finding(findings, tmp_path, header, words):
    found, _ = findings(write_zip(tmp_path / "s.zip", good(), (header, b"/etc/passwd")), 1)
    assert found == [f"{header.filename}: {words}"]


def test_an_encrypted_member_is_a_finding(findings, tmp_path):
    path = write_zip(tmp_path / "s.zip", {name("val", 0): b"0\n"} | good())
    content = bytearray(path.read_bytes())
    content[6] |= 1  # flags of the first local header, and of its entry in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert findings(path, 1)[0][0] == f"{name('val', 0)}: is encrypted"


def test_a_member_without_a_name_is_a_finding(findings, tmp_path):
    path = write_zip(tmp_path / "s.zip", {"x.txt": b""} | good())
    path.write_bytes(path.read_bytes().replace(b"x.txt", b"\0.txt"))  # zipfile cuts a name at NUL
    assert findings(path, 1)[0] == [": has no name"]


def test_links_and_pipes_of_a_folder_are_findings_and_not_opened(findings, tmp_path):
    folder = write_folder(tmp_path / "s", good())
    (tmp_path / "secret").mkdir()
    os.symlink("/etc/passwd", folder / "x.csv")
    os.symlink(tmp_path / "secret", folder / "y")
    os.mkfifo(folder / "z.csv")
    assert findings(folder, 1)[0] == [f"{path}: {SPECIAL}" for path in ("x.csv", "y", "z.csv")]


TOO_LARGE = archive.MAX_MEMBER + 1


def big_in_tar(path):
    with tarfile.open(path, "w") as tar:
        for name, text in good().items():
            tar.addfile(member(name, size=len(text)), io.BytesIO(text))
        tar.addfile(member("iwildcam/big.csv", size=TOO_LARGE))
    os.truncate(path, path.stat().st_size + TOO_LARGE + tarfile.BLOCKSIZE)  # its content: zeros, which take no room


def big_in_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("iwildcam/big.csv", b"")
        file.infolist()[0].file_size = TOO_LARGE  # what the directory will say
        for name, text in good().items():
            file.writestr(name, text)


@pytest.mark.parametrize("write", [big_in_tar, big_in_zip])
def test_a_member_that_is_too_large_is_a_finding(findings, tmp_path, write):
    write(tmp_path / "s")
    assert findings(tmp_path / "s", 1)[0] == ["iwildcam/big.csv: has 268,435,457 bytes, more than 268,435,456"]


# --- archives that are refused as a whole
# ------------------------------------------------------------------------------


@pytest.fixture
def refusal(leaderboard):
    """A function (submission) -> the one line of the refusal; the exit status is 2."""

    def run(submission) -> str:
        status, output, errors = leaderboard("check", submission)
        assert (status, output, len(errors)) == (2, [], 1), (output, errors)
        return errors[0].removeprefix("cim-plugin leaderboard: error: ")

    return run


def test_a_file_of_a_folder_that_cannot_be_read_is_named(tmp_path):
    folder = write_folder(tmp_path / "s", good())
    first = next(archive.members(folder))
    (folder / first.name).unlink()
    with pytest.raises(InputError) as refused:
        list(first.chunks())
    assert str(refused.value) == f"{folder}/{name('id_test', 0)} cannot be read (No such file or directory)"


def test_what_is_not_there_is_refused(refusal):
    assert refusal("nowhere.tar.gz") == "nowhere.tar.gz does not exist, or is neither a folder nor a file"


def test_a_pipe_or_device_as_the_submission_is_refused(refusal, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").endswith("is neither a folder nor a file")
    assert refusal("/dev/zero").endswith("is neither a folder nor a file")


#: what a file is -> its content
GARBAGE = {
    "empty": b"",
    "text": b"0\n1\n" * 500,
    "random": random.Random(0).randbytes(3000),
    "gzip of text": gzip.compress(b"0\n1\n" * 500),
    "the start of a gzip": b"\x1f\x8b\x08",
    "the start of a zip": b"PK\x03\x04" + bytes(100),
    "another compression": bz2.compress(bytes(20_000)),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_file_that_is_no_archive_is_refused(refusal, tmp_path, content):
    (tmp_path / "s.tar.gz").write_bytes(content)
    assert refusal(tmp_path / "s.tar.gz").startswith(
        f"{tmp_path}/s.tar.gz is no tar, tar.gz or zip archive, or is truncated or damaged ("
    )


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_a_truncated_archive_is_refused(leaderboard, tmp_path, write, share):
    path = write(tmp_path / "s", good())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    status, output, errors = leaderboard("check", path)
    assert (status, output, len(errors)) == (2, [], 1)
    assert "is truncated or damaged" in errors[0]


def test_a_wrong_checksum_is_refused(refusal, tmp_path):
    path = write_tar(tmp_path / "s.tar.gz", good())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "is truncated or damaged (CRC check failed" in refusal(path)


def test_damaged_content_of_a_zip_archive_is_refused(refusal, tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.writestr(name(), b"0\n1\n" * 4)
    content = (tmp_path / "s.zip").read_bytes()
    (tmp_path / "s.zip").write_bytes(content.replace(b"0\n1\n0\n1\n", b"0\n1\n1\n1\n", 1))
    assert "is truncated or damaged (Bad CRC-32" in refusal(tmp_path / "s.zip")


def test_any_flipped_byte_of_an_archive_is_met_without_a_traceback(leaderboard, tmp_path):
    draw = random.Random(0)
    for write in (write_tar, write_zip):
        whole = write(tmp_path / "s", good()).read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            (tmp_path / "s").write_bytes(content)
            status, output, errors = leaderboard("check", tmp_path / "s")
            assert (status in (0, 1) and output and not errors) or (status == 2 and len(errors) == 1)


def too_much(path) -> str:
    """The refusal of an archive that unpacks to more than 1 MB."""
    with pytest.raises(InputError) as refused:
        list(archive.members(path, total=1 << 20))
    return str(refused.value)


def test_a_gzip_bomb_is_refused(tmp_path):
    inside = io.BytesIO()
    write_tar_to(inside, {f"{number}.txt": bytes(1 << 18) for number in range(5)})
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(inside.getvalue()))
    assert too_much(tmp_path / "s.tar.gz") == f"{tmp_path}/s.tar.gz unpacks to more than 1,048,576 bytes; it is refused"


def write_tar_to(file, files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path, text in files.items():
            tar.addfile(member(path, size=len(text)), io.BytesIO(text))


def test_a_gzip_bomb_after_the_end_of_the_tar_archive_is_refused(tmp_path):
    inside = io.BytesIO()
    write_tar_to(inside, good())
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(inside.getvalue() + bytes(3 << 20)))
    assert too_much(tmp_path / "s.tar.gz").endswith("unpacks to more than 1,048,576 bytes; it is refused")


def test_a_zip_bomb_is_refused(tmp_path):
    path = write_zip(tmp_path / "s.zip", {f"{number}.txt": bytes(1 << 18) for number in range(5)})
    assert path.stat().st_size < 3000
    assert too_much(path) == f"{path} unpacks to more than 1,048,576 bytes; it is refused"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_enormous_extended_header_is_refused_before_it_is_read(refusal, tmp_path, kind):
    header = member("x", type=kind, size=1 << 40)
    (tmp_path / "s.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    assert refusal(tmp_path / "s.tar") == "the archive has an extended header of 1,099,511,627,776 bytes; it is refused"


def test_a_claimed_size_that_is_not_there_is_refused(refusal, tmp_path):
    (tmp_path / "s.tar").write_bytes(member(name(), size=100 << 20).tobuf() + b"0\n" * 5000)
    assert "is truncated or damaged (unexpected end of data)" in refusal(tmp_path / "s.tar")


@pytest.mark.parametrize("size", [archive.MAX_TOTAL + 1, 1 << 40])
def test_a_member_that_announces_more_than_any_archive_holds_is_refused_at_once(refusal, tmp_path, size):
    (tmp_path / "s.tar").write_bytes(member(name(), size=size).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert refusal(tmp_path / "s.tar") == f"the archive has a member of {size:,} bytes; it is refused"


SPARSE_1_0 = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "8"}


@pytest.mark.parametrize(
    "header",
    [member("x.csv", type=tarfile.GNUTYPE_SPARSE), member("x.csv", pax_headers=SPARSE_1_0)],
    ids=["old", "new"],
)
def test_a_sparse_member_is_refused_before_its_list_of_holes_is_read(refusal, tmp_path, header):
    form = tarfile.PAX_FORMAT if header.pax_headers else tarfile.GNU_FORMAT
    (tmp_path / "s.tar").write_bytes(header.tobuf(form) + b"9999999999\n" + b"1\n" * 50_000)
    assert refusal(tmp_path / "s.tar") == "the archive has a sparse member; it is refused"


def test_a_chain_of_extended_headers_is_refused(refusal, tmp_path):
    chain = member("x", pax_headers={"comment": "x"}).create_pax_header(member("x").get_info(), "utf-8")[:1024]
    (tmp_path / "s.tar").write_bytes(chain * 3000)
    assert "is truncated or damaged" in refusal(tmp_path / "s.tar")


def test_an_enormous_directory_of_a_zip_archive_is_refused(refusal, tmp_path):
    path = write_zip(tmp_path / "s.zip", {f"{number}{'x' * 65_000}": b"" for number in range(65)})
    assert refusal(path).startswith(f"{path} has a directory of ")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_of_a_zip_archive_is_a_finding(findings, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        for path, text in good().items():
            file.writestr(path, text, compress_type=method if path == name() else zipfile.ZIP_STORED)
    assert findings(tmp_path / "s.zip", 1)[0][0] == f"{name()}: is neither stored nor deflated"


@pytest.mark.parametrize("kind", ["folder", "tar with folders", "zip"])
def test_too_many_files_are_refused(refusal, tmp_path, kind):
    files = {f"{number}.txt": b"" for number in range(10_001)}
    path = tmp_path / "s"
    if kind == "folder":
        write_folder(path, {"first": b""})
        for name in files:
            os.link(path / "first", path / name)
    elif kind == "zip":
        write_zip(path, files)
    else:
        folders = [member(str(number), type=tarfile.DIRTYPE) for number in range(5_001)]
        write_tar(path, dict(list(files.items())[:5_000]), *folders, mode="w")
    assert (
        refusal(path) == f"{path} holds more than 10,000 files and folders; a submission to every board has 135 files"
    )


def test_memory_stays_bounded_on_a_large_member(leaderboard, tmp_path):
    """A member of 100 MB of one line, 100 KB packed: it is read in pieces and given up at the first."""
    import tracemalloc

    path = write_zip(tmp_path / "s.zip", {name(): bytes(100 << 20)})
    tracemalloc.start()
    status, output, _ = leaderboard("check", path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status == 1 and f"{name()}:1: the line is longer than 64 bytes" in output
    assert peak < 10 << 20
