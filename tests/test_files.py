"""Whatever stands in the place of a file is read, or said in one line, without waiting; what is written appears
whole.
"""

from __future__ import annotations

import os
import socket

import pytest

from cim_plugin import files
from cim_plugin.errors import InputError
from cim_plugin.files import Unreadable


def _socket(path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))


#: what is there -> (how it is made, words of the refusal)
PLACES = {
    "nothing": (lambda path: None, "cannot be read (No such file or directory)"),
    "a folder": (lambda path: path.mkdir(), "is not a file"),
    "a pipe": (os.mkfifo, "is not a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is not a file"),
    "a socket": (_socket, "cannot be read"),
    "a link in a circle": (lambda path: path.symlink_to(path.name), "cannot be read (Too many levels"),
    "too much": (lambda path: (path.touch(), os.truncate(path, files.LARGEST + 1)), "268 MB is too large"),
    "latin-1": (lambda path: path.write_bytes("ä".encode("latin-1")), "is not UTF-8 text (byte 0)"),
    "nested deep": (lambda path: path.write_text("[" * 100_000), "line 1: not JSON"),
    "nested a little": (lambda path: path.write_text('{"a":' * 101 + "1" + "}" * 101), "nests more than 100 deep"),
    "a long number": (lambda path: path.write_text('{"a": ' + "1" * 5000 + "}"), "line 1: not JSON that can be read"),
    "a NUL": (lambda path: path.write_bytes(b'{"a":\x00 1}'), "line 1: not JSON"),
    "nothing in it": (lambda path: path.touch(), "line 1: not JSON"),
    "a list": (lambda path: path.write_text("[1]"), "a JSON object is expected, this is list"),
}


@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_json_file_is_said_in_one_line(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make, words = PLACES[what]
    make(tmp_path.joinpath("x.json") if what != "a socket" else os.path.relpath("x.json"))
    with pytest.raises(Unreadable) as error:
        files.read_json(tmp_path / "x.json")
    said = str(error.value)
    assert said.startswith(str(tmp_path / "x.json")) and words in said and "\n" not in said and len(said) < 400


def test_a_name_with_a_nul_is_said_too():
    with pytest.raises(Unreadable, match="null byte"):
        files.read_bytes("a\0b")


@pytest.mark.parametrize(
    "text", ['{"a": {"b": [1, "ä"]}}', '\ufeff{"a": {"b": [1, "ä"]}}'], ids=["plain", "with a mark"]
)
def test_a_file_of_text_is_read(text, tmp_path):
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    assert files.read_json(tmp_path / "x.json") == {"a": {"b": [1, "ä"]}}


def test_many_brackets_side_by_side_are_not_deep(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [' + ", ".join(["[]"] * 1000) + "]}")
    assert files.read_json(tmp_path / "x.json") == {"a": [[]] * 1000}


def test_lines_of_a_table():
    assert list(files.csv_lines('a,b\n\n"1,2",3\n', "x.csv")) == [(1, ["a", "b"]), (3, ["1,2", "3"])]
    with pytest.raises(Unreadable, match=r"x.csv, line 2: not a table \(field larger than field limit"):
        list(files.csv_lines("a,b\n" + "1" * 1_000_000, "x.csv"))


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lasting", [False, True])
def test_a_file_replaces_another_and_its_folder_is_made(tmp_path, lasting):
    for content in (b"one", b"two"):
        files.write_whole(tmp_path / "a" / "b" / "file", content, lasting=lasting)
        assert (tmp_path / "a" / "b" / "file").read_bytes() == content
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("what", ["a folder", "a pipe", "a device"])
def test_nothing_but_a_file_is_replaced(what, lasting, tmp_path):
    PLACES[what][0](tmp_path / "x")
    with pytest.raises(InputError, match="cannot write .*/x "):
        files.write_whole(tmp_path / "x", b"content", lasting=lasting)
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and not (tmp_path / "x").is_file()


@pytest.mark.parametrize("part", ["x.part", ".writing-{pid}"])
def test_a_link_in_the_place_of_the_part_is_not_followed(part, tmp_path):
    part = part.format(pid=os.getpid())
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / part).symlink_to("victim")
    files.write_whole(tmp_path / "x", b"new", lasting=part == "x.part")
    assert (tmp_path / "victim").read_bytes() == b"mine" and (tmp_path / "x").read_bytes() == b"new"


def test_ctrl_c_leaves_no_part(tmp_path):
    def stopped(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "x", stopped)
    assert list(tmp_path.iterdir()) == []


# --- what a refused command had made ----------------------------------------------------------------------------------


def test_new_empty_folders_go_and_everything_else_stays(tmp_path):
    (tmp_path / "old").mkdir()
    with (
        pytest.raises(InputError),
        files.undone_where_refused(tmp_path / "a" / "b", tmp_path / "old" / "c", tmp_path / "d"),
    ):
        for folder in ("a/b/deeper", "old/c", "d/e"):
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "d" / "file").touch()
        raise InputError("no")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["d", "d/file", "old"]


def test_what_went_well_stays(tmp_path):
    with files.undone_where_refused(tmp_path / "a"):
        (tmp_path / "a").mkdir()
    assert (tmp_path / "a").is_dir()
