"""Decoded and resized images of a dataset in one memory-mapped file, built once and shared by processes and runs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import zlib
from typing import Any

import numpy as np
import PIL
import torchvision
from numpy.lib.format import open_memmap

from ..autoload import user_cache
from ..errors import InputError, first_line
from ..models.transforms import Transform
from ..progress import progress
from ..runs.configuration import Configuration
from .datasets import Dataset
from .loading import Images, Loader, evaluation_order
from .processes import on_rank_zero

GB = 10**9
CHECKSUM = 4  #: bytes at the end of the file, after the images: the CRC-32 of all before
SPARE = 1 * GB  #: disk that a cache which nobody asked for leaves free


def open_cache(config: Configuration, data: Dataset, transform: Transform, fabric, show: bool) -> np.ndarray | None:
    """The resized images of the whole dataset, (n_images, H, W, 3) uint8, read-only; None where --cache is off.

    Args:
        config: its cache is True, False, or "auto": on where the file fits --cache_limit and the disk, and all of the
            data is used.
        show: show a progress bar while building.

    Raises:
        InputError: an image cannot be read, or the file cannot be written.
    """
    if config.cache is False:
        return None
    height, width = transform.size
    name = f"{config.dataset}-{height}x{width}-{fingerprint(data.wilds.data_dir, transform)}.npy"
    path = os.path.join(user_cache(), "images", name)
    if not fabric.broadcast(
        os.path.exists(path) or _wanted(config, n_bytes(data, transform))
    ):  # processes may see different disks
        return None
    on_rank_zero(fabric, lambda: _build_once(path, data, transform, config.loader_kwargs, show))
    if fabric.local_rank == 0 and fabric.global_rank != 0:  # of another machine
        _build_once(path, data, transform, config.loader_kwargs, show)
    fabric.barrier()
    return np.load(path, mmap_mode="r")  # which does not look at what comes after the images


def n_bytes(data: Dataset, transform: Transform) -> int:
    """The size of the cache."""
    return len(data.wilds.y_array) * transform.size[0] * transform.size[1] * 3


def _wanted(config: Configuration, size: int) -> bool:
    if config.cache is True:
        return True
    existing = user_cache()
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    fits = size <= config.cache_limit * GB and size + SPARE <= shutil.disk_usage(existing).free
    return fits and config.frac == 1 and not config.eval_only


def fingerprint(data_dir: str, transform: Transform) -> str:
    """What the cached images follow from: every file's name, size and time of change, the resizing, and the libraries
    that do it.
    """
    digest = hashlib.sha256(f"{transform.resize} {transform.size} {PIL.__version__} {torchvision.__version__}".encode())
    for file in sorted(_files(data_dir)):
        digest.update(repr(file).encode())
    return digest.hexdigest()[:16]


def _files(folder: str, prefix: str = ""):
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            else:
                status = entry.stat(
                    follow_symlinks=os.path.exists(entry.path)
                )  # a link to nothing counts as what it is
                yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns


def _build_once(path: str, data: Dataset, transform: Transform, loader_kwargs: dict[str, Any], show: bool) -> None:
    from filelock import FileLock

    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with FileLock(f"{path}.lock"):  # another run may be building it
            fault = _fault(path, (len(data.wilds.y_array), *transform.size, 3)) if os.path.exists(path) else None
            if fault:
                print(f"the image cache {path} {fault}; it is made anew", file=sys.stderr)
            if fault or not os.path.exists(path):
                _build(path, data, transform, loader_kwargs, show)
    except OSError as error:
        raise InputError(
            f"the image cache {path} cannot be written ({error.strerror or error}); make room, set XDG_CACHE_HOME, or "
            f"pass --cache false"
        ) from error


def _build(path: str, data: Dataset, transform: Transform, loader_kwargs: dict[str, Any], show: bool) -> None:
    n, part = len(data.wilds.y_array), f"{path}.part"
    loader = Loader(
        Images(data.wilds, np.arange(n), transform, augment=False), {"num_workers": loader_kwargs.get("num_workers", 0)}
    )
    try:
        if (
            n_bytes(data, transform) > shutil.disk_usage(os.path.dirname(path)).free
        ):  # a write to a full disk's map ends the process
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        cache = open_memmap(part, mode="w+", dtype=np.uint8, shape=(n, *transform.size, 3))
        checksum = _checksum(part, cache.offset)
        with progress(total=n, unit="image", desc="decoding images once", show=show) as bar:
            for batch in loader(evaluation_order(n, 64)):
                images = np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).numpy())
                cache[batch.rows.numpy()] = images
                checksum = zlib.crc32(images.data, checksum)  # rows come in order
                bar.update(len(batch.rows))
        cache.flush()
        del cache
        with open(part, "ab") as file:
            file.write(checksum.to_bytes(CHECKSUM, "big"))
        os.replace(part, path)
        _stamp(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


# --- whether a file is what was built ---------------------------------------------------------------------------------


def _fault(path: str, shape: tuple[int, ...]) -> str | None:
    """Why a cache cannot be used, None where it can.

    All of it is read only where it is not the file, unchanged since, that was found whole before: what changes a file
    and restores its times, the time of change of its inode included, is not noticed.
    """
    if not os.path.isfile(path):
        return "is not a file"
    try:
        cache = np.load(path, mmap_mode="r")
    except Exception as error:  # numpy's reader raises errors of many kinds on a damaged header
        return f"cannot be read ({first_line(error)})"
    if not isinstance(cache, np.memmap) or (cache.shape, cache.dtype) != (shape, np.uint8):
        return "does not hold these images"
    whole = cache.offset + cache.nbytes
    if os.path.getsize(path) != whole + CHECKSUM:
        return "is of an older version or not whole"
    if _stamped(path):
        return None
    with open(path, "rb") as file:
        file.seek(whole)
        expected = int.from_bytes(file.read(), "big")
    if _checksum(path, whole) != expected:
        return "is damaged"
    _stamp(path)
    return None


def _checksum(path: str, n_bytes: int) -> int:
    """CRC-32 of so many bytes of a file."""
    checksum = 0
    with open(path, "rb") as file:
        while n_bytes and (block := file.read(min(n_bytes, 1 << 24))):
            checksum, n_bytes = zlib.crc32(block, checksum), n_bytes - len(block)
    return checksum


def _identity(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _stamp(path: str) -> None:
    """Note which file was found whole."""
    with open(f"{path}.checked", "w") as file:
        json.dump(_identity(path), file)


def _stamped(path: str) -> bool:
    try:
        with open(f"{path}.checked") as file:
            return json.load(file) == _identity(path)
    except (OSError, ValueError):
        return False
