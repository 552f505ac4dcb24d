"""``cim-plugin retrain --method split`` and ``maps``: the run they make, what they look at, what they refuse."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from wilds_runner.small_runs import (
    model_path,
    prediction_path,
    read_metadata,
    read_model,
    results,
    train,
    write_metadata,
    write_release,
)

import cim_plugin
from cim_plugin import cli
from cim_plugin.errors import InputError
from cim_plugin.retrain.split import _equally


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_release(folder)
    return folder


@pytest.fixture(scope="module")
def trained(release, tmp_path_factory):
    """A finished run of ERM with pseudo-environments. Not to be changed."""
    log_dir = tmp_path_factory.mktemp("runs") / "run"
    assert train(release, log_dir, "--cross_fit", "10", algorithm="ERM") == 0
    return log_dir


def retrain(run, *words: str) -> int:
    return cli.main(["retrain", str(run), *words])


@pytest.fixture(scope="module")
def made(trained):
    """A function (method) -> the folder of the run that it makes. Not to be changed."""

    @functools.cache
    def folder(method: str):
        assert retrain(trained, "--method", method) == 0
        return trained.parent / f"run-{method}"

    return folder


def images_of(release, split: str) -> list:
    rows = read_metadata(release / "waterbirds_v1.0")
    return [release / "waterbirds_v1.0" / row["img_filename"] for row in rows if row["split"] == split]


@pytest.mark.parametrize("method", ["split", "maps"])
def test_the_loaded_model_predicts_what_the_run_has_written(made, release, method):
    folder = made(method)
    model = cim_plugin.load(folder)
    with torch.no_grad():
        batch = torch.stack([model.transform(Image.open(path)) for path in images_of(release, "2")])
        predicted = model(batch).argmax(1)
        x, m, psi = model.morph(batch)
    assert predicted.tolist() == [int(line) for line in prediction_path(folder, "best", "test").read_text().split()]
    assert m.shape == (len(batch), 1, *x.shape[2:]) and (0 <= m).all() and (m <= 1).all()
    assert torch.equal(psi, m * x) and (m == 1).all() == (method == "maps")


@pytest.mark.slow
def test_its_encoder_is_the_runs_own_and_its_record_says_what_was_done(trained, made, tmp_path):
    before, after = read_model(trained), read_model(made("split"))
    for name, weights in before.items():
        if name.startswith("encoder."):
            assert torch.equal(weights, after[name.replace("encoder.1.", "encoder.1.encoder.")])
    record = results(made("split"))
    assert record["config"] == {**results(trained)["config"], "retrain": "split"}
    assert record["retrain"]["needs"].startswith("labels of validation data") and record["retrain"]["split_weight"] == 1
    assert retrain(trained, "--method", "split", "--split_weight", "0", "--log_dir", str(tmp_path / "w0")) == 0
    assert results(tmp_path / "w0")["config"]["retrain"] == "split, split_weight=0"
    assert not torch.equal(read_model(tmp_path / "w0")["head.weight"], after["head.weight"])


@pytest.mark.slow
def test_neither_labels_of_groups_nor_the_test_are_looked_at(trained, made, release, tmp_path):
    changed = shutil.copytree(release, tmp_path / "data")
    rows = read_metadata(changed / "waterbirds_v1.0")
    for number, row in enumerate(rows):
        row["place"] = str(number % 2)
        if row["split"] == "2":
            row["y"] = str(1 - int(row["y"]))
    write_metadata(changed / "waterbirds_v1.0", rows)
    words = ["--root_dir", str(changed), "--log_dir", str(tmp_path / "other")]
    assert retrain(trained, "--method", "split", *words) == 0
    one, other = read_model(made("split")), read_model(tmp_path / "other")
    assert all(torch.equal(weights, other[name]) for name, weights in one.items())


@pytest.mark.slow
def test_export_and_predict_take_it(made, release, tmp_path):
    folder = made("split")
    assert cli.main(["export", str(folder), "--format", "torch-export", "-o", str(tmp_path / "model.pt2")]) == 0
    image = str(images_of(release, "2")[0])
    assert cli.main(["predict", str(folder), image, "--masks", str(tmp_path / "masks")]) == 0
    (picture,) = (tmp_path / "masks").iterdir()
    width, height = Image.open(picture).size
    assert width == 3 * height


def test_a_run_with_a_psi_of_its_own_is_refused(release, tmp_path, capsys):
    assert train(release, tmp_path / "cim", "--cross_fit", "10", algorithm="CIM") == 0
    assert retrain(tmp_path / "cim", "--method", "split") == 2
    assert "is a run of CIM, and --method split needs an encoder alone; take a run of ERM" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["split", "maps"])
def test_a_run_without_pseudo_environments_is_refused(release, tmp_path, capsys, method):
    assert train(release, tmp_path / "erm", algorithm="ERM") == 0
    assert retrain(tmp_path / "erm", "--method", method) == 2
    assert f"--method {method}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "split, said",
    [
        ((0, 4, True, "0"), "side, channels"),
        ((7, 4, "yes", "0"), "side, channels"),
        ((7, 4, True), "side, channels"),
        ((7, 4, True, "a/b"), "side, channels"),
        ((7, 4, True, "nothing"), "no stage 'nothing'"),
    ],
)
def test_a_damaged_recipe_is_one_line(made, tmp_path, split, said):
    state, path = torch.load(model_path(made("split"), "best"), weights_only=True), tmp_path / "damaged.pth"
    state["recipe"]["split"] = list(split)
    torch.save(state, path)
    with pytest.raises(InputError, match=said):
        cim_plugin.load(path)


def test_where_memory_is_short_every_group_is_drawn_equally_often():
    groups = torch.tensor([0] * 90 + [1] * 40 + [2] * 3)
    rows = _equally(groups, 30, 0)
    assert torch.bincount(groups[rows]).tolist() == [10, 10, 3]
    assert len(rows.unique()) == len(rows) and rows.tolist() == sorted(rows.tolist())
    assert _equally(groups, 133, 0).tolist() == list(range(133))
    assert not np.array_equal(rows, _equally(groups, 30, 1))
