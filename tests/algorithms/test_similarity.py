"""MS-SSIM and its triplet against a plain double-precision loop, pytorch_msssim, finite differences and adversarial images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from images import adversarial_pairs, related, smooth_masks
from torch import Tensor

from cim_plugin.algorithms.contrastive import TRIPLETS
from cim_plugin.algorithms.similarity import (
    FLOORS,
    check_library,
    choose_scales,
    exact_floor,
    library_triplet,
    ms_ssim,
    scale_weights,
    smooth_floor,
    triplet,
)

SIZES = [(28, 28, 2), (33, 47, 2), (96, 96, 4), (224, 224, 5)]
TARGETS = ["input", "morphed"]
HALF = [torch.bfloat16, torch.float16]


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
    return np.array([[x[i : i + 2, j : j + 2].sum() / 4 for j in range(0, x.shape[1], 2)] for i in range(0, x.shape[0], 2)])


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
    """The weighted product of the floored terms, averaged over channels. All five weights are Wang's as printed (they sum to 1.0001)."""
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[: terms.shape[1]]
    if len(weights) < 5:
        weights /= weights.sum()
    floored = np.maximum(terms, 0) if floor == "exact" else 0.02 * np.logaddexp(0, terms / 0.02)
    return float(np.prod(floored**weights, axis=1).mean())


def _reference_library(a: Tensor, b: Tensor) -> Tensor:
    """pytorch_msssim with a window in double precision; its own is float32."""
    window = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
    window = (window / window.sum()).view(1, 1, 1, 11).repeat(a.shape[1], 1, 1, 1)
    return pytorch_msssim.ms_ssim(a, b, data_range=1.0, size_average=False, win=window)


# --- choice of scales ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "side, scales", [(11, 1), (20, 1), (21, 2), (28, 2), (40, 2), (41, 3), (80, 3), (81, 4), (96, 4), (160, 4), (161, 5), (224, 5), (900, 5)]
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
    terms = {(i, j): _reference_terms(psi[i], x[j], scales) for rows in (positive, negative) for i, j in enumerate(rows.tolist())}
    assert min(values.min() for values in terms.values()) < -0.1
    for floor in FLOORS:
        expected = [[_reference_combine(terms[i, j], floor) for i, j in enumerate(rows.tolist())] for rows in (positive, negative)]
        pairwise = [ms_ssim(psi, x[rows], scales, floor) for rows in (positive, negative)]
        for actual in (pairwise, triplet(psi, x, positive, negative, scales, floor)):
            # torch's softplus is linear above 20 smoothnesses, where log(1 + e^20) - 20 = 2e-9 is left out
            assert torch.stack(list(actual)).numpy() == pytest.approx(np.array(expected), abs=1e-12 if floor == "exact" else 1e-9)


def test_morphed_targets_equal_a_loop_over_windows(crops):
    x = crops(3, 1, 28, 28)
    psi = smooth_masks(x) * x
    s_pos, s_neg = triplet(psi, psi, torch.tensor([1, 1, 1]), torch.tensor([2, 0, 0]), 2, "exact")
    assert s_pos.tolist() == pytest.approx([_reference_combine(_reference_terms(psi[i], psi[1], 2), "exact") for i in range(3)], abs=1e-12)
    assert s_neg.tolist() == pytest.approx([_reference_combine(_reference_terms(psi[i], psi[j], 2), "exact") for i, j in enumerate([2, 0, 0])], abs=1e-12)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("height, width, channels", [(224, 224, 3), (161, 187, 2)])
