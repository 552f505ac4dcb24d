"""What the study compares: one table of rows. Each is an algorithm of the catalog with what is changed about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cim_plugin import retired

MORPHED = {"cim_targets": "morphed", "cim_pairs": "cross_environment"}
BALANCED = {"environments": "cross_fit", "balanced": True}
#: m has to cut images out; see docs/study/tables.md for all of these
CUT_OUT = {**MORPHED, "cim_composites": True, "cim_sparsity": 0.5, "cim_mask_stride": 2}
SPARSE = {**CUT_OUT, "cim_composites": False}
#: L_con by a similarity that asks for no alignment
COLOURS = {**MORPHED, "cim_similarity": "colours", "cim_mask_stride": 2, "cim_lambda": 1.0}
#: what the transformation network bears, whatever the classifier's learning rate is
OWN_RATE = {"network_learning_rate": 3e-3}


class References(NamedTuple):
    """The models that pseudo-environments come from, see :mod:`cross_fit`."""

    steps: int | None = (
        100  #: few: they are to know what is easy, not what is right; None: as many as the models agree best at
    )
    folds: int = 2
    models: int = 1  #: per fold, their probabilities averaged
    tiles: int = 1  #: per side of an image, shuffled before a model sees it
    batch: int = 64


@dataclass(frozen=True)
class Row:
    """One way to train.

    ``environments`` says what 'cross_environment' pairs and balanced batches go by: "cross_fit" pseudo-environments,
    which need no labels
    of environments or groups, or the "true" ones. ``balanced`` draws the images where label and pseudo-environment
    agree as often as the others,
    class by class, and of true environments every pair of label and environment equally often. ``changes`` are named
    departures from the shipped step, see :mod:`steps`.
    """

    algorithm: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    environments: str | None = None
    balanced: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    steps: float = 1.0  #: times the number of steps of all rows
    learning_rate: float = 3e-3  #: of AdamW
    references: References = References()

    @property
    def past(self) -> str | None:
        """Why it cannot be trained any more, in words: it was with an option of version 0.1. Its runs are kept."""
        return retired.words(self.hyperparameters)


MAIN: dict[str, Row] = {
    "ERM": Row("ERM"),
    "VIB": Row("VIB"),
    "SCL_E2E": Row("SCL_E2E"),
    "CIM": Row("CIM"),
    "CIM_VIB": Row("CIM_VIB"),
    "CIM, λ=0": Row("CIM", {"cim_lambda": 0.0}),
    "ERM, balanced": Row("ERM", **BALANCED),
    "CIM, composites, balanced": Row("CIM", CUT_OUT, **BALANCED),
    "CIM, composites, λ=0, balanced": Row("CIM", {**CUT_OUT, "cim_lambda": 0.0}, **BALANCED),
    "CIM, sparse, λ=0, balanced": Row("CIM", {**SPARSE, "cim_lambda": 0.0}, **BALANCED),
    "ERM, random composites, balanced": Row("ERM", **BALANCED, changes={"random_composites": 0.7}),
    "groupDRO": Row("groupDRO"),
}

#: more controls, the parts of the variant, and what sees the true environments
FURTHER: dict[str, Row] = {
    "CIM, reversed sign": Row("CIM", {"cim_reading": "similarity"}),
    "ERM, twice the steps": Row("ERM", steps=2.0),
    "ERM, random mask of CIM's mean": Row("ERM", changes={"random_mask": "CIM"}),
    "CIM, λ=0, network as it starts": Row(
        "CIM", {"cim_lambda": 0.0}, changes={"network_learning_rate": 0.0}
    ),  # m is one half everywhere: darker images
    "CIM, morphed, cross-fit pairs": Row("CIM", MORPHED, "cross_fit"),
    "CIM, λ=0, balanced": Row("CIM", {"cim_lambda": 0.0}, **BALANCED),
    "CIM, morphed, cross-fit pairs, balanced": Row("CIM", MORPHED, **BALANCED),
    "CIM, composites": Row("CIM", CUT_OUT, "cross_fit"),
    "ERM, random composites": Row("ERM", changes={"random_composites": 0.7}),
    "CIM, sparse, balanced": Row("CIM", SPARSE, **BALANCED),
    "ERM, twice the steps, balanced": Row("ERM", **BALANCED, steps=2.0),
    "ERM, balanced by true environments": Row("ERM", environments="true", balanced=True),
}


def _ablation(hyperparameters: dict[str, Any] | None = None, **changes: Any) -> Row:
    """ "CIM, composites, balanced" with something changed."""
    return Row("CIM", {**CUT_OUT, **(hyperparameters or {})}, **BALANCED, changes=changes)


ABLATIONS: dict[str, Row] = {
    **{f"λ={value:g}": _ablation({"cim_lambda": value}) for value in (0.1, 10.0)},
    "reversed sign": _ablation({"cim_reading": "similarity"}),
    "no sparsity": _ablation({"cim_sparsity": 0.0}),
    "no sparsity, λ=10": _ablation({"cim_sparsity": 0.0, "cim_lambda": 10.0}),
    "sparsity at once": _ablation(sparse_at_once=True),
    "mask at a quarter": _ablation({"cim_mask_stride": 4}),
    "starts near identity": _ablation(mask_bias=2.0),
    "one mask per channel": _ablation({"cim_mask": "per_channel"}),
    "free mask": _ablation(free_mask=True),
    "raw targets": _ablation({"cim_targets": "input"}),
    "random pairs": _ablation({"cim_pairs": "random"}),
    "exact floor": _ablation({"cim_floor": "exact"}),
    "margin 0.2": _ablation(margin=0.2),
    "four pairs per anchor": _ablation(pairs_per_anchor=4),
    "one scale": _ablation(scales=1),
    "warm-up of λ": _ablation(warm_up=0.3),
    "the network sees L_con only": Row("CIM", MORPHED, **BALANCED, changes={"detached": True}),
}


def _balanced_by(**references: int) -> Row:
    """ "ERM, balanced" at the learning rate that suits it, with other reference models."""
    return Row("ERM", **BALANCED, learning_rate=1e-2, references=References(**references))


#: how good the pseudo-environments have to be
REFERENCES: dict[str, Row] = {
    **{f"{steps} steps": _balanced_by(steps=steps) for steps in (25, 50, 100, 200, 400, 1000)},
    "five folds": _balanced_by(folds=5),
    "four models": _balanced_by(models=4),
    "four models, 300 steps": _balanced_by(models=4, steps=300),
    "tiles, 300 steps": _balanced_by(models=4, steps=300, tiles=4),
    "true environments": Row("ERM", environments="true", balanced=True, learning_rate=1e-2),
}

_FOUR = {**BALANCED, "references": References(models=4)}
#: with the reference models of ``cim-plugin train --cross_fit 100 --cross_fit_tiles 1``
FOUR_MODELS: dict[str, Row] = {
    "ERM, balanced by four models": Row("ERM", **_FOUR),
    "ERM, twice the steps, balanced by four models": Row("ERM", **_FOUR, steps=2.0),
    "ERM, random composites, balanced by four models": Row("ERM", **_FOUR, changes={"random_composites": 0.7}),
    "CIM, λ=0, balanced by four models": Row("CIM", {"cim_mask_stride": 2, "cim_lambda": 0.0}, **_FOUR),
    "CIM, colours, balanced by four models": Row("CIM", COLOURS, **_FOUR),
}


def _of_colours(hyperparameters: dict[str, Any] | None = None, **changed: Any) -> Row:
    """ "CIM, colours, balanced by four models" with something changed."""
    return Row("CIM", {**COLOURS, **(hyperparameters or {})}, **{**_FOUR, **changed})


COLOURS_ABLATIONS: dict[str, Row] = {
    **{f"λ={value:g}": _of_colours({"cim_lambda": value}) for value in (0.1, 10.0)},
    "reversed sign": _of_colours({"cim_reading": "similarity"}),
    "raw targets": _of_colours({"cim_targets": "input"}),
    "random pairs": _of_colours({"cim_pairs": "random"}),
    "four pairs per anchor": _of_colours(changes={"pairs_per_anchor": 4}),
    "hardest of four pairs": _of_colours(changes={"hardest_of": 4}),
    "mask at a quarter": _of_colours({"cim_mask_stride": 4}),
    "one mask per channel": _of_colours({"cim_mask": "per_channel"}),
    "the network sees L_con only": _of_colours(changes={"detached": True}),
    "learning rate 0.01": _of_colours(learning_rate=1e-2),
    "learning rate 0.01, the network's 0.003": _of_colours(learning_rate=1e-2, changes=OWN_RATE),
    "learning rate 0.03, the network's 0.003": _of_colours(learning_rate=3e-2, changes=OWN_RATE),
    "not balanced": _of_colours(balanced=False),
    "one reference model": _of_colours(references=References()),
    "true environments": _of_colours(environments="true"),
}

#: the last two of those of four models, with a learning rate of the network's own
OWN_NETWORK_RATE: dict[str, Row] = {
    "CIM, λ=0, network at 0.003, balanced by four models": replace(
        FOUR_MODELS["CIM, λ=0, balanced by four models"], changes=OWN_RATE
    ),
    "CIM, colours, network at 0.003, balanced by four models": _of_colours(changes=OWN_RATE),
}

#: what the variant is compared with to see what it owes to colours, and to the schedule that cim_learning_rate does not
#: have
LIKE_FOR_LIKE: dict[str, Row] = {
    "CIM, MS-SSIM, network at 0.003, balanced by four models": _of_colours(
        {"cim_similarity": "ms_ssim"}, changes=OWN_RATE
    ),
    "CIM, colours, cim_learning_rate 0.003, balanced by four models": _of_colours({"cim_learning_rate": 3e-3}),
}

_TILES = {**BALANCED, "references": REFERENCES["tiles, 300 steps"].references}
#: with those of ``cim-plugin train --cross_fit 300``, which see shuffled tiles
OF_TILES: dict[str, Row] = {
    "ERM, balanced by tiles": Row("ERM", **_TILES),
    "ERM, random composites, balanced by tiles": Row("ERM", **_TILES, changes={"random_composites": 0.7}),
    **{
        name.replace("four models", "tiles"): replace(row, references=_TILES["references"])
        for name, row in OWN_NETWORK_RATE.items()
    },
    "CIM, colours, cim_learning_rate 0.003, balanced by tiles": _of_colours(
        {"cim_learning_rate": 3e-3}, references=_TILES["references"]
    ),
    "ERM, figure only, balanced by tiles": Row("ERM", **_TILES, changes={"figure_only": True}),
    "groupDRO, chosen by tiles": Row("groupDRO", references=_TILES["references"]),
}

#: where the host's optimizer is SGD
SGD: dict[str, Row] = {
    "ERM, balanced by four models": Row("ERM", **_FOUR, learning_rate=0.1, changes={"sgd": "all"}),
    "CIM, colours, network by Adam": _of_colours(learning_rate=0.1, changes={"sgd": "encoder"}),
    **{
        f"CIM, colours, network's rate {rate:g}": _of_colours(
            learning_rate=0.1, changes={"sgd": "all", "network_learning_rate": rate}
        )
        for rate in (1e-2, 1e-1)
    },
}

#: what a mask can win at most
CEILING: dict[str, Row] = {
    "ERM, figure only, balanced by four models": Row("ERM", **_FOUR, changes={"figure_only": True})
}

#: word of --rows -> its rows
GROUPS: dict[str, dict[str, Row]] = {
    "table": {
        **{name: MAIN[name] for name in ("ERM", "CIM", "CIM, λ=0", "CIM_VIB", "groupDRO")},
        **{
            name: FOUR_MODELS[name]
            for name in ("ERM, balanced by four models", "ERM, random composites, balanced by four models")
        },
        **OWN_NETWORK_RATE,
        **CEILING,
    },
    "main": MAIN,
    "further": FURTHER,
    "ablations": {f"ablation: {name}": row for name, row in ABLATIONS.items()},
    "four_models": FOUR_MODELS,
    "network_at_0.003": OWN_NETWORK_RATE,
    "like_for_like": LIKE_FOR_LIKE,
    "tiles": OF_TILES,
    "sgd": {f"SGD: {name}": row for name, row in SGD.items()},
    "ceiling": CEILING,
    "colours_ablations": {f"colours: {name}": row for name, row in COLOURS_ABLATIONS.items()},
    "references": {f"references: {name}": row for name, row in REFERENCES.items()},
}
ROWS = {name: row for group in GROUPS.values() for name, row in group.items()}
