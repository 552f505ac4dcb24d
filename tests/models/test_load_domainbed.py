"""DomainBed's ``model.pkl``, loaded without DomainBed; and its networks against ours."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import torch
from elsewhere import Asked, ask
from hosts import forked_host
from hosts.photographs import write_photographs
from PIL import Image

import cim_plugin
from cim_plugin.errors import InputError
from cim_plugin.models import domainbed_networks

#: the host's train script; then what its algorithm says of some images, and what its data set makes of a file
TRAIN = """
import runpy, sys, torch, torchvision
for name in ("resnet18", "resnet50"):
    setattr(torchvision.models, name, lambda pretrained, make=getattr(torchvision.models, name): make())
sys.argv = ["train", *{words!r}]
found = runpy.run_module("domainbed.scripts.train", run_name="__main__", alter_sys=True)
algorithm, dataset = found["algorithm"].eval(), found["dataset"]
images = torch.stack([dataset[0][row][0] for row in range(5)])
with torch.no_grad():
    torch.save((images, algorithm.predict(images)), {file!r})
"""
COMMON = ["--steps", "2", "--checkpoint_freq", "2", "--test_envs", "0"]


def train(host: Path, folder: Path, *words: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and the training process's logits for them, after a run into ``folder``."""
    file = str(folder.parent / f"{folder.name}.pt")
    words = [*words, *COMMON, "--output_dir", str(folder), "--data_dir", str(folder.parent / "data")]
    done = forked_host.run(host, "-c", TRAIN.format(words=words, file=file), cwd=folder.parent, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def runs(domainbed, tmp_path_factory):
    """Name -> (folder of a run of the real host, images, its logits for them)."""
    folder = tmp_path_factory.mktemp("domainbed")
    write_photographs(folder / "data")
    small = ("--dataset", "DebugDigitsOnPhotos", "--hparams", '{"batch_size": 8}')
    named = {"model": "shufflenet_v2_x0_5", "model_kwargs": {"pretrained": False}, "image_size": 36, "batch_size": 2}
    large = '{"batch_size": 2, "resnet18": true, "resnet50_augmix": false, "nonlinear_classifier": true}'
    words = {
        "CIM_VIB": (*small, "--algorithm", "CIM_VIB"),
        "ERM": (*small, "--algorithm", "ERM"),
        "CIM": ("--dataset", "PACS", "--algorithm", "CIM+ERM", "--hparams", large, "--holdout_fraction", "0.4"),
        "named": (
            "--dataset",
            "PACS",
            "--algorithm",
            "CIM",
            "--hparams",
            json.dumps(named),
            "--holdout_fraction",
            "0.4",
        ),
    }
    return {name: (folder / name, *train(domainbed, folder / name, *words[name])) for name in words}, folder / "data"


def test_logits_and_prepared_images_equal_the_training_process_s_to_the_last_bit(runs, tmp_path):
    folders, data = runs
    photographs = sorted(map(str, (data / "PACS" / "art_painting").rglob("*.png")))[:5]
    files = {"CIM": photographs, "named": photographs}
    answers = ask(
        tmp_path,
        *(Asked(str(path), "best", images, files.get(name, [])) for name, (path, images, _) in folders.items()),
    )
    for (_, _, logits), answer in zip(folders.values(), answers):
        assert torch.equal(answer["logits"], logits)
    for name, answer in zip(files, answers[-2:]):
        assert torch.equal(torch.stack(answer["prepared"]), folders[name][1])
    assert [answer["class_names"] for answer in answers] == [["0", "1"], ["0", "1"], *[["dog", "elephant"]] * 2]


def test_the_host_reads_its_file_with_the_names_of_classes(runs, domainbed):
    code = """
    import torch, torchvision
    for name in ("resnet18", "resnet50"):
        setattr(torchvision.models, name, lambda pretrained, make=getattr(torchvision.models, name): make())
    from domainbed import algorithms
    saved = torch.load(FILE, weights_only=True)
    shape, hparams = saved["model_input_shape"], saved["model_hparams"]
    make = algorithms.get_algorithm_class("CIM")
    made = make(shape, saved["model_num_classes"], saved["model_num_domains"], hparams)
    made.load_state_dict(saved["model_dict"])
    assert all(isinstance(value, torch.Tensor) for value in saved["model_dict"].values())
    del saved["model_dict"]["_extra_state"]  # as version 0.1 left it
    made.load_state_dict(saved["model_dict"])
    """
    code = textwrap.dedent(code).replace("FILE", repr(str(runs[0]["CIM"][0] / "model.pkl")))
    done = forked_host.run(domainbed, "-c", code)
    assert done.returncode == 0, done.stderr


NETWORKS = {
    "28": ((3, 28, 28), {}),
    "28, two channels": ((2, 28, 28), {}),
    "32": ((3, 32, 32), {}),
    "ResNet-18": ((3, 224, 224), {"resnet18": True}),
    "ResNet-18, one channel": ((1, 224, 224), {"resnet18": True}),
    "ResNet-50": ((3, 224, 224), {}),
    "timm's ResNet-50": ((3, 224, 224), {"resnet50_augmix": True}),
}
#: the host's featurizers after some steps of their running statistics: weights, images and features
FEATURIZERS = """
import timm, torch, torchvision
for name in ("resnet18", "resnet50"):
    setattr(torchvision.models, name, lambda pretrained, make=getattr(torchvision.models, name): make())
make_timm = timm.create_model
timm.create_model = lambda name, pretrained: make_timm(name, pretrained=False)
from domainbed import networks
torch.manual_seed(0)
answers = {}
for name, (shape, options) in NETWORKS.items():
    hparams = {"resnet18": False, "resnet50_augmix": False, "vit": False, "freeze_bn": False, "resnet_dropout": 0.1}
    made, images = networks.Featurizer(shape, {**hparams, **options}), torch.rand(2, *shape)
    with torch.no_grad():
        made.train()
        made(images)
        made.eval()
        answers[name] = made.state_dict(), images, made(images), made.n_outputs
torch.save(answers, FILE)
"""


def test_the_networks_compute_what_the_host_s_do_to_the_last_bit(domainbed, tmp_path):
    code = FEATURIZERS.replace("NETWORKS", repr(NETWORKS)).replace("FILE", repr(str(tmp_path / "answers.pt")))
    done = forked_host.run(domainbed, "-c", code, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = torch.load(tmp_path / "answers.pt", weights_only=True)
    for name, ((channels, *size), options) in NETWORKS.items():
        weights, images, features, n_features = answers[name]
        ours, count = domainbed_networks.make_featurizer(channels, tuple(size), options)
        ours.load_state_dict(weights)
        with torch.no_grad():
            assert torch.equal(ours.eval()(images), features), name
        assert count == n_features == features.shape[1]


SAVED = {
    "args": {
        "algorithm": "CIM",
        "dataset": "Debug28",
        "data_dir": None,
        "test_envs": [2],
        "holdout_fraction": 0.2,
        "trial_seed": 0,
        "seed": 0,
    },
    "model_hparams": {},
    "model_input_shape": (3, 28, 28),
    "model_num_classes": 2,
    "model_num_domains": 2,
    "model_dict": {},
}
BAD = {
    "another algorithm": ({"args": {**SAVED["args"], "algorithm": "CORAL"}}, "a model of 'CORAL'; of DomainBed's"),
    "a composition": ({"args": {**SAVED["args"], "algorithm": "CIM+CORAL"}}, r"a model of 'CIM\+CORAL'"),
    "vectors": ({"model_input_shape": (17,)}, r"inputs of shape \(17,\), not of images"),
    "another size": ({"model_input_shape": (3, 64, 64)}, "no network for images of 64x64"),
    "DINOv2": ({"model_input_shape": (3, 224, 224), "model_hparams": {"vit": True, "dinov2": True}}, "torch.hub"),
    "no weights": ({}, "weights of another network"),
    "a billion classes": ({"model_num_classes": 10**9}, "a size in it is not a number"),
    "no text beside the weights": (
        {"model_dict": {"_extra_state": torch.zeros(3)}},
        "is not the text of a JSON object",
    ),
    "damaged text": (
        {"model_dict": {"_extra_state": torch.tensor([123], dtype=torch.uint8)}},
        "not the text of a JSON",
    ),
    "no hyperparameters": ({"model_hparams": 3}, "has no 'model_hparams'"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_in_one_line(tmp_path, what):
    changes, says = BAD[what]
    torch.save({**SAVED, **changes}, tmp_path / "model.pkl")
    with pytest.raises(InputError, match=says) as refused:
        cim_plugin.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_images_of_two_channels_are_given_as_tensors(tmp_path):
    shape = (2, 28, 28)
    model = cim_plugin.build(
        "CIM", encoder=domainbed_networks.SmallConvolutional(2), n_classes=2, image_size=28, inputs="pixels", channels=2
    )
    weights = {f"model.{name}": value for name, value in model.classifier.state_dict().items()}
    torch.save({**SAVED, "model_input_shape": shape, "model_dict": weights}, tmp_path / "model.pkl")
    loaded = cim_plugin.load(tmp_path)
    images = torch.rand(2, *shape)
    assert torch.equal(loaded(images), model.eval()(images))
    with pytest.raises(InputError, match=r"images of 2 channels, .* give it tensors \(N, 2, 28, 28\)"):
        loaded.transform(Image.new("RGB", (30, 30)))
