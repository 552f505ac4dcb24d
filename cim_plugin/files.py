"""Files of unknown origin read, and files of ours written, so that a fault ends in one line. Standard library only."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import stat
from typing import Any, BinaryIO, Callable, Iterator

from .errors import InputError, first_line

LARGEST = 1 << 28  #: bytes; results of thousands of evaluations stay below a tenth of it
DEEPEST = (
    100  #: brackets within brackets; ours are below ten, and what nests thousands deep ends Python's own functions
)


class Unreadable(InputError):
    """A file is damaged. The message names the file, the line where there is one, and what is wrong."""


# --- reading ----------------------------------------------------------------------------------------------------------


def read_bytes(path: str | os.PathLike, largest: int | None = None) -> bytes:
    """A plain file of bounded size. What is none, as a named pipe, on which a reader waits for ever, is not read.

    Args:
        largest: bytes; by default LARGEST.

    Raises:
        Unreadable: it is no plain file, too large, or not to be read.
    """
    largest = LARGEST if largest is None else largest
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            size, is_plain = status.st_size, stat.S_ISREG(status.st_mode)
            content = file.read(size + 1) if is_plain and size <= largest else b""
            if len(content) > size:  # what the kernel makes up, as /proc's files, has no size; or it grows
                content += file.read(largest + 1 - len(content))
    except IsADirectoryError:  # open says so itself
        size, is_plain, content = 0, False, b""
    except (OSError, ValueError) as error:  # a ValueError: the name holds a NUL
        raise Unreadable(f"{path}: cannot be read ({reason(error)})") from error
    if not is_plain:
        raise Unreadable(f"{path}: is not a file")
    if max(size, len(content)) > largest:
        raise Unreadable(f"{path}: {max(size, len(content)) / 1e6:.0f} MB is too large for what belongs there")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Opened for a pipe at once, though nobody writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: str | os.PathLike) -> str:
    """A plain file of text, without the mark of byte order that some editors put before it.

    Raises:
        Unreadable: as :func:`read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path}: is not UTF-8 text (byte {error.start})") from error


def parse_json(text: str, path: str | os.PathLike, first_line: int = 1) -> dict[str, Any]:
    """A JSON object.

    Args:
        path: for messages.
        first_line: the line of ``path`` on which ``text`` begins.

    Raises:
        Unreadable: it is not JSON or not an object; names the line.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"{path}, line {first_line + error.lineno - 1}: not JSON ({error.msg}, column {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets nested thousands deep
        raise Unreadable(f"{path}, line {first_line}: not JSON that can be read ({error})") from error
    if not isinstance(value, dict):
        raise Unreadable(f"{path}, line {first_line}: a JSON object is expected, this is {type(value).__name__}")
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise Unreadable(f"{path}, line {first_line}: not JSON that can be read (it nests more than {DEEPEST} deep)")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        inside = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list))]
        level = [child for children in inside for child in children]
    return bool(level)


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        Unreadable: as :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path), path)


def csv_lines(text: str, path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) of a table; empty lines are left out.

    Raises:
        Unreadable: a cell is longer than the csv module reads, 131,072 characters, or the line holds a NUL.
    """
    rows = csv.reader(text.splitlines())
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise Unreadable(f"{path}, line {rows.line_num}: not a table ({error})") from error


# --- writing ----------------------------------------------------------------------------------------------------------


def write_whole(
    path: str | os.PathLike,
    content: bytes | Callable[[BinaryIO], Any],
    *,
    lasting: bool = False,
    fix: str = "make room or choose another place",
) -> None:
    """A file that appears whole or not at all; its folder is made, too.

    Args:
        content: the bytes, or what writes them.
        lasting: bring it to the disk before it gets its name. The folder is this process's own: what a killed one left
            beside ``path`` is replaced.
        fix: for the message.

    Raises:
        InputError: the disk is full, the folder cannot be written, or something else than a file is there.
    """
    path = os.fspath(path)
    part = f"{path}.part" if lasting else os.path.join(os.path.dirname(path), f".writing-{os.getpid()}")
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"cannot write {path} (it is {kind(path)}); choose another place")
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        with open(part, "xb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        raise InputError(f"cannot write {path} ({reason(error)}); {fix}") from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def kind(path: str | os.PathLike) -> str:
    """What stands where a file belongs, in words."""
    return "a folder" if os.path.isdir(path) else "a file" if os.path.isfile(path) else "no plain file"


def pipe_in(folder: str | os.PathLike) -> str | None:
    """What in a folder is neither a file nor a folder, in words: a reader waits for ever for a pipe."""
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if os.path.exists(entry) and not (entry.is_file() or entry.is_dir()):
            return f"{entry.path} is {kind(entry)}"
    return None


def reason(error: Exception) -> str:
    """Why the disk refused."""
    return getattr(error, "strerror", None) or first_line(error)


@contextlib.contextmanager
def undone_where_refused(*folders: str | os.PathLike) -> Iterator[None]:
    """Of what is made meanwhile in places that do not exist yet, empty folders are removed again where an exception
    ends it.
    """
    new = [_first_missing(os.path.abspath(folder)) for folder in folders]
    try:
        yield
    except BaseException:
        for top in filter(None, new):
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(folder)
        raise


def _first_missing(folder: str) -> str | None:
    """The uppermost folder that would have to be made."""
    missing = None
    while not os.path.lexists(folder):
        folder, missing = os.path.dirname(folder), folder
    return missing
