"""Trainings with and without the speed-ups, and the rows of ``scripts/bench accuracy``."""

from __future__ import annotations

import pandas
import pytest
import torch
from scipy import stats

from cim_plugin.algorithms.similarity import fused, ms_ssim
from cim_plugin.algorithms.similarity.fused import fused_triplet
from cim_plugin.wilds_runner.loop import Loop
from scripts.benchmarks import accuracy


def test_the_share_of_tied_images_is_that_of_the_task(tmp_path):
    accuracy.write_release(tmp_path, 0.75)
    table = pandas.read_csv(tmp_path / "waterbirds_v1.0" / "metadata.csv")
    tied = (table["y"] == table["place"]).groupby(table["split"]).mean()
    assert tied.tolist() == pytest.approx([0.75, 0.5, 0.5], abs=0.01)


def test_rows_are_of_trainings_with_and_without_the_speed_ups(bench, monkeypatch):
    seen, weights_at_start = [], []
    run = Loop.run

    def spy(loop):
        training = loop.training
        weights = training.classifier.morphing.network.features[
            2
        ].weight  # 3x3 and several channels: the layouts differ
        seen.append(
            (
                fused.fused_triplet,
                weights.is_contiguous(memory_format=torch.channels_last),
                bool(training.optimizer.parts["others"].defaults["fused"]),
                training.config.seed,
            )
        )
        weights_at_start.append(torch.cat([weight.detach().flatten() for weight in training.classifier.parameters()]))
        run(loop)

    monkeypatch.setattr(Loop, "run", spy)
    monkeypatch.setattr(accuracy, "TASKS", {"75% tied": 0.75})  # one is enough here
    rows = bench("accuracy", "--seeds", "1", "--epochs", "1")
    assert seen == [
        (ms_ssim.triplet, False, False, 0),
        (fused_triplet, True, True, 0),
        (ms_ssim.triplet, False, False, 0),
    ]
    plain, fast, nudged = weights_at_start
    assert torch.equal(plain, fast) and (nudged > plain).all() and torch.allclose(nudged, plain, rtol=2**-22)
    assert [(row["name"], row["rule"], row["seed"]) for row in rows] == [
        ("75% tied", rule, seed) for seed in (0, None) for rule in ("average", "last")
    ]
    for row in rows:
        for what in ("average", "worst_group"):
            assert row["nudged - plain"][what] == row["nudged"][what] - row["plain"][what]
            assert row["fast - plain"][what] == row["fast"][what] - row["plain"][what]
            assert (
                0 <= row["plain"][what] <= 100 and abs(row["fast - plain"][what]) < 3
            )  # after one epoch rounding has hardly grown
        assert row["plain"]["worst_group"] <= row["plain"]["average"]


def test_the_interval_of_the_mean_difference():
    def split(average: float, worst: float) -> dict:
        return {"accuracy": average, "metrics": {"acc_wg": worst}}

    tested = [((0.9, 0.5), (0.92, 0.5)), ((0.8, 0.3), (0.79, 0.35)), ((0.7, 0.4), (0.75, 0.5))]
    rows = [
        accuracy.seed_row("task", "last", seed, {"plain": split(*plain), "fast": split(*fast), "nudged": split(*plain)})
        for seed, (plain, fast) in enumerate(tested)
    ]
    mean = accuracy.mean_row(rows)
    assert mean["plain"] == pytest.approx({"average": 80, "worst_group": 40})
    for number, what in enumerate(("average", "worst_group")):
        expected = stats.ttest_1samp(
            [100 * (fast[number] - plain[number]) for plain, fast in tested], 0
        ).confidence_interval(0.95)
        middle, half = mean["fast - plain"][what], mean["half_interval"]["fast - plain"][what]
        assert (middle - half, middle + half) == pytest.approx((expected.low, expected.high))
        assert f"{middle:+.1f} ± {half:.1f}" in accuracy._text(mean)
        assert mean["nudged - plain"][what] == mean["half_interval"]["nudged - plain"][what] == 0


@pytest.mark.parametrize("flag", ["--seeds", "--epochs"])
def test_none_is_too_few(mistake, flag):
    assert f"argument {flag}: 0 is not a whole number of at least 1" in mistake("accuracy", flag, "0")
