"""Heads against scikit-learn's logistic regression, weights and subsets by hand, and a made set with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cim_plugin.errors import InputError
from cim_plugin.retrain import heads
from cim_plugin.retrain.heads import Head, Scale


def _made(n: int = 1200, rare: float = 0.05, seed: int = 0):
    """Two classes; the first feature is the figure, the second, twice as large and less noisy, the ground, which goes
    with the label but for the share ``rare``; the third is constant. Features, labels, groups (2 per class).
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    is_rare = rng.random(n) < rare
    ground = np.where(is_rare, 1 - labels, labels)
    figure = 2 * labels - 1 + 0.5 * rng.normal(size=n)
    features = np.stack([figure, 4 * (2 * ground - 1) + 0.5 * rng.normal(size=n), np.full(n, 7.0)], 1)
    return features, labels, 2 * labels + is_rare


def _zeros(n_classes: int, n_features: int) -> Head:
    return Head(np.zeros((n_classes, n_features)), np.zeros(n_classes))


#: what a network has learnt that goes by the ground
BY_THE_GROUND = Head(np.array([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]]), np.zeros(2))


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_a_fit_is_scikit_learns_logistic_regression(penalty):
    rng = np.random.default_rng(1)
    features, labels, weights = rng.normal(size=(90, 4)), rng.integers(0, 3, 90), rng.random(90)
    weights /= weights.sum()
    expected = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(features, labels, weights)
    found = heads.fit(features, labels, weights, penalty, _zeros(3, 4))
    np.testing.assert_allclose(found.weight, expected.coef_, atol=2e-3)
    np.testing.assert_allclose(found.bias - found.bias.mean(), expected.intercept_, atol=2e-3)


def test_a_large_penalty_keeps_the_head_where_it_starts():
    features, labels, _ = _made()
    found = heads.fit(features, labels, np.full(len(labels), 1 / len(labels)), 1e6, BY_THE_GROUND)
    np.testing.assert_allclose(found.weight, BY_THE_GROUND.weight, atol=1e-4)


def test_heads_are_the_same_on_raw_and_on_standardised_features():
    rng = np.random.default_rng(2)
    features, head = rng.normal(3, 5, size=(20, 4)), Head(rng.normal(size=(3, 4)), rng.normal(size=3))
    scale = Scale.of(features)
    inside = scale.inside(head)
    np.testing.assert_allclose(inside.logits(scale.apply(features)), head.logits(features), atol=1e-9)
    np.testing.assert_allclose(scale.outside(inside).weight, head.weight, atol=1e-12)
    np.testing.assert_allclose(scale.outside(inside).bias, head.bias, atol=1e-9)


def test_balanced_subsets_hold_every_group_as_often_as_the_smallest():
    groups = np.repeat([5, 0, 3], [50, 7, 20])
    subsets = list(heads.balanced_subsets(groups, np.random.default_rng(0), 4))
    assert [np.bincount(groups[rows]).tolist() for rows in subsets] == [[7, 0, 0, 7, 0, 7]] * 4
    assert all(len(set(rows)) == 21 for rows in subsets)  # without replacement
    assert len({tuple(rows) for rows in subsets}) == 4


def test_the_weights_of_doubt():
    """exp(-gamma p) over the size of the class, of sum 1."""
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    expected = np.array([math.exp(-2 * 0.9) / 2, math.exp(-2 * 0.2) / 2, math.exp(-2 * 0.5)])
    found = heads.doubt_weights(np.log(p), np.array([0, 0, 1]), 2.0)
    np.testing.assert_allclose(found, expected / expected.sum())


def test_halves_share_every_group_out():
    groups = np.repeat([0, 1, 2], [9, 4, 1])
    one, other = heads.halves(groups, np.random.default_rng(0))
    assert sorted([*one, *other]) == list(range(14))
    assert np.bincount(groups[one]).tolist() == [5, 2, 1] and np.bincount(groups[other], minlength=3).tolist() == [
        4,
        2,
        0,
    ]


@pytest.mark.parametrize("method", ["balanced", "reweighted"])
def test_a_head_that_went_by_the_ground_goes_by_the_figure(method):
    features, labels, groups = _made()
    if method == "balanced":
        choice = heads.balanced(features, labels, groups, 2, seed=0)
    else:
        choice = heads.reweighted(features, labels, BY_THE_GROUND, seed=0)
    tests = _made(seed=1)
    before, after = (
        heads.worst_accuracy(head.logits(tests[0]).argmax(1), *tests[1:]) for head in (BY_THE_GROUND, choice.head)
    )
    assert before < 0.05 and after > 0.85
    assert 0 <= choice.score <= 1 and choice.chosen["penalty"] in heads.PENALTIES


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_head(seed):
    features, labels, groups = _made(200)
    one, other = (heads.balanced(features, labels, groups, 2, seed).head for _ in range(2))
    assert np.array_equal(one.weight, other.weight) and np.array_equal(one.bias, other.bias)


def test_a_class_or_a_group_that_is_too_small_is_said():
    features, labels, groups = _made(100)
    with pytest.raises(InputError, match="class 2 has no validation image"):
        heads.balanced(features, labels, groups, 3, 0)
    with pytest.raises(InputError, match="class 2 has no validation image"):
        heads.reweighted(features, labels, _zeros(3, 3), 0)
    groups[:] = 2 * labels
    groups[0] += 1
    with pytest.raises(InputError, match=f"one of the groups of class {labels[0]} has a single validation image"):
        heads.balanced(features, labels, groups, 2, 0)
