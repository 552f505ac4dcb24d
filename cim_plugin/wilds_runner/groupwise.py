"""The one function of the ``wilds`` evaluators that needs torch_scatter, in plain torch, for where that is missing."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from ..algorithms.group_dro import group_means


def avg_over_groups(v: Tensor, g: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """The mean of ``v`` per group, 0 for an empty one, and the groups' counts.

    Args:
        v: (N,), any real dtype; whole numbers are averaged as torch_scatter does, rounded down.
        g: (N,) int64 in [0, n_groups).
    """
    if v.is_floating_point():
        means, counts = group_means(v, g, n_groups)
    else:
        means, counts = group_means(v.double(), g, n_groups)
        means = means.floor().to(v.dtype)
    return means, counts.to(torch.float32)


def install() -> None:
    """Let the evaluators use :func:`avg_over_groups` where torch_scatter cannot be imported; only there."""
    try:
        importlib.import_module("torch_scatter")
        return
    except Exception:  # missing, or left behind by another torch
        pass
    for name in (
        "wilds.common.utils",
        "wilds.common.metrics.metric",
        "wilds.common.metrics.all_metrics",
        "wilds.common.metrics.loss",
    ):
        module = importlib.import_module(name)
        if hasattr(module, "avg_over_groups"):
            setattr(module, "avg_over_groups", avg_over_groups)
