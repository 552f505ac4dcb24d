"""Averages over the batches between two lines of a log."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..algorithms.group_dro import group_means


class Averages:
    """Running sums of what happened since the last line of a CSV file, on the device, without synchronising.

    Args:
        n_groups: 0 leaves the groups out.
        device: where the values are.
    """

    FIXED = ("objective", "loss", "acc")

    def __init__(self, n_groups: int, device):
        self.n_groups = n_groups
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, groups: Tensor, group_weights: Tensor | None = None, **values: Tensor) -> None:
        """Add a batch: per-sample values (N,) by name, the samples' groups (N,), and group DRO's weights (n_groups,)
        where there are any.
        """
        self.count += len(groups)
        for name, value in values.items():
            value = value.detach().double()
            self._sum(name, value.sum())
            if self.n_groups and name in ("loss", "acc"):
                means, counts = group_means(value, groups, self.n_groups)
                self._sum(f"{name}_group", means * counts)
        if self.n_groups:
            _, counts = group_means(
                torch.ones(len(groups), dtype=torch.float64, device=groups.device), groups, self.n_groups
            )
            self._sum("count_group", counts)
            if group_weights is not None:
                self._sum("weight_group", group_weights.to(counts.device) * counts)

    def _sum(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def add_up(self, fabric) -> None:
        """Replace this process's sums by those of all processes, which hold equally many samples."""
        self.count *= fabric.world_size
        self.sums = {name: fabric.all_reduce(value, reduce_op="sum") for name, value in self.sums.items()}

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "sums": {name: value.cpu() for name, value in self.sums.items()}}

    def load(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}

    def line(self) -> dict[str, float]:
        """The averages as a line of {split}_algo.csv: the columns of WILDS, then our loss terms."""
        sums: dict[str, Any] = {name: value.tolist() for name, value in self.sums.items()}
        counts = sums.get("count_group", [])
        line: dict[str, float] = {}

        def group_averages(name: str) -> None:
            for group, count in enumerate(counts):
                line[f"{name}_group:{group}"] = sums[f"{name}_group"][group] / count if count else float("nan")

        for name in ("loss", "acc"):
            group_averages(name)
            line[f"{name}_avg"] = sums[name] / self.count
        line["objective"] = sums["objective"] / self.count
        if "weight_group" in sums:
            group_averages("weight")
        line.update({f"count_group:{group}": count for group, count in enumerate(counts)})
        line["count"] = self.count
        line.update(
            {
                name: value / self.count
                for name, value in sums.items()
                if name not in self.FIXED and not name.endswith("_group")
            }
        )
        return line
