"""Images of every mode that JPEG and PNG files have, as RGB of the right values."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cim_plugin.data.rgb import rgb


def _through_a_file(image: Image.Image, kind: str) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return Image.open(file)


@pytest.mark.parametrize(
    "mode, kind, colour, expected",
    [
        ("L", "PNG", 77, (77, 77, 77)),
        ("LA", "PNG", (77, 128), (77, 77, 77)),
        ("RGB", "PNG", (200, 10, 30), (200, 10, 30)),
        ("RGBA", "PNG", (200, 10, 30, 128), (200, 10, 30)),
        ("1", "PNG", 1, (255, 255, 255)),
        ("CMYK", "JPEG", (0, 255, 255, 0), (255, 0, 0)),
        ("L", "JPEG", 77, (77, 77, 77)),
    ],
)
def test_every_mode_becomes_rgb(mode, kind, colour, expected):
    image = rgb(_through_a_file(Image.new(mode, (16, 16), colour), kind))
    assert image.mode == "RGB" and np.abs(np.asarray(image).astype(int) - expected).max() <= 3


def test_a_palette_is_looked_up():
    image = Image.new("RGB", (4, 4), (200, 10, 30)).quantize(4)
    assert image.mode == "P" and rgb(_through_a_file(image, "PNG")).getpixel((1, 1)) == (200, 10, 30)


def test_sixteen_bits_are_scaled_and_not_clipped():
    """Pillow's own conversion makes everything above 255 white."""
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    image = _through_a_file(Image.fromarray(values), "PNG")
    assert image.mode.startswith("I") and np.asarray(rgb(image))[0, :, 0].tolist() == [0, 1, 128, 255]
