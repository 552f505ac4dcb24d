"""Submissions made for the tests: a dictionary of path -> content, and how it becomes a folder, a tar or a zip
archive.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

SPLITS = {"iwildcam": ("val", "test", "id_val", "id_test"), "camelyon17": ("id_val", "test", "val")}
SEEDS = {"iwildcam": 3, "camelyon17": 10}
#: images per split of the small data sets that the submissions are for
LENGTHS = {
    "iwildcam": {"val": 8, "test": 9, "id_val": 6, "id_test": 7},
    "camelyon17": {"id_val": 7, "test": 9, "val": 8},
}


def name(split: str = "val", seed: object = 1, dataset: str = "iwildcam", epoch: str = "best") -> str:
    return f"{dataset}/{dataset}_split:{split}_seed:{seed}_epoch:{epoch}_pred.csv"


def content(length: int, seed: int) -> bytes:
    """Labels 0 and 1, other ones for every seed."""
    return b"".join(b"%d\n" % (seed >> row & 1) for row in range(length))


def good(dataset: str = "iwildcam") -> dict[str, bytes]:
    """A submission without a fault."""
    return {
        name(split, seed, dataset): content(length, seed)
        for split, length in LENGTHS[dataset].items()
        for seed in range(SEEDS[dataset])
    }


def changed(path: str, new: bytes) -> dict[str, bytes]:
    return {**good(), path: new}


def without(*paths: str) -> dict[str, bytes]:
    return {path: new for path, new in good().items() if path not in paths}


def moved(old: str, new: str) -> dict[str, bytes]:
    """The good submission with one file under another path."""
    files = good()
    return {**{path: text for path, text in files.items() if path != old}, new: files[old]}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)
    return folder


def member(path: str, **fields) -> tarfile.TarInfo:
    """A header of a tar archive, with other fields than those of a plain file."""
    header = tarfile.TarInfo(path)
    for field, value in fields.items():
        setattr(header, field, value)
    return header


def write_tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """A tar archive of the files and, before them, of headers without content."""
    with tarfile.open(path, mode) as tar:
        for header in more:
            tar.addfile(header)
        for name, text in files.items():
            tar.addfile(member(name, size=len(text)), io.BytesIO(text))
    return path


def write_zip(path: Path, files: dict[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for header, text in more:
            archive.writestr(header, text)
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def prediction(run: Path, split: str, seed: int, rule: str = "best") -> Path:
    """Where 'cim-plugin train' puts the predictions of a rule."""
    folder = run if rule in ("best", "last") else run / "selection" / rule
    return folder / f"camelyon17_split:{split}_seed:{seed}_epoch:{'last' if rule == 'last' else 'best'}_pred.csv"
