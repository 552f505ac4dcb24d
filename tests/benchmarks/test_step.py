"""Steps of CIM against ERM's, and what cannot be measured."""

from __future__ import annotations

import pytest
import torch


def test_a_row_per_model_and_algorithm(bench):
    rows = bench(
        "step",
        "--model",
        "small_cnn",
        "--side",
        "28",
        "--batch_size",
        "4",
        "--pairs",
        "2",
        "--algorithm",
        "CIM",
        "CIM_VIB",
    )
    assert [row["name"] for row in rows[:2]] == ["small_cnn, CIM", "small_cnn, CIM_VIB"]
    for row in rows[:2]:
        low, high = row["spread"]
        assert row["shape"] == [4, 3, 28, 28] and 0 < low <= row["ratio"] <= high and row["memory_ratio"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(mistake):
    said = mistake("step", "--device", "cuda")
    assert said.startswith("scripts/bench step: error: --device cuda: torch finds no GPU here; leave it out")


def test_an_algorithm_that_needs_groups_is_not_offered(mistake):
    assert "invalid choice: 'CIM+groupDRO'" in mistake("step", "--algorithm", "CIM+groupDRO")
