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


@pytest.mark.parametrize("models", [1, 3])
def test_every_image_is_predicted_by_models_that_have_not_seen_it(models):
    from scripts.experiments.cross_fit import References, find_pseudo_environments

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
    references = References(30, models)
    predictions, others, *_ = find_pseudo_environments(
        Model, images, labels, images[:3] + 100, labels[:3], references, seed=0
    )
    assert predictions.tolist() == [1] * 40 and others.tolist() == [1] * 3
    of_models = [(trained, predicted - {100, 101, 102}) for trained, predicted in seen]
    assert len(of_models) == 2 * models and all(not trained & predicted for trained, predicted in of_models)
    assert Counter(row for _, predicted in of_models for row in predicted) == {row: models for row in range(40)}


def test_models_of_tiles_train_and_predict_on_shuffled_images():
    from scripts.experiments.cross_fit import References, find_pseudo_environments

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
    from scripts.experiments.cross_fit import References
    from scripts.experiments.training import pseudo_environments

    pseudo = pseudo_environments(photos, 0, References())
    assert (pseudo == photos.splits["train"].environments).double().mean() > 0.9


def test_batches_hold_images_of_every_cell_as_often():
    from scripts.experiments.training import _chances

    cells = torch.tensor([0] * 950 + [1] * 30 + [2] * 20)
    drawn = cells[np.random.default_rng(0).choice(len(cells), 20_000, p=_chances(cells))]
    assert (drawn.bincount() / len(drawn)).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_a_run_whose_loss_is_not_finite_ends_there(photos):
    from scripts.experiments.rows import Row
    from scripts.experiments.training import run

    result = run(photos, Row("ERM", learning_rate=1e38), 0, 10, None)
    assert result["steps"] < 10 == result["config"]["steps"] and result["epochs"] == max(1, result["steps"] - 1)


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


def test_figures_only_are_black_beside_them_in_training_and_test(photos):
    from scripts.experiments import training
    from scripts.experiments.rows import Row

    few = {name: type(split)(*(part[:200] for part in split)) for name, split in photos.splits.items()}
    photos = photos._replace(splits=few)
    figures = photos.figure_only()
    of_row, of_figures, of_all = (
        training.run(task, Row("ERM", learning_rate=1e-2, figure_only=figure_only), 0, 20, None)["selection"]
        for task, figure_only in ((photos, True), (figures, False), (photos, False))
    )
    assert of_row == of_figures != of_all
    for name, split in figures.splits.items():
        figure = split.figure[:, None].expand_as(split.images)
        assert not split.images[~figure].any() and torch.equal(split.images[figure], photos.splits[name].images[figure])


def test_the_networks_learning_rate_is_its_own(photos, monkeypatch):
    from scripts.experiments import training
    from scripts.experiments.rows import Row

    made, adamw = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **words: made.append(adamw(*args, **words)) or made[-1])
    row = Row("CIM", network_learning_rate=1e-3, learning_rate=1e-2)
    classifier, *_ = training.fit(photos, row, 0, 1, None)
    groups = [(group["initial_lr"], {id(weight) for weight in group["params"]}) for group in made[0].param_groups]
    network = {id(weight) for weight in classifier.morphing.parameters()}
    assert [rate for rate, _ in groups] == [1e-2, 1e-3] and groups[1][1] == network
    assert groups[0][1] == {id(weight) for weight in classifier.parameters()} - network


def test_random_composites_have_their_mean_and_differ_from_image_to_image():
    from scripts.experiments.training import smooth_noise

    torch.manual_seed(0)
    masks = smooth_noise(torch.zeros(640, 3, 28, 28), 0.7)
    assert masks.mean().item() == pytest.approx(0.7, abs=0.05) and not torch.equal(masks[0], masks[1])


def made_up(run, folders):
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
