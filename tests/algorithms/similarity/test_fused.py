"""The fused triplet against plain autograd and pytorch_msssim in double precision, finite differences and adversarial
images.
"""

from __future__ import annotations

import statistics

import pytest
import pytorch_msssim
import torch
from images import adversarial_pairs, of_library, related, smooth_masks
from torch import Tensor

from cim_plugin.algorithms.similarity import fused as module
from cim_plugin.algorithms.similarity.fused import fused_triplet
from cim_plugin.algorithms.similarity.ms_ssim import FLOORS, choose_scales, triplet

pytestmark = pytest.mark.slow

TARGETS = ["input", "morphed"]
#: N, C, H, W: one plane, odd and unequal sides, every number of scales, several blocks of planes, strips of lines
SHAPES = [
    (1, 1, 11, 12),
    (1, 2, 28, 28),
    (3, 2, 33, 47),
    (70, 3, 28, 28),
    (2, 3, 50, 41),
    (5, 1, 96, 85),
    (2, 2, 161, 187),
    (6, 3, 224, 224),
]


def _rows(n: int) -> tuple[Tensor, Tensor]:
    """Rows that repeat, and the first anchor's negative is its own row."""
    return torch.randint(n, (n,)), torch.arange(n) // 2


def _gradient(
    compare, psi: Tensor, x: Tensor | None, rows: tuple[Tensor, Tensor], floor: str, scales: int | None = None
) -> tuple[Tensor, Tensor]:
    """(s_pos and s_neg, (2, N); the gradient of a weighted sum of them to psi). Without x, psi is compared with
    itself.
    """
    psi = psi.detach().requires_grad_()
    scales = scales or choose_scales(*psi.shape[-2:])
    values = torch.stack(compare(psi, psi if x is None else x, *rows, scales, floor))
    weights = torch.linspace(-1, 1.5, values.numel(), dtype=torch.float64).view_as(values)
    return values.detach(), torch.autograd.grad((values.double() * weights).sum(), psi)[0]


def _assert_equal(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float = 1e-10) -> None:
    """Values to ``tolerance``, gradients to ``tolerance`` of the largest; that of an image with itself is nothing but
    rounding.
    """
    torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(actual[1], expected[1], rtol=0, atol=tolerance * expected[1].abs().max().item() + 4e-15)


# --- against references ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_plain_autograd(crops, shape, floor, targets):
    x = crops(*shape)
    psi, rows = smooth_masks(x) * x, _rows(len(x))
    x = x if targets == "input" else None
    _assert_equal(_gradient(fused_triplet, psi, x, rows, floor), _gradient(triplet, psi, x, rows, floor))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("height, width, channels", [(224, 224, 3), (161, 187, 2)])
def test_values_and_gradients_equal_pytorch_msssim(crops, height, width, channels, targets):
    """Where every term is positive; with a window in double precision, its own is float32."""
    x = related(crops(3, channels, height, width))
    psi, rows = smooth_masks(x) * x, _rows(3)
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
    window = (taps / taps.sum()).view(1, 1, 1, 11).repeat(channels, 1, 1, 1)

    def library(psi, reference, positive, negative, *_):
        return [
            pytorch_msssim.ms_ssim(psi, reference[r], data_range=1.0, size_average=False, win=window)
            for r in (positive, negative)
        ]

    x = x if targets == "input" else None
    expected = _gradient(library, psi, x, rows, "exact")
    assert expected[0].min() > 0.05
    _assert_equal(_gradient(fused_triplet, psi, x, rows, "exact"), expected)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("side", [24, 90, 176])
def test_adversarial_images_equal_plain_autograd(side, floor, targets):
    psi, x = (images.double() for images in adversarial_pairs(21, side))
    x = x if targets == "input" else None
    rows = torch.arange(21), torch.arange(21).roll(1)
    _assert_equal(_gradient(fused_triplet, psi, x, rows, floor), _gradient(triplet, psi, x, rows, floor))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("scales", [1, 2, 3, 4])
def test_fewer_scales_than_fit(crops, scales, targets):
    x = crops(2, 1, 97, 90)
    psi, rows = smooth_masks(x) * x, _rows(2)
    x = x if targets == "input" else None
    _assert_equal(
        _gradient(fused_triplet, psi, x, rows, "smooth", scales), _gradient(triplet, psi, x, rows, "smooth", scales)
    )


