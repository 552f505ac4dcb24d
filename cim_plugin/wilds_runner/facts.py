"""What of a data set a model and its transform follow from: with these plain values both are made again where the data
are not.
"""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """Plain values."""

    n_classes: int
    class_names: list[str]  #: (n_classes,)
    original_resolution: tuple[int, int] | None  #: height and width of all images; None where they differ
    #: that pairs can go by: combinations of the group fields other than the label, or pseudo-environments
    n_environments: int
    n_groups: int  #: that the weights of group DRO are of
    groups_in_training: list[int]  #: those that the training split holds, ascending
