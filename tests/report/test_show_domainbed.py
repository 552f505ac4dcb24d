"""``cim-plugin show`` on DomainBed's model.pkl: read without executing anything, and shown with the host's own data and
splits.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hosts import forked_host
from hosts.forked_host import SMALL_HOST
from PIL import Image
from retired import HARMLESS, said
from torch.utils.data import ConcatDataset, TensorDataset
from torchvision.datasets import ImageFolder

from cim_plugin import cli
from cim_plugin.show.domainbed import _labels, _read

ARGS = {
    "algorithm": "CIM",
    "dataset": "DebugDigitsOnPhotos",
    "data_dir": None,
    "test_envs": [2],
    "holdout_fraction": 0.2,
    "trial_seed": 0,
    "seed": 0,
}
SAVED = {
    "args": ARGS,
    "model_hparams": {},
    "model_input_shape": (3, 28, 28),
    "model_num_classes": 2,
    "model_num_domains": 2,
    "model_dict": {},
}


def save(folder, **changes):
    torch.save({**SAVED, **changes}, folder / "model.pkl")
    return folder


def refusal(capsys, *words) -> str:
    capsys.readouterr()
    assert cli.main(["show", *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


class _Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_random_hyperparameters_with_numpys_numbers_are_read(tmp_path):
    hparams = {
        "resnet_dropout": np.random.RandomState(0).choice([0.0, 0.1]),
        "flag": np.bool_(True),
        "count": np.int64(3),
    }
    save(tmp_path, model_hparams=hparams)
    assert _read(str(tmp_path / "model.pkl"))["model_hparams"] == hparams


BAD = {
    "ERM": ({"args": {**ARGS, "algorithm": "ERM"}}, [], "a run of ERM, which has no transformation network"),
    "a composition": (
        {"args": {**ARGS, "algorithm": "CIM+CORAL"}},
        [],
        "a run of CIM+CORAL; of DomainBed's compositions none but CIM+ERM, which is CIM, can be shown yet",
    ),
    "an algorithm that is no text": ({"args": {**ARGS, "algorithm": 3}}, [], "a run of 3"),
    "no hyperparameters": ({"model_hparams": None}, [], "has no 'model_hparams'"),
    "no seed": ({"args": {key: value for key, value in ARGS.items() if key != "seed"}}, [], "its args have no 'seed'"),
    "code": ({"model_dict": _Code()}, [], "nothing else is loaded"),
    "a split of WILDS": ({}, ["--split", "id_val"], "one of train, val, test"),
    "a fraction of 2": ({"args": {**ARGS, "holdout_fraction": 2.0}}, [], "its holdout_fraction is 2.0"),
    "environments that are text": ({"args": {**ARGS, "test_envs": "2"}}, [], "its test_envs is '2'"),
    "a folder that is a number": ({"args": {**ARGS, "data_dir": 3}}, [], "its data_dir is 3"),
    "a billion classes": ({"model_num_classes": 10**9}, [], "a size in it is not a number from 0 to"),
    "a layer of a billion": ({"model_hparams": {"vib_dim": 10**9}}, [], "a size in it is not a number from 0 to"),
    "no DomainBed": ({}, [], "needs DomainBed for its images"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_in_one_line(tmp_path, capsys, monkeypatch, what):
    changes, words, says = BAD[what]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DOMAINBED_HOME", raising=False)
    if what == "no DomainBed":
        monkeypatch.setitem(sys.modules, "domainbed.datasets", None)
    assert says in refusal(capsys, save(tmp_path, **changes), *words)
    assert not (tmp_path / "executed").exists()


@pytest.mark.host
@pytest.mark.parametrize("algorithm", ["CIM", "CIM+ERM"])
def test_a_real_run(domainbed, tmp_path, algorithm):
    """Trained by DomainBed itself; shown by environment, with the digits known, and with the accuracies that DomainBed
    wrote.
    """
    words = f"--algorithm {algorithm} --dataset DebugDigitsOnPhotos --test_envs 2 --steps 1 --output_dir".split()
    done = forked_host.run(domainbed, "-m", "domainbed.scripts.train", *words, str(tmp_path))
    assert done.returncode == 0, done.stderr
    saved = torch.load(tmp_path / "model.pkl", weights_only=False)
    saved["model_hparams"].pop("cim_learning_rate")  # as if trained before there was this one
    saved["model_hparams"].update(HARMLESS)  # and while there were those
    torch.save(saved, tmp_path / "model.pkl")
    script = f"""
        import json
        from cim_plugin.show import opening, summary
        said = []
        for split in ("train", "val", "test"):
            learnt = opening.open_run({str(tmp_path)!r}, split, "best", None)
            rows = list(range(len(learnt.labels)))
            right = (learnt.model(learnt.read(rows)).argmax(1) == learnt.labels).double()
            accuracy = [float(right[learnt.groups == group].mean()) for group in range(len(learnt.group_names))]
            has_figures = summary.summarize(learnt, 0, False)["figure_to_ground"] is not None
            said.append([learnt.unit, learnt.group_names, learnt.synthetic, accuracy, has_figures])
        print(json.dumps(said))
    """
    done = forked_host.run(domainbed, "-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])
    train, val, test = json.loads(done.stdout.splitlines()[-1])
    for told, part in ((train, "in"), (val, "out")):
        assert told[:3] == ["environment", ["environment +90%", "environment +80%"], True]
        assert told[3] == pytest.approx([written[f"env0_{part}_acc"], written[f"env1_{part}_acc"]])
        assert told[4]
    assert test[1] == ["environment -90%"]
    n_in, n_out = 480, 119  # of 599
    assert test[3][0] == pytest.approx(
        (n_in * written["env2_in_acc"] + n_out * written["env2_out_acc"]) / (n_in + n_out)
    )


@pytest.mark.slow
def test_a_model_of_then_is_built_as_it_was(tmp_path):
    """On the small host: with hyperparameters that did nothing it is built anywhere, with others by ``show`` only."""
    script = """
        import json, torch
        from domainbed import algorithms, hparams_registry
        from cim_plugin import catalog
        from cim_plugin import retired
        from cim_plugin.errors import InputError
        CIM = algorithms.get_algorithm_class("CIM")
        hparams = {**hparams_registry.default_hparams("CIM", "Debug28"), **HARMLESS}
        def built(**changes):
            model = CIM((3, 28, 28), 2, 2, {**hparams, **changes}).model
            return [model.morphing(torch.rand(2, 3, 28, 28)).mask.shape[1], model.contrast.similarity.floor]
        said = [built()]
        try:
            built(cim_mask="per_channel", cim_floor="exact")
        except InputError as error:
            said.append(str(error))
        with retired.allowed():
            said.append(built(cim_mask="per_channel", cim_floor="exact"))
        print(json.dumps(said))
    """
    done = forked_host.run(SMALL_HOST, "-c", textwrap.dedent(script).replace("**HARMLESS", f"**{HARMLESS}"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == [[1, "smooth"], f"CIM: {said('cim_mask')}", [3, "exact"]]


class _Flipped(TensorDataset):
    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return image, 1 - label


def test_labels_are_those_that_the_data_set_gives(tmp_path):
    """Not those that it holds: a target_transform, or a subclass, comes between."""
    for number, name in enumerate(("cat", "dog", "dog")):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name / f"{number}.png")
    images, labels = torch.zeros(3, 3, 4, 4), torch.tensor([0.0, 1.0, 1.0])
    given = [
        ImageFolder(tmp_path, target_transform=lambda label: 1 - label),
        ImageFolder(tmp_path),
        TensorDataset(images, labels),
        _Flipped(images, labels),
        ConcatDataset([ImageFolder(tmp_path, target_transform=lambda label: label + 5), ImageFolder(tmp_path)]),
    ]
    host = SimpleNamespace(datasets=SimpleNamespace())
    for environment in given:
        assert _labels(host, environment).tolist() == [int(environment[row][1]) for row in range(len(environment))]
        assert _labels(host, environment).dtype == torch.int64
