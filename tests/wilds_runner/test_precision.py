"""Mixed precision is that of the training step and of the evaluation, and rounds neither pixels nor losses; of several
processes: test_distributed.py.
"""

from __future__ import annotations

import pytest
import torch
from small_runs import train

from cim_plugin.algorithms.classifier import RobustClassifier


@pytest.mark.parametrize("algorithm", ["CIM_VIB", "SCL_E2E"])
def test_mixed_precision_is_that_of_training_and_evaluation_and_leaves_pixels_and_losses_whole(
    release, tmp_path, monkeypatch, algorithm
):
    """One process: Fabric's wrapper leaves a method that is not forward to itself."""
    seen = {"training": set(), "evaluation": set()}
    loss_terms, forward = RobustClassifier.loss_terms, RobustClassifier.forward

    def spy_loss_terms(self, images, *words):
        terms = loss_terms(self, images, *words)
        seen["training"].add((images.dtype, terms.logits.dtype, *{values.dtype for values in terms.losses.values()}))
        return terms

    def spy_forward(self, images):
        logits = forward(self, images)
        if seen["training"]:  # not of what is checked before
            seen["evaluation"].add((images.dtype, logits.dtype))
        return logits

    monkeypatch.setattr(RobustClassifier, "loss_terms", spy_loss_terms)
    monkeypatch.setattr(RobustClassifier, "forward", spy_forward)
    assert train(release, tmp_path, "--precision", "bf16-mixed", algorithm=algorithm) == 0
    assert seen == {
        "training": {(torch.float32, torch.bfloat16, torch.float32)},
        "evaluation": {(torch.float32, torch.bfloat16)},
    }
