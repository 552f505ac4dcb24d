"""What every similarity of the table has to do, and one of one's own that is in no table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cim_plugin.algorithms.contrastive import TripletContrast
from cim_plugin.algorithms.morphing import Morphed
from cim_plugin.algorithms.similarity.base import Similarity
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.algorithms.similarity.ms_ssim import ms_ssim
from cim_plugin.catalog import SIMILARITIES
from cim_plugin.models.from_catalog import similarity_class

N, SIDE = 4, 24
LABELS, ENVIRONMENTS = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
POSITIVE, NEGATIVE = torch.tensor([1, 0, 3, 2]), torch.tensor([2, 3, 0, 1])  # what cross-environment pairs are here
TARGETS = ["input", "morphed"]


class MeanColour(Similarity):
    """1 less the mean square difference of the mean colours of psi(x): the plainest one that there is."""

    measure = "nearness of mean colours"
    smallest_side = 2

    def __init__(self, image_size: tuple[int, int], steepness: float = 1.0):
        super().__init__(image_size)
        self.steepness = steepness

    @property
    def how(self) -> str:
        return f"{self.measure}, steepness {self.steepness}"

    def embed(self, morphed: Morphed) -> Tensor:
        return morphed.psi.mean((2, 3))

    def compare(self, own: Tensor, reference: Tensor, positive: Tensor, negative: Tensor) -> list[Tensor]:
        return [1 - self.steepness * (own - reference[rows]).square().mean(1) for rows in (positive, negative)]


@pytest.fixture(params=[*map(similarity_class, SIMILARITIES), MeanColour], ids=[*SIMILARITIES, "own"])
def make(request) -> type[Similarity]:
    return request.param


def _morphed(x: Tensor, mask: Tensor) -> Morphed:
    return Morphed(x, mask, mask * x, mask * x)


def _mask(channels: int = 1, side: int = SIDE, seed: int = 0) -> Tensor:
    values = torch.rand(N, channels, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(0.3 + 0.6 * values, size=side, mode="bilinear").requires_grad_()


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels, mask_channels", [(1, 1), (3, 1), (3, 3)])
def test_embeddings_and_similarities_have_one_row_per_image(make, crops, channels, mask_channels):
    similarity = make((SIDE, SIDE))
    morphed = _morphed(crops(N, channels, SIDE, SIDE), _mask(mask_channels))
    own, reference = similarity.embed(morphed), similarity.embed(morphed.unmasked())
    assert len(own) == N and own.shape == reference.shape and own.dtype == torch.float64
    for values in similarity.compare(own, reference, POSITIVE, NEGATIVE):
        assert values.shape == (N,) and values.dtype == torch.float64 and (values <= 1 + 1e-12).all()


def test_anchors_can_be_fewer_than_the_rows_of_the_reference(make, crops):
    """As a process of several has them, and as the pictures of ``show`` do."""
    similarity = make((SIDE, SIDE))
    morphed = _morphed(crops(N, 3, SIDE, SIDE), _mask())
    own, reference = similarity.embed(morphed), similarity.embed(morphed.unmasked())
    expected = similarity.compare(own, reference, POSITIVE, NEGATIVE)
    found = similarity.compare(own[:2], reference, POSITIVE[:2], NEGATIVE[:2])
    torch.testing.assert_close(list(found), [values[:2] for values in expected], rtol=0, atol=1e-12)


def test_equal_images_give_one_and_others_less(make, crops):
    """Also where the gradient goes through both sides; different images are less alike."""
    similarity = make((SIDE, SIDE))
    x = crops(N, 3, SIDE, SIDE)[[0, 0, 1, 1]]
    morphed = _morphed(x, torch.ones(N, 1, SIDE, SIDE, dtype=torch.float64))
    own = similarity.embed(morphed)
    for reference in (own, similarity.embed(morphed.unmasked())):
        s_pos, s_neg = similarity.compare(own, reference, POSITIVE, NEGATIVE)
        assert s_pos.tolist() == pytest.approx([1] * N, abs=1e-9)
        assert (s_neg < 0.999).all()


@pytest.mark.parametrize("mask_channels", [1, 3])
@pytest.mark.parametrize("targets", TARGETS)
def test_the_gradient_reaches_m_and_equals_finite_differences(make, crops, targets, mask_channels):
    """Of both similarities, through one side or through both."""
    similarity, x, mask = make((SIDE, SIDE)), crops(N, 3, SIDE, SIDE), _mask(mask_channels)

    def compare(mask):
        own = similarity.embed(_morphed(x, mask))
        reference = own if targets == "morphed" else similarity.embed(_morphed(x, mask).unmasked())
        return tuple(similarity.compare(own, reference, POSITIVE, NEGATIVE))

    for values in compare(mask):
        gradient = torch.autograd.grad(values.sum(), mask, retain_graph=True)[0]
        assert gradient.isfinite().all() and (gradient.abs().amax((1, 2, 3)) > 0).all()
    assert torch.autograd.gradcheck(compare, (mask,), fast_mode=True)


def test_it_says_how_it_compares(make):
    similarity = make((SIDE, SIDE))
    assert similarity.measure and similarity.how.startswith(similarity.measure) and "\n" not in similarity.how


def test_the_smallest_side_is_true(make, crops):
    """Images of that side can be compared, of one pixel less not, whichever side it is."""
    side = make.smallest_side
    similarity = make((side, side))
    own = similarity.embed(_morphed(crops(N, 3, side, side), _mask(side=side)))
    assert all(values.isfinite().all() for values in similarity.compare(own, own, POSITIVE, NEGATIVE))
    for size in ((side - 1, SIDE), (SIDE, side - 1)):
        with pytest.raises(
            ValueError, match=rf"\b{side - 1}\b.*at least {side} pixels|at least {side} pixels.*{side - 1}"
        ):
            make(size)


# --- each one's own words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size, how",
    [
        ("ms_ssim", (28, 40), "MS-SSIM with 2 scales"),
        ("ms_ssim", (224, 224), "MS-SSIM with 5 scales"),
        ("colours", (28, 28), "cosine of colours"),
    ],
)
def test_how_in_words(name, size, how):
    assert similarity_class(name)(size).how == how


def test_the_exact_floor_is_said():
    assert MSSSIM((28, 28), floor="exact").how == "MS-SSIM with 2 scales and the exact floor"


def test_ms_ssim_takes_a_floor_and_fewer_scales(crops):
    x = crops(N, 3, 96, 96)
    psi = 0.5 * x + 0.1
    for floor, scales in (("smooth", None), ("exact", None), ("exact", 2)):
        s_pos, s_neg = MSSSIM((96, 96), floor, scales).compare(psi, x, POSITIVE, NEGATIVE)
        for values, rows in ((s_pos, POSITIVE), (s_neg, NEGATIVE)):
            torch.testing.assert_close(values, ms_ssim(psi, x[rows], scales or 4, floor), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"floor": "relu"}, "the floor is one of smooth, exact, 'relu' was given"),
        ({"scales": 3}, "height 28 allows 1 to 2 scales of an 11-pixel window, 3 were asked for"),
    ],
)
def test_ms_ssim_refuses_what_it_does_not_have_with_the_value(arguments, message):
    with pytest.raises(ValueError) as error:
        MSSSIM((28, 28), **arguments)
    assert str(error.value) == message


# --- one of one's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading, sign", [("distance", 1), ("similarity", -1)])
@pytest.mark.parametrize("targets", TARGETS)
def test_a_similarity_of_ones_own_is_all_that_l_con_needs(crops, targets, reading, sign):
    """L_con of :class:`MeanColour`, by hand."""
    x, mask = crops(N, 3, SIDE, SIDE), _mask()
    contrast = TripletContrast(MeanColour((SIDE, SIDE), 2.0), "cross_environment", targets, reading)
    loss, valid = contrast(_morphed(x, mask), LABELS, ENVIRONMENTS)
    own = (mask * x).mean((2, 3))
    others = own if targets == "morphed" else x.mean((2, 3))
    distance = [2 * ((own - others[rows]) ** 2).sum(1) / 3 for rows in (POSITIVE, NEGATIVE)]
    assert valid.all()
    torch.testing.assert_close(loss, sign * (distance[0] - distance[1]), rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(values.sum(), mask)[0] for values in (loss, sign * (distance[0] - distance[1]))]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
