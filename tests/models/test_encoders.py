"""Encoders against the libraries' own models; weights from files of several origins; what cannot be had is said in one
line.
"""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from cim_plugin.errors import InputError
from cim_plugin.models.encoders import load_weights, make_encoder, read_checkpoint


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network and no weights of earlier downloads."""

    def refused(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refused)


def torchvision_features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The input of a model's last linear layer, caught by a hook while the whole model runs."""
    caught = []
    layer = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    layer.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    model(images)
    return caught[0]


@pytest.mark.parametrize(
    "name, n_features", [("resnet18", 512), ("mobilenet_v3_small", 1024), ("shufflenet_v2_x0_5", 1024)]
)
def test_a_torchvision_encoder_gives_the_input_of_the_last_layer(name, n_features):
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name, weights=None).eval()
    torch.manual_seed(0)
    encoder, length = make_encoder(name, {}, None)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.eval()(images)
        assert length == n_features and features.shape == (2, n_features)
        torch.testing.assert_close(features, torchvision_features(whole, images))


@pytest.mark.parametrize(
    "name", ["timm/resnet18", "resnet10t", "timm/mobilenetv3_small_050", "test_vit", "timm/test_vit.r160_in1k"]
)
def test_a_timm_encoder_gives_the_features_before_the_classifier(name):
    encoder, length = make_encoder(name, {}, None)
    plain = name.removeprefix("timm/")
    assert length == timm.create_model(plain).get_classifier().in_features
    assert encoder.eval()(torch.rand(2, 3, 160, 160)).shape == (2, length)


def test_where_both_have_a_name_it_is_torchvisions_unless_timm_is_said():
    assert isinstance(make_encoder("resnet18", {}, None)[0], torchvision.models.ResNet)
    assert isinstance(make_encoder("timm/resnet18", {}, None)[0], timm.models.ResNet)


def test_the_small_network_has_the_size_that_it_says_and_no_batch_statistics():
    encoder, length = make_encoder("small_cnn", {"pretrained": True}, None)
    assert length == 64 and 75_000 < sum(p.numel() for p in encoder.parameters()) < 85_000
    images = torch.rand(4, 3, 28, 28)
    torch.testing.assert_close(encoder(images)[:1], encoder(images[:1]))
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, 64)


def test_the_name_of_wilds_for_a_wide_resnet(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, **_: asked.append(name) or nn.Sequential(nn.Linear(3, 2))
    )
    make_encoder("wideresnet50", {}, None)
    assert asked == ["wide_resnet50_2"]


def test_model_kwargs_reach_the_model():
    assert make_encoder("shufflenet_v2_x0_5", {"num_classes": 7}, None)[1] == 1024
    encoder, _ = make_encoder("timm/resnet10t", {"drop_rate": 0.25}, None)
    assert encoder.drop_rate == 0.25


@pytest.mark.parametrize(
    "name, model_kwargs, message",
    [
        ("resnet19", {}, "--model 'resnet19' is neither small_cnn nor a model of torchvision or timm; near: resnet18"),
        (
            "timm/resnett50",
            {},
            "--model 'timm/resnett50' is neither small_cnn nor a model of torchvision or timm; near: resnet",
        ),
        (
            "resnet18.bogus",
            {},
            "--model 'resnet18.bogus' is neither small_cnn nor a model of torchvision or timm; near: resnet18",
        ),
        ("@@", {}, "--model '@@' is neither small_cnn nor a model of torchvision or timm"),
        ("", {}, "--model '' is neither small_cnn nor a model of torchvision or timm"),
        (
            "squeezenet1_0",
            {},
            "--model squeezenet1_0 has no last linear layer to leave out; choose a model that ends in one",
        ),
        ("resnet18", {"deep": 1}, "--model resnet18 does not take --model_kwargs {'deep': 1}: "),
        ("timm/resnet10t", {"deep": 1}, "--model timm/resnet10t does not take --model_kwargs {'deep': 1}: "),
        ("small_cnn", {"deep": 1}, "--model small_cnn does not take --model_kwargs {'deep': 1}: "),
        (
            "resnet18",
            {"pretrained": True},
            "the pretrained weights of resnet18 cannot be had (no network in tests); without network put the file ",
        ),
        (
            "timm/test_vit",
            {"pretrained": True},
            "the pretrained weights of timm/test_vit cannot be had (no network in tests); without network put the "
            "file ",
        ),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_in_one_line(name, model_kwargs, message):
    with pytest.raises(InputError) as error:
        make_encoder(name, model_kwargs, None)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{}, {"aux_logits": False}])
