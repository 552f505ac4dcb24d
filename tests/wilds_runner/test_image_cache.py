"""The cache gives the loader's own tensors, follows the files, is shared, and is either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFile

from cim_plugin.errors import InputError
from cim_plugin.models.transforms import make_transform
from cim_plugin.wilds_runner import image_cache
from cim_plugin.wilds_runner.datasets import open_dataset
from cim_plugin.wilds_runner.image_cache import open_cache
from cim_plugin.wilds_runner.loading import evaluation_order, make_loader

N_IMAGES, SIDE = 51, 16
N_BYTES = N_IMAGES * SIDE * SIDE * 3
Fabric = namedtuple("Fabric", ["local_rank", "global_rank", "barrier", "broadcast"])
Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The cache's own folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cim_plugin" / "images"


@pytest.fixture
def opened(noise_config):
    """A function (flag words) -> (cache, configuration, dataset, transform) as a run opens them."""

    def run(words: str = "--cache", rank: int = 0, agreed: list | None = None, **changes):
        config = replace(noise_config(*words.split()), **changes)
        data = open_dataset(config)
        transform = make_transform(config, data.wilds.original_resolution)
        return (
            open_cache(
                config,
                data,
                transform,
                Fabric(rank, rank, lambda: None, lambda value: value if agreed is None else agreed.pop(0)),
                show=False,
            ),
            config,
            data,
            transform,
        )

    return run


@pytest.fixture
def copied(noise_release, tmp_path) -> Path:
    """A release of noise that a test may change."""
    return shutil.copytree(noise_release, tmp_path / "copy")


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.suffix not in (".lock", ".checked"))


def free(monkeypatch, size: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size, 0, size))


@pytest.mark.parametrize("words", ["", "--additional_train_transform randaugment"])
@pytest.mark.parametrize("key", ["train", "val", "test"])
def test_batches_are_the_same_with_and_without_a_cache(opened, key, words):
    cache, config, data, transform = opened(f"--cache {words}")
    batches = [[(row, 7 * row) for row, _ in batch] for batch in evaluation_order(len(data.splits[key].indices), 4)]
    plain, cached = (list(make_loader(config, data, key, transform, images)(batches)) for images in (None, cache))
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.rows, b.rows) for a, b in zip(plain, cached, strict=True)
    )


def test_the_cache_holds_every_image_and_is_read_only(opened, folder):
    cache, *_ = opened()
    assert (cache.shape, cache.dtype) == ((N_IMAGES, SIDE, SIDE, 3), np.uint8)
    assert isinstance(cache, np.memmap) and not cache.flags.writeable
    (name,) = saved(folder)
    assert name.startswith("waterbirds-16x16-") and name.endswith(".npy")
    assert image_cache.n_bytes(*opened()[2:]) == cache.nbytes == N_BYTES


def test_worker_processes_build_the_same_cache(opened, folder):
    alone = np.array(opened()[0])
    shutil.rmtree(folder)
    assert np.array_equal(opened("--cache --loader_kwargs num_workers=2")[0], alone)


def test_runs_of_other_seeds_and_algorithms_share_a_cache(opened, folder):
    opened()
    (name,) = saved(folder)
    first = (folder / name).stat()
    for words in (
        "--cache --seed 5 --batch_size 3",
        "--cache auto --algorithm CIM",
        "--cache auto --frac 0.8",
        "--cache --additional_train_transform weak",
    ):
        assert opened(words)[0] is not None
    assert saved(folder) == [name]
    assert ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


@pytest.mark.parametrize(
    "words", ["--cache --target_resolution 12", "--cache --transform image_resize_and_center_crop"]
)
def test_another_resizing_has_its_own_file(opened, folder, words):
    opened()
    opened(words)
    assert len(saved(folder)) == 2


def test_a_changed_image_is_decoded_again(opened, copied, folder):
    words = f"--cache --root_dir {copied}"
    before = np.array(opened(words)[0])
    image = copied / "waterbirds_v1.0" / "3.png"
    shutil.copy(copied / "waterbirds_v1.0" / "4.png", image)
    os.utime(image, ns=(1, 1))
    after = opened(words)[0]
    assert len(saved(folder)) == 2
    changed = [row for row in range(N_IMAGES) if not np.array_equal(before[row], after[row])]
    assert changed == [2] and np.array_equal(after[2], after[3])


def test_only_the_first_process_of_a_machine_builds(opened, folder):
    with pytest.raises(FileNotFoundError):  # the barrier of this test does not wait for rank 0
        opened(rank=1)
    assert saved(folder) == []
    opened(rank=0)
    assert opened(rank=1)[0] is not None


def test_the_first_process_decides_for_all(opened, folder, monkeypatch):
    """They may see different disks, and must come to the same barrier."""
    opened()
    assert opened("--cache auto", rank=1, agreed=[False])[0] is None
    free(monkeypatch, 0)
    assert opened("--cache auto", rank=1, agreed=[True, None])[0] is not None


def test_a_fault_of_the_first_process_is_one_of_all(opened):
    with pytest.raises(InputError, match="of the first"):
        opened(rank=1, agreed=[True, InputError("a fault of the first")])


def test_a_link_to_nothing_in_the_data_folder(opened, copied):
    (copied / "waterbirds_v1.0" / "stray").symlink_to("nowhere")
    assert opened(root_dir=str(copied))[0] is not None


# --- on or off -------------------------------------------------------------------------------------------------------

LIMIT = N_BYTES / image_cache.GB


@pytest.mark.parametrize(
    "words, changes, on",
    [
        ("--cache false", {}, False),
        ("--cache true --cache_limit 0", {}, True),
        ("--cache true --frac 0.8", {}, True),
        ("--cache auto", {}, True),
        ("", {}, True),
        ("--cache auto", {"cache_limit": LIMIT}, True),
        ("--cache auto", {"cache_limit": LIMIT * 0.99}, False),
        ("--cache auto --frac 0.8", {}, False),
        ("--cache auto --eval_only", {}, False),
    ],
)
def test_when_a_cache_is_made(opened, folder, words, changes, on):
    assert (opened(words, **changes)[0] is not None) == on
    assert bool(saved(folder)) == on


@pytest.mark.parametrize("spare, on", [(image_cache.SPARE, True), (image_cache.SPARE - 1, False)])
def test_a_cache_that_nobody_asked_for_leaves_disk_free(opened, monkeypatch, spare, on):
    free(monkeypatch, N_BYTES + spare)
    assert (opened("--cache auto")[0] is not None) == on


def test_a_cache_that_was_asked_for_says_when_the_disk_is_too_small(opened, folder, monkeypatch):
    free(monkeypatch, N_BYTES - 1)
    with pytest.raises(InputError) as error:
        opened("--cache true")
    assert str(error.value).startswith(f"the image cache {folder}{os.sep}waterbirds-16x16-")
    assert str(error.value).endswith(
        "cannot be written (No space left on device); make room, set XDG_CACHE_HOME, or pass --cache false"
    )
    assert saved(folder) == []


def test_a_folder_that_cannot_be_made_is_refused(opened, folder):
    folder.parent.parent.mkdir()
    folder.parent.write_text("a file in the way")
    with pytest.raises(InputError, match="^the image cache .* cannot be written"):
        opened()


# --- whole or not there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a_host_wants_truncated_images", [False, True])
def test_an_unreadable_image_ends_the_build_and_leaves_nothing(
    opened, copied, folder, monkeypatch, a_host_wants_truncated_images
):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", a_host_wants_truncated_images)
    image = copied / "waterbirds_v1.0" / "30.png"
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(InputError, match="^image 29, .*30.png, cannot be read"):
        opened(f"--cache --root_dir {copied}")
    assert saved(folder) == []


def test_an_interrupted_build_leaves_nothing_and_the_next_one_is_whole(opened, folder, monkeypatch):
    expected = np.array(opened()[0])
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            opened()
    assert saved(folder) == []
    assert np.array_equal(opened()[0], expected)


def test_the_rest_of_a_killed_build_is_not_taken_for_a_cache(opened, folder):
    expected = np.array(opened()[0])
    (name,) = saved(folder)
    (folder / name).rename(folder / f"{name}.part")
    (folder / f"{name}.part").write_bytes(b"half")
    assert np.array_equal(opened()[0], expected)
    assert saved(folder) == [name]


# --- a file that is not what was built -------------------------------------------------------------------------------


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def header(path: Path, change) -> None:
    content = path.read_bytes()
    path.write_bytes(change(content[:128]) + content[128:])


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeros for images": lambda path: (
        header(path, lambda h: h) or path.write_bytes(path.read_bytes()[:128] + bytes(N_BYTES + 4))
    ),
    "a bit of an image": lambda path: flip(path, 128 + N_BYTES // 2),
    "a bit of the checksum": lambda path: flip(path, -1),
    "a bit of the header": lambda path: flip(path, 60),
    "another shape": lambda path: header(path, lambda h: h.replace(b"(51, 16, 16, 3)", b"(51, 16, 3, 16)")),
    "another type": lambda path: header(path, lambda h: h.replace(b"|u1", b"|i1")),
    "another order": lambda path: header(path, lambda h: h.replace(b"False", b"True ")),
    "not of numpy": lambda path: path.write_text("hello"),
    "a pickle": lambda path: np.save(path, np.array([object()], dtype=object), allow_pickle=True),
    "an archive": lambda path: np.savez(open(path, "wb"), np.zeros(3)),
    "of an older version": lambda path: path.write_bytes(path.read_bytes()[:-4]),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_cache_is_made_anew_with_a_line(opened, folder, capsys, what):
    expected = np.array(opened()[0])
    (path,) = folder.glob("*.npy")
    whole = path.read_bytes()
    DAMAGED[what](path)
    capsys.readouterr()
    assert np.array_equal(opened()[0], expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"the image cache {path} ") and line.endswith("; it is made anew")
    assert path.read_bytes() == whole
    opened()
    assert capsys.readouterr().err == ""


def test_damage_that_keeps_the_time_of_change_is_noticed(opened, folder):
    expected = np.array(opened()[0])
    (path,) = folder.glob("*.npy")
    before = path.stat()
    flip(path, 1000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert np.array_equal(opened()[0], expected)


def test_an_unchanged_cache_is_read_once(opened, folder, monkeypatch):
    opened()
    monkeypatch.setattr(image_cache, "_checksum", None)  # nothing is read through from here on
    opened()
    (path,) = folder.glob("*.npy")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent.parent))
    os.utime(path)  # as a copy has it: read again, and found whole
    inode = path.stat().st_ino
    opened()
    assert path.stat().st_ino == inode  # not made anew


def test_a_folder_in_the_place_of_the_cache_is_one_line(opened, folder):
    opened()
    (path,) = folder.glob("*.npy")
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="the image cache .* cannot be written"):
        opened()
