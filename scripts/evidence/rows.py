"""The rows of the table of subgroups: flags of ``cim-plugin train``, or a retraining of another row's run."""

from __future__ import annotations

from typing import NamedTuple

PLAIN, BALANCED, OWN = "plain", "balanced", "own"


class Row(NamedTuple):
    """One row."""

    says: str  #: what it is, in the table
    flags: str = ""  #: of cim-plugin train
    #: how the batches of pseudo-environments are made that all runs of a seed share: :data:`PLAIN`, as without them,
    #: they only choose epoch and rate, and serve pairs; :data:`BALANCED` by them; :data:`OWN`: the algorithm finds its
    #: own
    batches: str = PLAIN
    #: --method and its flags, and the row whose run is retrained so
    retrain: tuple[str, str] | None = None
    uses_groups: bool = False  #: looks at the group of training images, or of validation images beside selection
    figures_only: bool = False  #: sees images whose ground is black, by the release's masks

    @property
    def algorithm(self) -> str:
        return self.flags.split()[0]

    @property
    def morphs(self) -> bool:
        """Whether it has a mask m."""
        return self.algorithm.startswith("CIM") or (self.retrain is not None and self.retrain[0].startswith("split"))


ROWS: dict[str, Row] = {
    "ERM": Row("ERM", "ERM"),
    "ERM-balanced": Row("ERM on balanced batches", "ERM", BALANCED),
    "JTT": Row("JTT", "JTT", OWN),
    "CnC": Row("CnC on balanced batches", "CnC", BALANCED),
    "AFR": Row("AFR: the head of ERM fitted again", "ERM", retrain=("afr", "ERM")),
    "DFR": Row("DFR: the head of ERM fitted again", "ERM", retrain=("dfr", "ERM"), uses_groups=True),
    "pseudo-head": Row(
        "the head of ERM on balanced batches fitted again by pseudo-groups",
        "ERM",
        BALANCED,
        retrain=("pseudo", "ERM-balanced"),
    ),
    "groupDRO": Row("group DRO", "groupDRO", uses_groups=True),
    "groupDRO-pseudo": Row("group DRO on pseudo-groups", "groupDRO --groups pseudo", BALANCED),
    "VIB": Row("VIB, β=0.001", "VIB --vib_beta 1e-3"),
    "VIB-1": Row("VIB, β=1", "VIB --vib_beta 1"),
    "SCL_E2E": Row("SCL_E2E", "SCL_E2E"),
    "CIM": Row("CIM", "CIM"),
    "CIM-contrastive": Row("CIM, m trained by L_con alone", "CIM --cim_gradient contrastive"),
    "CIM-0": Row("CIM, λ=0", "CIM --cim_lambda 0"),
    "CIM-colours": Row(
        "CIM by colours on balanced batches",
        "CIM --cim_similarity colours --cim_targets morphed --cim_pairs cross_environment --cim_learning_rate 0.003",
        BALANCED,
    ),
    "CIM_VIB": Row("CIM_VIB", "CIM_VIB"),
    "CIM_VIB-contrastive": Row("CIM_VIB, m trained by L_con alone", "CIM_VIB --cim_gradient contrastive"),
    "CIM_VIB-1": Row("CIM_VIB, β=1", "CIM_VIB --vib_beta 1"),
    "CIM_VIB-0": Row("CIM_VIB, λ=0", "CIM_VIB --cim_lambda 0"),
    "recommended": Row("a mask over maps of ERM, `split`", "ERM", retrain=("split", "ERM")),
    "recommended-0": Row("the same, λ=0: by the class alone", "ERM", retrain=("split --split_weight 0", "ERM")),
    "maps": Row("a head on the same maps, no mask", "ERM", retrain=("maps", "ERM")),
    "figures-only": Row("the birds on black, balanced batches: the ceiling", "ERM", BALANCED, figures_only=True),
}


def with_bases(names: list[str]) -> list[str]:
    """The rows in the order of the table, with those whose runs they start from."""
    bases = {row.retrain[1] for name in names if (row := ROWS[name]).retrain is not None}
    return [name for name in ROWS if name in bases.union(names)]
