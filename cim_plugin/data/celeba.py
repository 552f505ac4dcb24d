"""CelebA (Liu et al., 2015): from the authors' text lists or Kaggle's tables to the release that wilds reads, which is
Kaggle's.
"""

from __future__ import annotations

import posixpath

import pandas

from ..errors import InputError
from .conversion import Plan, listed_images
from .releases import RELEASES
from .source import Source
from .table import check_paths, check_values, commas, count_splits, read_table

IMAGES = "img_align_celeba"
ATTRIBUTES = tuple(
    """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup
    High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose
    Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat
    Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
    """.split()
)
SIGNS = ("-1", "1")


def plan(source: Source) -> Plan:
    """Check attributes and partition and find the images.

    Raises:
        InputError: a list is wrong, the two lists differ in their images, or an image is missing.
    """
    attributes, attributes_name = _read(source, "list_attr_celeba", ("image_id", *ATTRIBUTES), _attribute_lines)
    partition, partition_name = _read(source, "list_eval_partition", ("image_id", "partition"), _partition_lines)
    check_paths(attributes, attributes_name, "image_id")
    for attribute in ATTRIBUTES:
        check_values(attributes, attributes_name, attribute, SIGNS)
    _check_same_images(attributes, attributes_name, partition, partition_name)
    counts = count_splits(partition, partition_name, "partition")
    texts = {"list_attr_celeba.csv": _csv(attributes), "list_eval_partition.csv": _csv(partition)}
    return Plan(
        RELEASES["celebA"],
        texts,
        listed_images(source, _find_images(source, attributes["image_id"]), attributes_name),
        counts,
    )


def _read(source: Source, stem: str, columns: tuple[str, ...], lines) -> tuple[pandas.DataFrame, str]:
    path = source.find(f"{stem}.csv", f"{stem}.txt")
    name = posixpath.basename(path)
    return read_table(source.read(path), name, columns, commas if name.endswith(".csv") else lines), name


def _attribute_lines(text: str) -> list[list[str]]:
    """The authors' list: the number of images, the names of the attributes, then an image and its attributes per
    line.
    """
    first, *table = _words(text) or [[]]
    if first != [str(len(table) - 1)]:
        raise InputError(
            f"list_attr_celeba.txt announces {' '.join(first)!r} images in its first line; it has "
            f"{max(len(table) - 1, 0):,}"
        )
    names, *rows = table
    return [["image_id", *names], *rows]


def _partition_lines(text: str) -> list[list[str]]:
    """The authors' list: an image and the number of its split per line."""
    return [["image_id", "partition"], *_words(text)]


def _words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def _check_same_images(
    attributes: pandas.DataFrame, attributes_name: str, partition: pandas.DataFrame, partition_name: str
) -> None:
    """The loader pairs the rows of both tables by their position."""
    if len(attributes) != len(partition):
        raise InputError(f"{attributes_name} has {len(attributes):,} rows, {partition_name} has {len(partition):,}")
    for row, (first, second) in enumerate(zip(attributes["image_id"], partition["image_id"])):
        if first != second:
            raise InputError(
                f"row {row} is image {first!r} in {attributes_name} and {second!r} in {partition_name}; both must have "
                f"the same order"
            )


def _find_images(source: Source, image_ids: pandas.Series) -> dict[str, str]:
    """Kaggle's archive has the folder of the images inside a folder of the same name."""
    folders = {
        posixpath.dirname(name) for name in source.names if posixpath.basename(posixpath.dirname(name)) == IMAGES
    }
    if len(folders) != 1:
        raise InputError(f"{source.path} must hold one folder {IMAGES} with images, it holds {len(folders)}")
    (folder,) = folders
    return {f"{folder}/{image_id}": f"{IMAGES}/{image_id}" for image_id in image_ids}


def _csv(table: pandas.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()
