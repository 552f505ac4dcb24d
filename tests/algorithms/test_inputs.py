"""Shapes, dtypes and values that people give: converted exactly, or refused in one line that says what and how."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.algorithms.contrastive import TripletContrast, supervised_contrastive_loss
from cim_plugin.algorithms.group_dro import GroupWeights
from cim_plugin.algorithms.inputs import as_floats, check_labels, check_pixels, class_numbers
from cim_plugin.algorithms.morphing import InputMorphing, PixelSpace
from cim_plugin.algorithms.similarity.fused import MSSSIM, fused_triplet
from cim_plugin.algorithms.similarity.ms_ssim import ms_ssim, triplet

LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 1, 0])
RAW, IMAGENET = PixelSpace.raw(3), PixelSpace.imagenet()


def classifier(space: PixelSpace = RAW) -> RobustClassifier:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 6))
    weights = {"supervised": 1.0, "contrastive": 1.0, "supervised_contrastive": 1.0}
    return RobustClassifier(
        encoder, nn.Linear(6, 2), weights, InputMorphing(space), TripletContrast(MSSSIM((28, 28))), temperature=0.1
    )


def photographs(n: int = 8, side: int = 28) -> torch.Tensor:
    """Smooth images whose values fill [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    images = nn.functional.interpolate(torch.rand(n, 3, 5, 5, generator=generator), size=side, mode="bilinear")
    return (images - images.min()) / (images.max() - images.min())


def total(images, labels, environments=None) -> torch.Tensor:
    model = classifier()
    torch.manual_seed(1)
    return model.total(model.loss_terms(images, labels, environments).losses)


# --- labels -----------------------------------------------------------------------------------------------------------

EXACT = [torch.int32, torch.int16, torch.uint8, torch.bool, torch.float32, torch.float64, torch.float16]


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_labels_of_any_type_that_says_the_same_give_the_same_loss(dtype):
    assert torch.equal(total(photographs(), LABELS.to(dtype)), total(photographs(), LABELS))


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_each_part_takes_labels_and_groups_of_any_type(dtype):
    """As an index, uint8 and bool would be a mask."""
    features, losses = torch.rand(8, 4), torch.rand(8)
    assert torch.equal(
        supervised_contrastive_loss(features, LABELS.to(dtype), 0.1), supervised_contrastive_loss(features, LABELS, 0.1)
    )
    groups = GroupWeights(torch.tensor([True, True]), 0.1).eval()
    assert torch.equal(groups(losses, LABELS.to(dtype)), groups(losses, LABELS))
    morphed = InputMorphing(RAW)(photographs())
    torch.manual_seed(0)
    expected = TripletContrast(MSSSIM((28, 28)), pairs="cross_environment")(morphed, LABELS, torch.arange(8) % 2)[0]
    torch.manual_seed(0)
    given = TripletContrast(MSSSIM((28, 28)), pairs="cross_environment")(
        morphed, LABELS.to(dtype), (torch.arange(8) % 2).to(dtype)
    )
    assert torch.equal(given[0], expected)


REFUSED_LABELS = {
    "column": (LABELS[:, None], r"labels have shape \(8, 1\).*labels.reshape\(-1\)"),
    "one-hot": (nn.functional.one_hot(LABELS), r"labels have shape \(8, 2\).*argmax\(1\)"),
    "scalar": (torch.tensor(1), r"labels have shape \(\)"),
    "NaN": (LABELS.float().index_fill(0, torch.tensor(3), torch.nan), "labels are float32, and nan among them"),
    "infinite": (LABELS.float().index_fill(0, torch.tensor(3), torch.inf), "inf among them is no whole number"),
    "half": (LABELS + 0.5, "labels are float32, and 0.5 among them"),
    "complex": (LABELS.to(torch.complex64), "labels are complex64"),
    "negative": (LABELS - 1, "label -1 is out of range.*from 0 to 1"),
    "too large": (LABELS + 1, "label 2 is out of range.*2 classes"),
    "too few": (LABELS[:5], "8 images came with 5 labels"),
}


@pytest.mark.parametrize("what", REFUSED_LABELS)
def test_other_labels_are_refused(what):
    labels, said = REFUSED_LABELS[what]
    with pytest.raises(ValueError, match=said):
        total(photographs(), labels)


def test_numpys_numbers_make_labels_as_a_loader_collates_them():
    collated = torch.utils.data.default_collate([np.int64(1), np.int64(0)])
    assert class_numbers(collated).tolist() == [1, 0] and class_numbers(collated).dtype == torch.int64


def test_a_device_is_waited_for_in_the_first_batch_only():
    """Of meta tensors there is nothing to look at."""
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    check_labels(labels, 2, wait=False)
    with pytest.raises((NotImplementedError, RuntimeError)):
        check_labels(labels, 2, wait=True)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_images_of_any_float_are_computed_in_the_weights_type(dtype):
    given = photographs().to(dtype)
    assert torch.equal(total(given, LABELS), total(given.float(), LABELS))
    model = classifier()
    assert torch.equal(model(given), model(given.float())) and model.morphing(given).psi.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_images_that_are_no_floats_are_refused_with_the_fix(dtype):
    images = (photographs() * 255).to(dtype)
    for call in (lambda: total(images, LABELS), lambda: classifier()(images), lambda: InputMorphing(RAW)(images)):
        with pytest.raises(ValueError, match=rf"images are {str(dtype)[6:]}.*images.float\(\) / 255"):
            call()


def test_a_single_image_and_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"images have shape \(3, 28, 28\); a batch \(N, channels, height, width\)"):
        as_floats(photographs()[0], torch.float32)
    with pytest.raises(ValueError, match="images have 4 channels, 3 were declared"):
        InputMorphing(RAW)(torch.rand(2, 4, 28, 28))