def test_the_reference_may_have_other_rows_than_the_anchor(crops):
    """As where several processes share a batch."""
    x = crops(7, 2, 28, 30)
    psi, rows = (smooth_masks(x) * x)[:3], (torch.tensor([6, 0, 3]), torch.tensor([5, 5, 1]))
    _assert_equal(_gradient(fused_triplet, psi, x, rows, "exact"), _gradient(triplet, psi, x, rows, "exact"))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("side", [28, 176])
def test_float32_error_is_at_most_twice_that_of_pytorch_msssim(crops, side, targets):
    """Root mean squares against double precision; rounding is chance, so the median of seven batches. At 28 plain
    autograd stands in for the library.
    """
    library = of_library if side > 160 else triplet
    ratios = []
    for _ in range(7):
        x = related(crops(8, 3, side, side))[torch.randperm(8)]
        psi, rows = smooth_masks(x) * x, _rows(8)
        x = x if targets == "input" else None
        exact = _gradient(triplet, psi, x, rows, "exact")
        errors = []
        for compare in (fused_triplet, library):
            rounded = _gradient(compare, psi.float(), None if x is None else x.float(), rows, "exact")
            errors.append([(a.double() - b).square().mean().sqrt().item() for a, b in zip(rounded, exact)])
        ratios.append([ours / theirs for ours, theirs in zip(*errors)])
    of_values, of_gradients = (statistics.median(column) for column in zip(*ratios))
    assert of_values <= 2
    assert of_gradients <= 2


@pytest.mark.parametrize("targets", TARGETS)
def test_float32_without_onednn_gives_the_same(crops, targets, monkeypatch):
    x = related(crops(3, 3, 60, 60)).float()
    psi, rows = smooth_masks(x) * x, _rows(3)
    x = x if targets == "input" else None
    expected = _gradient(fused_triplet, psi, x, rows, "exact")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    _assert_equal(_gradient(fused_triplet, psi, x, rows, "exact"), expected, tolerance=1e-5)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("tile, tiles", [(1, 9), (50_000, 6), (60_000, 3), (120_000, 2), (10**9, 1)])
def test_the_size_of_tiles_does_not_matter(crops, tile, tiles, targets):
    """36 planes in blocks of 16, 32 or all, and their 83 lines in strips."""
    x = crops(12, 3, 83, 45)
    psi, rows = smooth_masks(x) * x, _rows(12)
    x = x if targets == "input" else None
    assert len(list(module._tiles(psi.flatten(0, 1).shape, tile))) == tiles

    def tiled(psi, reference, *more):
        others = None if reference is psi else reference
        return module._triplet(psi, others, *more, module._Arithmetic(module._compare_gathered, module._add_rows, tile))

    expected = _gradient(fused_triplet, psi, x, rows, "smooth")
    _assert_equal(_gradient(tiled, psi, x, rows, "smooth"), expected, tolerance=1e-12)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize(
    "n, channels, height, width, scales", [(1, 1, 12, 13, 1), (3, 2, 12, 13, 1), (2, 3, 23, 21, 2)]
)
def test_gradcheck(n, channels, height, width, scales, floor, targets):
    psi, x = torch.rand(2, n, channels, height, width, dtype=torch.float64)
    positive, negative = torch.arange(n).roll(1), torch.zeros(n, dtype=torch.int64)

    def compare(psi):
        return fused_triplet(psi, psi if targets == "morphed" else x, positive, negative, scales, floor)

    assert torch.autograd.gradcheck(compare, (psi.requires_grad_(),), fast_mode=height > 12)


def test_no_gradient_reaches_the_reference(crops):
    psi, x = (images.requires_grad_() for images in crops(4, 1, 24, 24).split(2))
    s_pos, s_neg = fused_triplet(psi, x, torch.tensor([1, 0]), torch.tensor([0, 1]), 2, "exact")
    (s_pos + s_neg).sum().backward()
    assert x.grad is None
    assert psi.grad.abs().sum() > 0


@pytest.mark.parametrize("targets", TARGETS)
def test_without_a_gradient_the_values_are_the_same_and_no_slope_is_computed(crops, targets):
    x = crops(2, 3, 50, 50)
    psi, rows = smooth_masks(x) * x, _rows(2)
    expected, _ = _gradient(fused_triplet, psi, x if targets == "input" else None, rows, "smooth")
    compared = []

    def compare(*call):
        compared.append(module._compare_gathered(*call))
        return compared[-1]

    arithmetic = module._Arithmetic(compare, module._add_rows, module._TILE)
    values = torch.stack(module._triplet(psi, x if targets == "input" else None, *rows, 3, "smooth", arithmetic))
    assert len(compared) == 3 and all(slopes == [] for _, slopes in compared)
    assert not values.requires_grad
    assert torch.equal(values, expected)


