"""Pseudo-environments: folds, agreement beyond chance, the number of steps, and what is taken for what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cim_plugin.algorithms import pseudo_environments
from cim_plugin.algorithms.pseudo_environments import (
    PATIENCE,
    STEPS,
    Look,
    agreement,
    choose_steps,
    chosen,
    cross_fit,
    flagged_shares,
    folds,
    pseudo_groups,
    sample,
)
from cim_plugin.algorithms.reference_models import ReferenceModels, balanced_draws


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- cells and shares -------------------------------------------------------------------------------------------------


def test_groups_are_cells_of_label_and_agreement():
    labels, environments = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 2, 1, 0, 2])
    assert pseudo_groups(labels, environments).tolist() == [0, 1, 2, 3, 4]


def test_shares_are_counted_class_by_class():
    labels, environments = torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([0, 1, 0, 2, 2, 0])
    shares = flagged_shares(labels, environments, 4).tolist()
    assert shares[0] == 0.5 and shares[2] == 0.5 and np.isnan(shares[1]) and np.isnan(shares[3])


@pytest.mark.parametrize("sizes", [[1900, 100], [850, 150], [5000, 800, 30], [1 + n for n in range(182)]])
def test_folds_share_every_class_equally(sizes):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator(1))]
    for n_folds in (2, 3):
        fold = folds(labels, generator(), n_folds)
        counts = torch.stack(
            [torch.bincount(labels[fold == number], minlength=len(sizes)) for number in range(n_folds)]
        )
        assert counts.sum(0).tolist() == sizes and (counts.max(0).values - counts.min(0).values).max() <= 1
        assert not torch.equal(fold, folds(labels, generator(5), n_folds))


# --- agreement --------------------------------------------------------------------------------------------------------


def _reference_agreement(labels, first, second) -> float:
    """Counted image by image: over classes, the sum of what is beyond chance by the sum of what could be."""
    beyond, possible = 0.0, 0.0
    for label in set(labels):
        flags = [(a != label, b != label) for y, a, b in zip(labels, first, second) if y == label]
        equal = sum(a == b for a, b in flags) / len(flags)
        one, two = (sum(column) / len(flags) for column in zip(*flags))
        chance = one * two + (1 - one) * (1 - two)
        beyond, possible = beyond + equal - chance, possible + 1 - chance
    return beyond / possible


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_cohens_kappa_within_classes_of_equal_weight(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, 500, p=[0.8, 0.15, 0.04, 0.01])
    first = np.where(rng.random(500) < 0.2, rng.integers(0, 4, 500), labels)
    second = np.where(rng.random(500) < 0.5, first, np.where(rng.random(500) < 0.1, 3, labels))
    found = agreement(*map(torch.from_numpy, (labels, first, second)))
    assert found == pytest.approx(_reference_agreement(labels.tolist(), first.tolist(), second.tolist()))


def test_agreement_is_1_of_equals_0_by_chance_and_0_where_nothing_or_everything_is_flagged():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.choice(2, 100_000, p=[0.95, 0.05]))
    one, two = (torch.where(torch.from_numpy(rng.random(100_000) < 0.3), 1 - labels, labels) for _ in range(2))
    assert agreement(labels, one, one) == 1
    assert abs(agreement(labels, one, two)) < 0.02
    assert agreement(labels, labels, labels) == 0
    assert agreement(labels, 0 * labels, 0 * labels) == 0  # all of one class


# --- the number of steps ----------------------------------------------------------------------------------------------


class Scripted:
    """Models whose looks are written down; it records what is asked of it."""

    def __init__(self, agreements: list[float]):
        self.agreements, self.steps, self.kept, self.restored = agreements, 0, None, None

    def train(self, start, stop):
        assert start == self.steps
        self.steps = stop

    def look(self):
        return self.agreements[STEPS.index(self.steps)], 0.25

    def keep(self):
        self.kept = self.steps

    def restore(self):
        self.restored = self.kept


def _after(agreements: list[float]) -> tuple[list[Look], Scripted]:
    models = Scripted([*agreements, *[0.0] * (len(STEPS) - len(agreements))])
    return choose_steps(models, models.look), models


@pytest.mark.parametrize(
    "agreements, place",
    [
        ([0.1, 0.5, 0.9, 0.5], 2),
        ([0.1, 0.9, 0.5, 0.91, 0.2], 3),
        ([0.1, 0.9, 0.5, 0.885, 0.2], 3),  # as good, and later
        ([0.1, 0.9, 0.5, 0.875, 0.2], 1),
        ([0.1, 0.9, 0.2, 0.2, 0.2, 0.95], 5),  # the last look that patience allows
        ([0.0], 4),  # nothing is ever flagged by both: no look is better than the first
        ([0.1 + number / 10 for number in range(len(STEPS))], len(STEPS) - 1),
    ],
)
def test_the_models_go_back_to_the_last_look_that_is_as_good_as_the_best(agreements, place):
    curve, models = _after(agreements)
    assert models.restored == chosen(curve).steps == STEPS[place] or agreements == [0.0]
    assert models.restored == chosen(curve).steps
    assert [look.steps for look in curve] == list(STEPS[: len(curve)])


def test_training_ends_when_no_look_was_better_for_long_and_never_takes_more_than_the_last_number():
    curve, models = _after([0.1, 0.9])
    assert len(curve) == 2 + PATIENCE and models.steps == STEPS[1 + PATIENCE]
    curve, models = _after([0.1 + number / 10 for number in range(len(STEPS))])
    assert models.steps == STEPS[-1] == 640


@pytest.mark.parametrize("n", [300, 2_000, 160_000])
def test_a_look_reads_no_more_of_a_large_data_set(n):
    labels = (torch.arange(n) % 20 == 0).long()
    rows = sample(labels, generator())
    assert len(rows) == len(set(rows.tolist())) <= pseudo_environments.SAMPLE
    counts = torch.bincount(labels[rows])
    assert counts[1] == min(n // 20, pseudo_environments.SAMPLE // 2)


def test_a_look_at_182_classes_has_some_of_each():
    labels = torch.repeat_interleave(torch.arange(182), torch.arange(182) + 1)
    counts = torch.bincount(labels[sample(labels, generator())])
    assert counts.tolist() == [min(number + 1, pseudo_environments.SAMPLE // 182) for number in range(182)]


# --- what is taken for what -------------------------------------------------------------------------------------------


class Told:
    """Models that say what they are told, by number: (rows of train -> probabilities, those of val)."""

    def __init__(self, of_train, of_val):
        self.of_train, self.of_val, self.asked = of_train, of_val, []

    def __len__(self):
        return len(self.of_val)

    def train(self, start, stop):
        self.asked.append(("train", start, stop))

    def probabilities(self, numbers, split, rows):
        self.asked.append((split, list(numbers), rows.tolist()))
        if split == "val":
            return torch.stack([torch.tensor(self.of_val[number]) for number in numbers]).mean(0)
        return torch.stack([F.one_hot(self.of_train(number)[rows], 3).double() for number in numbers]).mean(0)


def test_every_row_has_the_class_that_the_models_of_the_other_folds_give_it():
    labels, fold = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 0, 2, 0, 1])
    of_val = [[[0.6, 0.4, 0.0], [0.1, 0.5, 0.4]], *[[[0.4, 0.6, 0.0], [0.5, 0.1, 0.4]]] * 2]
    models = Told(lambda number: (labels + number) % 3, of_val)
    found = cross_fit(models, labels, torch.tensor([0, 0]), fold, 7, generator())
    assert models.asked[0] == ("train", 0, 7) and found.steps == 7 and found.curve == []
    assert [asked for asked in models.asked if asked[0] == "train"][1:] == [
        ("train", [0], [1, 3]),
        ("train", [1], [0, 4]),
        ("train", [2], [2]),
    ]
    assert found.train.tolist() == [1, 1, 1, 0, 2]
    assert found.val.tolist() == [1, 2]  # by the sums 1.4, 1.6, 0 and 1.1, 0.7, 1.2: no fold alone says 2


# --- with models that learn -------------------------------------------------------------------------------------------


def _made(share: float, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (n, 12) in which a nuisance, tied to the label in 95% of every class, is easier than the label;
    labels, of which a share is 1, and nuisances.
    """
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < share).astype(int)
    nuisance = np.where(rng.random(n) < 0.95, labels, 1 - labels)
    features = rng.normal(size=(n, 12))
    features[:, 0] += 6 * nuisance - 3
    features[:, 1] += labels - 0.5
    return torch.tensor(features, dtype=torch.float32), torch.from_numpy(labels), torch.from_numpy(nuisance)


