"""A part of a data set for a first try, with the same share of every group of its images."""

from __future__ import annotations

import dataclasses
import posixpath
from collections import defaultdict
from typing import Hashable, Sequence

import numpy as np

from ..errors import InputError
from .conversion import Plan


def part(strata: Sequence[Hashable], most: int | None) -> list[int]:
    """Rows to keep, in their order: of every stratum the same share, spread over it, and at least one.

    Args:
        strata: what is to keep its share, per row.
        most: rows to keep; None: all.

    Raises:
        InputError: there are more strata than rows to keep.
    """
    if most is None or most >= len(strata):
        return list(range(len(strata)))
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata):
        rows[stratum].append(row)
    if most < len(rows):
        raise InputError(
            f"--subset {most} is fewer than one image for each of the {len(rows)} groups; give {len(rows)} or more"
        )
    kept = zip(rows.values(), _shares([len(group) for group in rows.values()], most))
    return sorted(
        group[at] for group, count in kept for at in np.linspace(0, len(group) - 1, count).round().astype(int)
    )


def _shares(sizes: list[int], most: int) -> list[int]:
    """How many of each size, ``most`` in all: its share, rounded so that the sum is right, and at least one."""
    exact = np.array(sizes) * most / sum(sizes)
    shares = np.maximum(1, np.floor(exact)).astype(int)
    while left := most - shares.sum():
        step = 1 if left > 0 else -1
        can = (shares + step >= 1) & (shares + step <= sizes)
        shares[np.argmax(np.where(can, step * (exact - shares), -np.inf))] += step
    return shares.tolist()


def of_folders(plan: Plan, most: int | None) -> Plan:
    """The part of a release that is folders of images, by folder."""
    names = list(plan.images)
    rows = part([posixpath.dirname(path) for path in plan.images.values()], most)
    images = {names[row]: plan.images[names[row]] for row in rows}
    counts = {part: sum(path.startswith(f"{part}/") for path in images.values()) for part in plan.counts}
    return dataclasses.replace(plan, images=images, counts=counts)
