"""Resizing, augmentation and normalisation against torchvision pipelines written as WILDS writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from cim_plugin.errors import InputError
from cim_plugin.models.transforms import Transform, make_transform

IMAGENET = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def _reference_standardise(x: Tensor) -> Tensor:
    """WILDS' for RxRx1: one image, its own mean and deviation, 1 for a constant channel."""
    mean, std = x.mean(dim=(1, 2)), x.std(dim=(1, 2))
    std[std == 0.0] = 1.0
    return TF.normalize(x, mean, std)


#: name, --target_resolution, --resize_scale, the dataset's resolution, image (width, height), WILDS' steps, resulting
#: (height, width)
CASES = [
    ("image_base", None, None, (40, 40), (40, 40), [], (40, 40)),
    ("image_base", [24, 24], None, (40, 40), (40, 40), [T.Resize((24, 24))], (24, 24)),
    ("image_base", [24, 24], None, None, (50, 31), [T.Resize((24, 24))], (24, 24)),
    ("image_base", [24, 32], None, (40, 40), (40, 40), [T.Resize((24, 32))], (24, 32)),
    ("image_base", [24, 24], None, (36, 44), (36, 44), [T.CenterCrop(36), T.Resize((24, 24))], (24, 24)),
    ("image_base", None, None, (36, 44), (36, 44), [T.CenterCrop(36)], (36, 36)),
    ("image_resize", [24, 24], 1.5, (20, 20), (33, 47), [T.Resize((30, 30))], (30, 30)),
    ("image_resize", None, 8 / 7, (21, 21), (21, 21), [T.Resize((24, 24))], (24, 24)),
    (
        "image_resize_and_center_crop",
        [24, 24],
        256 / 224,
        (28, 28),
        (50, 31),
        [T.Resize((32, 32)), T.CenterCrop((24, 24))],
        (24, 24),
    ),
    (
        "image_resize_and_center_crop",
        None,
        1.25,
        (20, 20),
        (50, 31),
        [T.Resize((25, 25)), T.CenterCrop((20, 20))],
        (20, 20),
    ),
    ("rxrx1", [99, 99], None, (32, 32), (32, 32), [], (32, 32)),
]


@pytest.fixture
def transform(configure):
    """A function (name, target, scale, original, augmentation) -> the transform of that configuration."""

    def made(name, target=None, scale=None, original=None, augmentation=None) -> Transform:
        config = replace(
            configure(),
            transform=name,
            target_resolution=target,
            resize_scale=scale,
            additional_train_transform=augmentation,
        )
        return make_transform(config, original)

    return made


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name, target, scale, original, size, steps, result", CASES)
def test_evaluation_images_equal_the_pipeline_of_wilds(transform, name, target, scale, original, size, steps, result):
    """uint8 to the device and normalised there against ToTensor and Normalize on the host."""
    made, image = transform(name, target, scale, original), noise(*size)
    last = T.Lambda(_reference_standardise) if name == "rxrx1" else IMAGENET
    expected = T.Compose([*steps, T.ToTensor(), last])(image)
    resized = torch.from_numpy(np.array(made.resize(image))).permute(2, 0, 1)
    assert made.size == result == tuple(resized.shape[1:])
    assert made.augment is None or name == "rxrx1"
    torch.testing.assert_close(made.standardise(resized[None].float() / 255)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name, target, scale, original, size, steps, result", [case for case in CASES if case[0] != "rxrx1"]
)
def test_weak_augmentation_is_a_flip_and_a_crop_to_the_target(
    transform, name, target, scale, original, size, steps, result
):
    given = target
    if original is None or target is None and len(set(original)) > 1:  # WILDS cannot crop to that either
        target = target or list(result)
        given = (
            None if name == "image_base" and original is not None else target
        )  # a square cut from the middle is as large as the crop
    made, image = transform(name, given, scale, original, "weak"), noise(*size)
    reference = T.Compose([*steps, T.RandomHorizontalFlip(), T.RandomCrop(target or original)])
    outcomes = set()
    for seed in range(8):
        torch.manual_seed(seed)
        actual = np.asarray(made.augment(made.resize(image)))
        torch.manual_seed(seed)
        assert np.array_equal(actual, np.asarray(reference(image)))
        outcomes.add(actual.tobytes())
    assert len(outcomes) > 1


