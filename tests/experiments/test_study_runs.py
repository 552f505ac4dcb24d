"""A run of the study: pseudo-environments, batches, steps and evaluations."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import torch
from interpreters import HERE
from torch import nn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("folds, models", [(2, 1), (5, 1), (2, 3)])
def test_every_image_is_predicted_by_models_that_have_not_seen_it(folds, models):
    from scripts.experiments.cross_fit import find_pseudo_environments
    from scripts.experiments.rows import References

    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)
    seen: list[set] = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(40))
            self.seen = (set(), set())
            seen.append(self.seen)

        def forward(self, x):
            self.seen[not torch.is_grad_enabled()].update(x.flatten().tolist())
            return torch.stack([x.flatten() * 0 + self.weight.sum() * 0, torch.ones(len(x))], 1)

    labels = torch.zeros(40, dtype=torch.int64)
    references = References(30, folds, models)
    predictions, others, *_ = find_pseudo_environments(
        Model, images, labels, images[:3] + 100, labels[:3], references, seed=0
    )
    assert predictions.tolist() == [1] * 40 and others.tolist() == [1] * 3
    of_models = [(trained, predicted - {100, 101, 102}) for trained, predicted in seen]
    assert len(of_models) == folds * models and all(not trained & predicted for trained, predicted in of_models)
    assert Counter(row for _, predicted in of_models for row in predicted) == {row: models for row in range(40)}


def test_models_of_tiles_train_and_predict_on_shuffled_images():
    from scripts.experiments.cross_fit import find_pseudo_environments
    from scripts.experiments.rows import References

    images = torch.arange(60 * 16, dtype=torch.int64).view(60, 1, 4, 4)
    seen = {True: [], False: []}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            seen[torch.is_grad_enabled()].append(x.flatten(1))
            return self.weight.expand(len(x), 2)

    labels = torch.zeros(60, dtype=torch.int64)
    find_pseudo_environments(Model, images, labels, images[:5], labels[:5], References(steps=3, tiles=4), seed=0)
    assert [sum(map(len, batches)) for batches in (seen[True], seen[False])] == [2 * 3 * 64, 60 + 2 * 5]
    for shown in (*seen[True], *seen[False]):
        assert torch.equal(shown.sort(1).values, images.flatten(1)[shown.min(1).values // 16])
        assert (shown.diff(dim=1) < 0).any(1).all()  # none is in order


def test_a_short_reference_finds_the_background(photos):
    from scripts.experiments.rows import References
    from scripts.experiments.training import pseudo_environments

    train = photos.splits["train"]
    pseudo = pseudo_environments(photos, 0, References())
    assert (pseudo.train == train.environments).double().mean() > 0.9
    assert (pseudo.val == photos.splits["val"].environments).double().mean() > 0.9


def test_balanced_batches_hold_rare_images_as_often_as_the_others(photos):
    from scripts.experiments.rows import Row
    from scripts.experiments.training import _chances

    train = photos.splits["train"]
    drawn = np.random.default_rng(0).choice(
        len(train.labels), 20_000, p=_chances(Row("ERM", balanced=True), train, train.environments, None)
    )
    shares = [
        ((train.labels == y) & (train.environments == e))[drawn].double().mean().item() for y in (0, 1) for e in (0, 1)
    ]
    assert shares == pytest.approx([0.25] * 4, abs=0.02)


def test_a_run_whose_loss_is_not_finite_ends_there(photos):
    from scripts.experiments.rows import Row
    from scripts.experiments.training import Pseudo, run

    pseudo = Pseudo(photos.splits["train"].environments, photos.splits["val"].environments)
    result = run(photos, Row("ERM", learning_rate=1e38), 0, 10, pseudo)
    assert (
        result["steps"] < 10 and result["config"]["steps"] == 10 and len(result["curve"]) == max(1, result["steps"] - 1)
    )


@pytest.mark.parametrize(
    "steps, expected",
    [
        (1000, list(range(100, 1001, 100))),
        (1005, [100, 201, 301, 402, 502, 603, 703, 804, 904, 1005]),
        (2, [1, 2]),
        (1, [1]),
    ],
)
def test_the_end_of_training_is_evaluated(steps, expected):
    from scripts.experiments.training import evaluations

    assert evaluations(steps) == expected


def test_balanced_by_true_environments_draws_every_class_and_environment_as_often(photos):
    from scripts.experiments.rows import Row
    from scripts.experiments.training import _chances

    train = photos.splits["train"]
    others = torch.arange(len(train.labels)) % 3  # not numbered as classes
    chances = torch.from_numpy(_chances(Row("ERM", environments="true", balanced=True), train, others, None))
    assert [
        chances[(train.labels == y) & (others == e)].sum().item() for y in (0, 1) for e in (0, 1, 2)
    ] == pytest.approx([1 / 6] * 6)


def test_figures_only_are_black_beside_them_in_training_and_test(photos, monkeypatch):
    from scripts.experiments import training
    from scripts.experiments.rows import Row

    seen, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda task, *args: seen.append(task) or fit(task, *args))
    training.run(
        photos,
        Row("ERM", changes={"figure_only": True}),
        0,
        1,
        training.Pseudo(photos.splits["train"].labels, photos.splits["val"].labels),
    )
    for name, split in seen[0].splits.items():
        figure = split.figure[:, None].expand_as(split.images)
        assert not split.images[~figure].any() and torch.equal(split.images[figure], photos.splits[name].images[figure])


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(photos):
    train = photos.splits["train"]
    return train.images[:32].float() / 255, train.labels[:32], train.environments[:32]


def loss_and_gradient(photos, batch, changes: dict, **more):
    """Of the same weights and the same draws of triplets: the loss, and the gradient of the transformation network."""
    from scripts.experiments.rows import Row
    from scripts.experiments.steps import objective
    from scripts.experiments.training import build

    classifier = build(photos, Row("CIM", changes=changes, **more), 0, 0.5)
    torch.manual_seed(0)
    loss = objective(classifier, *batch, None, changes)
    loss.backward()
    return loss.item(), classifier.morphing.network.features[0].weight.grad


@pytest.mark.parametrize("changes", [{"pairs_per_anchor": 1}, {"hardest_of": 1}])
def test_a_change_that_changes_nothing_gives_the_shipped_loss(photos, batch, changes):
    loss, gradient = loss_and_gradient(photos, batch, changes)
    shipped, expected = loss_and_gradient(photos, batch, {})
    assert loss == pytest.approx(shipped, abs=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_detached_keeps_the_classifiers_gradient_from_the_network(photos, batch):
    _, gradient = loss_and_gradient(photos, batch, {"detached": True}, hyperparameters={"cim_lambda": 0.0})
    assert not gradient.any()
    _, gradient = loss_and_gradient(photos, batch, {}, hyperparameters={"cim_lambda": 0.0})
    assert gradient.any()


def test_random_masks_follow_from_the_image_and_have_the_mean(batch):
    from scripts.experiments.steps import RandomMask

    images = batch[0]
    mask = RandomMask(0.7)
    torch.testing.assert_close(mask(images)[:3], mask(images[:3]))
    assert mask(images).std() > 0.05
    for mean in (0.1, 0.5, 0.7, 0.95):
        assert RandomMask(mean)(images).mean().item() == pytest.approx(mean, abs=0.02)
    assert not torch.equal(mask(images)[0], mask(images)[1])


def test_the_networks_learning_rate_is_its_own(photos, monkeypatch):
    from scripts.experiments import training
    from scripts.experiments.rows import Row

    made, adamw = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **words: made.append(adamw(*args, **words)) or made[-1])
    pseudo = training.Pseudo(photos.splits["train"].environments, photos.splits["val"].environments)
    classifier, *_ = training.fit(
        photos, Row("CIM", changes={"network_learning_rate": 1e-3}, learning_rate=1e-2), 0, 1, pseudo
    )
    groups = [(group["initial_lr"], {id(weight) for weight in group["params"]}) for group in made[0].param_groups]
    network = {id(weight) for weight in classifier.morphing.parameters()}
    assert [rate for rate, _ in groups] == [1e-2, 1e-3] and groups[1][1] == network
    assert groups[0][1] == {id(weight) for weight in classifier.parameters()} - network


@pytest.mark.parametrize("who, moved", [("encoder", 1e-3), ("all", 0.0)])
def test_beside_sgd_the_network_has_adam_or_sgd_too(photos, who, moved):
    """One step at a rate of 0: what moves the network then is an Adam of its own."""
    from scripts.experiments import training
    from scripts.experiments.rows import Row

    row = Row("CIM", changes={"sgd": who}, learning_rate=0.0)
    pseudo = training.Pseudo(photos.splits["train"].environments, photos.splits["val"].environments)
    before = dict(training.build(photos, row, 0, None).named_parameters())
    classifier, *_ = training.fit(photos, row, 0, 1, pseudo)
    distances = {name: (weight - before[name]).abs().max().item() for name, weight in classifier.named_parameters()}
    network = {name for name in distances if name.startswith("morphing")}
    assert max(distances[name] for name in network) == pytest.approx(moved, rel=1e-2)
    assert not any(distance for name, distance in distances.items() if name not in network)


def test_the_hardest_of_several_draws_is_the_largest(photos, batch):
    from scripts.experiments.rows import Row
    from scripts.experiments.steps import ChangedContrast
    from scripts.experiments.training import build

    classifier = build(photos, Row("CIM"), 0, None)
    morphed = classifier.morphing(batch[0])
    torch.manual_seed(0)
    draws = torch.stack([classifier.contrast(morphed, *batch[1:])[0] for _ in range(3)])
    for changes, expected in (({"hardest_of": 3}, draws.amax(0)), ({"pairs_per_anchor": 3}, draws.mean(0))):
        torch.manual_seed(0)
        torch.testing.assert_close(ChangedContrast(classifier.contrast, **changes)(morphed, *batch[1:])[0], expected)


def test_rows_of_retired_options_say_why_they_cannot_be_trained(photos):
    from cim_plugin.errors import InputError
    from scripts.experiments.rows import ROWS
    from scripts.experiments.training import build

    past = [name for name, row in ROWS.items() if row.past]
    assert "CIM, composites, balanced" in past and not {"ERM", "CIM", "groupDRO"} & set(past)
    for name in past[:2]:
        with pytest.raises(InputError, match="is no more, since version 0.2"):
            build(photos, ROWS[name], 0, None)


def test_random_composites_have_their_mean_and_differ_from_image_to_image(batch):
    from scripts.experiments.steps import smooth_noise

    torch.manual_seed(0)
    masks = smooth_noise(batch[0].repeat(20, 1, 1, 1), 0.7)
    assert masks.mean().item() == pytest.approx(0.7, abs=0.05) and not torch.equal(masks[0], masks[1])


def made_up(run, folders, output_dir):
    """A run of no training."""
    return {"seed": run.seed}


def test_the_processes_of_a_study_run_on_a_cluster(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HERE / "experiments", HERE, HERE.parent))))
    from cim_plugin.runs.cluster.launcher import Cluster
    from cim_plugin.runs.cluster.settings import Settings
    from scripts.experiments.runs import Run, result
    from scripts.study import do_missing, make_parser

    runs = [Run("photos_95", "ERM", seed, 2) for seed in range(4)]
    args = make_parser().parse_args(["--jobs", "2"])
    cluster = Cluster(Settings("local", gpus=0, array=2), tmp_path)
    do_missing(args, made_up, runs, tmp_path, cluster.run)
    assert [result(tmp_path, run) for run in runs] == [{"seed": seed} for seed in range(4)]
    assert sorted(path.name for path in (tmp_path / "cluster").iterdir()) == ["process_0", "process_1", "submitit"]
