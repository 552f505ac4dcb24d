"""The study: its data, its pseudo-environments, its steps, its tables, and the command from end to end."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn
from torchvision.models import squeezenet1_0

from cim_plugin.errors import InputError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "scripts" / "experiments"


def study(mnist: Path, output: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(EXPERIMENTS), "--mnist", str(mnist), "--output_dir", str(output), "--jobs", "1", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"})


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(mnist, tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    done = study(mnist, output, "--quick", "--rows", "main", "further")
    assert done.returncode == 0, done.stderr[-2000:]
    return output, done.stdout


def test_quick_trains_every_row_but_the_ablations_and_prints_them(quick):
    from rows import FURTHER, MAIN

    output, text = quick
    files = list(output.rglob("results.json"))
    assert len(files) == len(MAIN) + len(FURTHER)
    assert all(f"| {name} | 1 |" in text for name in {**MAIN, **FURTHER})
    for file in files:
        result = json.loads(file.read_text())
        assert result["status"] == "finished" and result["row"] in {**MAIN, **FURTHER}
        test = result["selection"]["last"]["splits"]["test"]
        assert test["metrics"]["acc_wg"] == min(group["accuracy"] for group in test["groups"].values())


def test_masks_are_drawn_of_the_rows_that_have_them(mnist, quick, tmp_path):
    done = study(mnist, quick[0], "--quick", "--rows", "ERM", "CIM", "ablation: one mask per channel", "--tables", "--masks", str(tmp_path / "masks"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["photos_95.png"]
    width, height = Image.open(tmp_path / "masks" / "photos_95.png").size
    assert width > 600 and 200 < height < width  # three lines of pictures
    assert not list(quick[0].rglob("ablation*"))  # nothing is kept of it


def test_finished_runs_are_not_done_again(mnist, quick):
    output, text = quick
    before = {file: file.stat().st_mtime_ns for file in output.rglob("results.json")}
    again = study(mnist, output, "--quick", "--rows", "main", "further")
    assert again.returncode == 0 and again.stdout == text
    assert {file: file.stat().st_mtime_ns for file in output.rglob("results.json")} == before


def test_a_row_that_needs_another_ones_mask_has_it_trained_first(mnist, tmp_path):
    done = study(mnist, tmp_path, "--quick", "--rows", "ERM, random mask of CIM's mean")
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(file.parts[-3] for file in tmp_path.rglob("results.json")) == ["CIM", "ERM__random_mask_of_CIM_s_mean"]


def test_compare_reads_the_studys_runs(quick, capsys):
    from cim_plugin import cli

    assert cli.main(["compare", str(quick[0])]) == 0
    text = capsys.readouterr().out
    assert "photos_95" in text and "SYNTHETIC" in text and "groupDRO" in text


@pytest.mark.parametrize(
    "words, said",
    [
        (["--rows", "ERN"], "row 'ERN' is unknown"),
        (["--jobs", "0"], "--jobs 0 is no number of processes; give 1 or more"),
        (["--search", "2", "--rule", "last"], "--rule last cannot choose hyperparameters on validation data"),
        (["--mnist", "nowhere"], "nowhere/train-images-idx3-ubyte.gz is not there; name the folder of MNIST's four .gz files"),
    ],
)
def test_a_mistake_is_said_in_one_line(mnist, tmp_path, words, said):
    done = study(mnist, tmp_path, "--quick", *words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(mnist):
    from tasks import Folders, make_task

    return make_task("photos_95", 0, Folders(mnist, mnist))


@pytest.mark.parametrize("name, tied", [("colours_85", 0.85), ("colours_95", 0.95), ("photos_95", 0.95), ("domainbed_colours", 0.85 * 0.5 + 0.85 * 0.5)])
def test_label_and_nuisance_are_tied_in_training_and_validation_only(mnist, name, tied):
    from tasks import Folders, make_task

    splits = make_task(name, 0, Folders(mnist, mnist)).splits
    for split in ("train", "val"):
        assert (splits[split].labels == splits[split].environments).double().mean().item() == pytest.approx(tied, abs=0.02)
    untied = {"colours_85": 0.1, "colours_95": 0.1, "photos_95": 0.5, "domainbed_colours": 0.1}[name]
    assert (splits["test"].labels == splits["test"].environments).double().mean().item() == pytest.approx(untied, abs=0.03)


def test_the_colour_of_an_image_is_that_of_its_environment(mnist):
    from tasks import Folders, make_task

    train = make_task("colours_95", 0, Folders(mnist, mnist)).splits["train"]
    corner = train.images[:, :, 0, 0]
    assert all(len(corner[train.environments == colour].unique(dim=0)) == 1 for colour in range(10))


def test_another_seed_draws_other_images(mnist, photos):
    from tasks import Folders, make_task

    assert not torch.equal(make_task("photos_95", 1, Folders(mnist, mnist)).splits["train"].images, photos.splits["train"].images)


# --- PACS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pacs_folders(mnist, tmp_path_factory):
    """PACS's layout: two domains and the held-out one, seven classes of five pictures each, and weights of a SqueezeNet that has learnt nothing."""
    from tasks import Folders

    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for domain in ("photo", "sketch", "cartoon"):
        for label in "abcdefg":
            (folder / "PACS" / domain / label).mkdir(parents=True)
            for number in range(5):
                Image.fromarray(rng.integers(0, 256, (227, 227, 3), dtype=np.uint8)).save(folder / "PACS" / domain / label / f"{number}.png")
    (folder / "weights").mkdir()
    torch.save(squeezenet1_0().state_dict(), folder / "weights" / "squeezenet1_0_caffe_bgr255_fp16.pt")
    return Folders(mnist, folder / "PACS")


