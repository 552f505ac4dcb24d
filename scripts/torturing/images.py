"""Images that are not what their names say: in a release that ``train`` reads, and in what the converters read."""

from __future__ import annotations

import functools
import io
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Callable

from .judging import ended, refused
from .running import Outcome, Room
from .sections import Case

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n(x) print showpage\n"


def _image(form: str, mode: str = "RGB", size: tuple[int, int] = (16, 16), **options) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.frombytes(mode, size, os.urandom(len(Image.new(mode, size).tobytes()))).save(file, form, **options)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _bomb(width: int, height: int) -> bytes:
    """A PNG that announces more pixels than it has."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000, 9)) + _chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    """A PNG with a compressed text of 500 MB."""
    image = _image("PNG")
    packer = zlib.compressobj(9)
    text = b"".join(packer.compress(b"\0" * (1 << 24)) for _ in range(32)) + packer.flush()
    return image[:33] + _chunk(b"zTXt", b"comment\0\0" + text) + image[33:]


#: name -> content, and whether it must be refused
IMAGES: dict[str, tuple[Callable[[], bytes], bool]] = {
    "empty": (lambda: b"", True),
    "one byte": (lambda: b"\xff", True),
    "text": (lambda: b"this is no image\n", True),
    "truncated JPEG": (lambda: _image("JPEG")[:200], True),
    "truncated PNG": (lambda: _image("PNG")[:200], True),
    "PNG with a wrong checksum": (lambda: _image("PNG")[:60] + b"\0\0\0" + _image("PNG")[63:], True),
    "zeros": (lambda: b"\0" * 1000, True),
    "PostScript": (lambda: POSTSCRIPT, True),
    "GIF": (lambda: _image("GIF", "P"), True),
    "TIFF": (lambda: _image("TIFF"), True),
    "BMP": (lambda: _image("BMP"), True),
    "ICO": (lambda: _image("ICO"), True),
    "PPM": (lambda: _image("PPM"), True),
    "TGA": (lambda: _image("TGA"), True),
    "PDF": (lambda: b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n", True),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"/>', True),
    "60,000 x 60,000 pixels": (lambda: _bomb(60_000, 60_000), True),
    "14,000 x 14,000 pixels": (lambda: _bomb(14_000, 14_000), True),
    "no pixels": (lambda: _bomb(0, 0), True),
    "text of 500 MB inside": (_text_bomb, False),
    "16 bit": (lambda: _image("PNG", "I;16"), False),
    "CMYK": (lambda: _image("JPEG", "CMYK"), False),
    "grey": (lambda: _image("JPEG", "L"), False),
    "grey with alpha": (lambda: _image("PNG", "LA"), False),
    "RGBA": (lambda: _image("PNG", "RGBA"), False),
    "palette": (lambda: _image("PNG", "P"), False),
    "one bit": (lambda: _image("PNG", "1"), False),
    "one pixel": (lambda: _image("PNG", size=(1, 1)), False),
    "another size": (lambda: _image("PNG", size=(40, 30)), False),
}


def _path_with_interpreters(room: Room) -> str:
    """A PATH whose ``gs`` does what nobody may do."""
    folder = room.folder / "bin"
    folder.mkdir()
    for name in ("gs", "gswin64c", "convert", "xv", "display"):
        (folder / name).write_text(f"#!/bin/sh\n{room.payload}\n")
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def _judge(outcome: Outcome, must: bool, name: str) -> list[str]:
    return refused(outcome, name) if must else ended(outcome, name)


def _replace(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)


def _train(material, make, must: bool, cache: str, room: Room) -> list[str]:
    root = Path(shutil.copytree(material.root, room.folder / "data"))
    _replace(root / "waterbirds_v1.0" / "004.png", make())
    words = material.words("CIM_VIB", "run", "--root_dir", root, "--cache", cache, "--n_epochs", "1")
    return _judge(room.run(*words, PATH=_path_with_interpreters(room)), must, "004.png")


def _check(material, make, must: bool, room: Room) -> list[str]:
    root = Path(shutil.copytree(material.root, room.folder / "data"))
    _replace(root / "waterbirds_v1.0" / "004.png", make())
    outcome = room.run("data", "check", "--root", root, "--images", PATH=_path_with_interpreters(room))
    if outcome.status == 1 and "Traceback" not in outcome.errors:
        return [] if "004.png" in outcome.output else [f"names no image: {outcome.output.strip()[-200:]}"]
    return _judge(outcome, must, "004.png")


def _convert(material, action: str, make, must: bool, room: Room) -> list[str]:
    source, image = SOURCES[action](material, room.folder / "source")
    _replace(image, make())
    outcome = room.run("data", action, "--from", source, "--root", "data", PATH=_path_with_interpreters(room))
    return _judge(outcome, must, image.name)


def _waterbirds(material, folder: Path) -> tuple[Path, Path]:
    shutil.copytree(material.root / "waterbirds_v1.0", folder, ignore=lambda *_: ["RELEASE_v1.0.txt"])
    return folder, folder / "004.png"


def _celeba(material, folder: Path) -> tuple[Path, Path]:
    from cim_plugin.data.celeba import ATTRIBUTES

    images, rows = folder / "img_align_celeba", range(12)
    images.mkdir(parents=True)
    lines = [",".join(("image_id", *ATTRIBUTES))]
    for row in rows:
        (images / f"{row:06}.jpg").write_bytes(_image("JPEG"))
        signs = {name: 1 - 2 * (row % 2) for name in ATTRIBUTES} | {"Male": 1 - 2 * (row // 2 % 2)}
        lines.append(",".join((f"{row:06}.jpg", *map(str, signs.values()))))
    (folder / "list_attr_celeba.csv").write_text("\n".join(lines) + "\n")
    splits = "".join(f"{row:06}.jpg,{row // 4}\n" for row in rows)
    (folder / "list_eval_partition.csv").write_text("image_id,partition\n" + splits)
    return folder, images / "000004.jpg"


def _vlcs(material, folder: Path) -> tuple[Path, Path]:
    for environment in ("Caltech101", "LabelMe", "SUN09", "VOC2007"):
        for label in ("bird", "car", "chair", "dog", "person"):
            place = folder / environment / label
            place.mkdir(parents=True)
            (place / f"{environment}_{label}.jpg").write_bytes(_image("JPEG"))
    return folder, folder / "SUN09" / "dog" / "SUN09_dog.jpg"


SOURCES = {"waterbirds": _waterbirds, "celebA": _celeba, "vlcs": _vlcs}


def cases(material) -> list[Case]:
    """Every image for training without and with a cache, for ``data check`` and for the converters."""
    readers = {
        "train": functools.partial(_train, material, cache="false"),
        "train with a cache": functools.partial(_train, material, cache="true"),
        "data check": functools.partial(_check, material),
        **{f"data {action}": functools.partial(_convert, material, action) for action in SOURCES},
    }
    images = {**IMAGES, "a FIFO": (lambda: None, True)}
    return [
        Case(f"{reader}, {name}", functools.partial(_run, read, make, must))
        for reader, read in readers.items()
        for name, (make, must) in images.items()
    ]


def _run(read, make, must: bool, room: Room) -> list[str]:
    return read(make=make, must=must, room=room)
