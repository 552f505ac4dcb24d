"""Waterbirds: from the archive of group DRO (Sagawa et al., arXiv:1911.08731) to the release that wilds reads. Both
have the same files.
"""

from __future__ import annotations

import posixpath

from .conversion import Plan, listed_images
from .releases import RELEASES
from .source import Source
from .table import check_paths, check_values, commas, count_splits, read_table

METADATA = "metadata.csv"
COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
BINARY = ("0", "1")


def plan(source: Source) -> Plan:
    """Check the metadata and find its images.

    Raises:
        InputError: the metadata are wrong, or an image is missing.
    """
    name = source.find(METADATA)
    content = source.read(name)
    table = read_table(content, METADATA, COLUMNS, commas)
    check_paths(table, METADATA, "img_filename")
    for column in ("y", "place"):
        check_values(table, METADATA, column, BINARY)
    counts = count_splits(table, METADATA, "split")
    images = {posixpath.join(posixpath.dirname(name), path): path for path in table["img_filename"]}
    return Plan(RELEASES["waterbirds"], {METADATA: content}, listed_images(source, images, METADATA), counts)