def _found(share: float, steps: int | None, draws=balanced_draws, n: int = 3000):
    features, labels, nuisance = _made(share, n, 0)
    of_val, val_labels, _ = _made(share, 1000, 1)
    fold, images = folds(labels, generator()), {"train": features, "val": of_val}
    models, stepping, rows = [], [], []
    for number in range(4):
        torch.manual_seed(number)
        models.append(nn.Linear(12, 2))
        optimizer = torch.optim.AdamW(models[-1].parameters(), lr=1e-2)

        def step(loss, optimizer=optimizer):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        stepping.append(step)
        of_model = torch.nonzero(fold != number // 2).flatten()
        rows.append(draws(labels, of_model, (steps or STEPS[-1], 32), generator(number)))
    references = ReferenceModels(
        models, stepping, rows, labels, lambda split, batches, seeds: (images[split][part] for part in batches)
    )
    found = cross_fit(references, labels, val_labels, fold, steps, generator())
    flagged = found.train != labels
    return found, {
        (label, tied): flagged[(labels == label) & ((nuisance == label) == tied)].double().mean().item()
        for label in (0, 1)
        for tied in (True, False)
    }


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_of_a_small_class_the_rare_images_are_flagged_and_not_the_common_ones(share):
    def uniform(labels, rows, shape, generator):
        return rows[torch.randint(len(rows), shape, generator=generator)]

    _, before = _found(share, 300, uniform)
    _, after = _found(share, 300)
    assert before[1, True] > 0.08 and after[1, True] < before[1, True] / 4
    assert before[0, False] < 0.8 and after[0, False] > 0.85
    assert after[0, True] < 0.05 and after[1, False] > 0.8


@pytest.mark.parametrize("share, n", [(0.05, 3000), (0.15, 3000), (0.03, 1000), (0.5, 40_000)])
@pytest.mark.slow
def test_the_number_of_steps_is_chosen_where_rare_images_are_found(share, n):
    """One share leaves a class of 30 images."""
    found, shares = _found(share, None, n=n)
    assert found.steps == chosen(found.curve).steps and len(found.train) == n
    assert shares[0, False] > 0.85 and shares[1, False] > 0.8 and shares[0, True] < 0.1 and shares[1, True] < 0.1
