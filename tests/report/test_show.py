"""``cim-plugin show`` on real small runs: the numbers, pictures, and runs of before."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from hosts import forked_host
from interpreters import SMALL_HOST
from PIL import Image
from retired import HARMLESS
from showing import MODEL, change, numbers, refusal, show


def test_the_numbers_as_json(run, capsys):
    said = numbers(capsys, run)
    assert list(said) == [
        "run",
        "algorithm",
        "dataset",
        "split",
        "chosen",
        "synthetic",
        "images_in_split",
        "m",
        "shown",
        "picture",
    ]
    assert (said["algorithm"], said["dataset"], said["split"], said["synthetic"], said["images_in_split"]) == (
        "CIM_VIB",
        "waterbirds",
        "val",
        True,
        36,
    )
    assert set(said["m"]["groups"]) <= {
        f"y = {y}, background = {place}" for y in ("landbird", "waterbird") for place in ("land", "water")
    }
    assert 0 < said["m"]["min"] <= said["m"]["mean"] <= said["m"]["max"] < 1
    assert said["m"]["on_figure"] / said["m"]["on_ground"] == pytest.approx(said["m"]["figure_to_ground"], rel=1e-6)
    assert len(said["shown"]) == 8 and said["picture"] is None
    for example in said["shown"]:
        assert 0 < example["after"]["probability"] <= 1 and example["label"] in ("landbird", "waterbird")


def test_named_images_another_split_and_another_rule(run, capsys):
    said = numbers(capsys, run, "--split", "test", "--images", "3", "17", "--rule", "last")
    assert sorted(example["image"] for example in said["shown"]) == [3, 17]
    assert said["split"] == "test" and said["chosen"] == "rule last, epoch 0"


def test_the_prediction_after_is_the_one_that_the_run_wrote(run, capsys):
    written = (run / "waterbirds_split:val_seed:0_epoch:best_pred.csv").read_text().split()
    said = numbers(capsys, run, "--images", *range(36))
    assert {example["image"]: example["after"]["class"] for example in said["shown"]} == {
        row: ("landbird", "waterbird")[int(label)] for row, label in enumerate(written)
    }


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_a_picture_by_its_suffix(run, tmp_path, capsys, suffix):
    file = tmp_path / f"m{suffix}"
    assert show(run, "-o", file, "--per_group", "1") == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC waterbirds" in said and f"4 images are in {file}" in said
    if suffix == ".svg":
        images = ElementTree.parse(file).getroot().iter("{http://www.w3.org/2000/svg}image")
        assert len(list(images)) == 4 * 5 + 1  # and the colour bar
    else:
        with Image.open(file) as picture:
            assert picture.width > 1000 and picture.height > 1000
            assert np.asarray(picture.convert("L")).std() > 20


def test_without_a_display_and_without_pyplot(run, tmp_path):
    code = (
        f"import sys; from cim_plugin.cli import main; status = main(['show', {str(run)!r}, '--images', '2', '-o', "
        f"{str(tmp_path / 'm.png')!r}]);"
        "print('pyplot' if 'matplotlib.pyplot' in sys.modules else 'no pyplot', status)"
    )
    done = forked_host.run(SMALL_HOST, "-c", code, DISPLAY="", WAYLAND_DISPLAY="", MPLBACKEND="TkAgg")
    assert done.stdout.splitlines()[-1] == "no pyplot 0", done.stderr


def test_without_an_output_the_picture_is_in_the_current_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert show(run, "--images", "1") == 0
    assert os.listdir(tmp_path) == ["m.png"]


def test_a_run_and_its_data_may_have_moved(copy, root, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    change(
        copy / "results.json", lambda results: results["config"].update(root_dir="gone", log_dir="gone", download=True)
    )
    assert "gone with the data of the run does not exist" in refusal(capsys, copy)
    assert numbers(capsys, copy, "--root_dir", moved)["images_in_split"] == 36


def test_a_run_from_before_a_hyperparameter_is_shown_with_its_default(copy, run, capsys):
    now = numbers(capsys, run)
    change(copy / "results.json", lambda results: results["config"]["hyperparameters"].pop("cim_learning_rate"))
    before = numbers(capsys, copy)
    assert {**before, "run": now["run"]} == now


def test_a_run_of_before_hyperparameters_that_are_no_more_is_shown(copy, run, capsys):
    """What did nothing changes nothing; a sparsity left a counter in the weights; m of three channels is rebuilt."""
    now = numbers(capsys, run)
    model = torch.load(copy / MODEL, weights_only=True)
    del model["recipe"]
    model["algorithm"]["sparsity_step"] = torch.tensor(7)
    torch.save(model, copy / MODEL)
    then = {**HARMLESS, "cim_sparsity": 0.1, "cim_composites": True, "cim_floor": "exact"}
    change(copy / "results.json", lambda results: results["config"]["hyperparameters"].update(then))
    before = numbers(capsys, copy)
    gaps = [said["m"].pop("s_pos_minus_s_neg") for said in (before, now)]  # of the exact floor, and of the smooth one
    assert before["m"] == now["m"] and gaps[0] != gaps[1]
    assert "weights of another network" in refusal(capsys, copy, *per_channel(copy))
    last = "morphing.network.features.6."
    for name in (f"{last}weight", f"{last}bias"):
        model["algorithm"][name] = model["algorithm"][name].repeat_interleave(3, 0)
    torch.save(model, copy / MODEL)
    several = numbers(capsys, copy)
    for key in ("mean", "std_between_images", "on_figure"):
        assert several["m"][key] == pytest.approx(now["m"][key])


def per_channel(folder: Path) -> list[str]:
    """Make a run one of then with a mask per channel, for which its weights do not do yet."""
    change(folder / "results.json", lambda results: results["config"]["hyperparameters"].update(cim_mask="per_channel"))
    return []


def test_the_folder_of_the_images_is_named_where_the_file_names_it(run, root, capsys):
    show(run)
    assert f"images are read from {root}, as results.json says" in capsys.readouterr().out.splitlines()
    show(run, "--root_dir", root)
    assert "images are read from" not in capsys.readouterr().out