def test_pacs_holds_one_domain_out_and_a_fifth_of_every_other_one(pacs_folders):
    from tasks import make_task

    task = make_task("pacs_sketch", 0, pacs_folders)
    assert {name: len(split.labels) for name, split in task.splits.items()} == {"train": 56, "val": 14, "test": 35}
    assert task.group_names == ["cartoon", "photo", "sketch"] and task.n_classes == 7
    assert {name: split.groups.bincount().tolist() for name, split in task.splits.items()} == {"train": [28, 28], "val": [7, 7], "test": [0, 0, 35]}
    pictures = [tuple(image.flatten().tolist()) for split in task.splits.values() for image in split.images]
    assert len(set(pictures)) == 105
    again, other = (make_task("pacs_sketch", seed, pacs_folders).splits["train"].images for seed in (0, 1))
    assert torch.equal(task.splits["train"].images, again) and not torch.equal(again, other)


def test_a_run_on_pacs_trains_head_and_transformation_network_only(pacs_folders):
    from rows import ROWS
    from tables import masks
    from tasks import make_task
    from training import Pseudo, build, run

    task = make_task("pacs_sketch", 0, pacs_folders)
    classifier = build(task, ROWS["CIM"], 0, None)
    assert not any(weight.requires_grad for weight in classifier.encoder.parameters())
    assert sum(weight.requires_grad for weight in classifier.parameters()) == 2 + len(list(classifier.morphing.parameters()))
    result = run(task, ROWS["CIM"], 0, 10, Pseudo(task.splits["train"].labels, task.splits["val"].labels))
    test = result["selection"]["last"]["splits"]["test"]
    assert result["steps"] == 1 and test["metrics"]["acc_wg"] == test["metrics"]["acc_avg"] == test["groups"]["sketch"]["accuracy"]
    assert masks([result]) == f"{result['mask_mean']:.2f}"


def test_the_squeezenet_is_given_blue_green_and_red_less_their_means(pacs_folders):
    from encoder import FrozenSqueezeNet

    encoder = FrozenSqueezeNet(pacs_folders.pacs.parent / "weights" / "squeezenet1_0_caffe_bgr255_fp16.pt")
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    expected = encoder.features(pixels[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)).mean((2, 3))
    torch.testing.assert_close(encoder(pixels / 127.5 - 1), expected, rtol=1e-3, atol=1e-2)


