"""An image of any kind that a JPEG or PNG file can hold as 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")  #: how Pillow calls grey of 16 bits, older versions "I"


def rgb(image: Image.Image) -> Image.Image:
    """Grey, palette, CMYK and so on as RGB; an alpha channel is left out, as the wilds package does. Grey of 16 bits is
    scaled: Pillow's own conversion makes all above 255 white.
    """
    if image.mode in SIXTEEN_BITS:
        image = Image.fromarray(np.round(np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
