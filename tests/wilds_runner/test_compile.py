"""``--compile true`` gives the losses and gradients of ``--compile false``, and weights of the same names."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from small_runs import train
from torch import nn

from cim_plugin import catalog
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.errors import InputError
from cim_plugin.models import from_catalog
from cim_plugin.wilds_runner import model

pytestmark = pytest.mark.slow


def _classifier(algorithm: str):
    encoder = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return from_catalog.build(
        algorithm,
        {name: entry.default for name, entry in catalog.hyperparameters(algorithm).items()},
        encoder=encoder,
        n_features=8,
        make_head=lambda n: nn.Linear(n, 2),
        image_size=(28, 28),
        pixel_space=PixelSpace.raw(3),
        n_environments=None,
    )


def _step(classifier, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)
    loss = classifier.total(classifier.loss_terms(images, labels).losses)
    return loss.detach(), list(torch.autograd.grad(loss, list(classifier.parameters())))


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU"
)
def test_compiled_losses_and_gradients_are_the_same():
    """To float32's rounding; dropout and the bottleneck's noise are drawn alike."""
    torch.manual_seed(0)
    plain = _classifier("CIM_VIB")
    compiled = copy.deepcopy(plain)
    model.compile_modules(compiled)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    images, labels = torch.rand(6, 3, 28, 28), torch.arange(6) % 2
    (loss, gradients), (expected, expected_gradients) = _step(compiled, images, labels), _step(plain, images, labels)
    assert abs(loss - expected) <= 1e-6
    for gradient, reference in zip(gradients, expected_gradients):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)
    with pytest.MonkeyPatch.context() as patch:  # that something was compiled at all
        patch.setattr(torch._dynamo.config, "error_on_recompile", True)
        with pytest.raises(Exception, match="Recompiling function forward"):
            _step(compiled, torch.rand(6, 3, 28, 31), labels)


def test_a_missing_compiler_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(model.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"--compile true needs a C\+\+ compiler, e.g. g\+\+"):
        model.compile_modules(_classifier("CIM"))


def test_a_missing_compiler_beside_a_gpu_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(model.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="--compile true needs a C compiler, e.g. gcc"):
        model.compile_modules(_classifier("CIM"))


@pytest.mark.parametrize("words, status", [((), 0), (("--compile", "true"), 2)])
def test_the_flag_compiles_before_training(release, tmp_path, monkeypatch, capsys, words, status):
    """Where no program can be found there is no compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert train(release, tmp_path / "run", *words, "--n_epochs", "1", algorithm="CIM") == status
    assert ("--compile true needs a C" in capsys.readouterr().err) == bool(status)
    assert (tmp_path / "run" / "state.pth").exists() != bool(status)
