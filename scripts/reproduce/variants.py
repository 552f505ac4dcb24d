"""A data set in the form of the ``wilds`` package whose test split is made of variants, each with an accuracy of its
own.

With it a run is one of 'cim-plugin train': its loop, selection rules, state and results.json, which 'cim-plugin
compare' reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor
from wilds.common.grouper import CombinatorialGrouper
from wilds.common.metrics.all_metrics import Accuracy
from wilds.datasets.wilds_dataset import WILDSDataset

from cim_plugin.runs.configuration import Configuration
from cim_plugin.wilds_runner import groupwise
from cim_plugin.wilds_runner.datasets import Dataset, Split

FIELD = "variant"


class Variants(WILDSDataset):
    """Images with a label and a variant.

    Args:
        name: of the data set.
        folder: where its files are.
        get_image: row -> PIL image, RGB; a function of a module, or a partial one, where loaders start processes.
        labels: (N,) int64.
        variants: (N,) int64; the training split may have one that the test split lacks.
        splits: (N,) int64: 0 training, 1 validation, 2 test.
        classes: their names.
        variant_names: their names.
        side: of the square images where all have it, None where they are to be resized.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        get_image: Callable[[int], Any],
        labels: Tensor,
        variants: Tensor,
        splits: Tensor,
        classes: list[str],
        variant_names: list[str],
        side: int | None = None,
    ):
        self._get_image = get_image
        self._dataset_name = name
        self._data_dir = str(folder)
        self._split_scheme = "official"
        self._split_array = splits.numpy()
        self._y_array = labels
        self._y_size = 1
        self._n_classes = len(classes)
        self._metadata_fields = [FIELD, "y"]
        self._metadata_array = torch.stack([variants, labels], 1)
        self._metadata_map = {FIELD: variant_names, "y": classes}
        self._original_resolution = (side, side) if side is not None else None
        super().__init__(str(folder), False, self._split_scheme)
        self._grouper = CombinatorialGrouper(self, [FIELD])

    def get_input(self, idx):
        return self._get_image(idx)

    def eval(self, y_pred, y_true, metadata):
        """Average accuracy and that of every variant. No worst group: the validation split does not have the variants
        of the test.
        """
        results, text = self.standard_group_eval(Accuracy(), self._grouper, y_pred, y_true, metadata)
        del results["acc_wg"]
        return results, text


def as_dataset(wilds: Variants, config: Configuration, synthetic: bool) -> Dataset:
    """What a run takes, with variants as groups."""
    groupwise.install()
    grouper = CombinatorialGrouper(wilds, config.groupby_fields)
    splits = {}
    for key, words in wilds.split_names.items():
        subset = wilds.get_subset(key, frac=config.frac)
        metadata = subset.metadata_array
        splits[key] = Split(
            words, subset, np.asarray(subset.indices), subset.y_array, metadata, grouper.metadata_to_group(metadata)
        )
    return Dataset(wilds, grouper, splits, wilds.n_classes, synthetic)
