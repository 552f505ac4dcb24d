"""The embedding of an image's colours against plain loops and the exact kernel, and what it must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cim_plugin.algorithms.similarity.colours import FEATURES, WIDTH, colour_embedding


def ones_like(images: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(images[:, :1])


def _reference_embedding(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(C, H, W) and (H, W) -> (FEATURES,), pixel by pixel."""
    random = np.random.RandomState(0)
    frequencies, phases = random.randn(FEATURES, len(image)) / WIDTH, random.uniform(0, 2 * math.pi, FEATURES)
    total = np.zeros(FEATURES)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            total += weights[i, j] * np.cos(frequencies @ image[:, i, j] + phases)
    return total / np.sqrt((total**2).sum())


def _exact_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sets of colours (n, C) in the space of the Gaussian kernel."""

    def inner(x, y):
        return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / (2 * WIDTH**2)).mean()

    return inner(a, b) / math.sqrt(inner(a, a) * inner(b, b))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_embedding_equals_a_loop_over_pixels(crops, channels):
    images, mask = crops(3, channels, 13, 17), torch.rand(3, 1, 13, 17, dtype=torch.float64)
    expected = [_reference_embedding(image.numpy(), weights[0].numpy()) for image, weights in zip(images, mask)]
    torch.testing.assert_close(colour_embedding(images, mask), torch.tensor(np.stack(expected)), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_cosines_are_near_those_of_the_exact_kernel(crops):
    images = crops(8, 3, 28, 28)
    found = colour_embedding(images, ones_like(images))
    colours = images.flatten(2).transpose(1, 2).numpy()
    exact = torch.tensor([[_exact_cosine(a, b) for b in colours] for a in colours])
    assert exact.min() < 0.3 and exact.sum() - 8 > 1  # different ones, and such as share something
    assert ((found @ found.T) - exact).abs().max() < 4 / FEATURES**0.5
    assert ((found @ found.T) - exact).abs().mean() < 1 / FEATURES**0.5


def test_where_colours_stand_and_how_bright_m_is_does_not_matter(crops):
    images, mask = crops(4, 3, 24, 24), torch.rand(4, 1, 24, 24, dtype=torch.float64)
    expected = colour_embedding(images, mask)
    order = torch.randperm(24 * 24)
    moved = [values.flatten(2)[..., order].view_as(values) for values in (images, mask)]
    torch.testing.assert_close(colour_embedding(*moved), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(colour_embedding(images, mask / 1000), expected, rtol=0, atol=1e-12)


def test_what_m_takes_away_does_not_count():
    """Two grounds behind the same figure: not alike with them, the same without."""
    images = torch.tensor([[1.0, 0.1, 0.1], [0.1, 0.1, 1.0]]).view(2, 3, 1, 1).expand(2, 3, 16, 16).clone()
    images[..., 6:10, 6:10] = 0.6
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 6:10, 6:10] = 1
    a, b = colour_embedding(images, ones_like(images))
    assert a @ b < 0.4
    a, b = colour_embedding(images, mask)
    assert (a @ b).item() == pytest.approx(1, abs=1e-6)


def test_the_mean_of_several_masks_counts(crops):
    images, mask = crops(2, 3, 16, 16), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(
        colour_embedding(images, mask), colour_embedding(images, mask.mean(1, keepdim=True)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    "height, width, square", [(90, 56, 1), (112, 112, 2), (96, 130, 2), (224, 224, 4), (168, 180, 3)]
)
def test_large_images_are_averaged_over_squares_first(crops, height, width, square):
    images = crops(2, 3, height // square, width // square)
    large = images.repeat_interleave(square, 2).repeat_interleave(square, 3)
    large = torch.nn.functional.pad(
        large, (0, width - large.shape[3], 0, height - large.shape[2])
    )  # what is left over is left out
    torch.testing.assert_close(
        colour_embedding(large, ones_like(large)), colour_embedding(images, ones_like(images)), rtol=0, atol=1e-9
    )


def test_gradcheck_with_respect_to_the_weights(crops):
    images, mask = crops(2, 3, 12, 12), torch.rand(2, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda mask: colour_embedding(images, mask), (mask,), fast_mode=True)


@pytest.mark.parametrize("weight", [1.0, 1e-6, 0.0])
@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_constant_images_and_empty_masks_stay_finite(colour, weight):
    images, mask = torch.full((2, 3, 28, 28), colour), torch.full((2, 1, 28, 28), weight, requires_grad=True)
    found = colour_embedding(images, mask)
    (found[0] * found[1]).sum().backward()
    assert found.isfinite().all() and mask.grad.isfinite().all()
    assert (found[0] @ found[1]).item() == pytest.approx(1.0 if weight else 0.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32_and_autocast_changes_nothing(crops, dtype):
    images = crops(2, 3, 28, 28).to(dtype)
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    expected = colour_embedding(images.to(computed), ones_like(images).to(computed))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = colour_embedding(images, ones_like(images))
    assert actual.dtype == computed and torch.equal(actual, expected)


def test_a_first_use_in_inference_leaves_training_alone(crops):
    from cim_plugin.algorithms.similarity import colours

    colours._frequencies.cache_clear()
    images, mask = crops(2, 3, 28, 28), torch.rand(2, 1, 28, 28, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        expected = colour_embedding(images, mask)
    found = colour_embedding(images, mask)
    found.sum().backward()
    assert torch.equal(found.detach(), expected) and mask.grad.any()
