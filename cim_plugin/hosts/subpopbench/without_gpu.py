"""The host's own algorithms that ask for a GPU by name, on a machine without one. With a GPU nothing changes."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, Iterator

import torch


def mend(module: Any) -> None:
    """Let GroupDRO be made and Mixup mix on the CPU.

    Args:
        module: subpopbench.learning.algorithms.
    """
    if not hasattr(module.GroupDRO.__init__, "__wrapped__"):
        module.GroupDRO.__init__ = _on_the_cpu(module.GroupDRO.__init__)
    if not hasattr(module.mixup_data, "__wrapped__"):
        module.mixup_data = _where_the_images_are(module.mixup_data)


def _on_the_cpu(inner):
    """It sends its group weights to the GPU at once; the train script sends the whole algorithm later."""

    @functools.wraps(inner)
    def __init__(self, *words, **more):
        with contextlib.nullcontext() if torch.cuda.is_available() else _cuda_is_the_cpu():
            inner(self, *words, **more)

    return __init__


@contextlib.contextmanager
def _cuda_is_the_cpu() -> Iterator[None]:
    inner = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *words, **more: self
    try:
        yield
    finally:
        torch.Tensor.cuda = inner


def _where_the_images_are(inner):
    @functools.wraps(inner)
    def mixup_data(x, y, alpha=1.0, device="cpu"):
        return inner(x, y, alpha, device=device if torch.cuda.is_available() else x.device)

    return mixup_data
