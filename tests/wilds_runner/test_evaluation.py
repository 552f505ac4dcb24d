"""Accuracies by class and by group against loops over the rows."""

from __future__ import annotations

import json

import pytest
import torch

from cim_plugin.wilds_runner.datasets import open_dataset
from cim_plugin.wilds_runner.evaluation import Outcome, as_record, evaluate


def _reference_accuracy(
    predictions: list[int], labels: list[int], kinds: list[int], n_kinds: int
) -> list[float | None]:
    cells = [[p == y for p, y, kind in zip(predictions, labels, kinds) if kind == k] for k in range(n_kinds)]
    return [sum(cell) / len(cell) if cell else None for cell in cells]


@pytest.fixture(params=["background y", "background", "y"])
def data(request, noise_config):
    return open_dataset(noise_config("--groupby_fields", *request.param.split()))


@pytest.mark.parametrize("key", ["train", "val", "test"])
def test_accuracies_equal_a_loop(data, key):
    split = data.splits[key]
    labels, groups = split.labels.tolist(), split.groups.tolist()
    predictions = [(row * 5) % 7 % 2 for row in range(len(labels))]
    outcome = evaluate(data, split, torch.tensor(predictions))
    assert outcome.accuracy == pytest.approx(sum(p == y for p, y in zip(predictions, labels)) / len(labels))
    assert outcome.class_accuracy == _reference_accuracy(predictions, labels, labels, 2)
    assert outcome.group_accuracy == _reference_accuracy(predictions, labels, groups, data.grouper.n_groups)
    assert outcome.group_count == [groups.count(g) for g in range(data.grouper.n_groups)]
    assert outcome.worst_class_accuracy == min(outcome.class_accuracy)


def test_groups_are_those_of_the_metadata(data):
    split = data.splits["train"]
    fields = [data.wilds.metadata_fields.index(field) for field in data.grouper.groupby_fields]
    cells = [tuple(row) for row in split.metadata[:, fields].tolist()]
    assert (
        len({(cell, group) for cell, group in zip(cells, split.groups.tolist())})
        == len(set(cells))
        == data.grouper.n_groups
    )


def test_metrics_are_the_evaluators_and_its_worst_group_is_named(noise):
    split = noise.splits["test"]
    outcome = evaluate(noise, split, torch.zeros_like(split.labels))
    metrics, text = noise.wilds.eval(torch.zeros_like(split.labels), split.labels, split.metadata)
    assert outcome.metrics == {name: pytest.approx(float(value)) for name, value in metrics.items()}
    assert outcome.text == text
    assert outcome.worst_group_metric == outcome.metrics["acc_wg"] == 0


def test_rows_in_another_order_are_the_same_evaluation(noise):
    split = noise.splits["val"]
    predictions = (torch.arange(len(split.labels)) % 2).long()
    order = torch.randperm(len(predictions), generator=torch.Generator().manual_seed(0))
    assert evaluate(noise, split, predictions[order], order) == evaluate(noise, split, predictions)


def test_some_rows_are_evaluated_alone_and_what_they_lack_is_none(noise):
    split = noise.splits["train"]
    rows = torch.nonzero(split.labels == 1).reshape(-1)[:4]
    outcome = evaluate(noise, split, torch.ones(4, dtype=torch.int64), rows)
    assert outcome.class_accuracy == [None, 1.0]
    assert sum(outcome.group_count) == 4
    assert [accuracy is None for accuracy in outcome.group_accuracy] == [count == 0 for count in outcome.group_count]
    assert outcome.worst_class_accuracy == 1.0


def test_an_evaluator_without_groups_has_no_worst_group():
    assert Outcome({"acc_avg": 0.5}, "", 0.5, [0.5], [], []).worst_group_metric is None


def test_the_record_is_json_and_leaves_empty_groups_out(noise):
    split = noise.splits["train"]
    rows = torch.nonzero(split.labels == 1).reshape(-1)
    record = as_record(noise, evaluate(noise, split, torch.ones(len(rows), dtype=torch.int64), rows))
    assert json.loads(json.dumps(record)) == record
    names = [name for name in noise.group_names() if "waterbird" in name]
    assert list(record["groups"]) == names and len(names) == 2
    assert [group["count"] for group in record["groups"].values()] == [5, 10]
