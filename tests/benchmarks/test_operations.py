"""The profile of a step."""

from __future__ import annotations

from scripts.benchmarks import operations
from scripts.benchmarks.step import Case


def test_rows_are_per_step_and_the_largest_come_first():
    rows = operations.profiled(Case("small_cnn", 2, 28), "cpu", top=1000)
    shares = [row["share"] for row in rows]
    assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 1) < 1e-9
    calls = {row["name"]: row["calls"] for row in rows}
    assert calls["_Scale"] == 2  # the fused triplet's autograd function, of two scales at 28 pixels
