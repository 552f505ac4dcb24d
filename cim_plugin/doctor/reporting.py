"""Findings that a process of its own leaves for the one that asked, in a file that is whole up to where the process
came.
"""

from __future__ import annotations

import json
import os
from typing import Any

from .findings import Finding

TRAIN, DOMAINBED = "train", "domainbed train"  #: what can be started
OUTPUT = "output"  #: the folder of a started training, inside that of the report
REPORT = "report.jsonl"
STARTED = "started"


class Report:
    """Findings, one by one into the file, so that nothing is lost when the process ends."""

    def __init__(self, folder: str):
        self.path = os.path.join(folder, REPORT)

    def add(self, *findings: Finding) -> None:
        self._write(*(finding._asdict() for finding in findings))

    def started(self) -> None:
        self._write({STARTED: True})

    def _write(self, *values: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(value) + "\n" for value in values)


def read_report(folder: str) -> tuple[list[Finding], bool]:
    """The findings, and whether the first step was reached."""
    try:
        with open(os.path.join(folder, REPORT), encoding="utf-8") as file:
            values = [json.loads(line) for line in file]
    except FileNotFoundError:
        values = []
    return [Finding(**value) for value in values if STARTED not in value], any(STARTED in value for value in values)
