"""SubpopBench's ``model.pkl``, loaded without SubpopBench: how photographs are prepared, and what is refused. Runs of
the real host are in ``tests/hosts/test_subpopbench_scripts.py``.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torchvision.transforms as T
from PIL import Image

import cim_plugin
from cim_plugin import cli
from cim_plugin.errors import InputError

SAVED = {
    "args": {"algorithm": "CIM", "dataset": "Waterbirds", "data_dir": "data"},
    "model_hparams": {"model": "small_cnn", "model_kwargs": {}, "image_arch": "resnet_sup_in1k"},
    "model_input_shape": (3, 224, 224),
    "num_labels": 2,
    "num_attributes": 2,
    "model_dict": {},
}


def write(file, encoder: str = "small_cnn", **changes) -> cim_plugin.models.model.Model:
    """A file as the host leaves it, and the model whose weights it holds."""
    model = cim_plugin.build("CIM", encoder=encoder, n_classes=2, image_size=224)
    weights = {
        f"model.{name.replace('encoder.', 'encoder.network.', 1)}": value
        for name, value in model.classifier.state_dict().items()
    }
    copies = {name.replace("model.encoder.", "featurizer.", 1): value for name, value in weights.items()}
    torch.save({**SAVED, "model_dict": {**weights, **copies}, **changes}, file)
    return model.eval()


def photograph(width: int, height: int) -> Image.Image:
    pixels = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def test_a_folder_and_a_file_give_the_model(tmp_path):
    made = write(tmp_path / "model.pkl")
    for name in (
        "args.json",
        "out.txt",
        "err.txt",
        "results.json",
    ):  # in lines, where 'cim-plugin train' has one object
        (tmp_path / name).write_text("{}\n{}\n")
    images = torch.randn(2, 3, 224, 224)
    for path in (tmp_path, tmp_path / "model.pkl"):
        loaded = cim_plugin.load(path)
        assert torch.equal(loaded(images), made(images)) and loaded.class_names == ["landbird", "waterbird"]


def test_the_object_that_the_host_saves_is_not_made(tmp_path, monkeypatch):
    """Its class, of a module that the reader has not, becomes an empty one."""
    module = types.ModuleType("subpopbench.learning.early_stopping")
    module.EarlyStopping = type("EarlyStopping", (), {"__module__": module.__name__})
    for name in ("subpopbench", "subpopbench.learning", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    write(tmp_path / "model.pkl", early_stopper=module.EarlyStopping())
    monkeypatch.undo()
    assert cim_plugin.load(tmp_path / "model.pkl").algorithm == "CIM"


#: data set -> size of a photograph, and the host's transform but for its normalisation
TRANSFORMS = {
    "Waterbirds": ((300, 200), [T.Resize((256, 256)), T.CenterCrop(224)]),
    "CelebA": ((178, 218), [T.CenterCrop(178), T.Resize(224)]),
    "MetaShift": ((300, 400), [T.Resize(256), T.CenterCrop(224)]),
    "Living17": ((500, 300), [T.Resize(256), T.CenterCrop(224)]),
    "SomebodysOwn": ((300, 200), [T.Resize((224, 224))]),
}


@pytest.mark.parametrize("dataset", TRANSFORMS)
def test_photographs_are_prepared_as_the_host_does(dataset, tmp_path):
    size, steps = TRANSFORMS[dataset]
    write(tmp_path / "model.pkl", args={**SAVED["args"], "dataset": dataset})
    model, image = cim_plugin.load(tmp_path / "model.pkl"), photograph(*size)
    normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.equal(model.transform(image), T.Compose([*steps, T.ToTensor(), normalise])(image))


def test_cmnist_has_a_normalisation_of_its_own(tmp_path):
    hparams = {**SAVED["model_hparams"], "cmnist_flip_prob": 0.25}
    write(tmp_path / "model.pkl", args={**SAVED["args"], "dataset": "CMNIST"}, model_hparams=hparams)
    model = cim_plugin.load(tmp_path / "model.pkl")
    assert model.recipe.mean == (0.1307, 0.1307, 0.0) and model.class_names == ["0", "1"]


def test_predict_and_export_take_it(tmp_path, capsys):
    made = write(tmp_path / "model.pkl")
    photograph(50, 40).save(tmp_path / "bird.png")
    masks = str(tmp_path / "masks")
    assert cli.main(["predict", str(tmp_path / "model.pkl"), str(tmp_path / "bird.png"), "--masks", masks]) == 0
    assert made.class_names == ["0", "1"] and "bird" in capsys.readouterr().out.splitlines()[-1].split(",")[1]
    written = str(tmp_path / "exported.safetensors")
    assert cli.main(["export", str(tmp_path / "model.pkl"), "--format", "safetensors", "-o", written]) == 0
    images = torch.randn(2, 3, 224, 224)
    assert torch.equal(cim_plugin.load(written)(images), made(images))


BAD = {
    "another algorithm": ({"args": {**SAVED["args"], "algorithm": "JTT"}}, "a model of 'JTT'; of SubpopBench's"),
    "no data set": ({"args": {"algorithm": "CIM"}}, "its args have no 'dataset'"),
    "vectors": ({"model_input_shape": (17,)}, r"inputs of shape \(17,\), not of images"),
    "another size": ({"model_input_shape": (3, 64, 64), "model_hparams": {}}, "no network for images of 64x64"),
    "an unknown network": ({"model_hparams": {"image_arch": "gan"}}, "--image_arch 'gan', which is none of"),
    "a file's network": ({"model_hparams": {"model": "hf-hub:a/b"}}, "encoder 'hf-hub:a/b' of its recipe is not"),
    "weights of a file": (
        {"model_hparams": {"model": "resnet18", "model_kwargs": {"checkpoint_path": "x"}}},
        "encoder_options .* of its recipe is not",
    ),
    "no weights": ({"model_dict": {}}, "weights of another network"),
    "a billion classes": ({"num_labels": 10**9}, "a size in it is not a number"),
    "no hyperparameters": ({"model_hparams": 3}, "has no 'model_hparams'"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_in_one_line(tmp_path, what):
    changes, says = BAD[what]
    write(tmp_path / "model.pkl", **changes)
    with pytest.raises(InputError, match=says) as refused:
        cim_plugin.load(tmp_path / "model.pkl")
    assert "\n" not in str(refused.value)
