"""Batches of uint8 images: which rows, in which order, and read by whom.

Everything random follows from the seed, the epoch and the place in it, so that a run gives the same batches whatever
the
number of workers and processes, and can be taken up again at any batch. An image that is drawn twice is augmented
twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any, Iterator, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, WeightedRandomSampler
from torch.utils.data import Dataset as TorchDataset

from ..data.images import strict_decoding
from ..data.rgb import rgb
from ..errors import InputError
from ..models.transforms import Transform
from ..runs.configuration import Configuration
from .datasets import Dataset, Split, image_path


def seed_of(*words: Any) -> int:
    """A seed in [0, 2^31) that follows from the words."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=4).digest(), "little") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's and numpy's global generators at ``seed``, and put them back."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)


class Batch(NamedTuple):
    """One process's rows of a batch."""

    images: Tensor  #: (n, C, H, W) uint8
    rows: Tensor  #: (n,) int64, rows of the split


class Images(TorchDataset):
    """A split's images, batch-wise: a list of (row of the split, seed of its augmentation) -> :class:`Batch`.

    Args:
        wilds: wilds' WILDSDataset.
        indices: the rows of ``wilds`` that make the split.
        transform: how images are made the same size and, for training, augmented.
        augment: whether the random part is applied.
        cache: (n_images, H, W, C) uint8, the resized images of the whole dataset, or None to decode files.
    """

    def __init__(
        self, wilds, indices: np.ndarray, transform: Transform, augment: bool, cache: np.ndarray | None = None
    ):
        self.wilds = wilds
        self.indices = indices
        self.transform = transform
        self.augment = transform.augment if augment else None
        self.cache = cache

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is not forked: pickled, a memory map is all of its bytes."""
        return {**self.__dict__, "cache": self.cache.filename if isinstance(self.cache, np.memmap) else self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.cache, (str, os.PathLike)):
            self.cache = np.load(self.cache, mmap_mode="r")

    def __getitem__(self, batch: list[tuple[int, int]]) -> Batch | InputError:
        """The batch; an InputError as a value where an image cannot be read, since workers lose the type of what they
        raise.
        """
        rows = torch.tensor([row for row, _ in batch], dtype=torch.int64)
        try:
            as_they_are = self.cache if self.augment is None else None
            images = self._one_by_one(batch) if as_they_are is None else self._cached(as_they_are, batch)
        except InputError as error:
            return error
        return Batch(images, rows)

    def _cached(self, cache: np.ndarray, batch) -> Tensor:
        return torch.from_numpy(cache[self.indices[[row for row, _ in batch]]]).permute(0, 3, 1, 2).contiguous()

    def _one_by_one(self, batch) -> Tensor:
        return torch.stack([self._augmented(row, seed) for row, seed in batch])

    def _augmented(self, row: int, seed: int) -> Tensor:
        image = (
            read_image(self.wilds, self.indices[row], self.transform)
            if self.cache is None
            else self.cache[self.indices[row]]
        )
        if self.augment is not None:
            with seeded(seed):
                image = np.asarray(self.augment(Image.fromarray(image)))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def read_image(wilds, index: int, transform: Transform) -> np.ndarray:
    """Decode and resize one image: (H, W, C) uint8.

    Raises:
        InputError: the file is missing, damaged, or not of the size that the transform assumes or promises.
    """
    try:
        with strict_decoding():
            image = np.asarray(transform.resize(_opened(wilds, index)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"image {index}, {image_path(wilds, index)}, cannot be read ({str(error) or type(error).__name__}); "
            f"replace the file"
        ) from error
    if image.shape[:2] != tuple(transform.size):
        height, width = image.shape[:2]
        raise InputError(
            f"image {index}, {image_path(wilds, index)}, is {height}x{width} where all must be "
            f"{transform.size[0]}x{transform.size[1]}; give --target_resolution"
        )
    return image


def _opened(wilds, index: int):
    """The image as RGB. Files of the wilds package's data sets are opened here: it makes all grey above 8 bits white,
    or leaves an image the mode that it has.
    """
    if type(wilds).get_input.__module__.startswith("wilds."):
        with Image.open(image_path(wilds, index)) as file:
            return rgb(file)
    return rgb(wilds.get_input(index))


def to_pixels(images: Tensor, device) -> Tensor:
    """(N, C, H, W) uint8 -> float32 in [0, 1] on the device; four times less is copied than as floats."""
    return images.to(device, non_blocking=True).float().div_(255)


class EpochBatches:
    """The batches of one epoch as the sampler of a DataLoader; set ``batches`` before every pass."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Loader:
    """A DataLoader over given batches, whose workers live as long as the loader."""

    def __init__(self, images: Images, loader_kwargs: dict[str, Any]):
        self.sampler = EpochBatches()
        try:
            options = {"persistent_workers": loader_kwargs.get("num_workers", 0) > 0, **loader_kwargs}
            options["pin_memory"] = options.get("pin_memory", False) and torch.cuda.is_available()
            # an own generator: a loader draws from the global one at every pass otherwise
            self.loader = DataLoader(
                images, batch_size=None, sampler=self.sampler, generator=torch.Generator(), **options
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"--loader_kwargs {loader_kwargs} cannot be used: {error}") from error

    def __call__(self, batches: list[list[tuple[int, int]]]) -> Iterator[Batch]:
        """The batches, in order.

        Raises:
            InputError: an image cannot be read.
        """
        self.sampler.batches = batches
        for batch in self.loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch._replace(
                rows=batch.rows.clone()
            )  # who keeps them is not to keep a worker's shared memory, and a file descriptor, of every batch


