"""What predictions are measured by: the published counts, or a data set on the disk with the evaluator of the ``wilds``
package.
"""

from __future__ import annotations

from array import array
from typing import Any, Mapping, NamedTuple

from ..data.releases import RELEASES
from ..runs.configuration import filled
from .rules import BOARDS, published_lengths


class Truth(NamedTuple):
    """A data set, as far as it is known."""

    dataset: str
    n_classes: int
    lengths: Mapping[str, int]  #: split -> images
    data: Any = None  #: wilds_runner.datasets.Dataset where it is on the disk
    note: str | None = None  #: where it is not the published release

    def metrics(self, split: str, labels: array) -> dict[str, float]:
        """What the evaluator of the wilds package says of predicted labels for a whole split."""
        import torch

        subset = self.data.splits[split]
        found, _ = self.data.wilds.eval(torch.tensor(labels, dtype=torch.int64), subset.labels, subset.metadata)
        return {name: float(value) for name, value in found.items()}


def published(dataset: str) -> Truth:
    """What is known without the data."""
    return Truth(dataset, BOARDS[dataset].n_classes, published_lengths(dataset))


def on_disk(dataset: str, root_dir: str) -> Truth:
    """The data set under ``root_dir``.

    Raises:
        InputError: it is not there or cannot be read.
    """
    from ..wilds_runner.datasets import open_dataset

    data = open_dataset(filled(dataset, "ERM", root_dir=root_dir))
    lengths = {split: len(data.splits[split].labels) for split in BOARDS[dataset].splits}
    differences = RELEASES[dataset].differences(lengths)
    return Truth(dataset, data.n_classes, lengths, data, _note(dataset, differences, data.synthetic))


def _note(dataset: str, differences: str, synthetic: bool) -> str | None:
    if synthetic:
        return (
            f"{dataset} in --root_dir is synthetic data of 'cim-plugin data demo'; no submission can be measured by it"
        )
    return (
        f"{dataset} in --root_dir is not the published release; no submission can be measured by it: {differences}"
        if differences
        else None
    )
