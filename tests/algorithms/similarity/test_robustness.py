"""MS-SSIM and its triplet on adversarial images, in every precision and memory layout, and their properties on
photographs.
"""

from __future__ import annotations

import pytest
import torch
from images import adversarial_pairs, reference_library, smooth_masks

from cim_plugin.algorithms.similarity.fused import fused_triplet
from cim_plugin.algorithms.similarity.ms_ssim import FLOORS, choose_scales, ms_ssim, triplet

pytestmark = pytest.mark.slow

SIZES = [(28, 28, 2), (33, 47, 2), (96, 96, 4), (224, 224, 5)]
TARGETS = ["input", "morphed"]
HALF = [torch.bfloat16, torch.float16]


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
@pytest.mark.parametrize("floor", FLOORS)
def test_adversarial_triplets_of_five_scales_stay_finite(floor, autocast, targets):
    psi, x = adversarial_pairs(21, 176)
    psi.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = fused_triplet(
            psi, psi if targets == "morphed" else x, torch.arange(21), torch.arange(21).roll(1), 5, floor
        )
    for s in values:
        assert ((s >= 0) & (s <= 1 + 1e-6)).all()
    (values[0] - values[1]).sum().backward()
    assert psi.grad.isfinite().all()


def test_a_channel_with_a_negative_term_has_no_gradient_and_the_others_keep_theirs(crops):
    """Channel 1 of the positive is inverted, the negative is not: the gradient is that of two channels, and of
    three.
    """
    x = crops(1, 3, 176, 176)
    inverted = torch.cat([x[:, :1], 1 - x[:, 1:2], x[:, 2:]], dim=1)
    psi = (smooth_masks(x) * x).requires_grad_()
    s_pos, s_neg = fused_triplet(psi, torch.cat([x, inverted]), torch.tensor([1]), torch.tensor([0]), 5, "exact")
    of_positive, of_negative = (torch.autograd.grad(s, psi, retain_graph=True)[0] for s in (s_pos, s_neg))
    two_channels = reference_library(psi[:, [0, 2]], x[:, [0, 2]]) * 2 / 3
    expected = torch.autograd.grad(two_channels, psi)[0]
    assert (of_positive[:, 1] == 0).all()
    assert (of_negative.abs().amax((0, 2, 3)) > 0).all()
    torch.testing.assert_close(s_pos, two_channels, rtol=1e-10, atol=0)
    torch.testing.assert_close(of_positive, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor, side", [("smooth", 33), ("exact", 96)])
def test_autocast_changes_nothing(crops, floor, side):
    x = crops(2, 3, side, side).float()
    arguments = (x * 0.9, x, torch.tensor([1, 0]), torch.tensor([0, 1]), choose_scales(side, side), floor)
    expected = fused_triplet(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = fused_triplet(*arguments)
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
def test_float64_stays_float64(crops, autocast):
    x = crops(2, 1, 33, 33)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = fused_triplet(x, x, torch.tensor([1, 0]), torch.tensor([0, 1]), choose_scales(33, 33), "exact")
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
    actual = triplet(
        psi_new, psi_new if targets == "morphed" else x_new, place[positive[order]], place[negative[order]], 2, "smooth"
    )
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
