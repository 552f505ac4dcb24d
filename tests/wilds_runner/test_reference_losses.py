"""Saved models, and losses of runs against loops in plain torch."""

from __future__ import annotations

import copy
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_runs import (
    ALGORITHMS,
    RULES,
    model_path,
    prediction_path,
    prepared,
    read_csv,
    read_metadata,
    read_model,
    relative_files,
    results,
    rows_of_epochs,
    train,
)

from cim_plugin.algorithms.morphing import TransformationNetwork
from cim_plugin.models.encoders import SmallCNN

# --- what a saved model is --------------------------------------------------------------------------------------------


def pixels(release, split: str) -> torch.Tensor:
    """(N, 3, 28, 28) float in [0, 1], the images of a split, read by Pillow alone."""
    folder = release / "waterbirds_v1.0"
    names = [
        row["img_filename"]
        for row in read_metadata(folder)
        if row["split"] == str(["train", "val", "test"].index(split))
    ]
    return torch.tensor(np.stack([np.asarray(Image.open(folder / name)) for name in names])).permute(0, 3, 1, 2) / 255


def labels_and_groups(release, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [
        row
        for row in read_metadata(release / "waterbirds_v1.0")
        if row["split"] == str(["train", "val", "test"].index(split))
    ]
    return torch.tensor([int(row["y"]) for row in rows]), torch.tensor(
        [2 * int(row["y"]) + int(row["place"]) for row in rows]
    )


class ReferenceModel(torch.nn.Module):
    """The classifiers of all algorithms, written out: an optional mask, ImageNet's normalisation, features, an optional
    mean code, logits.
    """

    def __init__(self, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.backbone, self.head = SmallCNN(), torch.nn.Linear(weights["head.weight"].shape[1], 2)
        parts = {"backbone": "encoder.1.", "head": "head."}
        if "morphing.network.features.0.weight" in weights:
            self.network = TransformationNetwork(3)
            parts["network"] = "morphing.network."
        if "bottleneck.mean.weight" in weights:
            self.mean = torch.nn.Linear(64, 256)
            parts["mean"] = "bottleneck.mean."
        for name, prefix in parts.items():
            getattr(self, name).load_state_dict(
                {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            )

    def forward(self, images):
        if hasattr(self, "network"):
            images = self.network(images) * images
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        features = self.backbone((images - mean) / std)
        return self.head(self.mean(features) if hasattr(self, "mean") else features)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_model_of_every_rule_gives_that_rules_predictions(trained, release, algorithm, rule):
    assert (
        torch.load(model_path(trained(algorithm), rule), weights_only=True)["epoch"]
        == results(trained(algorithm))["selection"][rule]["epoch"]
    )
    model = ReferenceModel(read_model(trained(algorithm), rule))
    for split in ("val", "test"):
        with torch.no_grad():
            expected = model(pixels(release, split)).argmax(1).tolist()
        assert [int(line) for line in prediction_path(trained(algorithm), rule, split).read_text().split()] == expected


@pytest.mark.parametrize("algorithm", ["ERM", "CIM_VIB"])
def test_eval_only_writes_the_predictions_that_training_wrote(trained, release, tmp_path, algorithm):
    folder = trained(algorithm)
    model = model_path(folder, "best")
    (tmp_path / model.name).write_bytes(model.read_bytes())
    with redirect_stdout(StringIO()) as printed:
        assert train(release, tmp_path, "--eval_only", algorithm=algorithm) == 0
    for split in ("val", "test"):
        written = prediction_path(tmp_path, "best", split).read_bytes()
        assert written == prediction_path(folder, "best", split).read_bytes()
    epoch = torch.load(model, weights_only=True)["epoch"]
    assert f"Eval split test at epoch {epoch}:" in printed.getvalue()
    (row,) = read_csv(tmp_path / "test_eval.csv")
    assert row == read_csv(folder / "test_eval.csv")[epoch]


def test_eval_only_in_the_folder_of_a_run_changes_no_file_of_training(release, tmp_path):
    assert train(release, tmp_path) == 0
    before = {name: (tmp_path / name).read_bytes() for name in relative_files(tmp_path)}
    assert train(release, tmp_path, "--eval_only") == 0
    changed = {name for name in before if (tmp_path / name).read_bytes() != before[name]}
    assert changed == {"val_eval.csv", "test_eval.csv"}  # as with run_expt, lines are added
    assert (tmp_path / "val_eval.csv").read_bytes().startswith(before["val_eval.csv"])


# --- losses against loops in plain torch ------------------------------------------------------------------------------


@pytest.fixture
def recorded_run(release, tmp_path):
    """A function (algorithm, flags) -> its first weights, the rows of its batches, its lines of train_algo.csv and its
    last weights.
    """

    def run(algorithm: str, *more: str):
        loop = prepared(release, tmp_path / algorithm, *more, algorithm=algorithm)
        first, batches = copy.deepcopy(loop.training.classifier.state_dict()), rows_of_epochs(loop)
        loop.run()
        return first, batches, read_csv(tmp_path / algorithm / "train_algo.csv"), read_model(tmp_path / algorithm)

    return run


def _reference_run(model, images, labels, batches, objective, lr=1e-3) -> list[float]:
    """Objectives of Adam's steps over the batches, as any torch tutorial writes it."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    objectives = []
    for rows in batches:
        loss = objective(F.cross_entropy(model(images[rows]), labels[rows], reduction="none"), rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objectives.append(loss.item())
    return objectives


def agree(model: ReferenceModel, last: dict[str, torch.Tensor], apart: float = 0.0) -> None:
    """The same weights after six steps, but for a share that may be ``apart``; Adam's division by small second moments
    lifts rounding to 1e-4 where a gradient is nearly 0.
    """
    expected = ReferenceModel(last)
    for (name, ours), theirs in zip(expected.named_parameters(), model.parameters()):
        close = torch.isclose(ours, theirs, rtol=1e-3, atol=1e-4)
        assert (~close).double().mean() <= apart, f"{name}: {(ours - theirs).abs().max()} apart"


def test_erm_is_the_mean_cross_entropy_on_every_image_once_an_epoch(recorded_run, release):
    first, batches, lines, last = recorded_run("ERM")
    assert [sorted(sum(batches[start : start + 3], [])) for start in (0, 3)] == [list(range(60))] * 2
    assert batches[:3] != batches[3:]
    model = ReferenceModel(first)
    expected = _reference_run(
        model,
        pixels(release, "train"),
        labels_and_groups(release, "train")[0],
        batches,
        lambda losses, rows: losses.mean(),
    )
    assert [float(line["objective"]) for line in lines] == pytest.approx(expected, abs=1e-5)
    assert [float(line["loss_avg"]) for line in lines] == pytest.approx(expected, abs=1e-5)
    agree(model, last)


def test_gradient_accumulation_sums_batches_and_steps_at_the_end_of_an_epoch(recorded_run, release):
    first, batches, _, last = recorded_run(
        "ERM", "--gradient_accumulation_steps", "2", "--optimizer", "SGD", "--lr", "0.1"
    )
    model, images, (labels, _) = ReferenceModel(first), pixels(release, "train"), labels_and_groups(release, "train")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)  # WILDS' momentum for Waterbirds
    for together in (batches[0:2], batches[2:3], batches[3:5], batches[5:6]):
        optimizer.zero_grad()
        sum(F.cross_entropy(model(images[rows]), labels[rows]) for rows in together).backward()
        optimizer.step()
    agree(model, last)


def test_group_dro_follows_algorithm_1(recorded_run, release):
    step_size = 0.2
    first, batches, lines, last = recorded_run("groupDRO", "--group_dro_step_size", str(step_size))
    labels, groups = labels_and_groups(release, "train")
    q = [0.25] * 4

    def objective(losses, rows):
        """Sagawa et al. (2020), Algorithm 1: q_g grows by exp(step · loss_g), is normalised, then weighs the losses of
        the groups.
        """
        means = {g: losses[groups[rows] == g].mean() for g in range(4) if (groups[rows] == g).any()}
        for g, mean in means.items():
            q[g] *= np.exp(step_size * mean.item())
        q[:] = [value / sum(q) for value in q]
        return sum(q[g] * mean for g, mean in means.items())

    model = ReferenceModel(first)
    expected = _reference_run(model, pixels(release, "train"), labels, batches, objective)
    assert [float(line["objective"]) for line in lines] == pytest.approx(expected, abs=1e-5)
    assert last["group_weights.weights"].tolist() == pytest.approx(q, abs=1e-5)
    agree(model, last)


def test_group_dro_draws_the_groups_equally_often(recorded_run, release):
    _, batches, _, _ = recorded_run("groupDRO", "--n_epochs", "4")
    groups = labels_and_groups(release, "train")[1]
    shares = torch.bincount(groups[sum(batches, [])], minlength=4) / 240
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.1)  # the natural shares are .37, .07, .08 and .48


def test_lambda_0_is_the_transformation_network_without_its_loss(recorded_run, release):
    first, batches, lines, last = recorded_run("CIM", "--cim_lambda", "0")
    model = ReferenceModel(first)
    expected = _reference_run(
        model,
        pixels(release, "train"),
        labels_and_groups(release, "train")[0],
        batches,
        lambda losses, rows: losses.mean(),
    )
    # the network's gradients are small here, and Adam makes steps of one size of what rounding leaves of them
    assert [float(line["objective"]) for line in lines] == pytest.approx(expected, abs=1e-4)
    assert not torch.equal(first["morphing.network.features.0.weight"], last["morphing.network.features.0.weight"])
    agree(model, last, apart=0.002)


def test_under_wilds_sgd_for_waterbirds_adam_trains_the_network(recorded_run):
    first, _, _, last = recorded_run("CIM", "--optimizer", "SGD", "--lr", "1e-5", "--weight_decay", "1")
    moved = {
        name: (last[name] - value).abs().max().item() for name, value in first.items() if value.is_floating_point()
    }
    network = [distance for name, distance in moved.items() if name.startswith("morphing.network")]
    others = [distance for name, distance in moved.items() if not name.startswith("morphing")]
    assert max(network) == pytest.approx(6e-3, rel=0.3)  # six steps of at most about 0.001
    assert max(others) < 1e-3


@pytest.mark.parametrize(
    "algorithm, weights",
    [
        ("CIM", {"L_con": 1.0}),
        ("VIB", {"KL": 1e-3}),
        ("SCL_E2E", {"L_scl": 1.0}),
        ("CnC", {"L_scl": 1.0}),
        ("CIM_VIB", {"L_con": 1.0, "KL": 1e-3}),
    ],
)
def test_the_objective_is_the_weighted_sum_of_the_logged_terms(trained, algorithm, weights):
    for line in read_csv(trained(algorithm) / "train_algo.csv"):
        expected = float(line["loss_avg"]) + sum(weight * float(line[term]) for term, weight in weights.items())
        assert float(line["objective"]) == pytest.approx(expected, abs=1e-5)
        assert all(float(line[term]) != 0 for term in weights)


@pytest.mark.parametrize("algorithm", ["ERM", "groupDRO", "CIM_VIB"])
def test_the_algo_lines_of_evaluated_splits_are_those_of_the_model_at_that_epoch(trained, release, algorithm):
    folder = trained(algorithm)
    labels, groups = labels_and_groups(release, "val")
    model = ReferenceModel(read_model(folder)).eval()
    with torch.no_grad():
        logits = model(pixels(release, "val"))
    losses, correct = F.cross_entropy(logits, labels, reduction="none"), (logits.argmax(1) == labels).double()
    line = {name: float(value) for name, value in read_csv(folder / "val_algo.csv")[-1].items()}
    assert line["loss_avg"] == pytest.approx(losses.mean().item(), abs=1e-4)
    assert line["acc_avg"] == pytest.approx(correct.mean().item())
    means = [losses[groups == group].mean().item() for group in range(4)]
    assert [line[f"loss_group:{group}"] for group in range(4)] == pytest.approx(means, abs=1e-4)
    weights = [line.get(f"weight_group:{group}", line[f"count_group:{group}"] / line["count"]) for group in range(4)]
    assert line["objective"] == pytest.approx(sum(weight * mean for weight, mean in zip(weights, means)), abs=1e-4)
    if algorithm == "groupDRO":
        assert weights == pytest.approx(read_model(folder)["group_weights.weights"].tolist(), abs=1e-6)
