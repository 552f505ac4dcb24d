"""The selection rules of ``cim-plugin train``, each of which names one epoch of a run."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """In words."""

    meaning: str
    needs: str  #: what it looks at that a user may not have

    def __str__(self) -> str:
        return f"{self.meaning} (needs {self.needs})"


RULES = {
    "worst_group": Rule("worst-group accuracy on validation data", "group labels of validation data"),
    "average": Rule("average accuracy on validation data", "no group labels"),
    "worst_class": Rule("worst-class accuracy on validation data", "no group labels"),
    "worst_pseudo_group": Rule(
        "worst accuracy over (label, whether the pseudo-environment agrees) on validation data (--cross_fit, JTT), or "
        "over (label, pseudo-environment) (--pseudo_environments)",
        "no group labels",
    ),
    "last": Rule("the last epoch", "nothing"),
    "best": Rule("--val_metric on validation data", "what that metric needs"),
    "oracle": Rule(
        "worst-group accuracy on TEST data (average where there are no groups)",
        "test labels: not a selection that may be reported",
    ),
}
