"""Last layers fitted to frozen features: logistic regression on balanced subsets, or with weights. Arrays in and out.

Deep feature reweighting (Kirichenko et al., 2023, arXiv:2204.02937): a network that was trained by plain risk
minimisation has features of the figure, too; its last layer, fitted again where groups are equally large, goes by them.
Automatic feature reweighting (Qiu et al., 2023, arXiv:2306.11074): no groups, images count the more the less the
network believed their label. What differs here: the penalty of the former is squared, not absolute.
"""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from ..errors import InputError

SUBSETS = 20  #: balanced subsets whose heads are averaged, as in the code of Kirichenko et al.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  #: of a squared weight beside the mean loss, of balanced subsets
DOUBTS = (0.0, 1.0, 2.0, 4.0, 8.0)  #: gamma of automatic feature reweighting; at 0 only classes are balanced


class Head(NamedTuple):
    """logits = features @ weight.T + bias."""

    weight: np.ndarray  #: (K, F) float64
    bias: np.ndarray  #: (K,) float64

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> (N, K)."""
        return features @ self.weight.T + self.bias


class Scale(NamedTuple):
    """How features are standardised."""

    mean: np.ndarray  #: (F,)
    std: np.ndarray  #: (F,), positive

    @classmethod
    def of(cls, features: np.ndarray) -> Scale:
        """That of features (N, F); what is constant stays as it is."""
        std = features.std(0)
        return cls(features.mean(0), np.where(std > 1e-12, std, 1.0))

    def apply(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) / self.std

    def inside(self, head: Head) -> Head:
        """The head on standardised features that gives what ``head`` gives on raw ones."""
        return Head(head.weight * self.std, head.bias + head.weight @ self.mean)

    def outside(self, head: Head) -> Head:
        """The head on raw features that gives what ``head`` gives on standardised ones."""
        weight = head.weight / self.std
        return Head(weight, head.bias - weight @ self.mean)


def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: float, start: Head) -> Head:
    """Minimise sum of weights · cross-entropy + penalty/2 · |weight - that of ``start``|², from ``start`` on. Convex.

    Args:
        features: (N, F) float64.
        labels: (N,) whole numbers in [0, K).
        weights: (N,), at least 0, of sum 1.
        penalty: above 0.
        start: K classes on F features; its bias is not held.
    """
    from scipy.optimize import minimize

    n_classes, n_features = start.weight.shape
    rows = np.arange(len(labels))

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        head = _unpacked(values, n_classes, n_features)
        logits = head.logits(features)
        logits -= logits.max(1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(1))
        away = head.weight - start.weight
        loss = weights @ (log_sum - logits[rows, labels]) + penalty / 2 * (away**2).sum()
        slope = np.exp(logits - log_sum[:, None])
        slope[rows, labels] -= 1
        slope *= weights[:, None]
        return loss, np.concatenate([(slope.T @ features + penalty * away).ravel(), slope.sum(0)])

    found = minimize(objective, np.concatenate([start.weight.ravel(), start.bias]), jac=True, method="L-BFGS-B")
    return _unpacked(found.x, n_classes, n_features)


def _unpacked(values: np.ndarray, n_classes: int, n_features: int) -> Head:
    return Head(values[: n_classes * n_features].reshape(n_classes, n_features), values[n_classes * n_features :])


# --- balanced subsets: dfr and pseudo ---------------------------------------------------------------------------------


def fit_balanced(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    penalty: float,
    rng: np.random.Generator,
    n_subsets: int = SUBSETS,
) -> Head:
    """The mean of heads that are fitted to subsets in which every group is as large as the smallest one.

    Args:
        features: (N, F) float64, standardised.
        labels: (N,) whole numbers in [0, n_classes).
        groups: (N,) whole numbers, each of one class.
        penalty: see :func:`fit`.
        rng: draws the subsets.
    """
    start = Head(np.zeros((n_classes, features.shape[1])), np.zeros(n_classes))
    heads = []
    for rows in balanced_subsets(groups, rng, n_subsets):
        heads.append(fit(features[rows], labels[rows], np.full(len(rows), 1 / len(rows)), penalty, start))
    return Head(*(np.mean(parts, axis=0) for parts in zip(*heads)))


def balanced_subsets(groups: np.ndarray, rng: np.random.Generator, n_subsets: int) -> Iterator[np.ndarray]:
    """Rows of every group in equal number, that of the smallest, drawn without replacement."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    size = min(map(len, members))
    for _ in range(n_subsets):
        yield np.concatenate([rng.choice(rows, size, replace=False) for rows in members])


class Choice(NamedTuple):
    """What was tried and what was best."""

    head: Head  #: on raw features
    chosen: dict[str, float]  #: hyperparameters
    score: float  #: worst accuracy over the groups of the half that did not fit, with these
    split: Any = None  #: the mask below the head, a :class:`.split.Fitted`; None where features are the run's own


