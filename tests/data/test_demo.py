"""The synthetic releases: read by the real loaders, with the promised groups, from disjoint digits and regions, and
never in the place of real data.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pandas
import pytest
import small_archives as archives
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from cim_plugin.data import demo
from cim_plugin.data.releases import RELEASES, is_synthetic
from cim_plugin.errors import InputError

NAMES = ("waterbirds", "celebA")
SPLIT_SIZES = [1077, 360, 360]
DIGITS, PHOTOS = load_digits(), np.stack(load_sample_images().images) / 255
SIZES = {"waterbirds": (64, 64, 2), "celebA": (178, 218, 1)}  #: width, height, and pixels of the photograph per pixel


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    demo.write_demo(root, seed=0)
    return root


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_the_real_loader_finds_the_splits_and_the_groups(open_release, root, name):
    dataset = open_release(name, root)
    assert [int((dataset.split_array == split).sum()) for split in range(3)] == SPLIT_SIZES
    attribute, label = dataset.metadata_array[:, 0].numpy(), dataset.y_array.numpy()
    tied = attribute == (label if name == "waterbirds" else 1 - label)  # blond men are few, as in the real CelebA
    for split, share in enumerate((0.95, 0.5, 0.5)):
        for value in (0, 1):
            rows = (dataset.split_array == split) & (label == value)
            assert rows.sum() == pytest.approx(SPLIT_SIZES[split] / 2, abs=5)
            assert tied[rows].sum() == pytest.approx(share * rows.sum(), abs=0.51)
    assert len(dataset[0][0].getbands()) == 3 and dataset[0][0].size == SIZES[name][:2]


@pytest.mark.parametrize("name", NAMES)
def test_the_groups_have_the_names_of_the_published_table(open_release, root, name):
    from wilds.common.grouper import CombinatorialGrouper

    dataset = open_release(name, root)
    grouper = CombinatorialGrouper(dataset, dataset.metadata_fields[:2])
    assert [grouper.group_field_str(group) for group in range(grouper.n_groups)] == list(RELEASES[name].groups)
    assert sum(RELEASES[name].groups.values()) == RELEASES[name].counts["train"]


def test_every_digit_is_there_once_with_its_label(root):
    metadata = pandas.read_csv(root / "waterbirds_v1.0" / "metadata.csv")
    assert list(metadata.columns) == ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    numbers = [
        re.fullmatch(r"(\d{3})\.Digit_(\d)/Digit_(\d)_(\d{4})\.jpg", name).groups() for name in metadata["img_filename"]
    ]
    assert [int(number[3]) for number in numbers] == list(range(1797))
    for (*digits, row), label in zip(numbers, metadata["y"]):
        assert {int(digit) for digit in digits} == {DIGITS.target[int(row)]} and label == (DIGITS.target[int(row)] < 5)


def test_every_digit_is_spread_over_the_splits_alike(root):
    split = pandas.read_csv(root / "waterbirds_v1.0" / "metadata.csv")["split"].to_numpy()
    for digit in range(10):
        counts = np.bincount(split[DIGITS.target == digit])
        assert counts / counts.sum() == pytest.approx([0.6, 0.2, 0.2], abs=0.01)


def test_celeba_has_the_forty_attributes_and_names_of_the_real_one(root):
    attributes = pandas.read_csv(root / "celebA_v1.0" / "list_attr_celeba.csv")
    partition = pandas.read_csv(root / "celebA_v1.0" / "list_eval_partition.csv")
    assert attributes.shape == (1797, 41) and sorted(set(attributes.iloc[:, 1:].to_numpy().ravel())) == [-1, 1]
    assert list(attributes.columns[[0, 1, 10, 21, 40]]) == [
        "image_id",
        "5_o_Clock_Shadow",
        "Blond_Hair",
        "Male",
        "Young",
    ]
    assert (
        list(attributes["image_id"]) == list(partition["image_id"]) == [f"{number:06}.jpg" for number in range(1, 1798)]
    )
    assert ((attributes["Blond_Hair"] == 1) == (DIGITS.target < 5)).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_column_of_a_photograph(name, seed):
    width, _, shrink = SIZES[name]
    table = demo.draw(demo.LOOKS[name], seed)
    strips = [
        {column for left in rows["left"] for column in range(left, left + width * shrink)}
        for _, rows in table.groupby("split")
    ]
    assert not (strips[0] & strips[1] or strips[0] & strips[2] or strips[1] & strips[2])
    assert set.union(*strips) <= set(range(640))
    assert all(
        len(rows["left"].unique()) > 20 and len(rows["top"].unique()) > 100 for _, rows in table.groupby("split")
    )


def test_an_image_shows_its_digit_on_the_place_that_the_metadata_name(root):
    metadata = pandas.read_csv(root / "waterbirds_v1.0" / "metadata.csv")
    for row in range(0, 1797, 97):
        photo, top, left = re.fullmatch(
            r"/./(temple|flower)/top_(\d+)_left_(\d+)\.jpg", metadata["place_filename"][row]
        ).groups()
        number, top, left = ("temple", "flower").index(photo), int(top), int(left)
        assert number == metadata["place"][row]
        image = np.asarray(Image.open(root / "waterbirds_v1.0" / metadata["img_filename"][row])) / 255
        behind = 0.6 * PHOTOS[number, top : top + 128, left : left + 128].reshape(64, 2, 64, 2, 3).mean((1, 3))
        edge = np.s_[[0, 1, -2, -1]]
        assert np.abs(image[edge] - behind[edge]).mean() < 0.03  # JPEG
        ink = np.clip((image - behind).mean(2) / (1 - behind).mean(2), 0, 1)
        centres = ink[9:58:6, 9:58:6][:8, :8]
        assert np.corrcoef(centres.ravel(), DIGITS.images[row].ravel())[0, 1] > 0.7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_a_seed_gives_the_same_files_and_another_seed_gives_others(root, name):
    written = archives.files(RELEASES[name].path(root))
    written.pop("MANIFEST.sha256")
    assert demo.make_files(name, 0) == written
    first, other = demo.draw(demo.LOOKS[name], 0), demo.draw(demo.LOOKS[name], 1)
    assert all((first[column] != other[column]).any() for column in ("split", "photo", "top", "left"))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_it_is_synthetic(root, name):
    folder = RELEASES[name].path(root)
    assert (folder / "RELEASE_v1.0.txt").read_text().startswith("SYNTHETIC: ")
    assert is_synthetic(folder) and is_synthetic(str(folder))


def test_real_and_absent_releases_are_not_synthetic(tmp_path):
    archives.write(tmp_path / "RELEASE_v1.0.txt", b"Waterbirds, no SYNTHETIC data\n")
    assert not is_synthetic(tmp_path) and not is_synthetic(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_second_run_leaves_the_same_release_alone_and_replaces_another(tmp_path):
    looks, folder = {"waterbirds": demo.Look(8, 8, 1, (1, 1, 1, 1))}, tmp_path / "waterbirds_v1.0"
    demo.write_demo(tmp_path, seed=0, looks=looks)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    demo.write_demo(tmp_path, seed=0, looks=looks)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    first = archives.files(folder)
    (folder / "metadata.csv").write_bytes(b"damaged")
    demo.write_demo(tmp_path, seed=0, looks=looks)
    assert archives.files(folder) == first
    demo.write_demo(tmp_path, seed=1, looks=looks)
    assert "seed 1" in (folder / "RELEASE_v1.0.txt").read_text() and archives.files(folder) != first
    assert os.listdir(tmp_path) == ["waterbirds_v1.0"]


IN_THE_WAY = {
    "real Waterbirds": ("waterbirds_v1.0", lambda folder: archives.write(folder / "metadata.csv", b"img_id,y\n")),
    "real CelebA": ("celebA_v1.0", lambda folder: archives.write(folder / "RELEASE_v1.0.txt", b"CelebA\n")),
    "a file": ("waterbirds_v1.0", lambda folder: archives.write(folder, b"precious")),
    "a link": ("waterbirds_v1.0", lambda folder: (folder.parent.mkdir(), folder.symlink_to(folder.parent))),
}


@pytest.mark.parametrize("name, occupy", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_it_does_not_touch_what_it_did_not_make(data, tmp_path, name, occupy):
    occupy(tmp_path / "root" / name)
    before, listing = archives.files(tmp_path), sorted(os.listdir(tmp_path / "root"))
    status, _, err = data("demo", "--root", "root")
    assert status == 2 and name in err.splitlines()[-1] and "--root" in err.splitlines()[-1]
    assert archives.files(tmp_path) == before and sorted(os.listdir(tmp_path / "root")) == listing


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range(data, seed):
    with pytest.raises(InputError, match=f"--seed {seed}"):
        demo.write_demo("root", seed)
    with pytest.raises(SystemExit) as stopped:
        data("demo", "--root", "root", "--seed", seed)
    assert stopped.value.code == 2 and not os.path.exists("root")


def test_a_stop_while_writing_leaves_nothing_new_and_the_old_release_whole(tmp_path, monkeypatch):
    archives.write(tmp_path / "waterbirds_v1.0" / "RELEASE_v1.0.txt", b"SYNTHETIC: old")
    before, replace, left = archives.files(tmp_path), os.replace, iter(range(50))

    def replace_until_stopped(part, path):
        if next(left, None) is None:
            raise KeyboardInterrupt
        replace(part, path)

    monkeypatch.setattr(os, "replace", replace_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(tmp_path, seed=0)
    assert archives.files(tmp_path) == before and os.listdir(tmp_path) == ["waterbirds_v1.0"]


def test_a_root_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(InputError, match="root"):
        demo.write_demo(tmp_path / "root", seed=0)
