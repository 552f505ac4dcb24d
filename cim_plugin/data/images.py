"""Whether an image file can be decoded to its last pixel."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import struct
import threading
from typing import Callable, Iterator

from PIL import Image, ImageFile

from ..files import kind

SUFFIXES = (".jpg", ".jpeg", ".png")  #: of the files that count as images, in lower case
FORMATS = ("JPEG", "PNG")  #: whose decoders read them


def suffix(image: bytes) -> str:
    """How the name of an image file of this content ends."""
    return ".png" if image.startswith(b"\x89PNG") else ".jpg"


def fault(image: bytes | str) -> str | None:
    """Why an image, its content or its path, cannot be decoded completely; None if it can."""
    try:
        with strict_decoding(), Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            opened.convert("RGB")
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        return (
            "not an image"
            if isinstance(error, Image.UnidentifiedImageError) and error.__cause__ is None
            else str(error).strip() or type(error).__name__
        )
    return None


_strict = threading.Lock()
_depth = 0  #: how many blocks of :func:`strict_decoding` are running, in all threads
_before: tuple = ()  #: Pillow's own opener and setting, while there are any


@contextlib.contextmanager
def strict_decoding() -> Iterator[None]:
    """Whoever opens an image in here, as the wilds package does, gets JPEG and PNG only, whatever the file is called:
    Pillow would choose among its decoders by the content, and one of them starts another program. Truncated images are
    faults, even where a host has told Pillow to fill them with grey, as DomainBed does.
    """
    global _depth, _before
    with _strict:
        if _depth == 0:
            _before = Image.open, ImageFile.LOAD_TRUNCATED_IMAGES
            Image.open, ImageFile.LOAD_TRUNCATED_IMAGES = functools.partial(_open_known, _before[0]), False
        _depth += 1
    try:
        yield
    finally:
        with _strict:
            _depth -= 1
            if _depth == 0:
                Image.open, ImageFile.LOAD_TRUNCATED_IMAGES = _before


def _open_known(inner: Callable, file, mode: str = "r", formats=None):
    if not hasattr(file, "read") and not stat.S_ISREG(os.stat(file).st_mode):  # a reader of a pipe waits for ever
        raise OSError(f"it is {kind(file)}")
    try:
        return inner(file, mode, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        found = _format_of(file)
        if found is None:
            raise
        raise Image.UnidentifiedImageError(
            f"it is a file of {found}, only {' and '.join(FORMATS)} are opened"
        ) from error


def _format_of(file) -> str | None:
    """What Pillow would take a file for by its first bytes, without a decoder being started."""
    if hasattr(file, "read"):
        file.seek(0)
        first = file.read(16)
    else:
        with open(file, "rb") as opened:
            first = opened.read(16)
    Image.init()
    return next((name for name, (_, accepts) in Image.OPEN.items() if accepts and _says_yes(accepts, first)), None)


def _says_yes(accepts: Callable, first: bytes) -> bool:
    try:
        return accepts(first) is True
    except (IndexError, TypeError, SyntaxError, struct.error):  # what Pillow itself takes for no, of short files
        return False
