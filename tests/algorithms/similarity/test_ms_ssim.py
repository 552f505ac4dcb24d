"""MS-SSIM and its triplet against a plain double-precision loop, pytorch_msssim and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from images import of_library, reference_library, related, smooth_masks
from torch import Tensor

from cim_plugin.algorithms.similarity.ms_ssim import (
    FLOORS,
    choose_scales,
    exact_floor,
    ms_ssim,
    scale_weights,
    smooth_floor,
    triplet,
)

SIZES = [(28, 28, 2), (33, 47, 2), (96, 96, 4), (224, 224, 5)]
TARGETS = ["input", "morphed"]


# --- references ------------------------------------------------------------------------------------------------------


def _reference_plane(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean contrast-structure and mean SSIM of two (h, w) planes: Wang et al. (2003), one 11x11 window at a time."""
    window = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)]).ravel()
    window /= window.sum()
    contrast_structure, ssim = [], []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            p, q = x[top : top + 11, left : left + 11].ravel(), y[top : top + 11, left : left + 11].ravel()
            mu_p, mu_q = window @ p, window @ q
            p, q = p - mu_p, q - mu_q
            cs = (2 * (window @ (p * q)) + 0.0009) / (window @ (p * p) + window @ (q * q) + 0.0009)
            contrast_structure.append(cs)
            ssim.append(cs * (2 * mu_p * mu_q + 0.0001) / (mu_p**2 + mu_q**2 + 0.0001))
    return math.fsum(contrast_structure) / len(ssim), math.fsum(ssim) / len(ssim)


def _reference_half(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 blocks; an odd side starts with a row or column of zeros that counts, as in pytorch_msssim."""
    x = np.pad(x, [(side % 2, 0) for side in x.shape])
    return np.array(
        [[x[i : i + 2, j : j + 2].sum() / 4 for j in range(0, x.shape[1], 2)] for i in range(0, x.shape[0], 2)]
    )


def _reference_terms(a: Tensor, b: Tensor, scales: int) -> np.ndarray:
    """The term of every channel and scale, (C, scales), of two (C, H, W) images."""
    terms = []
    for x, y in zip(a.double().numpy(), b.double().numpy()):
        of_channel = []
        for level in range(scales):
            if level > 0:
                x, y = _reference_half(x), _reference_half(y)
            contrast_structure, ssim = _reference_plane(x, y)
            of_channel.append(ssim if level == scales - 1 else contrast_structure)
        terms.append(of_channel)
    return np.array(terms)


def _reference_combine(terms: np.ndarray, floor: str) -> float:
    """The weighted product of the floored terms, averaged over channels. All five weights are Wang's as printed (they
    sum to 1.0001).
    """
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[: terms.shape[1]]
    if len(weights) < 5:
        weights /= weights.sum()
    floored = np.maximum(terms, 0) if floor == "exact" else 0.02 * np.logaddexp(0, terms / 0.02)
    return float(np.prod(floored**weights, axis=1).mean())


# --- choice of scales ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "side, scales",
    [
        (11, 1),
        (20, 1),
        (21, 2),
        (28, 2),
        (40, 2),
        (41, 3),
        (80, 3),
        (81, 4),
        (96, 4),
        (160, 4),
        (161, 5),
        (224, 5),
        (900, 5),
    ],
)
def test_choose_scales_takes_as_many_as_fit(side, scales):
    assert choose_scales(side, side) == choose_scales(side, 900) == choose_scales(900, side) == scales


@pytest.mark.parametrize("side", [11, 20, 21, 40, 41, 80, 81, 160, 161])
def test_the_window_fits_at_the_coarsest_scale(side):
    """pytorch_msssim's own rule, and the reason for it: the coarsest image still has 11 pixels."""
    for _ in range(choose_scales(side, side) - 1):
        side = (side + 1) // 2
    assert side >= 11


def test_choose_scales_takes_fewer_on_request():
    assert [choose_scales(224, 224, scales) for scales in range(1, 6)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((10, 10), "height 10 is smaller than MS-SSIM's 11-pixel window; use images of at least 11 pixels a side"),
        ((28, 9), "width 9 is smaller than MS-SSIM's 11-pixel window"),
        ((28, 28, 5), "height 28 allows 1 to 2 scales of an 11-pixel window, 5 were asked for"),
        ((224, 96, 5), "width 96 allows 1 to 4 scales of an 11-pixel window, 5 were asked for"),
        ((224, 224, 6), "height 224 allows 1 to 5 scales of an 11-pixel window, 6 were asked for"),
        ((224, 224, 0), "height 224 allows 1 to 5 scales of an 11-pixel window, 0 were asked for"),
    ],
)
def test_choose_scales_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError) as error:
        choose_scales(*arguments)
    assert message in str(error.value)


