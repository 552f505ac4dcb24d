"""Pseudo-environments by reference models against models trained by hand, and batches balanced by them."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from cim_plugin.algorithms.pseudo_environments import pseudo_groups
from cim_plugin.models.transforms import make_transform
from cim_plugin.wilds_runner import cross_fit
from cim_plugin.wilds_runner.loading import TrainingOrder, make_loader

# --- the reference models ---------------------------------------------------------------------------------------------


def _reference_step(model, images, labels, moments, number, lr) -> None:
    """AdamW with a decay of 0.01 (Loshchilov and Hutter, 2019, algorithm 2), written out; ``number`` counts from 1."""
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    for weight, gradient, (first, second) in zip(model.parameters(), gradients, moments, strict=True):
        first.mul_(0.9).add_(0.1 * gradient)
        second.mul_(0.999).add_(0.001 * gradient.square())
        corrected = (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        weight.data -= lr * (corrected + 0.01 * weight.data)


class Linear(nn.Module):
    """Logits that are linear in the pixels where it is trained, and sharper where it predicts; it keeps the images that
    it is given.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.layer = nn.Linear(
            3 * 16 * 16, 6
        )  # with two classes, averaged logits would choose as averaged probabilities do
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(6, 3 * 16 * 16, generator=torch.Generator().manual_seed(seed)) / 5)
            self.layer.bias.zero_()
        self.batches: list[torch.Tensor] = []
        self.predicted: list[torch.Tensor] = []

    def forward(self, images):
        (self.batches if self.training else self.predicted).append(images)
        return self.layer(images.flatten(1) - 0.5) * (1 if self.training else 6)


@pytest.fixture
def predict(noise_config, noise):
    """A function (flag words) -> the pseudo-environments that :class:`Linear` gives, and the models as they were and as
    they are.
    """
    from lightning_fabric import Fabric

    def predicted(*flags: str, **fabric):
        settings = [
            "--batch_size",
            "8",
            "--optimizer",
            "SGD",
            "--optimizer_kwargs",
            "momentum=0.9",
            "--lr",
            "0.05",
            "--weight_decay",
            "0",
        ]
        config = noise_config(
            "--cross_fit", "5", *settings, *([] if "--cross_fit_tiles" in flags else ["--cross_fit_tiles", "1"]), *flags
        )
        transform = make_transform(config, noise.wilds.original_resolution)
        loaders = {key: make_loader(config, noise, key, transform, None, augment=False) for key in ("train", "val")}
        models = []

        def make_model(number):
            models.append((Linear(number), Linear(number)))
            return models[-1][1]

        engine = fabric.get("fabric") or Fabric(accelerator="cpu", devices=1)
        around = cross_fit.Surroundings(config, noise.splits, loaders, make_model, engine)
        found = cross_fit.predict_out_of_fold(around)
        assert (found.steps, found.curve) == (5, [])
        return {"train": found.train, "val": found.val}, models

    return predicted


def images_of(noise, key: str) -> torch.Tensor:
    """(N, 3, 16, 16) float in [0, 1], by Pillow alone."""
    paths = [f"{noise.wilds.data_dir}/{noise.wilds._input_array[index]}" for index in noise.splits[key].indices]
    images = [np.array(Image.open(path).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)) for path in paths]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize(
    "flags, lr",
    [
        (("--model_kwargs", "pretrained=false"), 1e-3),
        ((), 1e-4),
        (("--model", "small_cnn", "--pretrained_model_path", "weights.pth"), 1e-4),
    ],
    ids=["from scratch", "pretrained", "from a file"],
)
def test_predictions_are_those_of_models_trained_by_hand(predict, noise, flags, lr):
    """Whatever the run's own optimizer is."""
    found, models = predict(*flags)
    images, labels = images_of(noise, "train"), noise.splits["train"].labels
    row_of = {image.numpy().tobytes(): row for row, image in enumerate(images)}
    logits, of_val, seen = [], [], []
    for fresh, trained in models:
        moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in fresh.parameters()]
        drawn = [torch.tensor([row_of[image.numpy().tobytes()] for image in batch]) for batch in trained.batches]
        assert [len(rows) for rows in drawn] == [8] * 5
        for number, rows in enumerate(drawn, 1):
            _reference_step(fresh.train(), images[rows], labels[rows], moments, number, lr)
        torch.testing.assert_close(fresh.layer.weight, trained.layer.weight, rtol=0, atol=lr / 100)
        with torch.no_grad():
            logits.append(fresh.eval()(images).double())
            of_val.append(fresh(images_of(noise, "val")).double())
        seen.append(torch.cat(drawn).tolist())
    assert len(models) == 8 and len(set(map(tuple, seen))) == 8  # each with batches of its own
    halves = [set(sum(seen[:4], [])), set(sum(seen[4:], []))]
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == 30
    parts = [(found["val"], of_val)]
    for half, others in zip(halves, (logits[4:], logits[:4])):
        rows = torch.tensor(sorted(half))
        parts.append((found["train"][rows], [of_one[rows] for of_one in others]))
    for taken_for, said in parts:  # by averaged probabilities; one model or averaged logits would not do
        assert torch.equal(taken_for, sum(of_one.softmax(1) for of_one in said).argmax(1))
        assert all(not torch.equal(taken_for, of_one.argmax(1)) for of_one in said)
    assert any(not torch.equal(taken_for, sum(said).argmax(1)) for taken_for, said in parts)


def _tiles_of(image: np.ndarray, tiles: int) -> list[bytes]:
    """The tiles of an image (C, H, W), sorted, cut by numpy alone."""
    rows = [part for strip in np.array_split(image, tiles, 1) for part in np.array_split(strip, tiles, 2)]
    return sorted(part.tobytes() for part in rows)


