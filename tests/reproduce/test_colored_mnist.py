"""Digits on colours: the images, the runs and their table, and MNIST as DomainBed reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from stand_ins import SMALL_SWEEP, cells_of, reproduce, write_mnist

pytestmark = pytest.mark.slow


def read(folder, algorithm: str, seed: int = 0) -> dict:
    return json.loads((folder / f"{algorithm}-{seed}" / "results.json").read_text())


def test_both_tables_from_mnist_and_a_repeated_command_goes_on(tmp_path):
    write_mnist(tmp_path / "mnist")
    done = reproduce("colored_mnist", "--quick", "--algorithms", "ERM", cwd=tmp_path, host=SMALL_SWEEP)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "reproduction" / "quick" / "colored_mnist" / "colored_mnist"
    groups = read(folder, "ERM")["selection"]["average"]["splits"]["test"]["groups"]
    assert {name: group["count"] for name, group in groups.items()} == {
        "variant:own": 20,
        "variant:other_class": 20,
        "variant:new": 20,
    }
    line = cells_of(done.stdout, "average", "ERM")
    assert line[3:6] == [f"{100 * groups[f'variant:{name}']['accuracy']:.1f}" for name in ("own", "other_class", "new")]
    assert "ColoredMNIST, DomainBed" in done.stdout and "60.0 ± 0.0" in done.stdout  # env 1 of the stand-in

    before = (folder / "ERM-0" / "results.json").stat().st_mtime_ns
    done = reproduce(
        "colored_mnist", "--quick", "--n_trials", "0", "--algorithms", "ERM", "CIM", cwd=tmp_path, host=SMALL_SWEEP
    )
    assert done.returncode == 0 and done.stderr == "run 1 of 1: CIM, seed 0\n"
    assert (folder / "ERM-0" / "results.json").stat().st_mtime_ns == before and read(folder, "CIM")[
        "status"
    ] == "finished"

    done = reproduce("colored_mnist", "--quick", "--lr", "0.5", "--algorithms", "ERM", cwd=tmp_path, host=SMALL_SWEEP)
    assert (
        done.returncode == 2
        and f"{folder}/ERM-0 holds a run with lr 0.001, now it is 0.5; repeat its flags or choose another --output_dir"
        in done.stderr
    )


def test_scikit_learns_digits_stand_in_and_the_table_says_so(tmp_path):
    done = reproduce("colored_mnist", "--quick", "--algorithms", "CIM_VIB", cwd=tmp_path, host=SMALL_SWEEP)
    assert done.returncode == 0, done.stderr
    assert "colored_digits_of_scikit-learn, cim-plugin train" in done.stdout and "MNIST, DomainBed" not in done.stdout
    assert f"scikit-learn's digits stand in: there is no MNIST in {tmp_path}/mnist." in done.stdout
    assert "DomainBed's ColoredMNIST was left out: it needs MNIST." in done.stdout


def test_images_are_enlarged_where_a_model_wants_that(tmp_path, monkeypatch):
    from cim_plugin.runs import defaults
    from cim_plugin.wilds_runner.fabric import make_fabric
    from scripts.reproduce.colored_mnist import DEFAULTS, prepare
    from scripts.reproduce.trainings import configurations

    write_mnist(tmp_path)
    monkeypatch.setitem(defaults.DATASETS, "colored_mnist", DEFAULTS)
    (config,) = configurations("colored_mnist", tmp_path, tmp_path / "run", ["CIM"], [0], ["--target_resolution", "40"])
    loop = prepare(config, make_fabric(config), tmp_path, None)
    (batch,) = loop.training.loaders["val"]([[(0, 0)]])
    assert batch.images.shape == (1, 3, 40, 40)


@pytest.fixture
def digits(tmp_path):
    from scripts.reproduce.colored_mnist import read_digits

    write_mnist(tmp_path)
    return read_digits(tmp_path, None)


def test_training_colours_are_tied_to_the_class_and_test_colours_are_of_three_kinds(digits):
    from scripts.reproduce.colored_mnist import BACKGROUNDS, colour

    images, labels, backgrounds, splits = colour(digits, np.random.default_rng(0))
    assert images.shape == (180, 28, 28, 3) and [int((splits == split).sum()) for split in range(3)] == [100, 20, 60]
    border = [tuple(image[0, 0]) for image in images]  # no ink is there
    of_class = {}
    for colour_of, label, split in zip(border, labels.tolist(), splits.tolist()):
        if split < 2:
            assert of_class.setdefault(label, colour_of) == colour_of
    assert len(set(of_class.values())) == 10
    for colour_of, label, background, split in zip(border, labels.tolist(), backgrounds.tolist(), splits.tolist()):
        kind = "own" if colour_of == of_class[label] else "other_class" if colour_of in of_class.values() else "new"
        assert BACKGROUNDS[background] == kind and (split == 2 or kind == "own")
    inked = digits["train"][0][0, 0] == 1
    assert inked.any() and (images[0][inked.numpy()] == 255).all()


def test_torchvision_reads_the_digits_back(digits, tmp_path):
    from torchvision.datasets import MNIST

    from scripts.reproduce.colored_mnist import write_raw

    written = write_mnist(tmp_path / "again")
    write_raw(digits, tmp_path / "MNIST" / "raw")
    for split in ("train", "test"):
        found = MNIST(str(tmp_path), train=split == "train", download=False)
        assert torch.equal(found.data, torch.from_numpy(written[split][0])) and torch.equal(
            found.targets, torch.from_numpy(written[split][1]).long()
        )


def test_run_that_stopped_after_an_epoch_ends_like_one_that_did_not(tmp_path, monkeypatch):
    from cim_plugin.runs import defaults
    from cim_plugin.wilds_runner.fabric import make_fabric
    from scripts.reproduce.colored_mnist import DEFAULTS, prepare
    from scripts.reproduce.trainings import configurations

    write_mnist(tmp_path)
    monkeypatch.setitem(defaults.DATASETS, "colored_mnist", DEFAULTS)
    weights = {}
    for name in ("whole", "stopped"):
        (config,) = configurations(
            "colored_mnist", tmp_path, tmp_path / name, ["CIM_VIB"], [3], ["--n_epochs", "2", "--batch_size", "25"]
        )
        loop = prepare(config, make_fabric(config), tmp_path, None)
        if name == "stopped":
            loop._train_epoch()
            loop._finish_epoch()
            loop = prepare(config, make_fabric(config), tmp_path, None)
            assert loop.progress.epoch == 1
        loop.run()
        weights[name] = loop.training.classifier.state_dict()
    assert all(torch.equal(weights["whole"][key], value) for key, value in weights["stopped"].items())


def test_runs_are_submitted_to_a_cluster_where_that_is_asked_for(tmp_path):
    pytest.importorskip("submitit")
    words = ("--quick", "--launcher", "submitit", "--cluster", "local", "--algorithms", "ERM", "--n_trials", "0")
    done = reproduce("colored_mnist", *words, cwd=tmp_path, host=SMALL_SWEEP)
    folder = tmp_path / "reproduction" / "quick" / "colored_mnist"
    assert done.returncode == 0 and "1 jobs on local" in done.stderr, done.stderr
    assert read(folder / "colored_digits_of_scikit-learn", "ERM")["status"] == "finished"
    assert json.loads((folder / "cluster" / "ERM_seed_0" / "status.json").read_text())["status"] == 0
