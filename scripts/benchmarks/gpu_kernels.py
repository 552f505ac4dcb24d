"""The numbers of the Triton kernels against plain autograd in float64 on the CPU, at many sizes and layouts."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cim_plugin.algorithms.similarity import fused
from cim_plugin.algorithms.similarity.ms_ssim import FLOORS, choose_scales, triplet

#: N, C, H, W: the smallest, odd and unequal sides, those of digits, of 96 and 224 pixels, a large one
SHAPES = ((1, 1, 11, 12), (2, 3, 23, 22), (3, 2, 45, 61), (16, 3, 28, 28), (8, 3, 96, 96), (8, 3, 224, 224))
SHAPES += ((2, 3, 448, 448),)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda images: images.contiguous(),
    "channels_last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "transposed": lambda images: images.transpose(2, 3).contiguous().transpose(2, 3),
}
INTERPRETED = "TRITON_INTERPRET"
FLAT = 1e-3  #: a gradient below it, of an image that is compared with itself or with an opposite one, is rounding


class Kernels(NamedTuple):
    """One comparison."""

    shape: tuple[int, int, int, int]
    layout: str
    targets: str  #: input, morphed
    floor: str

    @property
    def name(self) -> str:
        return f"{' x '.join(map(str, self.shape))}, {self.layout}, targets={self.targets}, floor={self.floor}"


def cases(shapes: tuple[tuple[int, int, int, int], ...]) -> Iterator[Kernels]:
    """Every size with every layout; targets and floors in turn."""
    for shape in shapes:
        for number, layout in enumerate(LAYOUTS):
            for targets in ("input", "morphed"):
                yield Kernels(shape, layout, targets, list(FLOORS)[number % len(FLOORS)])


def self_check(device: str) -> str:
    """What a training does at its first step: whether it takes the kernels."""
    if device == "cpu":
        return "no GPU: a training here takes the CPU's arithmetic"
    taken = fused._on_gpu(torch.device(device, torch.cuda.current_device())) is not None
    return "a training here takes the Triton kernels" if taken else "a training here takes plain autograd: see the log"


def errors(case: Kernels, device: str) -> dict[str, Any]:
    """The largest errors of the values, and of the gradient as a share of its largest entry; those of plain autograd in
    float32 beside them; whether a second run gives the same bits.
    """
    if device == "cpu" and not os.environ.get(INTERPRETED):
        return {"note": f"left out: without a GPU the kernels run where Triton interprets them, with {INTERPRETED}=1"}
    psi, x, rows = _images(case)
    scales = choose_scales(*case.shape[2:])
    exact = _run(triplet, psi.double(), None if x is None else x.double(), rows, scales, case.floor)
    lay_out = LAYOUTS[case.layout]
    own = [images if images is None else lay_out(images.to(device)) for images in (psi, x)]
    rows = tuple(row.to(device) for row in rows)
    first, second = (_run(_kernels, *own, rows, scales, case.floor) for _ in range(2))
    plain = _run(triplet, *own, rows, scales, case.floor)
    names = ("value_error", "gradient_error")
    return {
        "shape": list(case.shape),
        **dict(zip(names, _errors(first, exact))),
        **dict(zip((f"plain_{name}" for name in names), _errors(plain, exact))),
        "repeats": all(torch.equal(a, b) for a, b in zip(first, second)),
    }


def _images(case: Kernels) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
    """Smooth images with noise, and smooth masks; rows repeat, and the first anchor's negative is its own row."""
    random = torch.Generator().manual_seed(sum(case.shape))
    n, _, height, width = case.shape
    coarse = torch.rand(*case.shape[:2], 4, 4, generator=random)
    x = (F.interpolate(coarse, size=(height, width), mode="bilinear") + torch.rand(case.shape, generator=random)) / 2
    mask = F.interpolate(torch.rand(n, 1, 5, 5, generator=random), size=(height, width), mode="bilinear")
    rows = torch.randint(n, (n,), generator=random), torch.arange(n) // 2
    return mask * x, x if case.targets == "input" else None, rows


def _kernels(anchor: Tensor, reference: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    from cim_plugin.algorithms.similarity import triton_kernels

    arithmetic = fused._Arithmetic(triton_kernels.compare, triton_kernels.add_rows, triton_kernels.TILE)
    return fused._triplet(anchor, None if reference is anchor else reference, *others, arithmetic)


def _run(
    similarities: Callable, psi: Tensor, x: Tensor | None, rows: tuple[Tensor, Tensor], scales: int, floor: str
) -> tuple[Tensor, Tensor]:
    """The values (2, N), and the gradient of a weighted sum of them to psi, both float64 on the CPU."""
    psi = psi.detach().requires_grad_()
    values = torch.stack(similarities(psi, psi if x is None else x, *rows, scales, floor))
    weights = torch.linspace(-1, 1.5, values.numel(), dtype=values.dtype, device=values.device).view_as(values)
    (gradient,) = torch.autograd.grad((values * weights).sum(), psi)
    return values.detach().double().cpu(), gradient.double().cpu()


def _errors(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> tuple[float, float]:
    values, gradient = ((a - b).abs().max().item() for a, b in zip(found, exact))
    return values, gradient / max(exact[1].abs().max().item(), FLAT)
