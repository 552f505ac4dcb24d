"""Overlap of m with a release's masks, against loops over all pairs of pixels."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import cim_plugin
from scripts.evidence import overlap


def _reference_area(m: np.ndarray, bird: np.ndarray) -> float:
    """How often a pixel of the bird has the larger m of two, equal ones half."""
    on, off = m[bird > 0.5], m[bird <= 0.5]
    return float(np.mean([(a > b) + 0.5 * (a == b) for a in on for b in off]))


def test_of_one_image_by_all_pairs_of_pixels():
    rng = np.random.default_rng(0)
    m, bird = rng.integers(0, 8, (9, 7)) / 8, rng.random((9, 7))
    on, off, area = overlap.of_image(m, bird)
    assert area == pytest.approx(_reference_area(m, bird))
    assert on == pytest.approx(np.average(m, weights=bird)) and off == pytest.approx(np.average(m, weights=1 - bird))


def test_a_constant_finds_nothing_and_the_bird_itself_all_of_it():
    bird = np.zeros((6, 6))
    bird[1:3, 2:5] = 1
    assert overlap.of_image(np.full((6, 6), 0.7), bird) == pytest.approx((0.7, 0.7, 0.5))
    assert overlap.of_image(bird, bird) == (1, 0, 1) and overlap.of_image(1 - bird, bird) == (0, 1, 0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_image_without_a_bird_or_a_ground_says_nothing(share):
    on, off, area = overlap.of_image(np.full((4, 4), 0.5), np.full((4, 4), share))
    assert math.isnan(area) and math.isnan(off if share else on)


def test_the_validation_images_and_their_masks_are_taken(inputs):
    """By an m that is the red channel, which the birds of this release have at 1."""
    built = cim_plugin.build("CIM", encoder="small_cnn", n_classes=2, image_size=(36, 40), inputs="pixels")
    model = SimpleNamespace(transform=built.transform, morph=lambda images: SimpleNamespace(m=images[:, :1]))
    found = overlap.measure(model, str(inputs.root))
    release = inputs.root / "waterbirds_v1.0"
    expected = []
    for number in range(12):
        red = np.asarray(Image.open(release / f"species/1_{number}.jpg"))[:, :, 0] / 255
        bird = np.asarray(Image.open(release / f"masks/species/1_{number}.png")) / 255
        expected.append((red[bird > 0.5].mean(), red[bird <= 0.5].mean(), _reference_area(red, bird)))
    assert [found[key] for key in ("on_bird", "off_bird", "auc")] == pytest.approx(np.mean(expected, 0), abs=1e-6)
    assert found["images"] == 12 and found["auc"] > 0.9
