"""The lines of a results.jsonl. DomainBed repeats a run's arguments and hyperparameters in each; they are read once."""

from __future__ import annotations

import json
from typing import Any, Iterator, NamedTuple

from ..files import Unreadable, parse_json
from .record import get


class Line(NamedTuple):
    """An evaluation."""

    number: int  #: of the line, from 1
    record: dict[str, Any]  #: without ``hparams`` where the line before had the same
    arguments: str  #: its ``args`` as JSON: equal where they are


def lines(texts: list[str], path: str) -> Iterator[Line]:
    """All lines that are not empty.

    Raises:
        Unreadable: a line is not a JSON object, or has no arguments.
    """
    before: _Repeated | None = None
    for number, text in enumerate(texts, 1):
        if text.strip():
            if before is None or (record := _shortened(text, path, before)) is None:
                record = parse_json(text, path, number)
                arguments = json.dumps(get(record, "args", dict, f"{path}, line {number}"), sort_keys=True)
                before = _Repeated(record, arguments)
            yield Line(number, record, before.arguments)


_HYPERPARAMETERS = '"hparams": '


class _Repeated:
    """What the lines after one are likely to hold, too, as the host writes it: JSON with its names in order."""

    def __init__(self, record: dict[str, Any], arguments: str):
        self.value, self.arguments = record["args"], arguments
        self.head = f'{{"args": {arguments}, '
        self.hyperparameters = f"{_HYPERPARAMETERS}{json.dumps(record.get('hparams'), sort_keys=True)}, "


def _shortened(text: str, path: str, before: _Repeated) -> dict[str, Any] | None:
    """The record without parsing again what the line before had; None where this line differs or is damaged."""
    if not text.startswith(before.head):
        return None
    try:
        record = parse_json("{" + _without(text, len(before.head), before.hyperparameters), path)
    except Unreadable:
        return None  # read as a whole it says where
    record.setdefault("args", before.value)
    return record if record["args"] is before.value else None


def _without(text: str, start: int, hyperparameters: str) -> str:
    """``text`` from ``start`` on, without these hyperparameters where it has them."""
    at = text.find(_HYPERPARAMETERS, start)  # a short word is found in a fifth of a long one's time
    if at < 0 or not text.startswith(hyperparameters, at):
        return text[start:]
    return text[start:at] + text[at + len(hyperparameters) :]