def test_a_domain_without_a_class_is_refused_as_its_labels_would_shift(pacs_folders, tmp_path):
    from tasks import make_task

    shutil.copytree(pacs_folders.pacs.parent, tmp_path / "data")
    (tmp_path / "data" / "PACS" / "photo" / "c").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="photo holds 6 classes where PACS has 7"):
        make_task("pacs_sketch", 0, pacs_folders._replace(pacs=tmp_path / "data" / "PACS"))


def test_a_picture_that_cannot_be_read_is_said(pacs_folders, tmp_path):
    from tasks import make_task

    shutil.copytree(pacs_folders.pacs.parent, tmp_path / "data")
    (tmp_path / "data" / "PACS" / "photo" / "c" / "0.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="a picture of .*photo cannot be read"):
        make_task("pacs_sketch", 0, pacs_folders._replace(pacs=tmp_path / "data" / "PACS"))


@pytest.mark.parametrize("gone", ["PACS/sketch", "weights/squeezenet1_0_caffe_bgr255_fp16.pt"])
def test_what_pacs_lacks_is_named(pacs_folders, tmp_path, gone):
    from tasks import make_task

    shutil.copytree(pacs_folders.pacs.parent, tmp_path / "data")
    (tmp_path / "data" / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{tmp_path}/data/{gone} is not there; .*, or leave the task out"):
        make_task("pacs_sketch", 0, pacs_folders._replace(pacs=tmp_path / "data" / "PACS"))


# --- pseudo-environments ----------------------------------------------------------------------------------------------


def test_every_image_is_predicted_by_the_model_that_has_not_seen_it():
    from cross_fit import out_of_fold_predictions

    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)
    seen: list[set] = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(40))
            seen.append((set(), set()))

        def forward(self, x):
            seen[-1][not torch.is_grad_enabled()].update(x.flatten().tolist())
            return torch.stack([x.flatten() * 0 + self.weight.sum() * 0, torch.ones(len(x))], 1)

    predictions, others = out_of_fold_predictions(Model, images, torch.zeros(40, dtype=torch.int64), images[:3] + 100, 30, seed=0)
    assert predictions.tolist() == [1] * 40 and others.tolist() == [1] * 3
    folds = [(trained, predicted - {100, 101, 102}) for trained, predicted in seen]
    assert len(folds) == 2 and all(not trained & predicted for trained, predicted in folds)
    assert folds[0][1] | folds[1][1] == set(range(40))


def test_a_short_reference_finds_the_background(photos):
    from training import pseudo_environments

    train = photos.splits["train"]
    pseudo = pseudo_environments(photos, 0)
    assert (pseudo.train == train.environments).double().mean() > 0.9
    assert (pseudo.val == photos.splits["val"].environments).double().mean() > 0.9


def test_balanced_batches_hold_rare_images_as_often_as_the_others(photos):
    from rows import Row
    from training import _chances

    train = photos.splits["train"]
    drawn = np.random.default_rng(0).choice(len(train.labels), 20_000, p=_chances(Row("ERM", balanced=True), train, train.environments, None))
    shares = [((train.labels == y) & (train.environments == e))[drawn].double().mean().item() for y in (0, 1) for e in (0, 1)]
    assert shares == pytest.approx([0.25] * 4, abs=0.02)


def test_a_run_whose_loss_is_not_finite_ends_there(photos):
    from rows import Row
    from training import Pseudo, run

    pseudo = Pseudo(photos.splits["train"].environments, photos.splits["val"].environments)
    result = run(photos, Row("ERM", learning_rate=1e38), 0, 10, pseudo)
    assert result["steps"] < 10 and result["config"]["steps"] == 10 and len(result["curve"]) == max(1, result["steps"] - 1)


