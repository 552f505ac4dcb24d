"""What the tests of Triton kernels run in a process of its own, where Triton interprets them on a CPU: the variable
that makes it do so is read on import.
"""

from __future__ import annotations

from unittest import mock

import torch
from torch import Tensor

from cim_plugin.algorithms.similarity import fused as fused_triplet
from cim_plugin.algorithms.similarity import triton_kernels as triton_triplet


def use(block: int) -> None:
    triton_triplet._BLOCK = block


def gradient(
    psi: Tensor, x: Tensor | None, rows: tuple[Tensor, Tensor], scales: int, floor: str, tile: int = triton_triplet.TILE
) -> tuple[Tensor, Tensor]:
    """(s_pos and s_neg, (2, N); the gradient of a weighted sum of them to psi). Without x, psi is compared with
    itself.
    """
    arithmetic = fused_triplet._Arithmetic(triton_triplet.compare, triton_triplet.add_rows, tile)
    psi = psi.detach().requires_grad_()
    values = torch.stack(fused_triplet._triplet(psi, x, *rows, scales, floor, arithmetic))
    return values.detach(), torch.autograd.grad(weighted(values), psi)[0]


def weighted(values: Tensor) -> Tensor:
    return (values.double() * torch.linspace(-1, 1.5, values.numel(), dtype=torch.float64).view_as(values)).sum()


def values_without_gradient(psi: Tensor, x: Tensor | None, rows: tuple[Tensor, Tensor], scales: int) -> Tensor:
    arithmetic = fused_triplet._Arithmetic(triton_triplet.compare, triton_triplet.add_rows, triton_triplet.TILE)
    with mock.patch.object(triton_triplet, "_spread_columns", None):  # called for a gradient only
        return torch.stack(fused_triplet._triplet(psi, x, *rows, scales, "exact", arithmetic))


def add_rows(total: Tensor, *arguments: Tensor) -> Tensor:
    triton_triplet.add_rows(total, *arguments)
    return total


def largest_error() -> float:
    arithmetic = fused_triplet._Arithmetic(triton_triplet.compare, triton_triplet.add_rows, triton_triplet.TILE)
    return fused_triplet._largest_error(arithmetic, torch.device("cpu"))


def chosen() -> str:
    """Whose kernels are taken, as if the CPU were a GPU."""
    return fused_triplet._on_gpu(torch.device("cpu")).compare.__module__