@pytest.mark.parametrize("floor", ["smooth", "exact"])
@pytest.mark.parametrize("call", [triplet, fused_triplet])
@pytest.mark.parametrize("side, scales", [(10, 1), (20, 2), (28, 3), (5, 2)])
def test_images_too_small_for_the_scales_are_an_error_that_names_sizes(call, side, scales, floor):
    """The analytic triplet gave 0.0 for them."""
    images, rows = torch.rand(3, 1, side, side + 3), torch.tensor([1, 2, 0])
    for reference in (images, torch.rand_like(images)):
        with pytest.raises(ValueError, match=rf"height {side} .*(pixels a side|{scales} were asked for)"):
            call(images, reference, rows, rows, scales, floor)


def test_the_other_ways_to_compare_images_say_the_same():
    images = torch.rand(2, 1, 100, 90)
    for call in (
        lambda: ms_ssim(images, images, 5),
        lambda: TripletContrast(MSSSIM((200, 200)))(
            InputMorphing(PixelSpace.raw(1))(images), torch.tensor([0, 1]), None
        ),
    ):
        with pytest.raises(ValueError, match="width 90 allows 1 to 4 scales of an 11-pixel window, 5 were asked for"):
            call()


# --- values -----------------------------------------------------------------------------------------------------------

X = photographs()
WRONG_UNITS = {
    "0 to 255": (X * 255, RAW, "from 0 to 255, and are taken as pixels in .0, 1.; divide them by 255"),
    "0 to 65535": (X * 65535, RAW, "divide them by 65535"),
    "-1 to 1": (2 * X - 1, RAW, r"from -1 to 1, and are taken as pixels in .0, 1.; give \(x \+ 1\) / 2"),
    "normalised": (IMAGENET.from_pixels(X), RAW, "undo the normalisation"),
    "MNIST's normalisation": ((X - 0.1307) / 0.3081, RAW, "undo the normalisation"),
    "around 0": (X - 0.5, RAW, "from -0.5 to 0.5"),
    "random 0 to 255": (torch.rand(8, 3, 28, 28) * 255, RAW, "divide them by 255"),
    "random -1 to 1": (2 * torch.rand(8, 3, 28, 28) - 1, RAW, "give"),
    "NaN": (X.clone().index_fill(0, torch.tensor(1), torch.nan), RAW, "not a finite number"),
    "infinite": (X.clone().index_fill(0, torch.tensor(1), torch.inf), RAW, "not a finite number"),
    "pixels for ImageNet's": (X, IMAGENET, r"from 0 to 1, and are taken as ImageNet-normalised.*by mean \(0.485"),
    "-1 to 1 for ImageNet's": (2 * X - 1, IMAGENET, r"give \(x \+ 1\) / 2 .*and then normalise them"),
    "0 to 255 for ImageNet's": (X * 255, IMAGENET, "divide them by 255 and then normalise them"),
}


@pytest.mark.parametrize("what", WRONG_UNITS)
def test_values_of_another_unit_are_refused_in_the_first_batch(what):
    images, space, said = WRONG_UNITS[what]
    with pytest.raises(ValueError, match=said) as error:
        classifier(space).loss_terms(images, LABELS)
    assert "\n" not in str(error.value)


RIGHT = {
    "pixels": (X, RAW),
    "black": (torch.zeros(4, 3, 28, 28), RAW),
    "white": (torch.ones(4, 3, 28, 28), RAW),
    "rounded": (X * 1.001 - 0.0005, RAW),
    "two channels": (X[:, :2], PixelSpace.raw(2)),
    "none": (X[:0], RAW),
    "normalised": (IMAGENET.from_pixels(X), IMAGENET),
    "normalised in half precision": (IMAGENET.from_pixels(X).half().float(), IMAGENET),
    "black, normalised": (IMAGENET.from_pixels(torch.zeros(4, 3, 28, 28)), IMAGENET),
    "grey, normalised": (IMAGENET.from_pixels(torch.full((4, 3, 28, 28), 0.5)), IMAGENET),
    "dim, normalised": (IMAGENET.from_pixels(0.1 + X / 3), IMAGENET),
    "another normalisation": (2 * X - 1, PixelSpace([0.5] * 3, [0.5] * 3)),
    "DomainBed's Debug28": (torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0)), RAW),
    "DomainBed's Debug224": (torch.randn(2, 3, 224, 224), IMAGENET),
}


@pytest.mark.parametrize("what", RIGHT)
def test_values_that_can_be_meant_pass_without_a_word(what):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pixels(*RIGHT[what])


def test_values_slightly_outside_give_one_warning():
    noisy = X + torch.linspace(-0.1, 0.1, 28)
    model = classifier()
    with pytest.warns(RuntimeWarning, match="from -0.0.* to 1.0.*values outside are used as they are") as said:
        for _ in range(3):
            model.loss_terms(noisy, LABELS)
    assert len(said) == 1


def test_only_the_first_batch_is_looked_at():
    model = classifier()
    model.loss_terms(X, LABELS)
    assert model.loss_terms(X * 255, LABELS).logits.isfinite().all()