@pytest.mark.parametrize("name, side", [("googlenet", 64), ("inception_v3", 75)])
def test_what_was_trained_from_pretrained_weights_is_the_same_network_without_them(name, side, options, monkeypatch):
    """These two have other inputs and outputs with weights than without, as a resumed run is built."""
    whole = torchvision.models.get_model(name, init_weights=False)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **more: whole.state_dict())
    trained, length = make_encoder(name, {"pretrained": True, **options}, None)
    again, _ = make_encoder(name, {"init_weights": False, **options}, None)
    again.load_state_dict(trained.state_dict())
    images = torch.rand(2, 3, side, side)
    assert torch.equal(trained.eval()(images), again.eval()(images))
    assert trained.train()(images).shape == (2, length)


# --- weights from a file ---------------------------------------------------------------------------------------------

NAME = "shufflenet_v2_x0_5"
FORMATS = {
    "torchvision": lambda whole, encoder: whole,
    "group DRO of WILDS": lambda whole, encoder: {
        "algorithm": {f"model.{k}": v for k, v in whole.items()},
        "epoch": 3,
        "best_val_metric": 0.5,
    },
    "WILDS on several GPUs": lambda whole, encoder: {
        "algorithm": {f"model.module.{k}": v for k, v in whole.items()},
        "epoch": 3,
    },
    "WILDS with a featurizer": lambda whole, encoder: {
        "algorithm": {
            **{f"featurizer.{k}": v for k, v in encoder.items()},
            **{f"model.0.{k}": v for k, v in encoder.items()},
            "head.bias": torch.zeros(2),
        }
    },
    "ours": lambda whole, encoder: {
        "algorithm": {**{f"encoder.1.{k}": v for k, v in encoder.items()}, "head.weight": torch.zeros(2, 1024)},
        "epoch": 3,
    },
    "ours, the state of a run": lambda whole, encoder: {
        "model": {**{f"encoder.1.{k}": v for k, v in encoder.items()}},
        "config": {"lr": 1},
    },
    "data parallel": lambda whole, encoder: {"state_dict": {f"module.{k}": v for k, v in whole.items()}},
}


@pytest.fixture(scope="module")
def source() -> nn.Module:
    torch.manual_seed(5)
    return torchvision.models.get_model(NAME, weights=None)


@pytest.mark.parametrize("name", list(FORMATS))
def test_weights_are_read_from_files_of_every_origin(name, source, tmp_path):
    whole = source.state_dict()
    encoder_part = {key: value for key, value in whole.items() if not key.startswith("fc.")}
    path = str(tmp_path / "weights.pth")
    torch.save(FORMATS[name](whole, encoder_part), path)
    encoder, _ = make_encoder(NAME, {"pretrained": True}, path)  # the file stands in for the download
    loaded = encoder.state_dict()
    assert set(loaded) == set(encoder_part)
    assert all(torch.equal(loaded[key], value) for key, value in encoder_part.items())


def test_weights_of_timm_are_read(tmp_path):
    model = timm.create_model("resnet10t")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    encoder, _ = make_encoder("timm/resnet10t", {}, str(tmp_path / "a.pth"))
    assert torch.equal(encoder.state_dict()["conv1.0.weight"], model.state_dict()["conv1.0.weight"])


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda state: state | {"conv1.0.weight": torch.zeros(1, 3, 3, 3)},
            "has weights of other shapes: it is not of this --model",
        ),
        (
            lambda state: {k: v for k, v in state.items() if k != "conv1.0.weight"},
            "has no 'conv1.0.weight': it is not of this --model",
        ),
        (lambda state: {}, "has no 'conv1.0.weight': it is not of this --model"),
        (lambda state: state | {"conv1.0.weight": 3}, "has weights of other shapes: it is not of this --model"),
    ],
)
def test_weights_of_another_model_are_refused_and_change_nothing(change, message, source, tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save(change(dict(source.state_dict())), path)
    encoder, _ = make_encoder(NAME, {}, None)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(encoder, path)
    assert str(error.value) == f"--pretrained_model_path {path} {message}"
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_a_file_of_weights_is_executed(tmp_path, source):
    path = tmp_path / "weights.pth"
    torch.save({**source.state_dict(), "bomb": Bomb(tmp_path / "executed")}, path)
    with pytest.raises(InputError) as error:
        make_encoder(NAME, {}, str(path))
    assert str(error.value).startswith(
        f"--pretrained_model_path: {path} is not a checkpoint of tensors and plain values, and nothing else is loaded ("
    )
    assert "\n" not in str(error.value) and not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()  # the bomb is a real one


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(64))], ids=["empty", "text", "bytes"])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match="is not a checkpoint of tensors and plain values"):
        read_checkpoint(str(tmp_path / "a.pth"), "--flag")


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path):
    for path, what in ((tmp_path / "none.pth", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(InputError) as error:
            read_checkpoint(str(path), "--flag")
        assert str(error.value) == f"--flag: {path} {what}"


def test_a_single_tensor_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds a Tensor, not a state dict"):
        read_checkpoint(str(tmp_path / "a.pth"), "--flag")
