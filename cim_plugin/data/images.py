"""Whether an image file can be decoded to its last pixel."""

from __future__ import annotations

import contextlib
import io
from typing import Iterator

from PIL import Image, ImageFile

SUFFIXES = (".jpg", ".jpeg", ".png")  #: of the files that count as images, in lower case


def suffix(image: bytes) -> str:
    """How the name of an image file of this content ends."""
    return ".png" if image.startswith(b"\x89PNG") else ".jpg"


def fault(image: bytes | str) -> str | None:
    """Why an image, its content or its path, cannot be decoded completely; None if it can."""
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            opened.convert("RGB")
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        return (
            "not an image"
            if isinstance(error, Image.UnidentifiedImageError)
            else str(error).strip() or type(error).__name__
        )
    return None


@contextlib.contextmanager
def strict_decoding() -> Iterator[None]:
    """Truncated images are faults in here, even where a host has told Pillow to fill them with grey, as DomainBed
    does.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
