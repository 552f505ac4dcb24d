"""Which runs make up a row, what the row is called, and in what runs differ."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Iterable

from .. import catalog
from ..runs.record import Run
from .names import Settings, in_full, names, show

ORDER = (*catalog.BASELINES, "GroupDRO", *catalog.ALGORITHMS)  #: of algorithms in tables; others come last


@dataclass(frozen=True, eq=False)
class Family:
    """Runs that make up a row: they differ in nothing but the seed, or are pooled as the host's own tables pool
    them.
    """

    algorithm: str
    settings: dict[str, Any]  #: what sets it apart from other rows of the table
    name: str  #: in tables and plots, short
    label: str  #: with all settings
    control: bool
    flags: str  #: for pairing: equal where everything but the algorithm and its own hyperparameters is
    runs: list[Run]

    @functools.cached_property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.unfinished is None]

    @functools.cached_property
    def circumstances(self) -> list[dict[str, Any]]:
        """Those of the finished runs, each once."""
        return distinct(run.circumstances for run in self.finished)

    @functools.cached_property
    def configurations(self) -> list[dict[str, Any]]:
        """The flags of the finished runs, each once."""
        return distinct(run.flags for run in self.finished)


def families_of(runs: list[Run], splits_by_flags: bool) -> list[Family]:
    differing = differences(distinct(run.flags for run in runs)) if splits_by_flags else {}
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        flags = _key({name: run.flags.get(name) for name in differing})
        groups[_rank(run.algorithm), run.algorithm, len(run.settings), _key(run.settings), flags].append(run)
    keys = sorted(groups)
    rows = [_settings(groups[key][0], differing) for key in keys]
    return [
        Family(row.algorithm, dict(row.values), name, in_full(row), bool(row.off), key[-1], groups[key])
        for key, row, name in zip(keys, rows, names(rows))
    ]


def _settings(run: Run, differing: Iterable[str]) -> Settings:
    values = run.settings | {name: run.flags[name] for name in differing if run.flags.get(name) is not None}
    return Settings(run.algorithm, values, tuple(run.settings), _off(run))


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def distinct(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each once, in the order of their first appearance: thousands of runs have a few configurations."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        found.setdefault(_key(record), record)
    return list(found.values())


def differences(records: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Names whose values are not the same in all records, with the values."""
    records = list(records)
    values = {
        name: list(dict.fromkeys(show(record.get(name)) for record in records))
        for name in sorted({name for record in records for name in record})
    }
    return {name: found for name, found in values.items() if len(found) > 1}


def _rank(algorithm: str) -> int:
    return ORDER.index(algorithm) if algorithm in ORDER else len(ORDER)


def _off(run: Run) -> tuple[str, ...]:
    """The weights of the algorithm's own loss terms that are 0, by which a run is a control: everything else stays,
    its effect goes.

    Not so with λ = 0 where the mask is trained all the same, by composites or the sparsity of m.
    """
    owner = catalog.owner(run.algorithm)
    parts = catalog.TRAINABLE[owner][0] if owner else ()
    if run.settings.get("cim_composites") or run.settings.get("cim_sparsity"):
        parts = [part for part in parts if part != "morphing"]
    weights = (next(iter(catalog.PARTS[part])) for part in parts)
    return tuple(weight for weight in weights if run.settings.get(weight) == 0)
