"""The fused optimizers' steps, and the rows of ``scripts/bench optimizer``."""

from __future__ import annotations

import pytest
import torch
from paired_rows import check_ratio

from cim_plugin.models.encoders import SmallCNN
from scripts.benchmarks import optimizer


@pytest.mark.parametrize("layout", optimizer.LAYOUTS)
@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_both_ways_move_the_weights_alike(name, layout):
    encoders = {way: SmallCNN().to(memory_format=optimizer.LAYOUTS[layout]) for way in optimizer.WAYS}
    before = {key: value.clone() for key, value in encoders["default"].state_dict().items()}
    encoders["fused"].load_state_dict(before)
    for way, encoder in encoders.items():
        step = optimizer.step(encoder, name, way)
        for _ in range(3):
            step()
    default, fused = (encoders[way].state_dict() for way in ("default", "fused"))
    assert all(
        torch.allclose(default[key], fused[key], atol=1e-6) and not torch.equal(default[key], before[key])
        for key in before
    )


def test_rows(bench):
    rows = bench("optimizer", "--quick", "--model", "small_cnn")
    assert [row["name"] for row in rows] == [
        f"small_cnn, {layout}, {name}"
        for layout in ("channels_last", "contiguous")
        for name in ("SGD", "Adam", "AdamW")
    ]
    parameters = sum(weight.numel() for weight in SmallCNN().parameters())
    for row in rows:
        check_ratio(row)
        assert row["shape"] == [parameters] and row["default_cpu_milliseconds"] > 0


def test_an_unknown_model_is_said_in_one_line(mistake):
    said = mistake("optimizer", "--model", "resnet81")
    assert said.startswith(
        "scripts/bench optimizer: error: --model 'resnet81' is neither small_cnn nor a model of torchvision or timm"
    )
