"""Mixed precision is that of the training step and of the evaluation, and rounds neither pixels nor losses; of several
processes: test_distributed.py.
"""

from __future__ import annotations

import pytest
import torch
from small_runs import SIZES, prepared


@pytest.mark.parametrize("algorithm", ["CIM_VIB", "SCL_E2E"])
def test_mixed_precision_is_that_of_training_and_evaluation_and_leaves_pixels_and_losses_whole(
    release, tmp_path, algorithm
):
    """One process: Fabric's wrapper leaves a method that is not forward to itself."""
    loop = prepared(release, tmp_path, "--precision", "bf16-mixed", algorithm=algorithm)
    training, seen = loop.training, {True: set(), False: set()}  # in training, in evaluation
    first = training.classifier.encoder if training.classifier.morphing is None else training.classifier.morphing
    first.register_forward_pre_hook(lambda module, images: seen[module.training].add(images[0].dtype))
    training.classifier.head.register_forward_hook(lambda head, _, logits: seen[head.training].add(logits.dtype))
    loop.run()
    assert seen == {True: {torch.float32, torch.bfloat16}, False: {torch.float32, torch.bfloat16}}
    images, labels = torch.rand(SIZES["val"], 3, 28, 28), training.data.splits["val"].labels
    with training.fabric.autocast():
        losses = training.model.loss_terms(images, labels).losses
    assert {values.dtype for values in losses.values()} == {torch.float32}