@pytest.mark.parametrize("scales", [1, 2, 3, 4, 5])
def test_scale_weights_keep_wangs_proportions(scales):
    weights = scale_weights(scales)
    wang = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales]
    assert sum(weights) == pytest.approx(1, abs=1e-4 if scales == 5 else 1e-12)  # Wang's own sum to 1.0001
    assert [weight / weights[0] for weight in weights] == pytest.approx([weight / wang[0] for weight in wang])


# --- floors ----------------------------------------------------------------------------------------------------------


def test_exact_floor_has_no_gradient_at_or_below_zero():
    values = torch.tensor([-1.0, -1e-9, 0.0, 0.25, 1.0], dtype=torch.float64, requires_grad=True)
    floored = exact_floor(values, 0.5)
    floored.sum().backward()
    assert floored.tolist() == [0, 0, 0, 0.5, 1]
    assert values.grad.tolist() == [0, 0, 0, 1, 0.5]


@pytest.mark.parametrize("weight", [0.0448, 0.2856, 1.0])
def test_smooth_floor_keeps_a_bounded_gradient_everywhere(weight):
    values = torch.linspace(-1, 1, 4001, requires_grad=True)
    floored = smooth_floor(values, weight)
    floored.sum().backward()
    v = values.detach().double().numpy()
    softplus = 0.02 * np.logaddexp(0, v / 0.02)
    assert floored.detach().numpy() == pytest.approx(softplus**weight, rel=1e-5)
    assert values.grad.numpy() == pytest.approx(weight * softplus ** (weight - 1) / (1 + np.exp(-v / 0.02)), rel=1e-4)
    assert 0 < values.grad.min() and values.grad.max() < 3.1


# --- against references ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width, scales", SIZES)
def test_values_equal_a_loop_over_windows(crops, height, width, scales):
    n, channels = (2, 1) if height == 224 else (3, 2)
    x = crops(n, channels, height, width)
    psi = smooth_masks(x) * x
    psi[-1] = 1 - x[-1]  # negative terms
    positive, negative = torch.arange(n).roll(1), torch.arange(n)
    terms = {
        (i, j): _reference_terms(psi[i], x[j], scales)
        for rows in (positive, negative)
        for i, j in enumerate(rows.tolist())
    }
    assert min(values.min() for values in terms.values()) < -0.1
    for floor in FLOORS:
        expected = [
            [_reference_combine(terms[i, j], floor) for i, j in enumerate(rows.tolist())]
            for rows in (positive, negative)
        ]
        pairwise = [ms_ssim(psi, x[rows], scales, floor) for rows in (positive, negative)]
        for actual in (pairwise, triplet(psi, x, positive, negative, scales, floor)):
            # torch's softplus is linear above 20 smoothnesses, where log(1 + e^20) - 20 = 2e-9 is left out
            assert torch.stack(list(actual)).numpy() == pytest.approx(
                np.array(expected), abs=1e-12 if floor == "exact" else 1e-9
            )


