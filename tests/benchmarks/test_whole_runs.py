"""The rows of ``scripts/bench similarity``, ``scaling`` and ``loader``, at small sizes."""

from __future__ import annotations

import json
import math
from argparse import Namespace

import pytest
from paired_rows import check_ratio

from scripts.benchmarks import measuring, scaling, similarity

ARGS = Namespace(json=True, quick=False, pairs=2)


def test_similarity_has_a_row_per_method_and_size(capsys):
    similarity.run(ARGS, {28: (3, 2, 4.0)})
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [similarity.BASE, *(f"{name}, targets={{}}" for name in ("plain autograd", "fused", "colours"))]
    assert [row["name"] for row in rows] == [
        *(name.format("input") for name in expected),
        *(name.format("morphed") for name in expected),
    ]
    for row in rows:
        check_ratio(row)
        assert row["shape"] == [3, 3, 28, 28] and (
            row["name"] != similarity.BASE or row["ratio"] == row["cpu_ratio"] == 1
        )


@pytest.mark.parametrize("method", ["plain autograd", "fused"])
@pytest.mark.parametrize("targets", ["input", "morphed"])
def test_what_similarity_times_is_the_same_number(method, targets):
    """The gradient of psi, with the library's calls in place of ours."""
    case = similarity.Case(4, 28, targets)
    found = []
    for name in (method, similarity.BASE):
        run = similarity.step(name, case)
        run()
        (psi,) = (
            cell.cell_contents for variable, cell in zip(run.__code__.co_freevars, run.__closure__) if variable == "psi"
        )
        found.append(psi.grad)
    assert (found[0] - found[1]).abs().max() < 1e-4 * found[1].abs().max()


def test_scaling_has_the_exponents_of_its_times(capsys):
    small = {
        name: series._replace(values=(28, 56) if "pixels" in name else (4, 8))
        for name, series in scaling.SERIES.items()
    }
    scaling.run(ARGS, small)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 * len(small) + 2  # two sizes and an exponent each, and the shares of the choice
    for row in rows:
        if row["ratio"] is not None:
            check_ratio(row)
    exponents = {row["name"].split("'")[1]: row for row in rows if "exponent" in row}
    assert list(exponents) == list(small)
    for name, row in exponents.items():
        first, last = (of_size["cpu_milliseconds"] for of_size in rows if of_size["name"] == name)
        growth = 4 if "pixels" in name else 2
        assert row["exponent"] == pytest.approx(row["last_exponent"]) == pytest.approx(math.log(last / first, growth))
    assert all(0 < row["share"] < 1 for row in rows if "share" in row)


def test_an_exponent_is_the_slope_in_logarithms():
    assert scaling.fitted_exponent([(size, 0.3 * size**1.5) for size in (2, 8, 128)]) == pytest.approx(1.5)


def test_every_loader_gives_the_same_images(bench, monkeypatch, tmp_path):
    monkeypatch.setenv(
        "XDG_CACHE_HOME", str(tmp_path)
    )  # the benchmark sets it to a folder of its own, for its process; here it is put back
    rows = bench("loader", "--images", "8", "--pairs", "2")
    assert [row["name"].split(",")[0] for row in rows] == ["wilds' get_eval_loader", "ours", "ours", "ours"]
    for row in rows:
        check_ratio(row)
        assert row["largest_difference"] < 1e-6 and row["images_per_second"] == pytest.approx(
            1000 * 6 / row["cpu_milliseconds"]
        )


def test_a_spread_needs_two_runs(mistake):
    assert measuring.number_of_pairs("2") == 2
    assert "argument --pairs: 1 is not a whole number of at least 2" in mistake("scaling", "--pairs", "1")
