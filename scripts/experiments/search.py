"""Hyperparameters by a rule fixed beforehand and with the same effort for every row."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cim_plugin import catalog

from .rows import Row

LEARNING_RATES = (3e-3, 1e-2, 3e-2, 1e-3)  #: of draws 0, 1, ..., and so on from the first


def draw(row: Row, number: int) -> Row:
    """The row with the hyperparameters of a draw: 0 is the default; the others go through the learning rates, which few
    random draws would
    miss, and draw whatever a sweep would draw of the row's algorithm, except what makes the row what it is.

    All rows share the learning rate of a draw, and a row's control the other values.
    """
    if number == 0:
        return row
    values: dict[str, Any] = {}
    learning_rate = LEARNING_RATES[number % len(LEARNING_RATES)]
    for name, entry in catalog.hyperparameters(row.algorithm).items():
        if name not in row.hyperparameters and entry.domain != "fixed":
            values[name] = entry.draw(np.random.RandomState([number, *name.encode()]))
    return dataclasses.replace(row, learning_rate=learning_rate, hyperparameters={**row.hyperparameters, **values})
