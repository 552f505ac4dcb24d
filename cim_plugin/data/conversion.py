"""From a public archive to a release: images one by one into a folder beside the target, which gets its name when all
are there.

A conversion that was stopped goes on where it was: what lies in the unfinished folder with the right content is not
written again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ..errors import InputError
from ..files import write_whole
from ..progress import progress
from . import manifest
from .images import fault, strict_decoding
from .releases import Release, is_synthetic
from .source import Source

try:
    import fcntl
except ImportError:  # Windows, where two processes at once are not kept apart
    fcntl = None


@dataclass(frozen=True)
class Plan:
    """What a release will hold."""

    release: Release
    texts: dict[str, bytes]  #: path in the release -> content
    images: dict[str, str]  #: name in the source -> path in the release; in the order of the metadata's rows
    counts: dict[str, int]  #: images per split or environment
    origin: str = ""  #: what the release's own text says of it; "" : that it was converted from the source


def listed_images(source: Source, places: dict[str, str], table: str) -> dict[str, str]:
    """``places``, name in the source -> path in the release, once all of them are in the source.

    Raises:
        InputError: an image is listed and not there.
    """
    there = set(source.names)
    missing = [(row, name) for row, name in enumerate(places) if name not in there]
    if missing:
        row, name = missing[0]
        raise InputError(
            f"{table} lists {len(places):,} images, {len(missing):,} of them are not in {source.path}; the first is "
            f"row {row}: {name!r}"
        )
    return places


def partial(folder: Path) -> Path:
    """Where a release is built before it gets its name."""
    return folder.with_name(f".{folder.name}.partial")


def is_finished(folder: Path) -> bool:
    """Whether a conversion made this release; its files are then as the manifest says.

    Raises:
        InputError: the folder holds something else, or a file has changed since.
    """
    with manifest.disk_errors(folder):
        if not os.path.lexists(folder) or (folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())):
            return False
    if is_synthetic(folder):
        raise InputError(
            f"{folder} holds the synthetic release of 'cim-plugin data demo'; move it away, or choose another --root"
        )
    if not manifest.read_manifest(folder):
        raise InputError(
            f"{folder} exists and was not made by this command; look at it with 'cim-plugin data check', or choose "
            f"another --root"
        )
    changed = manifest.changed(folder)
    if changed:
        raise InputError(
            f"{folder / changed} is missing or has changed since {manifest.NAME} was written; move {folder} away and "
            f"convert again"
        )
    return True


@contextlib.contextmanager
def building(folder: Path) -> Iterator[None]:
    """In here no other process makes this release.

    Raises:
        InputError: one is making it, or its unfinished folder is a link.
    """
    unfinished = partial(folder)
    if unfinished.is_symlink():
        raise InputError(f"{unfinished} is a link; remove it, the release is built there")
    if fcntl is None:
        yield
        return
    with manifest.disk_errors(folder):
        unfinished.mkdir(parents=True, exist_ok=True)
        handle = os.open(unfinished, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(handle), os.stat(unfinished))
        except OSError:  # another has the lock, or has just given the folder its name
            same = False
        if not same:
            raise InputError(f"another process is making {folder}; wait for it, then repeat the command")
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something, or has got its name
            unfinished.rmdir()
        os.close(handle)


def convert(source: Source, plan: Plan, root: Path) -> Path:
    """Write the release that ``plan`` describes under ``root``; its folder appears when all of it is there.

    Raises:
        InputError: an image cannot be read or decoded, or the disk is full. What was done stays for the next attempt.
    """
    folder = plan.release.path(root)
    unfinished = partial(folder)
    digests = {}
    rows = {name: row for row, name in enumerate(plan.images)}
    with manifest.disk_errors(root), strict_decoding():
        for path, content in {**_release_text(plan, source), **plan.texts}.items():
            digests[path] = _place(unfinished / path, content)
        for name, content in progress(
            source.contents(plan.images), total=len(rows), desc=plan.release.name, unit="image"
        ):
            path = plan.images[name]
            digests[path] = _place(unfinished / path, content, f"{source.path}: row {rows[name]}, image {name!r},")
        _remove_all_but(unfinished, digests)
        manifest.write_manifest(unfinished, digests)
        os.replace(unfinished, folder)
    return folder


def _release_text(plan: Plan, source: Source) -> dict[str, bytes]:
    release = plan.release
    if plan.origin:
        return {release.mark_file: f"{plan.origin}\n".encode()}
    if release.release_file is None:
        return {}
    return {
        release.release_file: f"{release.folder}, converted by 'cim-plugin data {release.name}' from "
        f"{source.path.name}\n".encode()
    }


def _place(path: Path, content: bytes, image: str | None = None) -> str:
    """Write a file unless it is there already, an image only if it can be decoded; its digest."""
    digest = manifest.digest(content)
    if not (path.is_file() and manifest.digest(path.read_bytes()) == digest):
        reason = image and fault(content)
        if reason:
            raise InputError(
                f"{image} cannot be decoded ({reason}); get it again and repeat the command, which goes on where it was"
            )
        write_whole(path, content)
    return digest


def _remove_all_but(folder: Path, kept: dict[str, str]) -> None:
    for parent, _, files in os.walk(folder):
        for path in (Path(parent, file) for file in files):
            if path.relative_to(folder).as_posix() not in kept:
                path.unlink()
