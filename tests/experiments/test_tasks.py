"""The study's data: what its tasks hold, and what is said of files that are missing or damaged."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_0

from cim_plugin.errors import InputError


@pytest.mark.parametrize(
    "name, tied",
    [("colours_85", 0.85), ("colours_95", 0.95), ("photos_95", 0.95), ("domainbed_colours", 0.85 * 0.5 + 0.85 * 0.5)],
)
@pytest.mark.slow
def test_label_and_nuisance_are_tied_in_training_and_validation_only(mnist, name, tied):
    from scripts.experiments.tasks import Folders, make_task

    splits = make_task(name, 0, Folders(mnist, mnist)).splits
    for split in ("train", "val"):
        assert (splits[split].labels == splits[split].environments).double().mean().item() == pytest.approx(
            tied, abs=0.02
        )
    untied = {"colours_85": 0.1, "colours_95": 0.1, "photos_95": 0.5, "domainbed_colours": 0.1}[name]
    assert (splits["test"].labels == splits["test"].environments).double().mean().item() == pytest.approx(
        untied, abs=0.03
    )


def test_the_colour_of_an_image_is_that_of_its_environment(mnist):
    from scripts.experiments.tasks import Folders, make_task

    train = make_task("colours_95", 0, Folders(mnist, mnist)).splits["train"]
    corner = train.images[:, :, 0, 0]
    assert all(len(corner[train.environments == colour].unique(dim=0)) == 1 for colour in range(10))


def test_another_seed_draws_other_images(mnist, photos):
    from scripts.experiments.tasks import Folders, make_task

    assert not torch.equal(
        make_task("photos_95", 1, Folders(mnist, mnist)).splits["train"].images, photos.splits["train"].images
    )


def test_a_short_file_of_mnist_is_named(mnist, tmp_path):
    from scripts.experiments.tasks import mnist as read_mnist

    for file in mnist.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8 + 7)))
    with pytest.raises(InputError, match="and train-labels-idx1-ubyte.gz 7 labels, which do not fit"):
        read_mnist(tmp_path)


# --- PACS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pacs_folders(mnist, tmp_path_factory):
    """PACS's layout: two domains and the held-out one, seven classes of five pictures each, and weights of a SqueezeNet
    that has learnt nothing.
    """
    from scripts.experiments.tasks import Folders

    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for domain in ("photo", "sketch", "cartoon"):
        for label in "abcdefg":
            (folder / "PACS" / domain / label).mkdir(parents=True)
            for number in range(5):
                Image.fromarray(rng.integers(0, 256, (227, 227, 3), dtype=np.uint8)).save(
                    folder / "PACS" / domain / label / f"{number}.png"
                )
    (folder / "weights").mkdir()
    torch.save(squeezenet1_0().state_dict(), folder / "weights" / "squeezenet1_0_caffe_bgr255_fp16.pt")
    return Folders(mnist, folder / "PACS")


def test_pacs_holds_one_domain_out_and_a_fifth_of_every_other_one(pacs_folders):
    from scripts.experiments.tasks import make_task

    task = make_task("pacs_sketch", 0, pacs_folders)
    assert {name: len(split.labels) for name, split in task.splits.items()} == {"train": 56, "val": 14, "test": 35}
    assert task.group_names == ["cartoon", "photo", "sketch"] and task.n_classes == 7
    assert {name: split.groups.bincount().tolist() for name, split in task.splits.items()} == {
        "train": [28, 28],
        "val": [7, 7],
        "test": [0, 0, 35],
    }
    pictures = [tuple(image.flatten().tolist()) for split in task.splits.values() for image in split.images]
    assert len(set(pictures)) == 105
    again, other = (make_task("pacs_sketch", seed, pacs_folders).splits["train"].images for seed in (0, 1))
    assert torch.equal(task.splits["train"].images, again) and not torch.equal(again, other)


def test_a_run_on_pacs_trains_head_and_transformation_network_only(pacs_folders):
    from scripts.experiments.rows import ROWS
    from scripts.experiments.tables import masks
    from scripts.experiments.tasks import make_task
    from scripts.experiments.training import Pseudo, build, run

    task = make_task("pacs_sketch", 0, pacs_folders)
    classifier = build(task, ROWS["CIM"], 0, None)
    assert not any(weight.requires_grad for weight in classifier.encoder.parameters())
    assert sum(weight.requires_grad for weight in classifier.parameters()) == 2 + len(
        list(classifier.morphing.parameters())
    )
    result = run(task, ROWS["CIM"], 0, 10, Pseudo(task.splits["train"].labels, task.splits["val"].labels))
    test = result["selection"]["last"]["splits"]["test"]
    assert (
        result["steps"] == 1
        and test["metrics"]["acc_wg"] == test["metrics"]["acc_avg"] == test["groups"]["sketch"]["accuracy"]
    )
    assert masks([result]) == f"{result['mask_mean']:.2f}"


def test_many_photographs_lie_behind_the_digits_and_other_ones_in_the_test(mnist, tmp_path):
    from scripts.experiments.tasks import Folders, make_task

    brightness = {(label, number): 6 * label + number + 1 for label in range(7) for number in range(6)}
    for (label, number), value in brightness.items():
        (tmp_path / "photo" / "abcdefg"[label]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (227, 227), (5 * value,) * 3).save(tmp_path / "photo" / "abcdefg"[label] / f"{number}.png")
    seen = {}
    for split, images in make_task("photos_95_many", 0, Folders(mnist, tmp_path)).splits.items():
        assert (images.labels == images.environments).double().mean().item() == pytest.approx(
            0.5 if split == "test" else 0.95, abs=0.02
        )
        for kind, label in enumerate((1, 6)):
            corners = images.images[images.environments == kind, :, 0, 0].unique()
            seen[split, kind] = {round(corner / (5 * 0.6)) for corner in corners.tolist()}
            assert seen[split, kind] <= {brightness[label, number] for number in range(6)}
    for kind in (0, 1):
        assert (
            len(seen["train", kind]) == 4 and len(seen["test", kind]) == 2 and seen["val", kind] == seen["train", kind]
        )
        assert not seen["train", kind] & seen["test", kind]


def test_photos_that_are_missing_are_named(mnist, tmp_path):
    from scripts.experiments.tasks import Folders, make_task

    with pytest.raises(
        InputError, match=f"{tmp_path}/photo is not there; name the folder of PACS's domains, or leave the task out"
    ):
        make_task("photos_95_many", 0, Folders(mnist, tmp_path))


def test_a_frozen_encoder_is_shown_tiles(pacs_folders):
    from scripts.experiments.rows import References
    from scripts.experiments.tasks import make_task
    from scripts.experiments.training import pseudo_environments

    task = make_task("pacs_sketch", 0, pacs_folders)
    torch.manual_seed(0)
    whole, tiles = (pseudo_environments(task, 0, References(steps=30, tiles=n)) for n in (1, 4))
    assert len(tiles.train) == len(task.splits["train"].labels) and not torch.equal(whole.train, tiles.train)


def test_pacs_has_no_figures(pacs_folders):
    from scripts.experiments.tasks import make_task

    with pytest.raises(
        InputError, match="where the figures of pacs_sketch are is not known; leave the task or the rows"
    ):
        make_task("pacs_sketch", 0, pacs_folders).figure_only()


def test_the_squeezenet_is_given_blue_green_and_red_less_their_means(pacs_folders):
    from scripts.experiments.encoder import FrozenSqueezeNet

    encoder = FrozenSqueezeNet(pacs_folders.pacs.parent / "weights" / "squeezenet1_0_caffe_bgr255_fp16.pt")
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    expected = encoder.features(pixels[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)).mean((2, 3))
    torch.testing.assert_close(encoder(pixels / 127.5 - 1), expected, rtol=1e-3, atol=1e-2)


def test_a_domain_without_a_class_is_refused_as_its_labels_would_shift(pacs_folders, tmp_path):
    from scripts.experiments.tasks import make_task

    shutil.copytree(pacs_folders.pacs.parent, tmp_path / "data")
    (tmp_path / "data" / "PACS" / "photo" / "c").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="photo holds 6 classes where PACS has 7"):
        make_task("pacs_sketch", 0, pacs_folders._replace(pacs=tmp_path / "data" / "PACS"))


def test_a_picture_that_cannot_be_read_is_said(pacs_folders, tmp_path):
    from scripts.experiments.tasks import make_task

    shutil.copytree(pacs_folders.pacs.parent, tmp_path / "data")
    (tmp_path / "data" / "PACS" / "photo" / "c" / "0.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="a picture of .*photo cannot be read"):
        make_task("pacs_sketch", 0, pacs_folders._replace(pacs=tmp_path / "data" / "PACS"))


@pytest.mark.parametrize("gone", ["PACS/sketch", "weights/squeezenet1_0_caffe_bgr255_fp16.pt"])
def test_what_pacs_lacks_is_named(pacs_folders, tmp_path, gone):
    from scripts.experiments.tasks import make_task

    shutil.copytree(pacs_folders.pacs.parent, tmp_path / "data")
    (tmp_path / "data" / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{tmp_path}/data/{gone} is not there; .*, or leave the task out"):
        make_task("pacs_sketch", 0, pacs_folders._replace(pacs=tmp_path / "data" / "PACS"))
