"""Which rows, in which order, read by whom: reproducible, complete, the same for any number of workers and
processes.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from cim_plugin.errors import InputError
from cim_plugin.models.transforms import Transform, make_transform
from cim_plugin.wilds_runner.datasets import open_dataset
from cim_plugin.wilds_runner.loading import (
    Images,
    Loader,
    TrainingOrder,
    evaluation_order,
    make_loader,
    read_image,
    seed_of,
    seeded,
    to_pixels,
)

pytestmark = pytest.mark.slow

N_TRAIN = 30
GROUP = "--train_loader group --n_groups_per_batch 2 --distinct_groups"


@pytest.fixture
def order(noise_config, noise):
    """A function (flag words) -> the training order."""
    return lambda words="--batch_size 8": TrainingOrder(
        noise_config(*words.split()), noise.splits["train"], noise.grouper
    )


def rows_of(batches) -> list[int]:
    return [row for batch in batches for row, _ in batch]


def random_states() -> list:
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]


# --- the order of training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["--batch_size 8", "--batch_size 8 --uniform_over_groups", f"--batch_size 8 {GROUP}"])
def test_the_order_follows_from_seed_and_epoch_and_nothing_else(order, words):
    epochs = [order(words).epoch(epoch) for epoch in range(3)]
    torch.manual_seed(99)
    np.random.seed(99)
    again = order(words)
    assert [again.epoch(epoch) for epoch in (2, 0, 1)] == [epochs[2], epochs[0], epochs[1]]
    other = order(f"{words} --seed 1").epoch(0)
    assert len({tuple(rows_of(batches)) for batches in (*epochs, other)}) == 4


@pytest.mark.parametrize("words", ["--batch_size 8", "--batch_size 8 --uniform_over_groups", f"--batch_size 8 {GROUP}"])
def test_drawing_an_order_leaves_the_global_random_states_alone(order, words):
    before = random_states()
    order(words).epoch(0)
    assert random_states() == before


def test_standard_batches_hold_every_row_once(order):
    batches = order().epoch(0)
    assert sorted(rows_of(batches)) == list(range(N_TRAIN))
    assert [len(batch) for batch in batches] == [8, 8, 8, 6] and len(order()) == 4


def test_uniform_batches_hold_the_groups_about_equally_often(order, noise):
    groups = noise.splits["train"].groups
    training = order("--batch_size 8 --uniform_over_groups")
    counts = Counter(groups[row].item() for epoch in range(100) for row in rows_of(training.epoch(epoch)))
    assert sum(counts.values()) == 100 * N_TRAIN
    spread = 5 * (100 * N_TRAIN * 0.25 * 0.75) ** 0.5  # five standard deviations
    assert all(abs(counts[group] - 100 * N_TRAIN / 4) < spread for group in range(4))
    assert min(torch.bincount(groups)) == 3  # the split itself is far from uniform


def test_group_batches_hold_so_many_groups_in_equal_parts(order, noise):
    groups = noise.splits["train"].groups
    batches = order(f"--batch_size 6 {GROUP}").epoch(0)
    assert len(batches) == N_TRAIN // 6
    for batch in batches:
        assert sorted(Counter(groups[row].item() for row, _ in batch).values()) == [3, 3]


@pytest.mark.parametrize(
    "words, message",
    [
        (
            f"--batch_size 7 {GROUP}",
            "--train_loader group: batch_size (7) must be evenly divisible by n_groups_per_batch (2).",
        ),
        (
            f"--batch_size 32 {GROUP}",
            "--train_loader group: The dataset has only 30 examples but the batch size is 32.",
        ),
        (
            "--batch_size 10 --train_loader group --n_groups_per_batch 5",
            "--train_loader group: n_groups_per_batch was set to 5 but there are only 4 groups",
        ),
    ],
)
def test_group_batches_that_cannot_be_are_refused(order, words, message):
    with pytest.raises(InputError) as error:
        order(words)
    assert str(error.value).startswith(message)


def test_distinct_groups_need_as_many_groups_in_the_training_split(noise_config, noise):
    present = noise.splits["train"]
    lacking = present._replace(groups=torch.where(present.groups == 3, 0, present.groups))
    with pytest.raises(InputError) as error:
        TrainingOrder(
            noise_config(*"--batch_size 8 --train_loader group --n_groups_per_batch 4 --distinct_groups".split()),
            lacking,
            noise.grouper,
        )
    assert (
        str(error.value)
        == "--n_groups_per_batch 4 is more than the 3 groups that the training split holds; give fewer, or "
        "--distinct_groups false"
    )


@pytest.mark.parametrize("n_processes", [2, 3, 4])
@pytest.mark.parametrize("words", ["--batch_size 8", f"--batch_size 12 {GROUP}"])
def test_processes_cut_every_batch_into_equal_parts_in_order(order, words, n_processes):
    training = order(words)
    batches = training.epoch(1)
    parts = [training.epoch(1, rank, n_processes) for rank in range(n_processes)]
    for batch, *cut in zip(batches, *parts, strict=True):
        size = len(batch) // n_processes
        assert [len(part) for part in cut] == [size] * n_processes
        assert [item for part in cut for item in part] == batch[: size * n_processes]


def test_a_batch_with_fewer_rows_than_processes_is_left_out_by_all(order):
    training = order("--batch_size 29")
    assert [len(batch) for batch in training.epoch(0)] == [29, 1]
    assert [[len(batch) for batch in training.epoch(0, rank, 2)] for rank in range(2)] == [[14], [14]]


@pytest.mark.parametrize("n_processes", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@pytest.mark.parametrize("n", [0, 1, 2, 6, 13])
def test_evaluation_covers_every_row_exactly_once(n, batch_size, n_processes):
    parts = [evaluation_order(n, batch_size, rank, n_processes) for rank in range(n_processes)]
    assert [row for part in parts for row in rows_of(part)] == list(range(n))
    assert all(0 < len(batch) <= max(1, batch_size // n_processes) for part in parts for batch in part)


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_seeds_are_in_range_stable_and_of_every_word():
    words = [(0, "order", 0), (0, "order", 1), (1, "order", 0), (0, "model"), (0, 0, 1), (0, 1, 0)]
    seeds = [seed_of(*word) for word in words]
    assert len(set(seeds)) == len(words) and all(0 <= seed < 2**31 for seed in seeds)


def test_a_seeded_block_is_reproducible_and_puts_the_generators_back():
    before = random_states()
    drawn = []
    for _ in range(2):
        with seeded(5):
            drawn.append((torch.rand(3).tolist(), np.random.rand(3).tolist()))
    with seeded(6):
        other = (torch.rand(3).tolist(), np.random.rand(3).tolist())
    assert random_states() == before
    assert drawn[0] == drawn[1] != other


def test_the_generators_are_put_back_after_an_error():
    before = random_states()
    with pytest.raises(KeyError), seeded(5):
        torch.rand(1), np.random.rand(1)
        raise KeyError
    assert random_states() == before


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def load(noise_config, noise):
    """A function (batches, flag words, split) -> the loaded batches."""

    def loaded(batches, words: str = "", key: str = "train", cache=None) -> list:
        config = noise_config(*words.split())
        loader = make_loader(config, noise, key, make_transform(config, noise.wilds.original_resolution), cache)
        return list(loader(batches))

    return loaded


WEAK = "--additional_train_transform weak"
STRONG = "--additional_train_transform randaugment"
WORKERS = "--loader_kwargs num_workers=2"


def _reference_image(noise, row: int) -> torch.Tensor:
    image = (
        Image.open(f"{noise.wilds.data_dir}/{noise.wilds._input_array[row]}")
        .convert("RGB")
        .resize((16, 16), Image.Resampling.BILINEAR)
    )
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("words", ["", WORKERS])
@pytest.mark.parametrize("key", ["train", "test"])
def test_batches_hold_the_images_of_their_rows_in_order(load, noise, key, words):
    batches = load([[(3, 0), (0, 0)], [(5, 0)]], words, key)
    assert [batch.rows.tolist() for batch in batches] == [[3, 0], [5]]
    indices = noise.splits[key].indices
    for batch in batches:
        expected = torch.stack([_reference_image(noise, indices[row]) for row in batch.rows])
        assert batch.images.dtype == torch.uint8 and torch.equal(batch.images, expected)


@pytest.mark.parametrize("words", [WEAK, STRONG])
def test_augmentation_is_the_same_for_any_number_of_workers_and_differs_between_epochs(load, order, words):
    training = order()
    first, again = load(training.epoch(0), words), load(training.epoch(0), f"{words} {WORKERS}")
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.rows, b.rows) for a, b in zip(first, again, strict=True)
    )
    by_row = [
        {row.item(): image for batch in load(training.epoch(e), words) for row, image in zip(batch.rows, batch.images)}
        for e in (0, 1)
    ]
    assert sum(not torch.equal(by_row[0][row], by_row[1][row]) for row in range(N_TRAIN)) > N_TRAIN / 4


def test_an_image_that_is_drawn_twice_is_augmented_twice(order):
    drawn = [item for batch in order("--uniform_over_groups").epoch(0) for item in batch]
    assert len({row for row, _ in drawn}) < len(drawn) == len({seed for _, seed in drawn})


def test_augmentation_does_not_depend_on_the_process_that_does_it(load, order):
    training = order()
    alone = torch.cat([batch.images[: len(batch.rows) // 2 * 2] for batch in load(training.epoch(0), STRONG)])
    parts = [load(training.epoch(0, rank, 2), STRONG) for rank in range(2)]
    assert torch.equal(torch.cat([image.images for pair in zip(*parts) for image in pair]), alone)


def test_only_training_images_are_augmented(load):
    batches = [[(row, row) for row in range(8)]]
    assert not torch.equal(load(batches, WEAK)[0].images, load(batches)[0].images)
    assert torch.equal(load(batches, WEAK, "val")[0].images, load(batches, "", "val")[0].images)


@pytest.mark.parametrize("words", ["", WEAK, STRONG])
def test_cached_images_give_the_same_batches(load, noise, words):
    cache = np.stack([_reference_image(noise, row).permute(1, 2, 0).numpy() for row in range(len(noise.wilds.y_array))])
    cache.flags.writeable = False
    batches = [[(3, 1), (0, 2)], [(5, 3)]]
    for direct, cached in zip(load(batches, words), load(batches, words, cache=cache), strict=True):
        assert torch.equal(direct.images, cached.images) and torch.equal(direct.rows, cached.rows)


@pytest.mark.parametrize("words", ["", WORKERS])
def test_iterating_leaves_the_global_random_states_alone(load, order, words):
    before = random_states()
    load(order().epoch(0), f"{STRONG} {words}")
    assert random_states() == before


@pytest.mark.parametrize("words", ["", WORKERS])
@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_image_is_named_with_its_index(noise_release, noise_config, tmp_path, words, content):
    import shutil

    root = shutil.copytree(noise_release, tmp_path / "copy")
    config = noise_config("--root_dir", str(root), *words.split())
    data = open_dataset(config)
    index = int(data.splits["val"].indices[2])
    path = root / "waterbirds_v1.0" / data.wilds._input_array[index]
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    loader = make_loader(config, data, "val", make_transform(config, data.wilds.original_resolution), None)
    with pytest.raises(InputError) as error:
        list(loader(evaluation_order(12, 4)))
    assert str(error.value).startswith(f"image {index}, ") and path.name in str(error.value)
    assert str(error.value).endswith("; replace the file")


def test_images_of_another_size_than_promised_are_named(noise_config, noise):
    config = noise_config()
    transform = make_transform(config, noise.wilds.original_resolution)._replace(size=(16, 17))
    with pytest.raises(InputError, match="is 16x16 where all must be 16x17; give --target_resolution$"):
        list(make_loader(config, noise, "train", transform, None)([[(0, 0)]]))


def test_rows_that_are_kept_hold_no_memory_of_a_worker(load):
    """Every shared tensor that is kept costs a file descriptor, and an epoch keeps the rows of all batches."""
    assert not any(batch.rows.is_shared() for batch in load([[(0, 0)], [(1, 0)]], WORKERS))


def test_a_worker_that_is_not_forked_gets_a_caches_name_not_its_bytes(noise_config, noise, tmp_path):
    transform = make_transform(noise_config(), noise.wilds.original_resolution)
    np.save(
        tmp_path / "cache.npy",
        np.random.default_rng(0).integers(0, 256, (len(noise.wilds.y_array), 16, 16, 3), dtype=np.uint8),
    )
    images = Images(
        noise.wilds,
        noise.splits["train"].indices,
        transform,
        augment=False,
        cache=np.load(tmp_path / "cache.npy", mmap_mode="r"),
    )
    without = Images(noise.wilds, noise.splits["train"].indices, transform, augment=False)
    pickled = pickle.dumps(images)
    assert len(pickled) - len(pickle.dumps(without)) < 1000
    batch = [(2, 0), (0, 0)]
    assert torch.equal(pickle.loads(pickled)[batch].images, images[batch].images)


def test_a_loader_can_be_passed_through_again(noise_config, noise):
    config = noise_config("--loader_kwargs", "num_workers=1")
    loader = make_loader(config, noise, "val", make_transform(config, noise.wilds.original_resolution), None)
    for batches in ([[(0, 0)]], [[(1, 0), (2, 0)], [(3, 0)]], []):
        assert [batch.rows.tolist() for batch in loader(batches)] == [[row for row, _ in batch] for batch in batches]


@pytest.mark.parametrize("words", ["", WORKERS])
def test_a_pass_that_is_left_early_does_not_disturb_the_next(noise_config, noise, words):
    config = noise_config(*words.split())
    loader = make_loader(config, noise, "train", make_transform(config, noise.wilds.original_resolution), None)
    order = evaluation_order(N_TRAIN, 2)
    started = loader(order)
    assert next(started).rows.tolist() == [0, 1]
    started.close()
    assert [batch.rows.tolist() for batch in loader(order)] == [[row, row + 1] for row in range(0, N_TRAIN, 2)]


@pytest.mark.parametrize(
    "loader_kwargs",
    [{"bogus": 1}, {"num_workers": -1}, {"num_workers": "two"}, {"batch_size": 4}, {"prefetch_factor": 2}],
)
def test_arguments_that_the_data_loader_refuses_are_shown(loader_kwargs, noise, noise_config):
    images = Images(noise.wilds, np.arange(3), make_transform(noise_config(), (224, 224)), augment=False)
    with pytest.raises(InputError, match="--loader_kwargs .* cannot be used: "):
        Loader(images, loader_kwargs)


def test_pixels_are_fractions_of_255():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    pixels = to_pixels(images, "cpu")
    assert pixels.dtype == torch.float32
    assert pixels.flatten().tolist() == [np.float32(value) / np.float32(255) for value in range(256)]
    assert images.flatten().tolist() == list(range(256))


def test_files_of_sixteen_bits_and_with_alpha_are_read_as_rgb(tmp_path):
    """Through the wilds package's data set, whose own conversion makes all grey above 8 bits white."""
    import wilds
    from small_runs import read_metadata, write_release

    folder = write_release(tmp_path)
    names = [row["img_filename"] for row in read_metadata(folder)]
    Image.fromarray(np.full((28, 28), 32768, np.uint16)).save(folder / names[0], "PNG")
    Image.new("RGBA", (28, 28), (10, 20, 30, 128)).save(folder / names[1], "PNG")
    data = wilds.get_dataset("waterbirds", root_dir=str(tmp_path))
    same = Transform(lambda image: image, None, torch.nn.Identity(), (28, 28), (28, 28))
    assert [read_image(data, row, same)[0, 0].tolist() for row in (0, 1)] == [[128] * 3, [10, 20, 30]]
