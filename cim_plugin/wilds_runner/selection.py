"""Rules that name one epoch of a training run. All are recorded from the same run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Mapping, NamedTuple

from ..errors import InputError
from ..runs import rules as words
from .evaluation import Outcome

Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Rule:
    """One way to choose an epoch: the first with the highest score."""

    score: Callable[
        [Outcomes, int], "float | None"
    ]  #: (outcome per split, epoch) -> score; None where the dataset cannot give it
    meaning: str
    needs: str  #: what the rule looks at that a user may not have

    def applies(self, outcomes: Outcomes) -> bool:
        return self.score(outcomes, 0) is not None


def _test(outcomes: Outcomes) -> float | None:
    if "test" not in outcomes:
        return None
    worst = outcomes["test"].worst_group_metric
    return outcomes["test"].accuracy if worst is None else worst


#: rule -> its score; worst_class is as good as groups for Yang et al. (2023, arXiv:2302.12254), worst_pseudo_group is
#: that of XRM (Pezeshki et al., 2024, arXiv:2309.16748)
SCORES: dict[str, Callable[[Outcomes, int], "float | None"]] = {
    "worst_group": lambda o, epoch: o["val"].worst_group_metric,
    "average": lambda o, epoch: o["val"].accuracy,
    "worst_class": lambda o, epoch: o["val"].worst_class_accuracy,
    "worst_pseudo_group": lambda o, epoch: o["val"].worst_pseudo_group_accuracy,
    "last": lambda o, epoch: float(epoch),
    "oracle": lambda o, epoch: _test(o),
}

#: name -> rule. "best" (by --val_metric, as run_expt names its files) is added per run by :func:`rules`.
RULES: dict[str, Rule] = {name: Rule(score, *words.RULES[name]) for name, score in SCORES.items()}


def rules(val_metric: str, decreasing: bool) -> dict[str, Rule]:
    """All rules of a run; "best" goes by ``val_metric``.

    Raises:
        InputError: when scored, if the evaluator has no such metric.
    """

    def score(outcomes: Outcomes, epoch: int) -> float:
        metrics = outcomes["val"].metrics
        if val_metric not in metrics:
            raise InputError(
                f"--val_metric {val_metric!r} is not among the metrics of this dataset: {', '.join(metrics)}"
            )
        return -metrics[val_metric] if decreasing else metrics[val_metric]

    best = Rule(
        score, f"{val_metric} on validation data, {'lowest' if decreasing else 'highest'}", "what that metric needs"
    )
    return {"best": best, **RULES}


class Chosen(NamedTuple):
    """What a rule has chosen so far."""

    epoch: int
    score: float


def choose(
    rules: Mapping[str, Rule], so_far: Mapping[str, Chosen], outcomes: Outcomes, epoch: int
) -> dict[str, Chosen]:
    """The choices after an epoch: a strictly higher score replaces the earlier one; NaN never does."""
    chosen = dict(so_far)
    for name, rule in rules.items():
        score = rule.score(outcomes, epoch)
        if score is not None and not math.isnan(score) and (name not in chosen or score > chosen[name].score):
            chosen[name] = Chosen(epoch, score)
    return chosen
