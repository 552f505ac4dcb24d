"""``python -m scripts.evidence subgroups`` on a small release: what it trains, and that it goes on with the missing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from cim_plugin.errors import InputError
from cim_plugin.files import read_json
from scripts.evidence import __main__ as command
from scripts.evidence import figures_only
from scripts.evidence.rows import ROWS

TINY = "--n_epochs 1 --side 32 --cross_fit 1 --search 0 --seeds 1 --at_once 1".split()


def run(inputs, folder, *more: str, weights=None) -> int:
    words = ["subgroups", "--root_dir", inputs.root, "--weights", weights or inputs.weights, "--output_dir", folder]
    return command.run(command.make_parser().parse_args([*map(str, words), *TINY, *more]))


@pytest.mark.slow
def test_what_is_missing_is_trained_and_what_is_there_stays(inputs, tmp_path, capsys):
    assert run(inputs, tmp_path, "--rows", "AFR", "CIM", "figures-only") == 0, capsys.readouterr().err
    picture = tmp_path / "masks.png"
    assert run(inputs, tmp_path, "--rows", "CIM", "--masks", str(picture)) == 0 and picture.stat().st_size > 1000
    folder = tmp_path / "32px_1epochs"
    found = {name: folder / name / "lr_0.0001" / "seed_0" / "results.json" for name in ("ERM", *ROWS)}
    assert {name for name, file in found.items() if file.exists()} == {"ERM", "AFR", "CIM", "figures-only"}
    assert read_json(found["AFR"])["config"]["retrain"] == "afr"
    overlap = read_json(found["CIM"].parent / "overlap.json")
    assert overlap["images"] == 12 and 0 <= overlap["auc"] <= 1
    assert not (found["ERM"].parent / "overlap.json").exists()
    assert "torch" in read_json(found["AFR"].parent / "machine.json")["machine"]
    chosen = {name: read_json(found[name])["selection"] for name in ("ERM", "AFR", "CIM", "figures-only")}
    assert all("worst_pseudo_group" in of_run and "last" in of_run for of_run in chosen.values())
    before = {name: file.stat().st_mtime_ns for name, file in found.items() if file.exists()}
    shutil.rmtree(found["CIM"].parent)
    assert run(inputs, tmp_path, "--rows", "AFR", "CIM", "figures-only") == 0
    after = {name: file.stat().st_mtime_ns for name, file in found.items() if file.exists()}
    assert after.pop("CIM") > before.pop("CIM") and after == before


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_the_file_that_says_why(inputs, tmp_path, capsys):
    wrong = tmp_path / "wrong.pt"
    wrong.write_text("no weights")
    assert run(inputs, tmp_path / "out", "--rows", "ERM", weights=wrong) == 1
    said = capsys.readouterr().err
    assert "a run failed (exit status 2)" in said and "references/seed_0/err.txt says why" in said
    assert "wrong.pt" in (tmp_path / "out/32px_1epochs/references/seed_0/err.txt").read_text()


def test_without_masks_the_rows_that_need_them_are_left_out_in_one_line(inputs, tmp_path, capsys):
    shutil.copytree(inputs.root, tmp_path / "data", ignore=shutil.ignore_patterns("masks"))
    words = [
        "subgroups",
        "--root_dir",
        tmp_path / "data",
        "--weights",
        inputs.weights,
        "--output_dir",
        tmp_path / "out",
    ]
    plan, masks = command.make_plan(command.make_parser().parse_args([str(word) for word in words]))
    assert set(ROWS) - set(plan.rows) == {name for name, row in ROWS.items() if row.figures_only} == {"figures-only"}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "figures-only, the overlap of m" in said and not masks


@pytest.mark.parametrize("lacking", ["--root_dir", "--weights", "--references"])
def test_what_is_not_there_is_named(inputs, tmp_path, lacking):
    given = {"--root_dir": inputs.root, "--weights": inputs.weights, lacking: tmp_path / "nothing"}
    words = ["subgroups", "--output_dir", tmp_path, *(word for pair in given.items() for word in pair)]
    with pytest.raises(InputError, match=f"{lacking} .*nothing"):
        command.make_plan(command.make_parser().parse_args([str(word) for word in words]))


def test_the_ground_is_black_and_the_bird_as_it_was(inputs, tmp_path):
    figures_only.make(str(inputs.root), str(tmp_path))
    before, after = inputs.root / "waterbirds_v1.0", tmp_path / "waterbirds_v1.0"
    rows = (before / "metadata.csv").read_text().splitlines()
    assert (after / "metadata.csv").read_text().splitlines() == [row.replace(".jpg", ".png") for row in rows]
    assert (after / "RELEASE_v1.0.txt").read_text().startswith("SYNTHETIC")
    for name in ("species/0_0", "species/2_11"):
        image = np.asarray(Image.open(before / f"{name}.jpg")).astype(int)
        mask = np.asarray(Image.open(before / f"masks/{name}.png"))
        bird = np.asarray(Image.open(after / f"{name}.png"))
        assert not bird[mask == 0].any() and np.array_equal(bird[mask == 255], image[mask == 255])
    made = (after / "metadata.csv").stat().st_mtime_ns
    figures_only.make(str(inputs.root), str(tmp_path))
    assert (after / "metadata.csv").stat().st_mtime_ns == made