@pytest.mark.parametrize("targets, images", [("input", 3), ("morphed", 6)])
def test_what_is_kept_for_the_gradient_is_a_few_images(targets, images):
    """pytorch_msssim keeps 36 where psi is compared with x and 43 where with itself, plain autograd 24."""
    psi = torch.rand(8, 3, 224, 224, requires_grad=True)
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        values = fused_triplet(psi, psi if targets == "morphed" else torch.rand_like(psi), *_rows(8), 5, "exact")
    assert values[0].requires_grad
    assert sum(kept.values()) <= 1.05 * images * psi.numel()


def test_the_gradient_can_be_taken_again_and_is_the_same_to_the_bit(crops):
    x = crops(4, 3, 60, 60).float()
    psi, rows = (smooth_masks(x) * x).requires_grad_(), _rows(4)
    gradients = []
    for _ in range(2):
        values = torch.stack(fused_triplet(psi, psi, *rows, 3, "exact"))
        gradients += [torch.autograd.grad(values.sum(), psi, retain_graph=True)[0] for _ in range(2)]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients[1:])


def test_a_second_derivative_is_refused(crops):
    """It would be wrong, not slow: slopes are constants to autograd."""
    x = crops(2, 1, 24, 24)
    psi = (0.9 * x).requires_grad_()
    s_pos, _ = fused_triplet(psi, x, *_rows(2), 2, "exact")
    (gradient,) = torch.autograd.grad(s_pos.sum(), psi, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# --- adversarial images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("autocast, dtype", [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)])
def test_a_thousand_adversarial_triplets_stay_finite(floor, autocast, dtype, targets):
    psi, x = (images.to(dtype) for images in adversarial_pairs(1000, 24))
    rows = torch.arange(1000), torch.arange(1000).roll(1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values, gradient = _gradient(fused_triplet, psi, x if targets == "input" else None, rows, floor)
    assert values.dtype == torch.float32
    assert ((values >= 0) & (values <= 1 + 1e-6)).all()
    assert gradient.isfinite().all()


# --- input in any form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(
    "lay_out",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack([x, 1 - x], dim=-1).flatten(-2)[..., ::2],
        lambda x: x[:1].expand_as(x),
    ],
    ids=["channels_last", "transposed", "strided", "expanded"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_layout_does_not_matter(crops, lay_out, targets, dtype):
    x = crops(3, 3, 34, 48).to(dtype)
    x, psi = lay_out(x), lay_out(smooth_masks(x) * x)
    assert not psi.is_contiguous()
    before = psi.clone()
    rows = _rows(3)
    expected = _gradient(fused_triplet, psi.contiguous(), x.contiguous() if targets == "input" else None, rows, "exact")
    actual = _gradient(fused_triplet, psi, x if targets == "input" else None, rows, "exact")
    assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])
    assert torch.equal(psi, before)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(crops, dtype, targets):
    x = crops(3, 3, 33, 47).to(dtype)
    psi, rows = smooth_masks(x) * x, _rows(3)
    x = x if targets == "input" else None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, gradient = _gradient(fused_triplet, psi, x, rows, "smooth")
    expected = _gradient(fused_triplet, psi.float(), None if x is None else x.float(), rows, "smooth")
    assert (values.dtype, gradient.dtype) == (torch.float32, dtype)
    assert torch.equal(values, expected[0]) and torch.equal(gradient, expected[1].to(dtype))


def _derivatives(value: Tensor) -> set[str]:
    """The names of the functions that a gradient of ``value`` goes through."""
    names, left = set(), [value.grad_fn]
    while left:
        node = left.pop()
        names.add(node.name())
        left += [before for before, _ in node.next_functions if before is not None]
    return names


def test_elsewhere_than_on_a_cpu_it_is_plain_autograd(meta):
    def derivatives(device, triplet):
        psi = torch.rand(2, 1, 24, 24, device=device, requires_grad=True)
        rows = (rows.to(device) for rows in _rows(2))
        return _derivatives(torch.stack(triplet(psi, torch.rand(2, 1, 24, 24, device=device), *rows, 2, "exact")))

    assert derivatives(meta, fused_triplet) == derivatives(meta, triplet) != derivatives("cpu", fused_triplet)
