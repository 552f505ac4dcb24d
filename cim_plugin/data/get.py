"""``cim-plugin data get``: a data set from a mirror, in the layout that its host reads."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path
from typing import Any, Callable

from ..errors import InputError
from . import celeba, fetch, imagenet9, layouts, manifest, terra_incognita, vlcs, waterbirds
from .conversion import Plan, building, convert, is_finished
from .releases import RELEASES, SUBSET, Release, how_to_get, how_to_train, is_subset
from .source import Archive, Several, Source, open_source
from .sources import SOURCES, Mirror
from .subset import of_folders

SPARE = 1 << 30  #: bytes of disk that stay free


def get(name: str, root: Path, place: str | None = None, most: int | None = None) -> Path:
    """Download a data set and lay it out under ``root``, unless it is there; its folder appears when it is whole.

    Args:
        place: of the mirror; None: the first of the table.
        most: images of the part that is kept; None: all.

    Raises:
        InputError: it cannot be had, the disk is too small, or a mirror has something else. What was downloaded stays
            for the next attempt.
    """
    release, mirror = _choose(name, place)
    folder = release.path(root)
    downloads = folder.with_name(f".{folder.name}.download")
    if _is_done(folder, most):
        shutil.rmtree(downloads, ignore_errors=True)  # where an earlier attempt was killed at its very end
        return folder
    with building(folder), manifest.disk_errors(root):
        wanted = [] if mirror.place == "kaggle" else fetch.look(mirror, downloads)
        _check_disk(mirror, wanted, root)
        fetch.download(mirror, wanted, downloads)
        source = _open(mirror, [file.path for file in wanted], downloads)
        source, plan = _plan(mirror, source, release, most)
        convert(source, plan, root)
    shutil.rmtree(downloads)
    return folder


def _choose(name: str, place: str | None) -> tuple[Release, Mirror]:
    if name not in SOURCES:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(SOURCES)}")
    entry = SOURCES[name]
    if not entry.mirrors:
        raise InputError(f"{name}: {how_to_get(name)}")
    mirror = entry.mirror(place)
    if mirror is None:
        raise InputError(f"--source {place} has no {name}; there is {', '.join(m.place for m in entry.mirrors)}")
    return RELEASES[name], mirror


def _is_done(folder: Path, most: int | None) -> bool:
    if not is_finished(folder):
        return False
    if most is None and is_subset(folder):
        raise InputError(f"{folder} is a part that --subset has taken; move it away to get the whole")
    return True


def _check_disk(mirror: Mirror, wanted: list[fetch.Wanted], root: Path) -> None:
    """The files and the release lie on the disk side by side for a while."""
    total = sum(file.size or 0 for file in wanted) if all(file.size for file in wanted) and wanted else mirror.size
    need = (fetch.missing(wanted) if wanted else total) + total + SPARE
    free = shutil.disk_usage(root).free
    if need > free:
        raise InputError(
            f"{root} has {free / 1e9:.1f} GB free, {mirror.repository} needs {need / 1e9:.1f} GB, for the files and "
            f"for what is made of them; choose a --root on another disk"
        )


def _open(mirror: Mirror, files: list[Path], folder: Path) -> Source:
    if mirror.place == "kaggle":
        return open_source(folder)
    if mirror.place == "hf":
        return layouts.Parquet(Path(mirror.repository), _by_split(mirror, files))
    return Several(folder, [Archive(file) for file in files])


def _by_split(mirror: Mirror, files: list[Path]) -> dict[str, list[Path]]:
    """The Hub names a file after its split, or keeps it in a folder of that name."""
    splits: dict[str, list[Path]] = {}
    for file, path in zip(mirror.files, files):
        *_, folder, name = ("", *file.name.split("/"))
        splits.setdefault(name.split("-")[0] if "-of-" in name else folder, []).append(path)
    return splits


#: layout of `sources` -> what reads it: (source, release, most) -> what to read from, and what to make
LAYOUTS: dict[str, Callable[[Any, Release, int | None], tuple[Source, Plan]]] = {
    "waterbirds": lambda source, release, most: (source, layouts.plan_waterbirds(source, release, most)),
    "celebA": lambda source, release, most: (source, layouts.plan_celeba(source, release, most)),
    "camelyon17": lambda source, release, most: (source, layouts.plan_camelyon17(source, release, most)),
    "environments": lambda source, release, most: (source, layouts.plan_environments(source, release)),
    "waterbirds_archive": lambda source, release, most: (source, waterbirds.plan(source)),
    "celebA_tables": lambda source, release, most: (source, celeba.plan(source)),
    "vlcs": lambda source, release, most: (source, vlcs.plan(source)),
    "terra_incognita": lambda source, release, most: terra_incognita.plan(source),
    "imagenet9": lambda source, release, most: (source, imagenet9.plan(source)),
}
TAKES_PART = ("waterbirds", "celebA", "camelyon17")  #: of them, those that take the part themselves


def _plan(mirror: Mirror, source: Source, release: Release, most: int | None) -> tuple[Source, Plan]:
    source, whole = LAYOUTS[mirror.layout](source, release, None)
    differences = release.differences(whole.counts)
    if differences:
        raise InputError(
            f"{mirror.repository} has other counts than the published {release.name}: {differences}; it is not that "
            f"data set, or not all of it"
        )
    plan = whole
    if most is not None:
        if mirror.layout in TAKES_PART:
            source, plan = LAYOUTS[mirror.layout](source, release, most)
        elif whole.texts:
            raise InputError(f"--subset {most} cannot be taken from --source {mirror.place}; use --source hf")
        else:
            plan = of_folders(whole, most)
    return source, dataclasses.replace(plan, origin=_origin(mirror, plan, most))


def _origin(mirror: Mirror, plan: Plan, most: int | None) -> str:
    release = plan.release
    revision = f"@{mirror.revision}" if mirror.revision else ""
    command = f"cim-plugin data get {release.name} --source {mirror.place}"
    if most is None:
        return f"{release.folder}, got by '{command}' from {mirror.repository}{revision}"
    images = f"{SUBSET}: {len(plan.images):,} images of {release.folder}"
    return f"{images}, got by '{command} --subset {most}' from {mirror.repository}{revision}. Not the whole data set."


def announce(name: str, place: str | None) -> str:
    """What a user should know before the download: size, licence, traps."""
    _, mirror = _choose(name, place)
    entry = SOURCES[name]
    beware = f"; {mirror.beware}" if mirror.beware else ""
    return (
        f"{name} from {mirror.repository}, {mirror.size / 1e9:.1f} GB; licence: {mirror.licence}; cite {entry.citation}"
        f"{beware}"
    )


def farewell(name: str, root: Path, folder: Path) -> str:
    """What was made, and the line that trains on it."""
    part = ", a SUBSET" if is_subset(folder) else ""
    return f"{name} is in {shlex.quote(str(folder))}{part}; train on it with:\n{how_to_train(name, root)}"
