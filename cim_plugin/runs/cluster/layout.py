"""A folder per job: its log, what was submitted, and how it ended."""

from __future__ import annotations

import glob
import json
import os
import re
from typing import Any

from ...files import read_json

FOLDER = "cluster"  #: beside the runs
SUBMITIT = "submitit"  #: in it, submitit's own files


def folder(root: str, name: str) -> str:
    """That of a job."""
    return os.path.join(root, FOLDER, re.sub(r"[^\w.=+-]+", "_", name))


def log(folder: str) -> str:
    return os.path.join(folder, "log.txt")


def submitted(folder: str) -> str:
    return os.path.join(folder, "submitted.json")


def all_submitted(root: str) -> list[str]:
    """Those files of all jobs."""
    return sorted(glob.glob(submitted(os.path.join(glob.escape(root), FOLDER, "*"))))


def status(folder: str) -> str:
    return os.path.join(folder, "status.json")


def said(values: dict[str, Any]) -> bytes:
    return f"{json.dumps(values)}\n".encode()


def read(path: str) -> dict[str, Any]:
    """What a file of these says; {} where there is none."""
    return read_json(path) if os.path.exists(path) else {}
