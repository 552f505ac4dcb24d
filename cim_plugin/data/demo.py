"""Synthetic releases in the formats of Waterbirds and CelebA, from what scikit-learn carries: digits on photographs.

The label is whether the digit is below 5, the spurious attribute which of two photographs lies behind it. In training
they are tied in 95% of the
images, in validation and test in half of them. The splits share no digit and no pixel of a photograph.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np
import pandas
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..files import undone_where_refused, write_whole
from . import celeba, manifest, waterbirds
from .digits_on_photos import compose, load_digits, load_photos
from .releases import RELEASES, SYNTHETIC, Release, is_synthetic

TIED = (
    0.95,
    0.5,
    0.5,
)  #: share of the images of a class that lie on the class' photograph, in training, validation and test
N_FOLDS = 5  #: three fifths of each digit are for training, one for validation, one for test
PHOTOS = ("temple", "flower")
QUALITY = 90  #: of JPEG


class Look(NamedTuple):
    """The images of a release."""

    height: int
    width: int
    shrink: int  #: side of the square of the photograph's pixels that becomes one pixel
    margin: tuple[
        int, int, int, int
    ]  #: empty digit pixels left, right, above and below: the usual transforms cut the border off


LOOKS = {"waterbirds": Look(64, 64, 2, (1, 1, 1, 1)), "celebA": Look(218, 178, 1, (0, 0, 1, 1))}


def write_demo(root: str | os.PathLike, seed: int, looks: dict[str, Look] = LOOKS) -> list[Path]:
    """Write the releases under ``root``, each of which appears whole; synthetic ones that are there are replaced
    unless they are the same.

    Args:
        root: folder of all data sets; made if need be.
        seed: everything random follows from it.
        looks: of the releases, by name.

    Returns:
        The folders of the releases.

    Raises:
        InputError: the seed is out of range; a real release, or anything else, is in the place of one; or the disk is
            full.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed} is not between 0 and 2**32 - 1")
    folders = {name: RELEASES[name].path(root) for name in looks}
    with undone_where_refused(root), manifest.disk_errors(Path(root)), _one_thread():
        for folder in folders.values():
            _refuse_real(folder)
        for name, folder in folders.items():
            _publish(make_files(name, seed, looks), folder)
    return list(folders.values())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The work on one image is so little that on a busy machine several threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_files(name: str, seed: int, looks: dict[str, Look] = LOOKS) -> dict[str, bytes]:
    """All files of a release, by their path in it."""
    release, look = RELEASES[name], looks[name]
    table = draw(look, seed)
    paths, texts = {"waterbirds": _waterbirds, "celebA": _celeba}[name](table)
    images = {path: _jpeg(image) for path, image in zip(paths, render(table, look))}
    return {release.release_file: _release_text(release, seed), **texts, **images}


def draw(look: Look, seed: int) -> pandas.DataFrame:
    """What each image shows: a row per digit of scikit-learn, in its order, with integer columns.

    digit (0 to 9), label (1 for digits below 5), split (0, 1, 2), photo (0 or 1), and top and left of the crop of the
    photograph.
    """
    from sklearn.model_selection import StratifiedKFold

    rng = np.random.default_rng(seed)
    digit = load_digits()[1].numpy()
    table = pandas.DataFrame(
        {"digit": digit, "label": (digit < 5).astype(int), "split": 0, "photo": 0, "top": 0, "left": 0}
    )
    folds = [rows for _, rows in StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(digit, digit)]
    height, width = load_photos().shape[-2:]
    strips = np.array_split(np.arange(width), len(TIED))
    for split, rows in enumerate([np.concatenate(folds[2:]), folds[0], folds[1]]):
        table.loc[rows, "split"] = split
        table.loc[rows, "photo"] = _tie(table["label"].to_numpy()[rows], TIED[split], rng)
        table.loc[rows, "top"] = rng.integers(0, height - look.height * look.shrink + 1, len(rows))
        table.loc[rows, "left"] = rng.integers(
            strips[split][0], strips[split][-1] + 1 - look.width * look.shrink + 1, len(rows)
        )
    return table


def render(table: pandas.DataFrame, look: Look) -> Iterator[Tensor]:
    """The image (3, height, width) of each row, float32 in [0, 1]."""
    photos = load_photos()
    for digit, photo, top, left in zip(
        F.pad(load_digits()[0], look.margin), table["photo"], table["top"], table["left"]
    ):
        behind = photos[photo, :, top : top + look.height * look.shrink, left : left + look.width * look.shrink]
        yield compose(digit[None], F.avg_pool2d(behind[None], look.shrink))[0]


def _tie(labels: np.ndarray, tied: float, rng: np.random.Generator) -> np.ndarray:
    """The photograph of each image: of exactly the share ``tied`` of each class, rounded, the one with the number of
    the class.
    """
    photo = labels.copy()
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        photo[rows[round(tied * len(rows)) :]] = 1 - label
    return photo


def _waterbirds(table: pandas.DataFrame) -> tuple[list[str], dict[str, bytes]]:
    paths = [f"{digit:03}.Digit_{digit}/Digit_{digit}_{row:04}.jpg" for row, digit in enumerate(table["digit"])]
    places = [
        f"/{PHOTOS[photo][0]}/{PHOTOS[photo]}/top_{top}_left_{left}.jpg"
        for photo, top, left in zip(table["photo"], table["top"], table["left"])
    ]
    columns = (range(1, len(table) + 1), paths, table["label"], table["split"], table["photo"], places)
    return paths, {waterbirds.METADATA: _csv(pandas.DataFrame(dict(zip(waterbirds.COLUMNS, columns))))}


def _celeba(table: pandas.DataFrame) -> tuple[list[str], dict[str, bytes]]:
    """Male is the photograph that goes with not being blond, so that blond men are few, as in the real release."""
    image_id = [f"{row:06}.jpg" for row in range(1, len(table) + 1)]
    attributes = pandas.DataFrame(-1, index=table.index, columns=list(celeba.ATTRIBUTES))
    attributes["Blond_Hair"] = 2 * table["label"] - 1
    attributes["Male"] = 1 - 2 * table["photo"]
    attributes.insert(0, "image_id", image_id)
    partition = pandas.DataFrame({"image_id": image_id, "partition": table["split"]})
    texts = {"list_attr_celeba.csv": _csv(attributes), "list_eval_partition.csv": _csv(partition)}
    return [f"{celeba.IMAGES}/{name}" for name in image_id], texts


def _csv(table: pandas.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _jpeg(image: Tensor) -> bytes:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _release_text(release: Release, seed: int) -> bytes:
    made = f"made by 'cim-plugin data demo --seed {seed}'"
    text = f"{SYNTHETIC}: digits on photographs in the format of {release.folder}, {made}. Not the real data set.\n"
    return text.encode()


def _refuse_real(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is not a plain folder; move it away, or choose another --root")
    if folder.exists() and any(folder.iterdir()) and not is_synthetic(folder):
        raise InputError(
            f"{folder} holds something that 'cim-plugin data demo' did not make; move it away, or choose another --root"
        )


def _publish(files: dict[str, bytes], folder: Path) -> None:
    """Put the files into the folder, unless it holds just them; before the renaming at the end nothing is seen."""
    digests = {path: manifest.digest(content) for path, content in files.items()}
    if manifest.read_manifest(folder) == digests and not manifest.changed(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        for path, content in files.items():
            write_whole(new / path, content)
        manifest.write_manifest(new, digests)
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(new, folder)
