"""``cim-plugin export``: what other programs read gives the model's logits."""

from __future__ import annotations

import importlib

import pytest
import torch

import cim_plugin
from cim_plugin import cli
from cim_plugin.inference import export

TOLERANCE = 1e-5  # ONNX Runtime adds up in another order than torch


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of save_pretrained with a model of CIM_VIB for normalised images."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    cim_plugin.build("CIM_VIB", encoder="small_cnn", class_names=["a", "b"], image_size=(28, 36)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 28, 36, generator=torch.Generator().manual_seed(3))


def run_export(saved, tmp_path, name: str) -> str:
    output = str(tmp_path / f"exported{export.FORMATS[name][0]}")
    assert cli.main(["export", str(saved), "--format", name, "-o", output]) == 0
    return output


def test_a_program_of_torch_export_for_any_number_of_images(saved, tmp_path, images, capsys):
    program = torch.export.load(run_export(saved, tmp_path, "torch-export")).module()
    model = cim_plugin.load(saved)
    with torch.no_grad():
        for n in (1, 2, 5):
            torch.testing.assert_close(program(images[:n]), model(images[:n]), rtol=0, atol=TOLERANCE)
    said = capsys.readouterr().out
    assert "images (N, 3, 28, 36), normalised by mean (0.485, 0.456, 0.406)" in said and "classes: a, b" in said


@pytest.mark.slow
def test_an_onnx_model_for_any_number_of_images(saved, tmp_path, images):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    file = run_export(saved, tmp_path, "onnx")
    onnx.checker.check_model(file)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    model = cim_plugin.load(saved)
    with torch.no_grad():
        for n in (1, 2, 5):
            (logits,) = session.run(["logits"], {"images": images[:n].numpy()})
            torch.testing.assert_close(torch.from_numpy(logits), model(images[:n]), rtol=0, atol=TOLERANCE)


def test_safetensors_are_a_model_that_is_loaded(saved, tmp_path, images):
    loaded = cim_plugin.load(run_export(saved, tmp_path, "safetensors"))
    assert torch.equal(loaded(images), cim_plugin.load(saved)(images)) and loaded.class_names == ["a", "b"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line_with_the_command(saved, tmp_path, capsys, monkeypatch, package):
    inner = importlib.import_module

    def without(name, *others):
        if name == package:
            raise ImportError(name)
        return inner(name, *others)

    monkeypatch.setattr(importlib, "import_module", without)
    if package == "onnxruntime":
        pytest.importorskip("onnxscript")
    assert cli.main(["export", str(saved), "--format", "onnx", "-o", str(tmp_path / "x.onnx")]) == 2
    said = capsys.readouterr()
    assert f"needs the package {package}; pip install 'cim_plugin[export]'" in said.err and said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(saved, tmp_path, capsys):
    assert cli.main(["export", str(saved), "--format", "onnx", "-o", str(tmp_path / "x.pt2")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err


def test_a_program_that_says_something_else_is_not_written(saved, tmp_path, capsys, monkeypatch):
    suffix, what, write = export.FORMATS["safetensors"]
    monkeypatch.setitem(export.FORMATS, "safetensors", (suffix, what, lambda *given: (write(*given)[0], float("nan"))))
    assert cli.main(["export", str(saved), "--format", "safetensors", "-o", str(tmp_path / "x.safetensors")]) == 2
    assert "nothing was written" in capsys.readouterr().err and not list(tmp_path.iterdir())