def test_strong_augmentation_adds_the_configured_number_of_operations(transform, configure):
    image = noise(24, 24)
    for count in (1, 4):
        words = (
            f"--transform image_base --target_resolution 24 --additional_train_transform randaugment --randaugment_n "
            f"{count}"
        )
        config = configure(*words.split())
        reference = T.Compose([T.RandomHorizontalFlip(), T.RandomCrop((24, 24)), T.RandAugment(num_ops=count)])
        for seed in range(4):
            torch.manual_seed(seed)
            actual = make_transform(config, (24, 24)).augment(image)
            torch.manual_seed(seed)
            assert np.array_equal(np.asarray(actual), np.asarray(reference(image)))


def test_resized_crop_is_a_flip_and_a_part_of_the_image_at_the_targets_size(transform):
    made, image = transform("image_base", [24, 24], None, None, "resized_crop"), noise(40, 30)
    reference = T.Compose([T.Resize([24, 24]), T.RandomHorizontalFlip(), T.RandomResizedCrop([24, 24])])
    for seed in range(4):
        torch.manual_seed(seed)
        actual = np.asarray(made.augment(made.resize(image)))
        torch.manual_seed(seed)
        assert np.array_equal(actual, np.asarray(reference(image)))
    assert made.training_size == (24, 24)


def test_rxrx1_turns_and_flips(transform):
    """All eight of the square's symmetries, and nothing else."""
    made, image = transform("rxrx1", original=(16, 16)), noise(16, 16)
    array = np.asarray(image)
    symmetries = {
        flipped.tobytes()
        for turns in range(4)
        for turned in [np.rot90(array, turns)]
        for flipped in (turned, turned[:, ::-1])
    }
    torch.manual_seed(0)
    drawn = {np.asarray(made.augment(image)).tobytes() for _ in range(200)}
    assert len(symmetries) == 8 and drawn == symmetries


def test_a_constant_channel_of_rxrx1_becomes_zero(transform):
    images = torch.rand(3, 3, 8, 8)
    images[1, 2] = 0.4
    images[2] = 0
    standardised = transform("rxrx1", original=(8, 8)).standardise(images)
    assert standardised.isfinite().all()
    assert standardised[2].abs().max() == 0 and standardised[1, 2].abs().max() < 1e-5
    expected = torch.stack([_reference_standardise(image) for image in images])
    torch.testing.assert_close(standardised, expected, rtol=0, atol=1e-5)


def test_images_are_standardised_one_by_one(transform):
    standardise = transform("rxrx1", original=(8, 8)).standardise
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(standardise(images)[2:3], standardise(images[2:3]))


@pytest.mark.parametrize("name, target, scale", [("image_resize", None, 0.5), ("image_resize", [40, 20], 1.0)])
def test_a_crop_larger_than_the_image_is_refused(transform, name, target, scale):
    with pytest.raises(
        InputError,
        match="--additional_train_transform weak cuts .* out of images of .*; give a smaller --target_resolution",
    ):
        transform(name, target, scale, (32, 32), "weak")


def test_a_size_that_stays_open_is_refused(transform):
    with pytest.raises(InputError) as error:
        transform("image_base")
    assert (
        str(error.value) == "--transform image_base leaves the images of waterbirds as they are, of unknown size; give "
        "--target_resolution"
    )


def test_a_crop_that_is_larger_than_the_resized_image_is_refused(configure):
    """Its rim would be black, in silence."""
    config = configure("--transform", "image_resize_and_center_crop", "--resize_scale", "0.5")
    with pytest.raises(InputError, match="cuts 224x224 out of images of 112x112.*larger --resize_scale"):
        make_transform(config, (224, 224))