@pytest.mark.parametrize("steps, expected", [(1000, list(range(100, 1001, 100))), (1005, [100, 201, 301, 402, 502, 603, 703, 804, 904, 1005]), (2, [1, 2]), (1, [1])])
def test_the_end_of_training_is_evaluated(steps, expected):
    from training import evaluations

    assert evaluations(steps) == expected


def test_balanced_by_true_environments_draws_every_class_and_environment_as_often(photos):
    from rows import Row
    from training import _chances

    train = photos.splits["train"]
    others = torch.arange(len(train.labels)) % 3  # not numbered as classes
    chances = torch.from_numpy(_chances(Row("ERM", environments="true", balanced=True), train, others, None))
    assert [chances[(train.labels == y) & (others == e)].sum().item() for y in (0, 1) for e in (0, 1, 2)] == pytest.approx([1 / 6] * 6)


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(photos):
    train = photos.splits["train"]
    return train.images[:32].float() / 255, train.labels[:32], train.environments[:32]


def loss_and_gradient(photos, batch, changes: dict, **more):
    """Of the same weights and the same draws of triplets: the loss, and the gradient of the transformation network."""
    from rows import Row
    from steps import objective
    from training import build

    classifier = build(photos, Row("CIM", changes=changes, **more), 0, 0.5)
    torch.manual_seed(0)
    loss = objective(classifier, *batch, None, changes, 0.25)
    loss.backward()
    return loss.item(), classifier.morphing.network.features[0].weight.grad


@pytest.mark.parametrize("changes", [{"pairs_per_anchor": 1}, {"warm_up": 0.25}, {"scales": 2}])
def test_a_change_that_changes_nothing_gives_the_shipped_loss(photos, batch, changes):
    loss, gradient = loss_and_gradient(photos, batch, changes)
    shipped, expected = loss_and_gradient(photos, batch, {})
    assert loss == pytest.approx(shipped, abs=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_detached_keeps_the_classifiers_gradient_from_the_network(photos, batch):
    _, gradient = loss_and_gradient(photos, batch, {"detached": True}, hyperparameters={"cim_lambda": 0.0})
    assert not gradient.any()
    _, gradient = loss_and_gradient(photos, batch, {}, hyperparameters={"cim_lambda": 0.0})
    assert gradient.any()


def test_half_of_a_warm_up_is_half_of_the_weight(photos, batch):
    whole, none = loss_and_gradient(photos, batch, {})[0], loss_and_gradient(photos, batch, {}, hyperparameters={"cim_lambda": 0.0})[0]
    assert loss_and_gradient(photos, batch, {"warm_up": 0.5})[0] == pytest.approx((whole + none) / 2, abs=1e-5)


def test_random_masks_follow_from_the_image_and_have_the_mean(batch):
    from steps import RandomMask

    images = batch[0]
    mask = RandomMask(0.7)
    torch.testing.assert_close(mask(images)[:3], mask(images[:3]))
    assert mask(images).std() > 0.05
    for mean in (0.1, 0.5, 0.7, 0.95):
        assert RandomMask(mean)(images).mean().item() == pytest.approx(mean, abs=0.02)
    assert not torch.equal(mask(images)[0], mask(images)[1])


def test_a_margin_ends_where_it_is_kept(photos, batch):
    """relu(2 + L_con) is never cut off, relu(-2 + L_con) always."""
    plain = loss_and_gradient(photos, batch, {})[0]
    assert loss_and_gradient(photos, batch, {"margin": 2.0})[0] == pytest.approx(plain + 2, abs=1e-5)
    none = loss_and_gradient(photos, batch, {}, hyperparameters={"cim_lambda": 0.0})[0]
    assert loss_and_gradient(photos, batch, {"margin": -2.0})[0] == pytest.approx(none, abs=1e-6)


def test_sparsity_at_once_is_the_whole_weight(photos, batch):
    sparse = {"hyperparameters": {"cim_sparsity": 100.0, "cim_lambda": 0.0}}
    slow, at_once = (loss_and_gradient(photos, batch, changes, **sparse)[0] for changes in ({}, {"sparse_at_once": True}))
    assert at_once - slow > 10


def test_random_composites_have_their_mean_and_differ_from_image_to_image(batch):
    from steps import smooth_noise

    torch.manual_seed(0)
    masks = smooth_noise(batch[0].repeat(20, 1, 1, 1), 0.7)
    assert masks.mean().item() == pytest.approx(0.7, abs=0.05) and not torch.equal(masks[0], masks[1])


# --- search -----------------------------------------------------------------------------------------------------------


def test_draws_share_the_learning_rate_and_leave_what_makes_a_row():
    from rows import ROWS
    from search import draw

    assert all(draw(row, 0) == row for row in ROWS.values())
    for number in (1, 2, 3):
        drawn = {name: draw(row, number) for name, row in ROWS.items()}
        assert len({row.learning_rate for row in drawn.values()}) == 1 and 1e-3 <= drawn["ERM"].learning_rate <= 1e-2
        assert drawn["CIM, λ=0"].hyperparameters == ROWS["CIM, λ=0"].hyperparameters
        assert 1e-2 <= drawn["CIM"].hyperparameters["cim_lambda"] <= 10
    assert draw(ROWS["VIB"], 1).hyperparameters != draw(ROWS["VIB"], 2).hyperparameters


def test_a_short_file_of_mnist_is_named(mnist, tmp_path):
    from tasks import mnist as read_mnist

    for file in mnist.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8 + 7)))
    with pytest.raises(InputError, match="and train-labels-idx1-ubyte.gz 7 labels, which do not fit"):
        read_mnist(tmp_path)


