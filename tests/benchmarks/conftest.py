"""The benchmarks' command in this process."""

from __future__ import annotations

import json
import sys
from typing import Any, Callable

import pytest

from scripts import bench as command


def _run(words: tuple[str, ...], monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["scripts/bench", *words])
    try:
        return command.main()
    except SystemExit as end:  # of a wrong word
        return end.code


@pytest.fixture
def bench(capsys, monkeypatch) -> Callable[..., list[dict[str, Any]]]:
    """``scripts/bench`` with the given words and --json; its rows."""

    def run(*words: str) -> list[dict[str, Any]]:
        assert _run((*words, "--json"), monkeypatch) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert all("torch" in row["machine"] for row in rows)
        return rows

    return run


@pytest.fixture
def mistake(capsys, monkeypatch) -> Callable[..., str]:
    """``scripts/bench`` with words that are wrong; the last line of what it says."""

    def run(*words: str) -> str:
        assert _run(words, monkeypatch) == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run
