"""``cim_plugin.build``: a model for one's own loop."""

from __future__ import annotations

import pytest
import torch
from interpreters import run_python
from torch import nn

import cim_plugin
from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.algorithms.contrastive import TripletContrast
from cim_plugin.algorithms.morphing import InputMorphing, PixelSpace
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.errors import InputError


def encoder() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def batch(n: int = 8, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, size, size, generator=generator), torch.arange(n) % 2


def test_importing_the_package_imports_no_torch():
    code = "import sys, cim_plugin; assert 'build' in dir(cim_plugin); print({'torch', 'typing'} & sys.modules.keys())"
    done = run_python("-S", "-c", code, PYTHONPATH=str(__import__("pathlib").Path(cim_plugin.__file__).parents[1]))
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        cim_plugin.bild  # noqa: B018


def test_the_loss_is_that_of_the_parts_put_together_by_hand():
    torch.manual_seed(0)
    model = cim_plugin.build("CIM", encoder=encoder(), n_classes=2, image_size=32, inputs="pixels", cim_lambda=0.5)
    images, labels = batch()
    parts = model.classifier
    morphing = InputMorphing(PixelSpace.raw(3), parts.morphing.network)
    contrast = TripletContrast(MSSSIM((32, 32)))
    by_hand = RobustClassifier(
        parts.encoder, parts.head, {"supervised": 1.0, "contrastive": 0.5}, morphing=morphing, contrast=contrast
    )
    torch.manual_seed(1)
    loss = model.loss(images, labels)
    torch.manual_seed(1)
    assert loss.shape == () and torch.equal(loss, by_hand.total(by_hand.loss_terms(images, labels).losses))
    x, m, psi = model.morph(images)
    assert torch.equal(x, images) and m.shape == (8, 1, 32, 32) and torch.equal(psi, m * images)


@pytest.mark.parametrize("algorithm", ["CIM", "CIM_VIB", "VIB", "SCL_E2E", "ERM", "groupDRO", "CIM+groupDRO"])
def test_every_algorithm_learns_a_batch(algorithm):
    torch.manual_seed(0)
    groups = {"n_groups": 2} if "groupDRO" in algorithm else {}
    model = cim_plugin.build(algorithm, encoder=encoder(), n_classes=2, image_size=32, inputs="pixels", **groups)
    images, labels = batch()
    images[labels == 1] *= 0.2
    optimizer = torch.optim.AdamW(model.parameter_groups(lr=0.02))
    losses = []
    for _ in range(12):
        losses.append(model.loss(images, labels, groups=labels if groups else None))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert model.eval()(images).shape == (8, 2)


def test_the_dry_run_that_counts_features_leaves_no_trace():
    own = encoder()
    own[1].eval()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    model = cim_plugin.build("ERM", encoder=own, n_classes=3, image_size=(40, 32))
    assert model.classifier.head.in_features == 8
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert own.training and not own[1].training


def test_the_transformation_network_has_a_rate_of_its_own_and_no_decay():
    model = cim_plugin.build("CIM", encoder="small_cnn", n_classes=2, image_size=32, cim_learning_rate=0.01)
    others, network = model.parameter_groups(lr=1e-4, weight_decay=0.1)
    assert (others["lr"], others["weight_decay"], network["lr"], network["weight_decay"]) == (1e-4, 0.1, 0.01, 0.0)
    assert {id(weight) for weight in network["params"]} == {id(w) for w in model.classifier.morphing.parameters()}
    assert len(others["params"]) + len(network["params"]) == len(list(model.parameters()))
    assert model.parameter_groups(lr=1e-4, network_lr=0.5)[1]["lr"] == 0.5
    plain = cim_plugin.build("ERM", encoder="small_cnn", n_classes=2, image_size=32)
    assert len(plain.parameter_groups(lr=1e-4)) == 1


def test_what_the_images_are_is_held_against_the_first_batch():
    images, labels = batch()
    model = cim_plugin.build("CIM", encoder=encoder(), n_classes=2, image_size=32)
    with pytest.raises(ValueError, match="taken as ImageNet-normalised"):
        model.loss(images, labels)
    mean, std = [0.5] * 3, [0.25] * 3
    model = cim_plugin.build("CIM", encoder=encoder(), n_classes=2, image_size=32, inputs=(mean, std))
    torch.testing.assert_close(model.morph((images - 0.5) / 0.25).x, images)


def test_environments_are_optional_unless_pairs_go_by_them():
    images, labels = batch()
    model = cim_plugin.build(
        "CIM", encoder=encoder(), n_classes=2, image_size=32, inputs="pixels", cim_pairs="cross_environment"
    )
    with pytest.raises(ValueError, match="need the environment of every image"):
        model.loss(images, labels)
    assert model.loss(images, labels, torch.arange(8) // 2 % 2).isfinite()


class TwoOutputs(nn.Module):
    def forward(self, images):
        return images.mean((2, 3)), images


BAD = {
    "an algorithm": ({"algorithm": "CAM"}, "algorithm 'CAM' is unknown; choose from"),
    "a hyperparameter": ({"cim_lamda": 1.0}, "did you mean 'cim_lambda'"),
    "a value": ({"cim_lambda": -1.0}, "cim_lambda=-1.0 is not a finite number of at least 0"),
    "no classes": ({"n_classes": None}, "n_classes=None and 0 class_names were given"),
    "two numbers of classes": ({"class_names": ["a", "b", "c"]}, "n_classes=2 and 3 class_names"),
    "a size of 0": ({"image_size": 0}, "height and width, at most"),
    "too small an image": ({"image_size": 8}, "8"),
    "a word for inputs": ({"inputs": "bytes"}, "inputs='bytes' is not 'imagenet', 'pixels' or a pair"),
    "a std of 0": ({"inputs": ([0.0] * 3, [0.0] * 3)}, "a list of numbers above 0"),
    "maps of features": ({"encoder": nn.Conv2d(3, 8, 3)}, r"the encoder gives shape \(1, 8, 30, 30\)"),
    "two outputs": ({"encoder": TwoOutputs()}, "the encoder gives a tuple"),
    "channels that it does not take": ({"encoder": nn.Conv2d(4, 8, 3)}, "the encoder cannot take images of 3x32x32"),
    "a model's name": ({"encoder": "resnet1"}, "neither small_cnn nor a model of torchvision or timm"),
    "group DRO without groups": ({"algorithm": "groupDRO"}, "give n_groups"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_in_one_line(what):
    changes, says = BAD[what]
    arguments = {"algorithm": "CIM", "encoder": "small_cnn", "n_classes": 2, "image_size": 32, **changes}
    with pytest.raises(InputError, match=says) as refused:
        cim_plugin.build(arguments.pop("algorithm"), **arguments)
    assert "\n" not in str(refused.value)


def test_group_dro_asks_for_groups():
    model = cim_plugin.build("groupDRO", encoder=encoder(), n_classes=2, image_size=32, n_groups=2)
    with pytest.raises(InputError, match="groupDRO weighs groups; give loss"):
        model.loss(*batch())


def test_a_model_without_psi_has_nothing_to_look_at():
    model = cim_plugin.build("VIB", encoder=encoder(), n_classes=2, image_size=32)
    with pytest.raises(InputError, match="VIB has no transformation network"):
        model.morph(batch()[0])
