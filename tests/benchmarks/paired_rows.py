"""What every row of paired runs has."""

from __future__ import annotations

from typing import Any


def check_ratio(row: dict[str, Any]) -> None:
    """A paired row has its ratio between the quartiles, in wall and in CPU time."""
    for kind in ("", "cpu_"):
        low, high = row[f"{kind}spread"]
        assert 0 < low <= row[f"{kind}ratio"] <= high
        assert row[f"{kind}milliseconds"] > 0
