"""The Background Challenge from folders of variants to OR, MS, MR and BG-gap."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from stand_ins import IN9_CLASSES, cells_of, reproduce, write_imagenet9, write_noise

pytestmark = pytest.mark.slow


def test_columns_are_the_accuracies_of_the_variants(tmp_path):
    write_imagenet9(tmp_path / "in9")
    done = reproduce("background_challenge", "--quick", "--data", "in9", "--algorithms", "ERM", "CIM_VIB", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for algorithm in ("ERM", "CIM_VIB"):
        folder = tmp_path / "reproduction" / "quick" / "background_challenge" / f"{algorithm}-0"
        groups = json.loads((folder / "results.json").read_text())["selection"]["average"]["splits"]["test"]["groups"]
        counts = {name: group["count"] for name, group in groups.items()}
        assert counts == {f"variant:{name}": 6 for name in ("original", "mixed_same", "mixed_rand", "only_fg")}
        line = cells_of(done.stdout, "average", algorithm)
        accuracy = {name.removeprefix("variant:"): 100 * group["accuracy"] for name, group in groups.items()}
        same, other = accuracy["mixed_same"], accuracy["mixed_rand"]
        assert line[2:7] == [
            f"{value:.1f}" for value in (accuracy["original"], same, other, same - other, accuracy["only_fg"])
        ]
    header = next(line.split() for line in done.stdout.splitlines() if line.startswith("algorithm"))
    assert header[2:7] == ["OR", "MS", "MR", "BG-gap", "only_fg"]
    assert [word for word in header[7:] if word in header[2:7]] == ["OR", "MR", "BG-gap"]  # those of ΔERM
    assert "Trained on original. The published Res50 is of in9l" in done.stdout.splitlines()[-1]
    assert "PUBLISHED, not measured here: Background Challenge" in done.stdout and done.stdout.count("PUBLISHED") == 1
    next((tmp_path / "in9" / "only_fg" / "val").glob("*/*")).unlink()
    again = reproduce("background_challenge", "--quick", "--data", "in9", "--algorithms", "ERM", cwd=tmp_path)
    assert again.returncode == 2 and "ERM-0 holds a run with images '" in again.stderr.splitlines()[-1]


def test_image_that_cannot_be_read_is_named(tmp_path):
    write_imagenet9(tmp_path / "in9")
    broken = tmp_path / "in9" / "mixed_rand" / "val" / "00_dog" / "fg_1.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    done = reproduce("background_challenge", "--quick", "--data", "in9", "--algorithms", "ERM", cwd=tmp_path)
    assert (
        done.returncode == 1
        and done.stderr.splitlines()[-1].startswith("ERM, seed 0: error: image ")
        and f", {broken}, cannot be read (" in done.stderr
    )


def test_listing_has_every_image_once_and_holds_training_images_out(tmp_path):
    from scripts.reproduce.background_challenge import EVERY, list_images

    write_imagenet9(tmp_path, n_training=EVERY)
    write_noise(tmp_path / "only_bg_t" / "val" / IN9_CLASSES[0] / "0.JPEG", np.random.default_rng(0))
    with pytest.raises(ValueError, match="holds no images"):
        list_images(tmp_path, "original", None)
    for name in IN9_CLASSES[1:]:
        write_noise(tmp_path / "only_bg_t" / "val" / name / "0.png", np.random.default_rng(0))
    listing = list_images(tmp_path, "original", None)
    assert sorted(listing.paths) == sorted(
        [
            *(tmp_path / "original" / "train").glob("*/*"),
            *tmp_path.glob("*/val/*/*.JPEG"),
            *tmp_path.glob("*/val/*/*.png"),
        ]
    )
    assert listing.variant_names == ["original", "mixed_same", "mixed_rand", "only_bg_t", "only_fg"]
    for path, label, variant, split in zip(listing.paths, listing.labels, listing.variants, listing.splits):
        part, name = path.parts[-3:-1]
        assert (
            IN9_CLASSES[label] == name
            and listing.variant_names[variant] == path.parts[-4]
            and (split == 2) == (part == "val")
        )
    held_out = [label for label, split in zip(listing.labels, listing.splits) if split == 1]
    assert held_out == [0, 1, 2]


def test_validation_images_of_a_training_archive_beside_the_test_are_warned_of(tmp_path, capsys):
    from scripts.reproduce.background_challenge import list_images

    write_imagenet9(tmp_path, n_training=1)
    list_images(tmp_path, "original", None)
    assert not capsys.readouterr().err
    write_noise(tmp_path / "original" / "val" / IN9_CLASSES[0] / "uncleaned.JPEG", np.random.default_rng(0))
    list_images(tmp_path, "original", None)
    assert (
        "here are original 7, mixed_same 6, mixed_rand 6; val/ of a training archive is not the test"
        in capsys.readouterr().err
    )


def test_another_training_set_of_the_same_folder_has_a_cache_of_its_own(tmp_path, monkeypatch):
    from cim_plugin.data.releases import RELEASES
    from cim_plugin.runs import defaults
    from cim_plugin.wilds_runner.fabric import make_fabric
    from scripts.reproduce.background_challenge import DEFAULTS, QUICK, list_images, prepare
    from scripts.reproduce.trainings import configurations

    write_imagenet9(tmp_path / "in9")
    rng = np.random.default_rng(1)
    for name in IN9_CLASSES:
        for number in range(20):
            write_noise(tmp_path / "in9" / "mixed_rand" / "train" / name / f"n{number:03}.JPEG", rng)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(defaults.DATASETS, "background_challenge", DEFAULTS)
    monkeypatch.setitem(RELEASES, "background_challenge", None)
    for training_set in ("original", "mixed_rand"):
        words = [*QUICK, "--cache", "true", "--target_resolution", "32", "--split_scheme", training_set]
        (config,) = configurations(
            "background_challenge", tmp_path / "in9", tmp_path / training_set, ["ERM"], [0], words
        )
        listing = list_images(tmp_path / "in9", training_set, None)
        loop = prepare(config, make_fabric(config), listing)
        with Image.open(tmp_path / "in9" / training_set / "train" / IN9_CLASSES[0] / "n000.JPEG") as image:
            assert (loop.training.loaders["train"].loader.dataset.cache[0] == np.asarray(image)).all()
