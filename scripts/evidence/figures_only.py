"""A Waterbirds release whose grounds are black, by the masks that a release has: what a perfect mask would leave."""

from __future__ import annotations

import csv
import os
import shutil

import numpy as np
from PIL import Image

from cim_plugin.errors import InputError
from cim_plugin.files import read_text, write_whole

RELEASE, METADATA, VERSION = "waterbirds_v1.0", "metadata.csv", "RELEASE_v1.0.txt"


def mask_of(image: str) -> str:
    """The path of an image's mask, below ``masks``: 8 bit, how much of every pixel is the bird."""
    return f"{os.path.splitext(image)[0]}.png"


def missing(root: str) -> str | None:
    """Why there are no masks for the release under a folder, in words; None where each image has one.

    Raises:
        InputError: there is no release.
    """
    release = os.path.join(root, RELEASE)
    if not os.path.isfile(os.path.join(release, METADATA)):
        raise InputError(f"--root_dir {root} has no {RELEASE}/{METADATA}; name the folder that holds {RELEASE}")
    for row in read_table(release):
        mask = os.path.join("masks", mask_of(row["img_filename"]))
        if not os.path.isfile(os.path.join(release, mask)):
            return f"{release} has no {mask}"
    return None


def make(root: str, target: str) -> None:
    """The release under ``root`` with black grounds, under ``target``; nothing where it is there already."""
    release, made = os.path.join(root, RELEASE), os.path.join(target, RELEASE)
    if os.path.exists(os.path.join(made, METADATA)):
        return
    shutil.rmtree(made, ignore_errors=True)  # half of one
    rows = read_table(release)
    for row in rows:
        name = mask_of(row["img_filename"])
        os.makedirs(os.path.dirname(os.path.join(made, name)), exist_ok=True)
        with (
            Image.open(os.path.join(release, row["img_filename"])) as image,
            Image.open(os.path.join(release, "masks", name)) as mask,
        ):
            share = np.asarray(mask.convert("L").resize(image.size))[:, :, None] / 255
            bird = (np.asarray(image.convert("RGB")) * share).round().astype(np.uint8)
        Image.fromarray(bird).save(os.path.join(made, name))
        row["img_filename"] = name
    version = read_text(os.path.join(release, VERSION)) if os.path.exists(os.path.join(release, VERSION)) else ""
    write_whole(os.path.join(made, VERSION), f"{version.rstrip()}\nIts grounds are black here.\n".encode())
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    write_whole(os.path.join(made, METADATA), "\n".join([*lines, ""]).encode())


def read_table(release: str) -> list[dict[str, str]]:
    """metadata.csv of a release, a dictionary per image."""
    return list(csv.DictReader(read_text(os.path.join(release, METADATA)).splitlines()))
