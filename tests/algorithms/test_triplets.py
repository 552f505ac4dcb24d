"""Triplets against their definition, one pair of images at a time; uniformity and independence by chi-square tests."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode

from cim_plugin.algorithms.triplets import draw_triplets

PAIRS = ["random", "cross_environment"]


def _reference_candidates(
    i: int, labels: list[int], environments: list[int], pairs: str
) -> tuple[list[int], list[int]]:
    """The rows that may be anchor i's positive and those that may be its negative, in words of the method."""
    positives, negatives = [], []
    for j in range(len(labels)):
        if j == i:
            continue
        elsewhere = environments[j] != environments[i]
        if labels[j] == labels[i] and (pairs == "random" or elsewhere):
            positives.append(j)
        if labels[j] != labels[i] and (pairs == "random" or not elsewhere):
            negatives.append(j)
    return positives, negatives


def _batch(n: int, n_classes: int, n_environments: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(n_classes, (n,)), torch.randint(n_environments, (n,))


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    "n, n_classes, n_environments", [(1, 2, 2), (2, 2, 1), (7, 2, 2), (8, 5, 3), (24, 2, 3), (40, 10, 2), (12, 1, 2)]
)
def test_every_row_is_a_candidate_by_definition(n, n_classes, n_environments, pairs):
    for _ in range(20):
        labels, environments = _batch(n, n_classes, n_environments)
        drawn = draw_triplets(labels, environments, pairs)
        for i, (positive, negative, valid) in enumerate(zip(*(part.tolist() for part in drawn))):
            positives, negatives = _reference_candidates(i, labels.tolist(), environments.tolist(), pairs)
            assert valid == (positives != [] and negatives != [])
            if valid:
                assert positive in positives and negative in negatives
            else:
                assert (positive, negative) == (i, i)


@pytest.mark.parametrize(
    "labels, environments",
    [
        ([3], [0]),
        ([0, 0, 0], [0, 1, 2]),
        ([0, 1, 2], [0, 0, 0]),
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([0, 0, 1, 1], [0, 0, 0, 0]),
    ],
    ids=["one image", "one class", "all classes different", "one class per environment", "one environment"],
)
def test_anchors_without_a_positive_or_a_negative_get_their_own_row(labels, environments):
    positive, negative, valid = draw_triplets(torch.tensor(labels), torch.tensor(environments), "cross_environment")
    assert positive.tolist() == negative.tolist() == list(range(len(labels)))
    assert not valid.any()


def test_an_anchor_without_a_triplet_does_not_touch_the_others():
    positive, negative, valid = draw_triplets(torch.tensor([0, 0, 1]))
    assert (positive.tolist(), negative.tolist(), valid.tolist()) == ([1, 0, 2], [2, 2, 2], [True, True, False])


def _draws(n: int, *arguments) -> list[list[list[int]]]:
    return [[part.tolist() for part in draw_triplets(*arguments)] for _ in range(n)]


@pytest.mark.parametrize("pairs", PAIRS)
def test_positive_and_negative_are_uniform_and_independent(pairs):
    labels, environments = [0, 0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1, 1, 1, 0]
    draws = _draws(3000, torch.tensor(labels), torch.tensor(environments), pairs)
    for i in range(len(labels)):
        cells = list(product(*_reference_candidates(i, labels, environments, pairs)))
        counts = Counter((positive[i], negative[i]) for positive, negative, _ in draws)
        assert set(counts) <= set(cells) and len(cells) > 1
        assert chisquare([counts[cell] for cell in cells]).pvalue > 1e-3


def test_anchors_of_one_class_draw_independently():
    draws = _draws(3000, torch.tensor([0, 0, 0, 1, 1, 1]))
    for part, rows in ((0, (1, 2)), (1, (3, 4, 5))):
        counts = Counter((parts[part][0], parts[part][1]) for parts in draws)
        cells = list(product(rows, (0, 2) if part == 0 else rows))
        assert chisquare([counts[cell] for cell in cells]).pvalue > 1e-3


def test_random_pairs_do_not_look_at_environments():
    labels, environments = _batch(32, 3, 4)
    drawn = []
    for given in (environments, None):
        torch.manual_seed(1)
        drawn.append(draw_triplets(labels, given, "random"))
    for with_environments, without in zip(*drawn):
        assert torch.equal(with_environments, without)


@pytest.mark.parametrize("pairs", PAIRS)
def test_draws_follow_torchs_seed(pairs):
    labels, environments = _batch(32, 2, 2)
    rows = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        rows.append(draw_triplets(labels, environments, pairs).positive)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_cross_environment_pairs_without_environments_are_refused():
    with pytest.raises(ValueError) as error:
        draw_triplets(torch.tensor([0, 1]), None, "cross_environment")
    assert (
        str(error.value)
        == "'cross_environment' pairs need the environment of every image; use 'random' where there is none"
    )


@pytest.mark.parametrize("pairs", PAIRS)
def test_nothing_synchronises(pairs, meta):
    labels, environments = (values.to(meta) for values in _batch(16, 3, 2))
    drawn = draw_triplets(labels, environments, pairs)
    assert [(part.shape, part.dtype, part.device.type) for part in drawn] == [
        ((16,), dtype, "meta") for dtype in (torch.int64, torch.int64, torch.bool)
    ]


class _CountOperations(TorchDispatchMode):
    n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.n += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("pairs", PAIRS)
def test_the_number_of_operations_does_not_grow_with_the_batch(pairs):
    counts = []
    for n in (2, 128):
        with _CountOperations() as operations:
            draw_triplets(*_batch(n, 4, 2), pairs)
        counts.append(operations.n)
    assert counts[0] == counts[1] > 0
