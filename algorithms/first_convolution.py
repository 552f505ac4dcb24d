"""The gradient of an encoder's first convolution to its input, faster on a CPU: in phases.

ERM never needs that gradient; psi does. The gradient of a convolution of stride 2 to its input is, at every parity of
row and column, a convolution of stride 1 with the weights of that parity: one convolution to 4 C channels, and a pixel
shuffle. Where C is 3, as for images, libraries do the usual product badly, because they work on 16 channels at once.

:func:`phased` changes no layer: while it is on, the first convolution that fits is computed as before, and its
gradient in phases. On other devices, and in other precisions, nothing is changed.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FEW = 4  #: input channels of a first convolution, at most
TOLERANCE = 1e-4  #: of the self-check: a mistake is far above, rounding far below


def input_gradient(gradient: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """That of a convolution of stride 2 with images of even sides, twice those of its output.

    Args:
        gradient: to the output, (N, K, H / 2, W / 2).
        weight: (K, C, h, w).
        padding: of the convolution, (h - 1) // 2 and (w - 1) // 2 or near.

    Returns:
        (N, C, H, W).
    """
    rows, columns = (_taps(size, around) for size, around in zip(weight.shape[2:], padding))
    phases = torch.stack([_phase(weight, row, column) for row in rows.taps for column in columns.taps], 1)
    kernel = phases.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    found = F.conv2d(gradient, kernel, padding=(rows.margin, columns.margin))
    top, left = rows.margin - rows.before, columns.margin - columns.before
    height, width = gradient.shape[2:]
    return F.pixel_shuffle(found[:, :, top : top + height, left : left + width], 2)


class _Taps:
    """In one dimension: which weight a phase has at every tap, None for a zero, and the margin that the taps need.

    The pixel 2 i + r of the input has the weight k = r + padding - 2 d in the output's i + d.
    """

    def __init__(self, size: int, padding: int):
        offsets = [(r + padding - k) // 2 for r in (0, 1) for k in range(size) if (r + padding - k) % 2 == 0]
        first, last = min(offsets), max(offsets)
        self.before, self.margin = -first, max(-first, last)
        weights = [[r + padding - 2 * d for d in range(first, last + 1)] for r in (0, 1)]
        self.taps = [[k if 0 <= k < size else None for k in of_phase] for of_phase in weights]


_taps = functools.lru_cache(maxsize=16)(_Taps)


def _phase(weight: Tensor, rows: list[int | None], columns: list[int | None]) -> Tensor:
    """(K, C, h, w) -> (C, K, taps, taps)."""
    padded = F.pad(weight.transpose(0, 1), (0, 1, 0, 1))  # the last row and column are zero
    return padded[:, :, [-1 if k is None else k for k in rows]][..., [-1 if k is None else k for k in columns]]


class _Convolution(torch.autograd.Function):
    """A convolution, whose gradient to its input is taken in phases."""

    @staticmethod
    def forward(
        ctx, images: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int]
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding, ctx.bias = stride, padding, bias is not None
        return F.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        to_images, to_weight, to_bias = ctx.needs_input_grad[:3]
        of_weight = _weight_gradient(gradient, images, weight, ctx) if to_weight else None
        return (
            input_gradient(gradient, weight, ctx.padding) if to_images else None,
            of_weight,
            gradient.sum((0, 2, 3)) if to_bias else None,
            None,
            None,
        )


def _weight_gradient(gradient: Tensor, images: Tensor, weight: Tensor, ctx: Any) -> Tensor:
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, images, weight, None, ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, mask
    )[1]


class _First(TorchFunctionMode):
    """Takes the first convolution that fits."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.conv2d or self.taken:
            return func(*args, **(kwargs or {}))
        call = _fitting(*args, **(kwargs or {}))
        if call is None:
            return func(*args, **(kwargs or {}))
        self.taken = True
        return _Convolution.apply(*call)


def _fitting(images, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> tuple | None:
    """The arguments of :class:`_Convolution`; None for a convolution that is not one of ours."""
    if isinstance(padding, str) or images.dim() != 4 or not images.requires_grad:
        return None
    stride, padding, dilation = ([n, n] if isinstance(n, int) else list(n) for n in (stride, padding, dilation))
    height, width = images.shape[2:]
    halved = [(side + 2 * pad - size) // 2 + 1 for side, pad, size in zip((height, width), padding, weight.shape[2:])]
    fits = (
        (stride, dilation, groups) == ([2, 2], [1, 1], 1)
        and images.shape[1] <= FEW
        and [2 * side for side in halved] == [height, width]
        and min(weight.shape[2:]) >= 3
        and images.dtype == weight.dtype == torch.float32
    )
    return (images, weight, bias, stride, padding) if fits and _is_right(tuple(weight.shape), tuple(padding)) else None


@functools.cache
def _is_right(shape: tuple[int, ...], padding: tuple[int, int]) -> bool:
    """Whether the phases give torch's own gradient here, on a small image."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        images, weight = torch.rand(1, shape[1], 16, 18, requires_grad=True), torch.rand(shape)
        output = F.conv2d(images, weight, None, 2, padding)
        gradient = torch.rand_like(output)
        (expected,) = torch.autograd.grad(output, images, gradient)
        found = input_gradient(gradient, weight, padding)
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


@contextlib.contextmanager
def phased(images: Tensor, encoder: nn.Module) -> Iterator[None]:
    """Meanwhile the first convolution of ``images`` that fits has its gradient in phases: on a CPU, in float32, where
    ``images`` have a gradient and ``encoder`` is not compiled.
    """
    wanted = images.requires_grad and torch.is_grad_enabled() and images.device.type == "cpu"
    if not wanted or torch.is_autocast_enabled("cpu") or encoder._compiled_call_impl is not None:
        yield
        return
    with _First():
        yield