def test_the_draw_with_the_best_validation_score_is_chosen(tmp_path):
    from runs import Run, chosen_draws

    searched = [Run("photos_95", row, 0, 5, number) for row in ("ERM", "CIM") for number in range(3)]
    for run, score in zip(searched, (0.2, 0.9, 0.5, 0.7, 0.7, 0.1)):
        run.file(tmp_path).parent.mkdir(parents=True)
        run.file(tmp_path).write_text(json.dumps({"selection": {"average": {"score": score}}}))
    assert chosen_draws(tmp_path, searched, "average") == {("photos_95", "ERM"): 1, ("photos_95", "CIM"): 0}


def test_a_search_trains_the_chosen_draw(mnist, tmp_path):
    done = study(mnist, tmp_path, "--quick", "--rows", "ERM", "--search", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted(str(file.relative_to(tmp_path / "quick")) for file in tmp_path.rglob("results.json"))
    scores = [json.loads((tmp_path / "quick" / file).read_text())["selection"]["worst_pseudo_group"]["score"] for file in files if "/0/" in file]
    winner = "steps_2" if scores[0] >= scores[1] else "steps_2_draw_1"
    assert files == sorted(["steps_2/photos_95/ERM/0/results.json", "steps_2_draw_1/photos_95/ERM/0/results.json", f"{winner}/photos_95/ERM/10/results.json"])
    assert "| ERM | 1 |" in done.stdout


# --- tables -----------------------------------------------------------------------------------------------------------


def _reference_interval(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    return stats.ttest_rel(ours, theirs).confidence_interval(0.95)


def test_differences_are_paired_and_carry_their_interval():
    from tables import difference

    ours, theirs = [80.0, 82.5, 79.0, 85.0], [70.0, 75.5, 71.0, 69.0]
    low, high = _reference_interval(ours, theirs)
    text = difference(dict(enumerate(ours)), {**dict(enumerate(theirs)), 9: 0.0})
    mean, half = (float(word) for word in text.split(" ± "))
    assert (mean - half, mean + half) == (pytest.approx(low, abs=0.1), pytest.approx(high, abs=0.1))
