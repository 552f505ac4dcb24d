"""The lines of one file of predictions, and what WILDS' own ``evaluate.py`` would make of those that are no labels.

evaluate.py opens the file as text, skips blank lines, and evaluates every other line as a Python literal.
"""

from __future__ import annotations

import ast
import warnings
from array import array
from typing import Iterable, Iterator, NamedTuple

from .archive import shown

MAX_LINE = 64  #: bytes; a label has at most four digits
MAX_LINES = 1_000_000  #: the largest split of the boards that are read has 85,054
SHOWN = 5  #: wrong lines of a file that are named; then the file is given up


class Finding(NamedTuple):
    """One thing that is wrong."""

    file: str  #: path inside the submission
    line: int | None  #: from 1; None: the file as a whole
    words: str

    def __str__(self) -> str:
        place = shown(self.file) if self.line is None else f"{shown(self.file)}:{self.line}"
        return f"{place}: {self.words}"


class Labels(NamedTuple):
    """What a file of predictions holds."""

    labels: array  #: of int64, the valid ones in order
    findings: list[Finding]
    crlf: bool  #: lines end as on Windows, which evaluate.py reads alike


def read_labels(name: str, chunks: Iterable[bytes], n_classes: int, n_expected: int, split: str) -> Labels:
    """Read a file of ``n_expected`` lines, one label in [0, n_classes) on each. After SHOWN wrong lines the rest is not
    read.
    """
    labels, findings, crlf = array("q"), [], False
    known: dict[bytes, int] = {}
    number = blank = 0
    for number, line in enumerate(_lines(chunks), 1):
        if line not in known:
            crlf = crlf or line.endswith(b"\r")
            try:
                known[line] = _label(line, n_classes)
            except _Wrong as wrong:
                findings.append(Finding(name, number, str(wrong)))
                if wrong.ends or len(findings) == SHOWN:
                    findings.append(Finding(name, None, f"the lines after {number} are not read"))
                    break
                blank += wrong.blank
                continue
        labels.append(known[line])
        if number == MAX_LINES:
            findings.append(Finding(name, number, f"more than {MAX_LINES:,} lines are not read"))
            break
    else:
        count = number - blank
        if count != n_expected:
            findings.append(
                Finding(name, max(number, 1), f"ends after {count:,} labels; split {split} has {n_expected:,} images")
            )
    return Labels(labels, findings, crlf)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines without their newline; of a line longer than MAX_LINE only the start, and then no more."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > MAX_LINE + 1:
            break
    if rest:
        yield rest


class _Wrong(Exception):
    """A line is no label. The message says why."""

    def __init__(self, words: str, ends: bool = False, blank: bool = False):
        super().__init__(words)
        self.ends = ends  #: the rest of the file is not worth reading
        self.blank = blank


def _label(line: bytes, n_classes: int) -> int:
    content = line.removesuffix(b"\r")
    if len(content) > MAX_LINE:
        raise _Wrong(f"the line is longer than {MAX_LINE} bytes", ends=True)
    if b"\r" in content:
        raise _Wrong("carriage returns are in place of line ends", ends=True)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise _Wrong(f"{_quoted(content)} is not UTF-8 text; WILDS' evaluate.py stops at it", ends=True) from None
    if not text.strip():
        raise _Wrong("the line is blank; WILDS' evaluate.py skips it, and later labels move up", blank=True)
    if text.startswith("\ufeff"):
        raise _Wrong(f"a byte order mark is no part of a label; {_by_evaluate(text)}")
    if not (text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")):
        raise _Wrong(f"{_quoted(content)} is no label, a whole number from 0 to {n_classes - 1}; {_by_evaluate(text)}")
    if int(text) >= n_classes:
        raise _Wrong(f"label {text} is out of range, labels are 0 to {n_classes - 1}")
    return int(text)


def _quoted(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
        return f"'{shown(text[:20])}{'...' if len(text) > 20 else ''}'"
    except UnicodeDecodeError:
        return repr(content[:20])[1:] + ("..." if len(content) > 20 else "")


def _by_evaluate(text: str) -> str:
    """What WILDS' evaluate.py does with a line of at most MAX_LINE characters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text.rstrip())
        if isinstance(value, (int, float)) and abs(value) < 2**63:
            return f"WILDS' evaluate.py reads it as {value!r}"
    except Exception:  # whatever the parser says, evaluate.py ends with it
        pass
    return "WILDS' evaluate.py stops at it"
