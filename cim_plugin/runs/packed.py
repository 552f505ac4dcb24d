"""Many runs in one file: compressed JSON lines, each with the folder that a run was in and its results.json.

The folder's name is a label: nothing is looked for there.
"""

from __future__ import annotations

import json
import lzma
import os
from typing import Any, Mapping

from ..errors import InputError

SUFFIX = ".jsonl.xz"
NAME = f"runs{SUFFIX}"
LARGEST = 1 << 28  #: bytes of text; ten thousand runs have half as many
MEMORY = 1 << 27  #: bytes that decompression may take; what is written here takes 65 MB

Results = dict[str, Any]  #: results.json of a run


def pack(runs: Mapping[str, Results]) -> bytes:
    """A file of the runs, in the order of their folders.

    Args:
        runs: folder -> results.json.
    """
    lines = [
        json.dumps({"folder": folder, "results": runs[folder]}, ensure_ascii=False, separators=(",", ":"))
        for folder in sorted(runs, key=lambda folder: folder.split("/"))
    ]
    return lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME)


def read(path: str, largest: int = LARGEST) -> dict[str, Results]:
    """The runs of a file: folder -> results.json.

    Args:
        largest: bytes of text that are read, at most.

    Raises:
        InputError: the file cannot be read, is damaged, too large, or has a folder twice.
    """
    runs: dict[str, Results] = {}
    for number, line in enumerate(_text(path, largest).removesuffix("\n").split("\n"), 1):
        folder, results = _run(line, f"{path}, line {number}")
        if folder in runs:
            raise InputError(f"{path}, line {number}: {folder[:100]!r} is there twice")
        runs[folder] = results
    return runs


def _run(line: str, where: str) -> tuple[str, Results]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON that can be read ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON object is expected, this is {type(value).__name__}")
    folder, results = value.get("folder"), value.get("results")
    if not isinstance(folder, str) or not isinstance(results, dict):
        raise InputError(f"{where}: no folder with results.json, which a line of packed runs has")
    return folder, results


def _text(path: str, largest: int) -> str:
    """The text of a file, which decompresses to ``largest`` bytes at most."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
    try:
        if os.path.getsize(path) > largest:
            raise InputError(f"{path}: {os.path.getsize(path) / 1e6:.0f} MB are too many for packed runs")
        with open(path, "rb") as file:
            content = decompressor.decompress(file.read(), largest + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except lzma.LZMAError as error:
        raise InputError(f"{path}: damaged, or not compressed by xz ({error})") from error
    if len(content) > largest:
        raise InputError(f"{path}: more than {largest / 1e6:.0f} MB of text, too many for packed runs")
    if not decompressor.eof or decompressor.unused_data:
        raise InputError(f"{path}: damaged, it {'ends early' if not decompressor.eof else 'goes on after its end'}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from error