def balanced(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, n_classes: int, seed: int) -> Choice:
    """Kirichenko et al.'s: the penalty is the one whose head, fitted to one half of the images, is best in the worst
    group of the other; the head is then fitted to all of them.

    Args:
        features: (N, F), of images that the network was not trained on.
        labels: (N,) whole numbers in [0, n_classes).
        groups: (N,) whole numbers, each of one class.

    Raises:
        InputError: a class has no image, or a group has only one.
    """
    _check_classes(labels, n_classes)
    _check_groups(labels, groups)
    scale = Scale.of(features := features.astype(np.float64))
    standard, rng = scale.apply(features), np.random.default_rng(seed)
    one, other = halves(groups, rng)

    def head(rows: np.ndarray, penalty: float) -> Head:
        return fit_balanced(standard[rows], labels[rows], groups[rows], n_classes, penalty, rng)

    scores = [
        worst_accuracy(head(one, penalty).logits(standard[other]).argmax(1), labels[other], groups[other])
        for penalty in PENALTIES
    ]
    best = _last_of_the_best(scores)
    everything = np.arange(len(labels))
    return Choice(scale.outside(head(everything, PENALTIES[best])), {"penalty": PENALTIES[best]}, scores[best])


# --- weights: afr -----------------------------------------------------------------------------------------------------


def doubt_weights(log_probabilities: np.ndarray, labels: np.ndarray, gamma: float) -> np.ndarray:
    """Qiu et al.'s weights, of sum 1: those of an image grow by exp(-gamma · p), p the probability that the network
    gives its label; by the inverse of its class' size, too.

    Args:
        log_probabilities: (N, K) of the network.
        labels: (N,) whole numbers in [0, K).
    """
    p = np.exp(log_probabilities[np.arange(len(labels)), labels])
    weights = np.exp(-gamma * p) / np.bincount(labels)[labels]
    return weights / weights.sum()


def reweighted(features: np.ndarray, labels: np.ndarray, network: Head, seed: int) -> Choice:
    """Qiu et al.'s: a head that stays near the network's own, and is fitted with :func:`doubt_weights`. Gamma and the
    penalty are those that, fitted to one half of the images, are best in the worst of the cells (label, whether the
    network is right) of the other: the paper chooses by labels of groups.

    Args:
        features: (N, F), of images that the network was not trained on.
        labels: (N,) whole numbers.
        network: the head that the run has learnt.

    Raises:
        InputError: a class has no image.
    """
    n_classes = len(network.bias)
    _check_classes(labels, n_classes)
    logits = network.logits(features := features.astype(np.float64))
    cells = 2 * labels + (logits.argmax(1) != labels)
    log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    scale = Scale.of(features)
    standard, start = scale.apply(features), scale.inside(network)
    one, other = halves(cells, np.random.default_rng(seed))

    def head(rows: np.ndarray, gamma: float, penalty: float) -> Head:
        weights = doubt_weights(log_probabilities[rows], labels[rows], gamma)
        return fit(standard[rows], labels[rows], weights, penalty, start)

    tried = [(gamma, penalty) for gamma in reversed(DOUBTS) for penalty in PENALTIES]
    scores = [
        worst_accuracy(head(one, *values).logits(standard[other]).argmax(1), labels[other], cells[other])
        for values in tried
    ]
    best = _last_of_the_best(scores)
    gamma, penalty = tried[best]
    everything = np.arange(len(labels))
    return Choice(scale.outside(head(everything, gamma, penalty)), {"gamma": gamma, "penalty": penalty}, scores[best])


# --- what both need ---------------------------------------------------------------------------------------------------


def halves(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two halves of every group, the first not the smaller one."""
    rows = [rng.permutation(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    return tuple(np.concatenate([part[k::2] for part in rows]) for k in (0, 1))


def worst_accuracy(predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """The least accuracy over groups, in [0, 1]; all (N,)."""
    return min(float((predictions == labels)[groups == group].mean()) for group in np.unique(groups))


def _last_of_the_best(scores: Sequence[float]) -> int:
    """Of equal ones the last, which moves the head least."""
    return max(range(len(scores)), key=lambda number: (scores[number], number))


def _check_classes(labels: np.ndarray, n_classes: int) -> None:
    missing = np.flatnonzero(np.bincount(labels, minlength=n_classes) == 0)
    if len(missing):
        raise InputError(f"class {missing[0]} has no validation image, and no head can be fitted to it")


def _check_groups(labels: np.ndarray, groups: np.ndarray) -> None:
    numbers, counts = np.unique(groups, return_counts=True)
    if counts.min() < 2:
        label = labels[groups == numbers[counts.argmin()]][0]
        raise InputError(
            f"one of the groups of class {label} has a single validation image; two halves of every group are needed"
        )