def test_values_and_gradients_equal_pytorch_msssim(crops, height, width, channels, targets):
    """Where every term is positive."""
    x = related(crops(3, channels, height, width))
    psi = (smooth_masks(x) * x).requires_grad_()
    positive, negative = torch.tensor([2, 0, 0]), torch.tensor([1, 1, 2])
    reference = psi if targets == "morphed" else x
    expected = [_reference_library(psi, reference[rows]) for rows in (positive, negative)]
    actual = triplet(psi, reference, positive, negative, 5, "exact")
    upstream = torch.randn(2, 3, dtype=torch.float64)
    assert torch.stack(expected).min() > 0.05
    torch.testing.assert_close(actual, tuple(expected), rtol=0, atol=1e-10)
    gradients = [torch.autograd.grad((torch.stack(list(values)) * upstream).sum(), psi)[0] for values in (actual, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10 * gradients[1].abs().max().item())


@pytest.mark.parametrize("targets", TARGETS)
def test_the_library_triplet_equals_ours(crops, targets):
    """Where every term is positive. The library's window is float32, hence the tolerance."""
    x = related(crops(2, 3, 176, 176))
    psi = (smooth_masks(x) * x).requires_grad_()
    rows = torch.tensor([1, 0]), torch.tensor([0, 1])
    ours, library = (compare(psi, psi if targets == "morphed" else x, *rows, 5, "exact") for compare in (triplet, library_triplet))
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


@pytest.mark.parametrize("compare, side", [(triplet, 24), (library_triplet, 161)])
def test_no_gradient_reaches_the_reference(crops, compare, side):
    psi, x = (images.requires_grad_() for images in crops(4, 1, side, side).split(2))
    s_pos, s_neg = compare(psi, x, torch.tensor([1, 0]), torch.tensor([0, 1]), choose_scales(side, side), "exact")
    (s_pos + s_neg).sum().backward()
    assert x.grad is None
    assert psi.grad.abs().sum() > 0


@pytest.mark.parametrize("compare, side", [(triplet, 24), (library_triplet, 161)])
def test_morphed_targets_send_the_gradient_to_both_sides(crops, compare, side):
    psi = related(crops(4, 1, side, side)).requires_grad_()
    s_pos, s_neg = compare(psi, psi, torch.tensor([1, 0, 0, 0]), torch.tensor([2, 0, 0, 0]), choose_scales(side, side), "exact")
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


# --- adversarial images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("autocast, dtype", [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)])
def test_a_thousand_adversarial_pairs_stay_finite(floor, autocast, dtype):
    a, b = (images.to(dtype).requires_grad_() for images in adversarial_pairs(1000, 24))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        similarity = ms_ssim(a, b, 2, floor)
    similarity.sum().backward()
    assert similarity.dtype == torch.float32
    assert ((similarity >= 0) & (similarity <= 1 + 1e-6)).all()
    assert a.grad.isfinite().all() and b.grad.isfinite().all()


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("similarity, floor", [("ms_ssim", "smooth"), ("ms_ssim", "exact"), ("pytorch_msssim", "exact")])
def test_adversarial_triplets_of_five_scales_stay_finite(similarity, floor, autocast, targets):
    psi, x = adversarial_pairs(21, 176)
    psi.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = TRIPLETS[similarity](psi, psi if targets == "morphed" else x, torch.arange(21), torch.arange(21).roll(1), 5, floor)
    for s in values:
        assert ((s >= 0) & (s <= 1 + 1e-6)).all()
    (values[0] - values[1]).sum().backward()
    assert psi.grad.isfinite().all()


@pytest.mark.parametrize("similarity, tolerance", [("ms_ssim", 1e-10), ("pytorch_msssim", 1e-4)])  # the library's window is float32
def test_a_channel_with_a_negative_term_has_no_gradient_and_the_others_keep_theirs(crops, similarity, tolerance):
    """Channel 1 of the positive is inverted, the negative is not: the gradient is that of two channels, and of three."""
    x = crops(1, 3, 176, 176)
    inverted = torch.cat([x[:, :1], 1 - x[:, 1:2], x[:, 2:]], dim=1)
    psi = (smooth_masks(x) * x).requires_grad_()
    s_pos, s_neg = TRIPLETS[similarity](psi, torch.cat([x, inverted]), torch.tensor([1]), torch.tensor([0]), 5, "exact")
    of_positive, of_negative = (torch.autograd.grad(s, psi, retain_graph=True)[0] for s in (s_pos, s_neg))
    two_channels = _reference_library(psi[:, [0, 2]], x[:, [0, 2]]) * 2 / 3
    expected = torch.autograd.grad(two_channels, psi)[0]
    assert (of_positive[:, 1] == 0).all()
    assert (of_negative.abs().amax((0, 2, 3)) > 0).all()
    torch.testing.assert_close(s_pos, two_channels, rtol=tolerance, atol=0)
    torch.testing.assert_close(of_positive, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_a_nan_gradient_of_the_library_becomes_zero_in_its_channel_only(monkeypatch):
    """A stand-in with the infinite derivative that the library's issues 7, 11 and 16 describe, in channel 1."""

    def with_nan(a, b, **options):
        return (a - b).mul(torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)).square().sum((2, 3)).sqrt().mean(1)

    monkeypatch.setattr(pytorch_msssim, "ms_ssim", with_nan)
    psi = torch.rand(2, 3, 176, 176, requires_grad=True)
    rows = torch.tensor([1, 0])
    gradients = []
    for reference in (torch.rand(2, 3, 176, 176), psi):
        s_pos, _ = library_triplet(psi, reference, rows, rows, 5, "exact")
        gradients.append(torch.autograd.grad(s_pos.sum(), psi)[0])
        raw = torch.autograd.grad(with_nan(psi, reference[rows]).sum(), psi)[0]
        assert raw[:, 1].isnan().all()
        assert (gradients[-1][:, 1] == 0).all()
        assert torch.equal(gradients[-1][:, [0, 2]], raw[:, [0, 2]])


@pytest.mark.parametrize(
    "scales, floor, message",
    [
        (4, "exact", "pytorch_msssim has 5 scales and needs sides above 160 pixels, 4 were chosen here; use 'ms_ssim'"),
        (5, "smooth", "pytorch_msssim has the exact floor only, 'smooth' was given; use floor 'exact' or similarity 'ms_ssim'"),
    ],
)
def test_the_library_says_what_it_cannot_do(scales, floor, message):
    images, rows = torch.rand(1, 1, 176, 176), torch.tensor([0])
    for call in (lambda: check_library(scales, floor), lambda: library_triplet(images, images, rows, rows, scales, floor)):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == message


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity, floor, side", [("ms_ssim", "smooth", 33), ("ms_ssim", "exact", 96), ("pytorch_msssim", "exact", 176)])
def test_autocast_changes_nothing(crops, similarity, floor, side):
    x = crops(2, 3, side, side).float()
    arguments = (x * 0.9, x, torch.tensor([1, 0]), torch.tensor([0, 1]), choose_scales(side, side), floor)
    expected = TRIPLETS[similarity](*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = TRIPLETS[similarity](*arguments)
        pairwise = ms_ssim(arguments[0], x, choose_scales(side, side), floor)
    for s, t in zip(actual, expected):
        assert s.dtype == torch.float32
        assert torch.equal(s, t)
    assert torch.equal(pairwise, ms_ssim(arguments[0], x, choose_scales(side, side), floor))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_computed_in_float32(crops, dtype, autocast):
    a, b = crops(2, 3, 33, 47).to(dtype)
    a, b = a[None].requires_grad_(), b[None]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        similarity = ms_ssim(a, b, 2)
    similarity.sum().backward()
    assert similarity.dtype == torch.float32
    assert torch.equal(similarity, ms_ssim(a.float(), b.float(), 2))
    assert a.grad.dtype == dtype


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("similarity, side", [("ms_ssim", 33), ("pytorch_msssim", 176)])
def test_float64_stays_float64(crops, similarity, side, autocast):
    x = crops(2, 1, side, side)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = TRIPLETS[similarity](x, x, torch.tensor([1, 0]), torch.tensor([0, 1]), choose_scales(side, side), "exact")
    assert [s.dtype for s in values] == [torch.float64, torch.float64]


# --- properties, on photographs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("height, width, scales", SIZES)
def test_identical_images_give_one(crops, height, width, scales, floor):
    x = crops(2, 3, height, width)
    assert ms_ssim(x, x.clone(), scales, floor).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert ms_ssim(x.float(), x.float(), scales, floor).tolist() == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("height, width, scales", SIZES[:3])
def test_symmetry_and_bounds(crops, height, width, scales, floor):
    x = crops(6, 3, height, width)
    y = x.roll(1, 0)
    forward, backward = ms_ssim(x, y, scales, floor), ms_ssim(y, x, scales, floor)
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-14)
    assert ((forward >= 0) & (forward < 1)).all()


def test_a_closer_image_is_more_similar(crops):
    x, y = crops(2, 3, 96, 96)
    blends = torch.stack([(1 - t) * x + t * y for t in torch.linspace(0, 1, 11)])
    similarity = ms_ssim(x.expand_as(blends), blends, 4)
    assert (similarity.diff() < 0).all()


@pytest.mark.parametrize("targets", TARGETS)
def test_the_order_of_the_batch_does_not_matter(crops, targets):
    x = crops(6, 2, 33, 47)
    psi = smooth_masks(x) * x
    positive, negative = torch.tensor([1, 0, 0, 5, 3, 2]), torch.tensor([4, 4, 3, 0, 1, 5])
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    place = order.argsort()  # row i of the old batch is row place[i] of the new one
    x_new, psi_new = x[order], psi[order]
    expected = triplet(psi, psi if targets == "morphed" else x, positive, negative, 2, "smooth")
    actual = triplet(psi_new, psi_new if targets == "morphed" else x_new, place[positive[order]], place[negative[order]], 2, "smooth")
    torch.testing.assert_close(actual, tuple(s[order] for s in expected), rtol=0, atol=1e-14)


def test_channels_are_averaged(crops):
    a, b = crops(2, 3, 33, 47)
    of_channels = ms_ssim(a[:, None], b[:, None], 2)
    assert ms_ssim(a[None], b[None], 2).item() == pytest.approx(of_channels.mean().item(), abs=1e-14)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(
    "lay_out",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack([x, 1 - x], dim=-1).flatten(-2)[..., ::2],
    ],
    ids=["channels_last", "transposed", "strided"],
)
def test_memory_layout_does_not_matter(crops, lay_out, targets):
    x = crops(3, 3, 34, 48)
    psi = smooth_masks(x) * x
    other_x, other_psi = lay_out(x), lay_out(psi)
    assert not other_x.is_contiguous()
    rows = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    expected = triplet(psi, psi if targets == "morphed" else x, *rows, 2, "exact")
    actual = triplet(other_psi, other_psi if targets == "morphed" else other_x, *rows, 2, "exact")
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(ms_ssim(other_psi, other_x, 2), ms_ssim(psi, x, 2), rtol=0, atol=1e-14)
