"""The profiles of a step before and after, and the rows of ``scripts/bench profile``."""

from __future__ import annotations

import pytest
from paired_rows import check_ratio

from cim_plugin.algorithms.similarity import fused
from scripts.benchmarks import operations
from scripts.benchmarks.step import Case

FUSED_TRIPLET = fused.fused_triplet
FUSED = "_Scale"  #: the autograd function of the fused triplet


@pytest.fixture(scope="module")
def spent():
    return operations.profiled(Case("small_cnn", 2, 28), 2, "cpu")


def test_only_the_step_after_runs_the_fused_triplet(spent):
    assert FUSED not in spent["before"].calls
    assert spent["after"].calls[FUSED] == 2 * 2  # two steps of two scales
    assert fused.fused_triplet is FUSED_TRIPLET


def test_rows_are_per_step_and_the_largest_come_first(spent):
    everything = spent["after"].rows("after", len(spent["after"].calls))
    assert sum(row["share"] for row in everything) == pytest.approx(1)
    assert [row["milliseconds"] for row in everything] == sorted(
        (row["milliseconds"] for row in everything), reverse=True
    )
    assert next(row["calls"] for row in everything if row["name"] == FUSED) == 2
    assert sum(row["milliseconds"] for row in everything) * 2 * 1000 == pytest.approx(
        spent["after"].microseconds.total()
    )


def test_the_table_has_a_line_per_operation(spent):
    row = spent["before"].rows("before", 1)[0]
    assert operations._text(row).split() == [
        "before",
        row["name"],
        f"{row['share']:.1%}",
        str(row["calls"]),
        f"{row['milliseconds']:.1f}",
    ]


@pytest.mark.slow
def test_rows(bench):
    *rows, whole = bench("profile", "--quick", "--model", "small_cnn", "--top", "3")
    assert [row["version"] for row in rows] == ["before"] * 3 + ["after"] * 3
    assert "aten::convolution_backward" in {row["name"] for row in rows}
    check_ratio(whole)
