"""A model that ``examples/run_expt.py`` trained, taken home: loaded without the host and the data."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision.transforms as T
from interpreters import HERE
from PIL import Image

import cim_plugin
from cim_plugin.errors import InputError
from cim_plugin.models import extra_state

sys.path.append(str(HERE / "models"))
import elsewhere  # noqa: E402
from elsewhere import Asked  # noqa: E402
from hosts.wilds_run_expt import run_expt

#: beside every model, images and what the training process says of them
LOGITS = """
import torch, train
inner = train.save_model
def save_model(algorithm, epoch, best_val_metric, path):
    inner(algorithm, epoch, best_val_metric, path)
    images = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        algorithm.eval()
        torch.save((images, algorithm.model(images)), f"{path}.logits")
train.save_model = save_model
"""


@pytest.fixture(scope="module")
def taken_home(checkout, shims, release, tmp_path_factory):
    """The folders of runs of CIM and CIM+groupDRO of one epoch, with the training process's logits."""
    folder = tmp_path_factory.mktemp("home")
    for algorithm in ("CIM", "CIM+groupDRO"):
        done = run_expt(checkout, shims, release, folder / algorithm, algorithm, "--n_epochs", "1", then=LOGITS)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_model_is_loaded_without_host_and_data_and_gives_the_same_bits(taken_home, release, tmp_path):
    photographs = [str(release / "waterbirds_v1.0" / f"{number}.png") for number in range(1, 4)]
    asked, expected = [], []
    for folder in sorted(taken_home.iterdir()):
        (file,) = folder.glob("*epoch:last_model.pth")
        images, logits = torch.load(f"{file}.logits", weights_only=True)
        asked.append(Asked(str(folder), "last", images, photographs))
        expected.append(logits)
    reference = T.Compose([T.Resize((28, 28)), T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    prepared = [reference(Image.open(file)) for file in photographs]
    for answer, logits in zip(elsewhere.ask(tmp_path, *asked), expected):
        assert torch.equal(answer["logits"], logits)
        assert torch.equal(torch.stack(answer["prepared"]), torch.stack(prepared))
        assert answer["class_names"] == ["landbird", "waterbird"] and answer["m"].shape == (5, 1, 28, 28)


def test_an_epoch_that_is_not_there_is_refused(taken_home):
    with pytest.raises(InputError, match="holds no model of epoch '7'; name a file: waterbirds_seed:0_epoch:best"):
        cim_plugin.load(taken_home / "CIM", rule="7")


def test_a_model_that_only_the_host_can_build_is_refused(taken_home, tmp_path):
    (file,) = (taken_home / "CIM").glob("*epoch:last_model.pth")
    saved = torch.load(file, weights_only=True)
    saved["algorithm"][extra_state.KEY] = extra_state.as_tensor({"recipe": None})
    torch.save(saved, tmp_path / "model.pth")
    with pytest.raises(InputError, match="its recipe is None, not a table of values"):
        cim_plugin.load(tmp_path / "model.pth")
