"""What the study compares: one table of rows. Each is an algorithm of the catalog with what is changed about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MORPHED = {"cim_targets": "morphed", "cim_pairs": "cross_environment"}
STRONG = {**MORPHED, "cim_mask": "per_channel", "cim_lambda": 10.0}


@dataclass(frozen=True)
class Row:
    """One way to train.

    ``environments`` says what 'cross_environment' pairs and balanced batches go by: "cross_fit" pseudo-environments, which need no labels
    of environments or groups, or the "true" ones. ``balanced`` draws the images where label and environment agree as often as the others,
    class by class. ``changes`` are named departures from the shipped step, see :mod:`steps`.
    """

    algorithm: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    environments: str | None = None
    balanced: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    steps: float = 1.0  #: times the number of steps of all rows
    kind: str = "method"  #: method, control, or oracle: looks at labels of groups or environments


MAIN: dict[str, Row] = {
    "ERM": Row("ERM"),
    "VIB": Row("VIB"),
    "SCL_E2E": Row("SCL_E2E"),
    "CIM": Row("CIM"),
    "CIM_VIB": Row("CIM_VIB"),
    "CIM, morphed, cross-fit pairs": Row("CIM", MORPHED, "cross_fit"),
    "CIM, morphed, cross-fit pairs, balanced": Row("CIM", MORPHED, "cross_fit", balanced=True),
    "CIM, morphed, cross-fit pairs, balanced, per channel, λ=10": Row("CIM", STRONG, "cross_fit", balanced=True),
    "CIM, λ=0": Row("CIM", {"cim_lambda": 0.0}, kind="control"),
    "CIM, reversed sign": Row("CIM", {"cim_reading": "similarity"}, kind="control"),
    "ERM, twice the steps": Row("ERM", steps=2.0, kind="control"),
    "ERM, random mask of CIM's mean": Row("ERM", changes={"random_mask": "CIM"}, kind="control"),
    "ERM, balanced by cross-fit": Row("ERM", environments="cross_fit", balanced=True, kind="control"),
    "CIM, λ=0, balanced by cross-fit": Row("CIM", {"cim_lambda": 0.0}, "cross_fit", balanced=True, kind="control"),
    "CIM, λ=0, per channel, balanced by cross-fit": Row("CIM", {"cim_lambda": 0.0, "cim_mask": "per_channel"}, "cross_fit", balanced=True, kind="control"),
    "groupDRO": Row("groupDRO", kind="oracle"),
    "ERM, balanced by true environments": Row("ERM", environments="true", balanced=True, kind="oracle"),
    "CIM, morphed, true pairs, balanced, per channel, λ=10": Row("CIM", STRONG, "true", balanced=True, kind="oracle"),
}

BALANCED = {"environments": "cross_fit", "balanced": True}

ABLATIONS: dict[str, Row] = {
    **{f"λ={value:g}": Row("CIM", {**MORPHED, "cim_lambda": value}, **BALANCED) for value in (0.1, 10.0)},
    "one mask per channel": Row("CIM", {**MORPHED, "cim_mask": "per_channel"}, **BALANCED),
    "raw targets": Row("CIM", {"cim_pairs": "cross_environment"}, **BALANCED),
    "random pairs": Row("CIM", {"cim_targets": "morphed"}, **BALANCED),
    "exact floor": Row("CIM", {**MORPHED, "cim_floor": "exact"}, **BALANCED),
    "detached: the network sees L_con only": Row("CIM", MORPHED, **BALANCED, changes={"detached": True}),
    "free mask": Row("CIM", MORPHED, **BALANCED, changes={"free_mask": True}),
    "starts near identity": Row("CIM", MORPHED, **BALANCED, changes={"mask_bias": 3.0}),
    "margin 0.2": Row("CIM", MORPHED, **BALANCED, changes={"margin": 0.2}),
    "four pairs per anchor": Row("CIM", MORPHED, **BALANCED, changes={"pairs_per_anchor": 4}),
    "one scale": Row("CIM", MORPHED, **BALANCED, changes={"scales": 1}),
    "warm-up of λ": Row("CIM", MORPHED, **BALANCED, changes={"warm_up": 0.5}),
    "sparse mask": Row("CIM", MORPHED, **BALANCED, changes={"sparsity": 0.1}),
}

ROWS = {**MAIN, **{f"ablation: {name}": row for name, row in ABLATIONS.items()}}