def test_models_see_the_tiles_of_every_image_in_an_order_of_its_own(predict, noise):
    """In training, and where they predict."""
    _, models = predict("--cross_fit_tiles", "4")
    whole = {tuple(_tiles_of(image, 4)): image for key in ("train", "val") for image in images_of(noise, key).numpy()}
    for _, trained in models:
        drawn, predicted = (torch.cat(images).numpy() for images in (trained.batches, trained.predicted))
        assert len(drawn) == 8 * 5 and len(predicted) == 15 + len(noise.splits["val"].labels)
        for image in (*drawn, *predicted):
            assert not np.array_equal(image, whole[tuple(_tiles_of(image, 4))])
        assert len({image.tobytes() for image in drawn}) == len(drawn)


def test_pseudo_environments_follow_from_the_seed_alone(predict):
    first, _ = predict("--cross_fit_tiles", "4")
    torch.manual_seed(99)
    np.random.seed(99)
    again, _ = predict("--cross_fit_tiles", "4")
    other, models = predict("--cross_fit_tiles", "4", "--seed", "1")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["train"], other["train"])
    assert torch.equal(
        models[0][0].layer.weight, Linear(0).layer.weight
    )  # the initial weights are not what differs here


def test_workers_change_nothing(predict):
    alone, _ = predict("--cross_fit_tiles", "2")
    shared, _ = predict("--cross_fit_tiles", "2", "--loader_kwargs", "num_workers=2")
    assert all(torch.equal(alone[key], shared[key]) for key in alone)


def test_the_loss_scale_of_the_run_is_left_alone(predict):
    from types import SimpleNamespace

    from lightning_fabric.plugins.precision.amp import MixedPrecision

    precision = MixedPrecision("16-mixed", "cpu")
    before = copy.deepcopy(precision.state_dict())
    fabric = SimpleNamespace(
        device=torch.device("cpu"), strategy=SimpleNamespace(precision=precision), autocast=precision.forward_context
    )
    found, models = predict(fabric=fabric)
    assert precision.state_dict() == before
    assert all(not torch.equal(fresh.layer.weight, trained.layer.weight) for fresh, trained in models)
    assert set(found["train"].tolist()) <= set(range(6))


# --- balanced batches -------------------------------------------------------------------------------------------------


def _reference_cells(pairs) -> list[tuple[int, bool]]:
    return [(label, label == environment) for label, environment in pairs]


def test_pseudo_groups_are_the_label_and_whether_the_environment_agrees():
    labels, environments = torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 1, 0, 2, 0])
    cells = _reference_cells(zip(labels.tolist(), environments.tolist()))
    groups = pseudo_groups(labels, environments).tolist()
    assert [[a == b for b in groups] for a in groups] == [[a == b for b in cells] for a in cells]


def test_balanced_batches_hold_every_class_equally_often_and_of_it_every_cell_that_exists(noise_config, noise):
    labels = noise.splits["train"].labels
    environments = torch.where(torch.arange(30) % 7 == 0, 1 - labels, labels)
    environments[labels == 1] = 1  # class 1 always agrees: three cells
    cells = _reference_cells(zip(labels.tolist(), environments.tolist()))
    assert len(set(cells)) == 3 and min(Counter(cells).values()) < 5
    order = TrainingOrder(noise_config("--batch_size", "8"), noise.splits["train"], noise.grouper)
    sizes = [len(batch) for batch in order.epoch(0)]
    order.balance(labels, pseudo_groups(labels, environments))
    assert [len(batch) for batch in order.epoch(0)] == sizes and len(order) == len(sizes)
    drawn = Counter(row for epoch in range(100) for batch in order.epoch(epoch) for row, _ in batch)
    for cell, count in Counter(cells).items():
        of_cell = [drawn[row] for row in range(30) if cells[row] == cell]
        share = 1 / 2 if cell == (1, True) else 1 / 4
        assert abs(sum(of_cell) - 3000 * share) < 5 * (3000 * share * (1 - share)) ** 0.5  # five standard deviations
        assert max(of_cell) - min(of_cell) < 10 * (3000 * share / count) ** 0.5  # and every image of a cell alike


def test_upweighted_images_are_drawn_so_many_times_as_often_in_as_many_batches(noise_config, noise):
    wrong = torch.arange(30) % 6 == 0
    order = TrainingOrder(noise_config("--batch_size", "8"), noise.splits["train"], noise.grouper)
    sizes = [len(batch) for batch in order.epoch(0)]
    order.upweight(wrong, 5.0)
    assert [len(batch) for batch in order.epoch(0)] == sizes and len(order) == len(sizes)
    drawn = Counter(row for epoch in range(100) for batch in order.epoch(epoch) for row, _ in batch)
    for row in range(30):
        chance = (5 if wrong[row] else 1) / (5 * 5 + 25)
        assert abs(drawn[row] - 3000 * chance) < 5 * (3000 * chance * (1 - chance)) ** 0.5  # five standard deviations


def test_a_balanced_order_follows_from_seed_and_epoch(noise_config, noise):
    labels = noise.splits["train"].labels
    cells = pseudo_groups(labels, torch.zeros(30, dtype=torch.int64))

    def epochs(*numbers: int, rank: int = 0, n: int = 1):
        order = TrainingOrder(noise_config("--batch_size", "8"), noise.splits["train"], noise.grouper)
        order.balance(labels, cells)
        return [order.epoch(number, rank, n) for number in numbers]

    first, second = epochs(0, 1)
    torch.manual_seed(99)
    assert epochs(1, 0) == [second, first] and first != second
    parts = [epochs(0, rank=rank, n=2)[0] for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == first
