"""Metrics of all seeds and splits of one data set, and their mean and standard deviation as WILDS' ``evaluate.py``
reports them.
"""

from __future__ import annotations

from typing import Mapping

from .rules import BOARDS

Metrics = dict[str, dict[str, dict[str, float]]]  #: split -> replicate -> metric -> value


def aggregate(dataset: str, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Split -> metric -> mean over the replicates, and metric_std -> their standard deviation (ddof 1)."""
    import numpy as np

    table: dict[str, dict[str, float]] = {}
    for split in BOARDS[dataset].splits:
        table[split] = {}
        for metric in BOARDS[dataset].metrics:
            values = [metrics[split][replicate][metric] for replicate in BOARDS[dataset].replicates]
            table[split] |= {metric: float(np.mean(values)), f"{metric}_std": float(np.std(values, ddof=1))}
    return table


def rows(dataset: str, table: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, str, str]]:
    """(split, metric, mean, standard deviation) of an aggregate, as text."""
    return [
        (split, metric, f"{of_split[metric]:.6f}", f"{of_split[f'{metric}_std']:.6f}")
        for split, of_split in table.items()
        for metric in BOARDS[dataset].metrics
    ]
