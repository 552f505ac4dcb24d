"""Hyperparameters by a rule fixed beforehand and with the same effort for every row."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from rows import Row

from cim_plugin import catalog

SEED = 0  #: of the search; below those of the tables


def draw(row: Row, number: int) -> Row:
    """The row with the hyperparameters of a draw: 0 is the default; the others draw the learning rate from 10^U(-3, -2) and whatever a
    sweep would draw of the row's algorithm, except what makes the row what it is.

    All rows share the learning rate of a draw, and a row's control the other values.
    """
    if number == 0:
        return row
    values: dict[str, Any] = {}
    learning_rate = float(10 ** np.random.RandomState([number]).uniform(-3, -2))
    for name, entry in catalog.hyperparameters(row.algorithm).items():
        if name not in row.hyperparameters and entry.domain != "fixed":
            values[name] = entry.draw(np.random.RandomState([number, *name.encode()]))
    return dataclasses.replace(row, learning_rate=learning_rate, hyperparameters={**row.hyperparameters, **values})

