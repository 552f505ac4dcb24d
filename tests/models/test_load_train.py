"""Models of ``cim-plugin train``, loaded where neither the data nor the runner is."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from elsewhere import Asked, ask
from interpreters import HERE

import cim_plugin
from cim_plugin.errors import InputError
from cim_plugin.wilds_runner import results
from cim_plugin.wilds_runner.loading import to_pixels

sys.path.append(str(HERE / "wilds_runner"))
from small_runs import model_path, train, write_celeba, write_release  # noqa: E402

ALGORITHMS = ("CIM_VIB", "groupDRO")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Algorithm -> (folder of its run, (images, logits) of the training process when it wrote the last model)."""
    folder, inner, seen = tmp_path_factory.mktemp("runs"), results.publish, {}
    write_release(folder / "root")
    write_celeba(folder / "root")

    def publish(training, *others):
        inner(training, *others)
        batch = next(iter(training.loaders["val"]([[(row, 0) for row in range(7)]])))
        images = to_pixels(batch.images, "cpu")
        with torch.no_grad():
            seen[training.config.log_dir] = images, training.classifier.eval()(images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "publish", publish)
        for algorithm in ALGORITHMS:
            more = ("--uniform_over_groups", "true") if algorithm == "groupDRO" else ()
            assert train(folder / "root", folder / algorithm, "--n_epochs", "1", *more, algorithm=algorithm) == 0
        square = ("--transform", "image_base", "--target_resolution", "32")
        assert train(folder / "root", folder / "CIM", *square, algorithm="CIM", dataset="celebA") == 0
    return {name: (folder / name, *seen[str(folder / name)]) for name in (*ALGORITHMS, "CIM")}, folder / "root"


@pytest.mark.slow
def test_logits_and_prepared_images_equal_the_training_process_s_to_the_last_bit(runs, tmp_path):
    folders, root = runs
    rows = [line.split(",") for line in (root / "waterbirds_v1.0" / "metadata.csv").read_text().split("\n")[1:] if line]
    birds = [str(root / "waterbirds_v1.0" / row[1]) for row in rows if row[3] == "1"][:7]
    faces = [str(root / "celebA_v1.0" / "img_align_celeba" / f"{number:06}.jpg") for number in range(61, 68)]
    asked = [Asked(str(folders[name][0]), "last", folders[name][1], birds) for name in ALGORITHMS]
    asked.append(Asked(str(folders["CIM"][0]), "last", folders["CIM"][1], faces))
    answers = ask(tmp_path, *asked)
    for (_, images, logits), answer in zip(folders.values(), answers):
        assert torch.equal(answer["logits"], logits)
        assert torch.equal(torch.stack(answer["prepared"]), images)
    assert [answer["class_names"] for answer in answers] == [["landbird", "waterbird"]] * 2 + [["not blond", "blond"]]
    assert answers[0]["m"].shape == (7, 1, 28, 28) and answers[1]["m"] is None


def test_the_file_says_all_that_is_needed(runs, tmp_path):
    (folder, images, logits), _ = runs[0]["CIM_VIB"], runs[1]
    file = shutil.copy(model_path(folder, "last"), tmp_path / "model.pth")
    model = cim_plugin.load(file)
    assert not model.training and torch.equal(model(images), logits)
    assert model.class_names == ["landbird", "waterbird"]


@pytest.fixture
def of_version_1(runs, tmp_path) -> Path:
    """A run as version 0.1 left it: its files hold no recipe."""
    folder = Path(shutil.copytree(runs[0]["CIM_VIB"][0], tmp_path / "old"))
    for file in folder.rglob("*_model.pth"):
        saved = torch.load(file, weights_only=True)
        del saved["recipe"]
        file.unlink()
        torch.save(saved, file)
    return folder


def test_a_run_without_names_of_classes_has_their_numbers(of_version_1, runs):
    _, images, logits = runs[0]["CIM_VIB"]
    for path in (of_version_1, model_path(of_version_1, "last"), model_path(of_version_1, "average")):
        model = cim_plugin.load(path, rule="last")
        assert model.class_names == ["0", "1"] and torch.equal(model(images), logits)


def test_such_a_file_without_its_results_is_refused(of_version_1, tmp_path):
    file = shutil.copy(model_path(of_version_1, "last"), tmp_path / "model.pth")
    with pytest.raises(InputError, match="older than version 0.2 .* results.json is not beside it"):
        cim_plugin.load(file)


def test_a_rule_that_chose_nothing_is_refused(runs):
    with pytest.raises(InputError, match="--rule 'worst_pseudo_group' has chosen no epoch"):
        cim_plugin.load(runs[0]["CIM_VIB"][0], rule="worst_pseudo_group")


def test_a_model_that_was_removed_is_refused(of_version_1):
    os.remove(model_path(of_version_1, "last"))
    with pytest.raises(InputError, match="is missing: it was removed"):
        cim_plugin.load(of_version_1, rule="last")


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"encoder": "hf-hub:somebody/model"}, "encoder 'hf-hub:somebody/model' of its recipe"),
        ({"encoder_options": {"checkpoint_path": "/tmp/x"}}, "arguments that shape a network and name no file"),
        ({"class_names": ["a\x1b[2J", "b"]}, "a list of names that can be printed"),
        ({"image_size": [10**9, 2]}, "height and width, at most"),
        ({"preparation": [["execute", "x"]]}, "a list of steps"),
        ({"algorithm": "CAM"}, "'CAM' of its recipe is not one of"),
        ({"std": [0.0, 1.0, 1.0]}, "a list of numbers above 0"),
        ({"hyperparameters": {"cim_x": 1}}, "no hyperparameter 'cim_x'"),
        ({"surprise": 1}, "which this version does not know"),
        ({"class_names": ["a", "b", "c"]}, "weights of another network"),
    ],
)
def test_of_a_foreign_recipe_only_harmless_values_are_taken(runs, tmp_path, changes, says):
    saved = torch.load(model_path(runs[0]["CIM_VIB"][0], "last"), weights_only=True)
    saved["recipe"] |= changes
    torch.save(saved, tmp_path / "model.pth")
    with pytest.raises(InputError, match=says) as refused:
        cim_plugin.load(tmp_path / "model.pth")
    assert "\n" not in str(refused.value)


def test_recipes_are_plain_values(runs):
    saved = torch.load(model_path(runs[0]["groupDRO"][0], "last"), weights_only=True)["recipe"]
    assert json.loads(json.dumps(saved)) == saved and saved["groups_in_training"] == [True] * 4


@pytest.mark.parametrize("name, says", [("nowhere", "does not exist"), ("", "holds neither results.json")])
def test_what_is_no_model_is_refused(tmp_path, name, says):
    with pytest.raises(InputError, match=says):
        cim_plugin.load(tmp_path / name)
