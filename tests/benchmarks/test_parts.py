"""The parts of a step, and the rows of ``scripts/bench parts``."""

from __future__ import annotations

import torch
from paired_rows import check_ratio
from torch import nn

from scripts.benchmarks import parts


def test_the_gradient_to_the_input_is_computed_where_it_is_asked_for():
    convolution = nn.Conv2d(3, 4, 3)
    for images in (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8).requires_grad_()):
        run = parts._convolve(convolution, images)
        run()
        run()
        assert (images.grad is not None) == images.requires_grad
        assert convolution.weight.grad is not None


def test_rows(bench):
    rows = bench("parts", "--quick", "--model", "small_cnn")
    assert [row["name"] for row in rows][0] == "ERM step" and len({row["name"] for row in rows}) == len(rows) == 9
    for row in rows:
        check_ratio(row)
        assert row["shape"] == [2, 3, 96, 96]
        assert row["name"] != "ERM step" or row["cpu_ratio"] == row["ratio"] == 1
