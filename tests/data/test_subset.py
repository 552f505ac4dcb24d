"""A part of a data set: the same share of every group, spread over it."""

from __future__ import annotations

from collections import Counter

import pytest

from cim_plugin.data.conversion import Plan
from cim_plugin.data.releases import RELEASES
from cim_plugin.data.subset import of_folders, part
from cim_plugin.errors import InputError


@pytest.mark.parametrize(
    "sizes, most, expected",
    [
        ({"a": 90, "b": 10}, 10, {"a": 9, "b": 1}),
        ({"a": 3498, "b": 184, "c": 56, "d": 1057}, 100, {"a": 73, "b": 4, "c": 1, "d": 22}),
        ({"a": 5, "b": 1, "c": 1}, 3, {"a": 1, "b": 1, "c": 1}),
        ({"a": 5, "b": 1, "c": 1}, 6, {"a": 4, "b": 1, "c": 1}),
        ({"a": 2, "b": 2}, 4, {"a": 2, "b": 2}),
        ({"a": 2, "b": 2}, 9, {"a": 2, "b": 2}),
    ],
)
def test_shares(sizes, most, expected):
    strata = [name for name, size in sizes.items() for _ in range(size)]
    rows = part(strata, most)
    assert rows == sorted(set(rows)) and Counter(strata[row] for row in rows) == expected


def test_rows_are_spread_over_their_group():
    assert part(["a"] * 9, 3) == [0, 4, 8] and part("abababab", 4) == [0, 1, 6, 7]


def test_all_and_too_few():
    assert part("abc", None) == [0, 1, 2]
    with pytest.raises(InputError, match="--subset 2 is fewer than one image for each of the 3 groups"):
        part("abc", 2)


def test_folders_are_the_groups_of_a_release_without_a_table():
    images = {f"{e}{c}{i}": f"{e}/{c}/{i}.jpg" for e in ("photo", "sketch") for c in ("dog", "cat") for i in range(5)}
    plan = of_folders(Plan(RELEASES["PACS"], {}, images, {"photo": 10, "sketch": 10}), 8)
    assert plan.counts == {"photo": 4, "sketch": 4}
    assert Counter(path.rsplit("/", 1)[0] for path in plan.images.values()) == Counter(
        {f"{e}/{c}": 2 for e in ("photo", "sketch") for c in ("dog", "cat")}
    )
