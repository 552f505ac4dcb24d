"""Small stand-ins for the public archives, in their layouts, for the tests of the converters. Every image differs from
the others.
"""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

WATERBIRDS = "waterbird_complete95_forest2water2"
WATERBIRDS_COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
VLCS_ENVIRONMENTS = {
    "Caltech101": "CALTECH",
    "LabelMe": "LABELME",
    "SUN09": "SUN",
    "VOC2007": "PASCAL",
}  #: DomainBed's name -> the other layout's
VLCS_CLASSES = ("bird", "car", "chair", "dog", "person")


def jpeg(number: int, mode: str = "RGB") -> bytes:
    """A JPEG of noise that follows from the number."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG")
    return file.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_csv(path: Path, header, rows) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write(path, text.getvalue().encode())


def waterbirds(parent: Path, repeats: int = 1) -> Path:
    """A folder as the archive unpacks to: in every split, every group ``repeats`` times."""
    folder, rows = parent / WATERBIRDS, []
    cells = [(split, y, place) for split in (0, 1, 2) for y in (0, 1) for place in (0, 1)] * repeats
    for number, (split, y, place) in enumerate(cells):
        name = f"{number % 3:03}.Bird/Bird_{number:04}.jpg"
        rows.append([number + 1, name, y, split, place, f"/f/forest/{number}.jpg"])
        write(folder / name, jpeg(number))
    write_csv(folder / "metadata.csv", WATERBIRDS_COLUMNS, rows)
    return folder


def celeba_tables(attributes: list[str]) -> tuple[list[list], list[list]]:
    """Rows of the two tables of 12 images: in every split, every group once, and all other attributes different from
    row to row.
    """
    cells = [(split, blond, male) for split in (0, 1, 2) for blond in (-1, 1) for male in (-1, 1)]
    rows, partition = [], []
    for number, (split, blond, male) in enumerate(cells):
        values = {name: 1 if (column * number) % 3 == 1 else -1 for column, name in enumerate(attributes)} | {
            "Blond_Hair": blond,
            "Male": male,
        }
        rows.append([f"{number + 1:06}.jpg", *values.values()])
        partition.append([f"{number + 1:06}.jpg", split])
    return rows, partition


def celeba(folder: Path, attributes: list[str], layout: str) -> Path:
    """``layout``: "kaggle" (csv, the folder of the images twice) or "authors" (txt, in the folders of the authors'
    archive).
    """
    rows, partition = celeba_tables(attributes)
    images = folder / ("img_align_celeba/img_align_celeba" if layout == "kaggle" else "Img/img_align_celeba")
    for number, row in enumerate(rows):
        write(images / row[0], jpeg(number))
    if layout == "kaggle":
        write_csv(folder / "list_attr_celeba.csv", ["image_id", *attributes], rows)
        write_csv(folder / "list_eval_partition.csv", ["image_id", "partition"], partition)
    else:
        lines = [str(len(rows)), " ".join(attributes), *("  ".join(map(str, row)) for row in rows)]
        write(folder / "Anno" / "list_attr_celeba.txt", ("\n".join(lines) + "\n").encode())
        write(
            folder / "Eval" / "list_eval_partition.txt",
            "".join(f"{name} {split}\n" for name, split in partition).encode(),
        )
    return folder


def vlcs(folder: Path) -> Path:
    """DomainBed's layout; environment number e has e + 2 images of each class, every second one greyscale."""
    for e, environment in enumerate(VLCS_ENVIRONMENTS):
        for c, label in enumerate(VLCS_CLASSES):
            for i in range(e + 2):
                write(
                    folder / environment / label / f"pic_{i}.jpg", jpeg(100 * e + 10 * c + i, "L" if i % 2 else "RGB")
                )
    return folder


def numbered_vlcs(folder: Path, full: tuple[str, ...]) -> Path:
    """The layout with numbered classes: 2 images of each class in train, 1 in crossval, 2 in test, and in full those of
    the splits ``full``.
    """
    for e, environment in enumerate(VLCS_ENVIRONMENTS.values()):
        for c in range(len(VLCS_CLASSES)):
            for s, (split, count) in enumerate({"train": 2, "crossval": 1, "test": 2}.items()):
                for i in range(count):
                    content = jpeg(1000 * e + 100 * c + 10 * s + i)
                    write(folder / environment / split / str(c) / f"imgs_{i}.jpg", content)
                    if split in full:
                        write(folder / environment / "full" / str(c) / f"imgs_{split}{i}.jpg", content)
    return folder


def pack(folder: Path, path: Path, mode: str = "w:gz") -> Path:
    """The folder as a tar archive."""
    with tarfile.open(path, mode) as tar:
        tar.add(folder, folder.name)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
