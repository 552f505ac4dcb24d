"""Names of rows: short, one of each, and by what tells the rows of an algorithm apart."""

from __future__ import annotations

import pytest

from cim_plugin.compare.names import LONGEST, Settings, in_full, names

COLOURS = {"cim_similarity": "colours", "cim_targets": "morphed", "cim_pairs": "cross_environment"}


def settings(algorithm: str, flags=None, off=(), **own) -> Settings:
    return Settings(algorithm, {**own, **(flags or {})}, tuple(own), off)


#: what the rows of a table are made with -> their names
CASES = {
    "alone": ([settings("CIM")], ["CIM"]),
    "flags that all rows of the algorithm share are not said": (
        [settings("ERM", {"lr": 0.1, "n_epochs": 3}), settings("ERM", {"lr": 0.01, "n_epochs": 3})],
        ["ERM, lr=0.1", "ERM, lr=0.01"],
    ),
    "of flags that change together the shorter": (
        [settings("ERM", {"weight_decay": 0.1, "lr": 0.1}), settings("ERM", {"weight_decay": 1.0, "lr": 0.2})],
        ["ERM, lr=0.1", "ERM, lr=0.2"],
    ),
    "two flags where one does not do": (
        [settings("ERM", {"lr": lr, "seed_of": seed}) for lr in (1, 2) for seed in (3, 4)],
        ["ERM, lr=1, seed_of=3", "ERM, lr=1, seed_of=4", "ERM, lr=2, seed_of=3", "ERM, lr=2, seed_of=4"],
    ),
    "a flag that only one has": ([settings("ERM"), settings("ERM", {"cross_fit": 300})], ["ERM", "ERM, cross_fit=300"]),
    "another algorithm's flags tell nothing": (
        [settings("ERM", {"lr": 0.1}), settings("CIM", {"lr": 0.2})],
        ["ERM", "CIM"],
    ),
    "own settings are said, or that there are more": (
        [
            settings("CIM", cim_lambda=0.5),
            settings("VIB", vib_beta=0.1, vib_dimension=64),
            settings("CIM_VIB", **COLOURS),
        ],
        ["CIM, cim_lambda=0.5", "VIB, vib_beta=0.1, vib_dimension=64", "CIM_VIB, cim_similarity=colours, …"],
    ),
    "a control says which weight is 0": (
        [settings("CIM", **COLOURS), settings("CIM", off=("cim_lambda",), **COLOURS, cim_lambda=0.0)],
        ["CIM, cim_similarity=colours, …", "CIM, cim_lambda=0, … (control)"],
    ),
    "too long: numbers": (
        [settings("A", {"name": "x" * 50}), settings("A", {"name": "y" * 50}), settings("A" * 60)],
        ["A, … #1", "A, … #2", "A" * 39 + "…"],
    ),
    "values that look alike: numbers": ([settings("A", {"n": "1"}), settings("A", {"n": 1})], ["A, … #1", "A, … #2"]),
    "too long: what there is room for": (
        [
            settings("CIM", {"lr": lr, "name": name * 30}, ("cim_lambda",), cim_lambda=0)
            for lr in (1, 2)
            for name in "ab"
        ],
        [f"CIM, cim_lambda=0, lr={n}, … #{2 * n + k} (control)" for n in (1, 2) for k in (-1, 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rows, expected", CASES.values(), ids=CASES)
def test_names(rows, expected):
    assert names(rows) == expected
    assert max(map(len, expected)) <= LONGEST and len(set(expected)) == len(expected)


def test_in_full_has_every_setting():
    row = settings("CIM", {"lr": 0.1, "cache": True}, ("cim_lambda",), cim_lambda=0.0, **COLOURS)
    said = "cim_lambda=0, cim_similarity=colours, cim_targets=morphed, cim_pairs=cross_environment, lr=0.1, cache=true"
    assert in_full(row) == f"CIM, {said} (control)"
