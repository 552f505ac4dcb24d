"""Own data, as ``cim-plugin data folder`` lays it out, as a data set of the ``wilds`` package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image
from wilds.common.grouper import CombinatorialGrouper
from wilds.common.metrics.all_metrics import Accuracy
from wilds.datasets.wilds_dataset import WILDSDataset

from .folder import COLUMNS, METADATA
from .releases import SPLITS

SEEN = 64  #: images whose size is looked at


class OwnDataset(WILDSDataset):
    """Images with a label and any number of kinds of group; accuracy on average and in the worst group.

    Args:
        folder: the release.

    Raises:
        ValueError, OSError: its metadata.csv is not as it was made.
    """

    def __init__(self, folder: Path):
        table = pandas.read_csv(folder / METADATA, dtype=str, keep_default_na=False)
        groups = [column for column in table.columns if column not in COLUMNS]
        classes = sorted(table["label"].unique(), key=_natural)
        names = {column: sorted(table[column].unique(), key=_natural) for column in groups} | {"y": classes}
        columns = {field: table["label" if field == "y" else field] for field in names}
        values = [columns[field].map({name: i for i, name in enumerate(names[field])}).to_numpy() for field in names]
        self._dataset_name, self._data_dir, self._split_scheme = folder.name, str(folder), "official"
        self._input_array = table["path"].tolist()
        self._split_array = table["split"].map(SPLITS.index).to_numpy()
        self._y_array = torch.from_numpy(values[-1])
        self._y_size, self._n_classes = 1, len(classes)
        self._metadata_fields, self._metadata_map = list(names), dict(names)  # wilds adds a field to them
        self._metadata_array = torch.from_numpy(np.stack(values, 1))
        self._original_resolution = _size(folder, self._input_array)
        super().__init__(str(folder.parent), False, self._split_scheme)
        self._eval_grouper = CombinatorialGrouper(self, list(names))

    def get_input(self, idx) -> Image.Image:
        with Image.open(Path(self._data_dir, self._input_array[int(idx)])) as image:
            return image.convert("RGB")

    def eval(self, y_pred, y_true, metadata, prediction_fn=None):
        """As wilds' own: results by name, and as text."""
        metric = Accuracy(prediction_fn=prediction_fn)
        return self.standard_group_eval(metric, self._eval_grouper, y_pred, y_true, metadata)


def _natural(text: str) -> tuple[int, int, str]:
    """Numbers by their value, before words."""
    return (0, int(text), text) if text.isascii() and text.isdigit() else (1, 0, text)


def _size(folder: Path, paths: list[str]) -> tuple[int, int] | None:
    """Width and height that all have of the images that are looked at; None where they differ."""
    sizes = set()
    for row in np.linspace(0, len(paths) - 1, min(SEEN, len(paths))).astype(int):
        with Image.open(folder / paths[row]) as image:
            sizes.add(image.size)
    return sizes.pop() if len(sizes) == 1 else None