class TrainingOrder:
    """The batches of every training epoch, as the samplers of the ``wilds`` package draw them.

    Args:
        config: the run's configuration.
        split: the training split.
        grouper: wilds' grouper.
    """

    def __init__(self, config: Configuration, split: Split, grouper):
        from wilds.common.data_loaders import get_train_loader

        self.seed = config.seed
        n_groups, n_present = config.n_groups_per_batch, len(split.groups.unique())
        if config.train_loader == "group" and config.distinct_groups and n_groups > n_present:
            raise InputError(
                f"--n_groups_per_batch {n_groups} is more than the {n_present} groups that the training split holds; "
                f"give fewer, or --distinct_groups false"
            )
        try:
            self.sampler = get_train_loader(
                config.train_loader,
                split.subset,
                config.batch_size,
                uniform_over_groups=config.uniform_over_groups,
                grouper=grouper,
                distinct_groups=config.distinct_groups,
                n_groups_per_batch=config.n_groups_per_batch,
            ).batch_sampler
        except ValueError as error:
            raise InputError(f"--train_loader {config.train_loader}: {error}") from error

    def balance(self, labels: Tensor, cells: Tensor) -> None:
        """From now on draw every class equally often, and of a class every cell that it has, with replacement, in as
        many batches as before (Idrissi et al., 2022, arXiv:2110.14503, do so with groups).

        Args:
            labels: (N,) int64 of the split's images; for standard batches.
            cells: (N,) int64, each of one class.
        """
        n_cells = torch.bincount(torch.stack([labels, cells]).unique(dim=1)[0])
        chances = 1 / (torch.bincount(cells)[cells] * n_cells[labels]).double()
        self._draw(chances)

    def upweight(self, rows: Tensor, factor: float) -> None:
        """From now on draw some images that many times as often as the others, with replacement, in as many batches as
        before.

        Args:
            rows: (N,) bool, which of the split's images.
            factor: at least 1.
        """
        self._draw(torch.where(rows, factor, 1.0).double())

    def _draw(self, chances: Tensor) -> None:
        sampler = WeightedRandomSampler(chances.tolist(), len(chances))
        self.sampler = BatchSampler(sampler, self.sampler.batch_size, drop_last=False)

    def __len__(self) -> int:
        return len(self.sampler)

    def epoch(self, epoch: int, rank: int = 0, n_processes: int = 1) -> list[list[tuple[int, int]]]:
        """This process's part of every batch: (row of the split, seed of its augmentation).

        Processes get equally many rows; of a batch that does not divide, the last one of an epoch, up to ``n_processes
        - 1`` are left out.
        """
        with seeded(seed_of(self.seed, "order", epoch)):
            batches = [
                [(int(row), seed_of(self.seed, epoch, number, place)) for place, row in enumerate(batch)]
                for number, batch in enumerate(self.sampler)
            ]
        parts = [
            batch[rank * (len(batch) // n_processes) : (rank + 1) * (len(batch) // n_processes)] for batch in batches
        ]
        return [part for part in parts if part]


def evaluation_order(n: int, batch_size: int, rank: int = 0, n_processes: int = 1) -> list[list[tuple[int, int]]]:
    """This process's part of 0..n-1 in batches: every row is in exactly one process's part, parts are in the order of
    ranks.
    """
    rows = np.array_split(np.arange(n), n_processes)[rank].tolist()
    size = max(1, batch_size // n_processes)
    return [[(row, 0) for row in rows[start : start + size]] for start in range(0, len(rows), size)]


def make_loader(
    config: Configuration,
    data: Dataset,
    key: str,
    transform: Transform,
    cache: np.ndarray | None,
    augment: bool = True,
) -> Loader:
    """The loader of a split; only training images are augmented."""
    images = Images(data.wilds, data.splits[key].indices, transform, augment=augment and key == "train", cache=cache)
    return Loader(images, config.loader_kwargs)
