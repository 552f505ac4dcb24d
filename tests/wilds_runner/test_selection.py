"""Selection rules on outcomes that are written by hand."""

from __future__ import annotations

import math

import pytest

from cim_plugin.errors import InputError
from cim_plugin.wilds_runner.evaluation import Outcome
from cim_plugin.wilds_runner.selection import Chosen, choose, rules

NAN = math.nan


def outcome(
    worst_group: float | None = 0.5,
    accuracy: float = 0.7,
    classes: tuple = (0.6, 0.8),
    name: str = "acc_wg",
    **more: float,
) -> Outcome:
    metrics = {**more, **({} if worst_group is None else {name: worst_group})}
    return Outcome(metrics, "", accuracy, list(classes), [], [])


def chosen_epochs(epochs: list[dict], val_metric: str = "acc_wg", decreasing: bool = False) -> dict[str, int]:
    table, so_far = rules(val_metric, decreasing), {}
    for epoch, outcomes in enumerate(epochs):
        so_far = choose(table, so_far, outcomes, epoch)
    return {name: chosen.epoch for name, chosen in so_far.items()}


def test_every_rule_goes_by_its_own_number():
    epochs = [
        {"val": outcome(0.1, 0.5, (0.3, 0.4), loss=4.0), "test": outcome(0.2, 0.9)},
        {"val": outcome(0.6, 0.5, (0.3, 0.4), loss=3.0), "test": outcome(0.1, 0.9)},
        {"val": outcome(0.2, 0.9, (0.3, 0.4), loss=2.0), "test": outcome(0.1, 0.9)},
        {"val": outcome(0.2, 0.5, (0.5, 0.6), loss=1.0), "test": outcome(0.1, 0.9)},
        {"val": outcome(0.2, 0.5, (0.1, 0.9), loss=1.5), "test": outcome(0.3, 0.1)},
        {"val": outcome(0.2, 0.5, (0.1, 0.9), loss=1.5), "test": outcome(0.1, 0.1)},
    ]
    expected = {"worst_group": 1, "average": 2, "worst_class": 3, "oracle": 4, "last": 5}
    assert chosen_epochs(epochs) == {"best": 1, **expected}
    assert chosen_epochs(epochs, "loss", decreasing=True) == {"best": 3, **expected}
    assert chosen_epochs(epochs, "loss") == {"best": 0, **expected}


@pytest.mark.parametrize(
    "scores, epoch",
    [
        ([0.5, 0.5, 0.5], 0),
        ([0.1, 0.5, 0.5], 1),
        ([0.5, 0.4, 0.5000001], 2),
        ([NAN, 0.1, NAN], 1),
        ([0.3, NAN, 0.2], 0),
        ([0.0, NAN], 0),
        ([-math.inf, 0.1], 1),
    ],
)
def test_only_a_strictly_higher_score_replaces_and_nan_never_does(scores, epoch):
    assert chosen_epochs([{"val": outcome(score)} for score in scores])["worst_group"] == epoch


def test_a_score_that_is_always_nan_chooses_nothing():
    assert not {"worst_group", "best"} & set(chosen_epochs([{"val": outcome(NAN)}] * 3))


@pytest.mark.parametrize("decreasing, epoch", [(False, 2), (True, 1)])
def test_a_decreasing_metric_is_best_where_it_is_lowest(decreasing, epoch):
    epochs = [{"val": outcome(loss=value)} for value in (2.0, 1.0, 3.0, 1.0)]
    assert chosen_epochs(epochs, "loss", decreasing)["best"] == epoch


def test_rules_that_do_not_apply_are_absent():
    without_groups = {"val": outcome(None, acc_avg=0.7)}
    assert set(chosen_epochs([without_groups], "acc_avg")) == {"best", "average", "worst_class", "last"}
    table = rules("acc_avg", False)
    assert [name for name, rule in table.items() if not rule.applies(without_groups)] == [
        "worst_group",
        "worst_pseudo_group",
        "oracle",
    ]


def test_the_worst_region_of_fmow_is_its_worst_group():
    epochs = [{"val": outcome(value, name="acc_worst_region")} for value in (0.1, 0.4, 0.2)]
    assert chosen_epochs(epochs, "acc_worst_region")["worst_group"] == 1


def test_without_groups_the_oracle_goes_by_average_test_accuracy():
    epochs = [{"val": outcome(), "test": outcome(None, accuracy)} for accuracy in (0.2, 0.9, 0.3)]
    assert chosen_epochs(epochs)["oracle"] == 1


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(InputError) as error:
        choose(rules("acc_avgg", False), {}, {"val": outcome(adj_acc_avg=0.5)}, 0)
    assert str(error.value) == "--val_metric 'acc_avgg' is not among the metrics of this dataset: adj_acc_avg, acc_wg"


def test_choosing_leaves_the_earlier_choices_as_they_were():
    so_far = {"worst_group": Chosen(0, 0.1)}
    after = choose(rules("acc_wg", False), so_far, {"val": outcome(0.9)}, 1)
    assert so_far == {"worst_group": Chosen(0, 0.1)}
    assert after["worst_group"] == Chosen(1, 0.9)


def test_only_the_oracle_looks_at_test_data():
    train_only = [{"val": outcome(0.5), "test": outcome(score)} for score in (0.1, 0.9)]
    flipped = [{"val": outcome(0.5), "test": outcome(score)} for score in (0.9, 0.1)]
    first, second = chosen_epochs(train_only), chosen_epochs(flipped)
    assert {name for name in first if first[name] != second[name]} == {"oracle"}