def test_morphed_targets_equal_a_loop_over_windows(crops):
    x = crops(3, 1, 28, 28)
    psi = smooth_masks(x) * x
    s_pos, s_neg = triplet(psi, psi, torch.tensor([1, 1, 1]), torch.tensor([2, 0, 0]), 2, "exact")
    assert s_pos.tolist() == pytest.approx(
        [_reference_combine(_reference_terms(psi[i], psi[1], 2), "exact") for i in range(3)], abs=1e-12
    )
    assert s_neg.tolist() == pytest.approx(
        [_reference_combine(_reference_terms(psi[i], psi[j], 2), "exact") for i, j in enumerate([2, 0, 0])], abs=1e-12
    )


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("height, width, channels", [(224, 224, 3), (161, 187, 2)])
def test_values_and_gradients_equal_pytorch_msssim(crops, height, width, channels, targets):
    """Where every term is positive."""
    x = related(crops(3, channels, height, width))
    psi = (smooth_masks(x) * x).requires_grad_()
    positive, negative = torch.tensor([2, 0, 0]), torch.tensor([1, 1, 2])
    reference = psi if targets == "morphed" else x
    expected = [reference_library(psi, reference[rows]) for rows in (positive, negative)]
    actual = triplet(psi, reference, positive, negative, 5, "exact")
    upstream = torch.randn(2, 3, dtype=torch.float64)
    assert torch.stack(expected).min() > 0.05
    torch.testing.assert_close(actual, tuple(expected), rtol=0, atol=1e-10)
    gradients = [
        torch.autograd.grad((torch.stack(list(values)) * upstream).sum(), psi)[0] for values in (actual, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10 * gradients[1].abs().max().item())


@pytest.mark.parametrize("targets", TARGETS)
def test_the_library_triplet_equals_ours(crops, targets):
    """Where every term is positive. The library's window is float32, hence the tolerance."""
    x = related(crops(2, 3, 176, 176))
    psi = (smooth_masks(x) * x).requires_grad_()
    rows = torch.tensor([1, 0]), torch.tensor([0, 1])
    ours, library = (
        compare(psi, psi if targets == "morphed" else x, *rows, 5, "exact") for compare in (triplet, of_library)
    )
    torch.testing.assert_close(ours, library, rtol=0, atol=1e-5)
    gradients = [torch.autograd.grad(s_pos.sum() - s_neg[0], psi)[0] for s_pos, s_neg in (ours, library)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-4 * gradients[0].abs().max().item())


def test_float32_error_is_at_most_twice_that_of_pytorch_msssim(crops):
    x = crops(8, 3, 176, 176)
    psi = smooth_masks(x) * x
    exact = ms_ssim(psi, x, 5)
    ours = ms_ssim(psi.float(), x.float(), 5)
    library = pytorch_msssim.ms_ssim(psi.float(), x.float(), data_range=1.0, size_average=False)
    assert (ours - exact).abs().max() <= 2 * (library - exact).abs().max()


# --- gradients -------------------------------------------------------------------------------------------------------

SMALL = [(1, 1, 12, 13, 1), (3, 2, 12, 13, 1), (2, 3, 23, 21, 2)]  # N, C, H, W, scales


def _small_images(n: int, channels: int, height: int, width: int) -> Tensor:
    return torch.rand(n, channels, height, width, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("n, channels, height, width, scales", SMALL)
def test_gradcheck_of_ms_ssim(n, channels, height, width, scales, floor):
    a, b = _small_images(n, channels, height, width), _small_images(n, channels, height, width)
    assert torch.autograd.gradcheck(lambda a, b: ms_ssim(a, b, scales, floor), (a, b), fast_mode=height > 12)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("n, channels, height, width, scales", SMALL)
def test_gradcheck_of_triplet(n, channels, height, width, scales, floor, targets):
    """Rows repeat, and the first anchor's negative is its own row."""
    psi, x = _small_images(n, channels, height, width), _small_images(n, channels, height, width).detach()
    positive, negative = torch.arange(n).roll(1), torch.zeros(n, dtype=torch.int64)

    def compare(psi):
        return triplet(psi, psi if targets == "morphed" else x, positive, negative, scales, floor)

    assert torch.autograd.gradcheck(compare, (psi,), fast_mode=height > 12)


def test_no_gradient_reaches_the_reference(crops):
    psi, x = (images.requires_grad_() for images in crops(4, 1, 24, 24).split(2))
    s_pos, s_neg = triplet(psi, x, torch.tensor([1, 0]), torch.tensor([0, 1]), 2, "exact")
    (s_pos + s_neg).sum().backward()
    assert x.grad is None
    assert psi.grad.abs().sum() > 0


def test_morphed_targets_send_the_gradient_to_both_sides(crops):
    psi = related(crops(4, 1, 24, 24)).requires_grad_()
    s_pos, s_neg = triplet(psi, psi, torch.tensor([1, 0, 0, 0]), torch.tensor([2, 0, 0, 0]), 2, "exact")
    (s_pos[0] - s_neg[0]).backward()
    assert [bool(row.abs().sum() > 0) for row in psi.grad] == [True, True, True, False]


@pytest.mark.parametrize("scales, side", [(2, 24), (5, 161)])
def test_opposite_images_have_a_gradient_with_the_smooth_floor_only(scales, side):
    a = F.interpolate(torch.rand(2, 3, 6, 6), size=side, mode="bilinear")
    sizes = {}
    for floor in FLOORS:
        psi = a.clone().requires_grad_()
        ms_ssim(psi, 1 - a, scales, floor).sum().backward()
        sizes[floor] = psi.grad.abs().amax()
    assert sizes["exact"] == 0
    assert sizes["smooth"] > 0
