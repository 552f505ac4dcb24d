"""Packed runs: what is written is read, and what is damaged or hostile is said in one line."""

from __future__ import annotations

import json
import lzma

import pytest

from cim_plugin.errors import InputError
from cim_plugin.runs import packed


def write(path, *lines: str):
    path.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def test_what_is_packed_is_read_in_the_order_of_folders(tmp_path):
    runs = {"b/1": {"a": 0.1, "λ": [None, True]}, "a b/2": {"text": "two\nlines,\u2028 and \x85"}, "a/2": {}}
    path = tmp_path / "runs.jsonl.xz"
    path.write_bytes(packed.pack(runs))
    assert packed.read(str(path)) == runs and list(packed.read(str(path))) == ["a/2", "a b/2", "b/1"]
    assert packed.pack(packed.read(str(path))) == path.read_bytes()
    assert [json.loads(line)["folder"] for line in lzma.open(path, "rt", encoding="utf-8", newline="\n")] == [
        "a/2",
        "a b/2",
        "b/1",
    ]


RUN = json.dumps({"folder": "a", "results": {}})


@pytest.mark.parametrize(
    "lines, said",
    [
        ([RUN, "{"], "line 2: not JSON that can be read"),
        (["[" * 100_000], "line 1: not JSON that can be read"),
        (["1" * 10_000], "line 1: not JSON that can be read"),
        ([RUN, "[]"], "line 2: a JSON object is expected, this is list"),
        ([RUN, '{"results": {}}'], "line 2: no folder with results.json"),
        (['{"folder": 3, "results": {}}'], "line 1: no folder with results.json"),
        (['{"folder": "a", "results": []}'], "line 1: no folder with results.json"),
        ([RUN, RUN], "line 2: 'a' is there twice"),
        ([], "line 1: not JSON that can be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_line_is_named(tmp_path, lines, said):
    with pytest.raises(InputError, match=f"runs.jsonl.xz, {said}") as error:
        packed.read(str(write(tmp_path / "runs.jsonl.xz", *lines)))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda content: content[:-1], "damaged, it ends early"),
        (lambda content: content[: len(content) // 2], "damaged, it ends early"),
        (lambda content: content + b"more", "damaged, it goes on after its end"),
        (lambda content: content[:30] + b"??" + content[32:], "damaged, or not compressed by xz"),
        (lambda content: b"PK" + content, "damaged, or not compressed by xz"),
        (lambda content: lzma.compress(content, lzma.FORMAT_ALONE), "damaged, or not compressed by xz"),
        (lambda content: lzma.compress(b"\xff"), "is not UTF-8 text .byte 0."),
        (lambda content: b"", "damaged, it ends early"),
    ],
)
def test_a_damaged_file_is_said_in_one_line(tmp_path, damage, said):
    path = write(tmp_path / "runs.jsonl.xz", *(RUN.replace('"a"', f'"{number}"') for number in range(100)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"runs.jsonl.xz: {said}") as error:
        packed.read(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be read .No such file or directory."):
        packed.read(str(tmp_path / "runs.jsonl.xz"))


def test_no_more_is_decompressed_than_a_limit(tmp_path):
    """A file of a few hundred bytes that would be a megabyte."""
    path = write(tmp_path / "runs.jsonl.xz", " " * 1_000_000)
    assert path.stat().st_size < 1000
    with pytest.raises(InputError, match="more than 0 MB of text, too many for packed runs"):
        packed.read(str(path), largest=100_000)


def test_a_file_that_asks_for_much_memory_is_refused(tmp_path):
    """To read its dictionary, however short the text is."""
    path = tmp_path / "runs.jsonl.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": packed.MEMORY}]
    path.write_bytes(lzma.compress(RUN.encode(), filters=filters))
    with pytest.raises(InputError, match="damaged, or not compressed by xz .Memory usage limit"):
        packed.read(str(path))
