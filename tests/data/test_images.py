"""Images are opened by the decoders that are meant, whatever a file is called, in every thread."""

from __future__ import annotations

import io
import os
import threading

import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from cim_plugin.data.images import fault, strict_decoding

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n%%EOF\n"


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 10, 10)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_jpeg_and_png_are_opened(kind):
    with strict_decoding(), Image.open(io.BytesIO(encoded(kind))) as image:
        assert image.convert("RGB").getpixel((2, 2))[0] > 150
    assert fault(encoded(kind)) is None


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM", "ICO", "EPS"])
def test_other_decoders_are_never_started(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", None)
    content = EPS if kind == "EPS" else encoded(kind)
    (tmp_path / "photo.jpg").write_bytes(content)
    said = f"it is a file of {kind}, only JPEG and PNG are opened"
    for source in (str(tmp_path / "photo.jpg"), tmp_path / "photo.jpg", io.BytesIO(content)):
        with pytest.raises(Image.UnidentifiedImageError, match=said), strict_decoding():
            Image.open(source)
    assert fault(content) == fault(str(tmp_path / "photo.jpg")) == said


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "photo.jpg")
    with pytest.raises(OSError, match="it is no plain file"), strict_decoding():
        Image.open(tmp_path / "photo.jpg")
    assert fault(str(tmp_path / "photo.jpg")) == "it is no plain file"
    assert fault(str(tmp_path)) == "it is a folder"


def test_what_is_no_image_is_not_called_one():
    assert fault(b"hello") == fault(b"") == "not an image"


def test_pillow_is_as_before_afterwards_whatever_the_order_of_threads(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    before, inside, leave = Image.open, threading.Event(), threading.Event()

    def other() -> None:
        with strict_decoding():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with strict_decoding():
        thread.start()
        inside.wait(30)
    assert Image.open is not before and not ImageFile.LOAD_TRUNCATED_IMAGES  # the other thread's block goes on
    leave.set()
    thread.join(30)
    assert Image.open is before and ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_picture_that_would_fill_the_memory_is_a_fault(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    assert "decompression bomb" in fault(encoded("PNG"))
