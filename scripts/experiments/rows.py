"""What the study compares: one table of rows. Each is an algorithm of the catalog with what is changed about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .cross_fit import References


@dataclass(frozen=True)
class Row:
    """One way to train; its name is that of the folder of its runs."""

    algorithm: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    #: the models whose pseudo-environments 'cross_environment' pairs and balanced batches go by: images where label and
    #: pseudo-environment agree are drawn as often as the others, class by class. None: batches are not balanced
    references: References | None = None
    network_learning_rate: float | None = None  #: the transformation network's own, with the schedule of all weights
    #: half of the cross-entropy is that of composites by smooth noise of this mean as m; no transformation network
    random_composites: float | None = None
    figure_only: bool = False  #: images are black but for the figure, in training and test
    learning_rate: float = 3e-3  #: of AdamW

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from a training as shipped, as results.json has it."""
        names = ("network_learning_rate", "random_composites", "figure_only")
        return {name: value for name in names if (value := getattr(self, name))}


UNBALANCED: dict[str, Row] = {
    "ERM": Row("ERM"),
    "CIM": Row("CIM"),
    "CIM, λ=0": Row("CIM", {"cim_lambda": 0.0}),
    "CIM_VIB": Row("CIM_VIB"),
    "groupDRO": Row("groupDRO"),
}

COLOURS = {
    "cim_targets": "morphed",
    "cim_pairs": "cross_environment",
    "cim_similarity": "colours",
    "cim_mask_stride": 2,
    "cim_lambda": 1.0,
}
WHOLE = References(steps=100, models=4)
TILES = References(steps=300, models=4, tiles=4)

BALANCED: dict[str, Row] = {
    "ERM, balanced by four models": Row("ERM", references=WHOLE),
    "ERM, random composites, balanced by four models": Row("ERM", references=WHOLE, random_composites=0.7),
    "CIM, λ=0, network at 0.003, balanced by four models": Row(
        "CIM", {"cim_mask_stride": 2, "cim_lambda": 0.0}, WHOLE, network_learning_rate=3e-3
    ),
    "CIM, colours, network at 0.003, balanced by four models": Row("CIM", COLOURS, WHOLE, network_learning_rate=3e-3),
    "ERM, figure only, balanced by four models": Row("ERM", references=WHOLE, figure_only=True),
}

#: word of --rows -> its rows
GROUPS: dict[str, dict[str, Row]] = {
    "table": {**UNBALANCED, **BALANCED},
    "tiles": {
        "groupDRO, chosen by tiles": Row("groupDRO"),  # the name that its runs before many photographs have
        **{name.replace("four models", "tiles"): replace(row, references=TILES) for name, row in BALANCED.items()},
    },
}
ROWS = {name: row for group in GROUPS.values() for name, row in group.items()}
