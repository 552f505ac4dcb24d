"""The study's data: what its tasks hold, and what is said of files that are missing or damaged."""

from __future__ import annotations

import gzip
import shutil

import pytest
import torch
from PIL import Image

from cim_plugin.errors import InputError


@pytest.mark.parametrize("name, untied", [("colours_95", 0.1), ("photos_95", 0.5), ("photos_95_inks", 0.5)])
@pytest.mark.slow
def test_label_and_nuisance_are_tied_in_training_and_validation_only(mnist, name, untied):
    from scripts.experiments.tasks import Folders, make_task

    splits = make_task(name, 0, Folders(mnist, mnist)).splits
    shares = {key: (split.labels == split.environments).double().mean().item() for key, split in splits.items()}
    assert shares == {
        "train": pytest.approx(0.95, abs=0.02),
        "val": pytest.approx(0.95, abs=0.02),
        "test": pytest.approx(untied, abs=0.03),
    }


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


# --- photos of PACS ---------------------------------------------------------------------------------------------------


def test_many_photographs_lie_behind_the_digits_and_other_ones_in_the_test(mnist, tmp_path):
    from scripts.experiments.tasks import Folders, make_task

    brightness = {(label, number): 6 * label + number + 1 for label in range(7) for number in range(6)}
    for (label, number), value in brightness.items():
        (tmp_path / "photo" / "abcdefg"[label]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (227, 227), (5 * value,) * 3).save(tmp_path / "photo" / "abcdefg"[label] / f"{number}.png")
    seen = {}
    for split, images in make_task("photos_98_many", 0, Folders(mnist, tmp_path)).splits.items():
        assert (images.labels == images.environments).double().mean().item() == pytest.approx(
            0.5 if split == "test" else 0.98, abs=0.02
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
        make_task("photos_98_many", 0, Folders(mnist, tmp_path))


@pytest.fixture
def pacs(tmp_path):
    """A folder of PACS's photos, a picture of each of the seven classes."""
    for label in "abcdefg":
        (tmp_path / "photo" / label).mkdir(parents=True)
        Image.new("RGB", (227, 227)).save(tmp_path / "photo" / label / "0.png")
    return tmp_path


def test_photos_without_a_class_are_refused_as_their_labels_would_shift(mnist, pacs, tmp_path_factory):
    from scripts.experiments.tasks import Folders, make_task

    (pacs / "photo" / "c").rename(tmp_path_factory.mktemp("elsewhere") / "c")
    with pytest.raises(InputError, match="photo holds 6 classes where PACS has 7"):
        make_task("photos_98_many", 0, Folders(mnist, pacs))


def test_a_picture_that_cannot_be_read_is_said(mnist, pacs):
    from scripts.experiments.tasks import Folders, make_task

    (pacs / "photo" / "c" / "0.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="a picture of .*photo cannot be read"):
        make_task("photos_98_many", 0, Folders(mnist, pacs))
