"""What is there of the data sets, and what their loaders say about it."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from ..files import pipe_in
from ..progress import progress
from .conversion import partial
from .images import fault, strict_decoding
from .releases import Release, how_to_get, is_subset, is_synthetic

PRESENT, SYNTHETIC, SUBSET, INCOMPLETE, ABSENT = "present", "synthetic", "subset", "incomplete", "absent"
USABLE = (PRESENT, SYNTHETIC, SUBSET)


@dataclass(frozen=True)
class Finding:
    """What `examine` found: one of the five states, and what there is to say."""

    name: str
    state: str
    words: str


class Loaded(NamedTuple):
    """What a loader made of a data set."""

    counts: dict[str, int]  #: images per split or environment
    paths: list[str]  #: of all images, in the loader's order


def examine(release: Release, root: str | os.PathLike, decode: bool = False) -> Finding:
    """Look at the folder, ask the host's own loader, and look for the images; with ``decode`` decode every image."""
    folder = release.path(root)
    if not folder.is_dir() or not any(folder.iterdir()):
        begun = (
            f"a conversion into {folder} was stopped, repeat its command to go on; " if partial(folder).is_dir() else ""
        )
        return Finding(release.name, ABSENT, begun + how_to_get(release.name, root))
    missing = [name for name in (release.release_file, *release.needs) if name and not (folder / name).exists()]
    if missing:
        return Finding(release.name, INCOMPLETE, f"{folder} lacks {', '.join(missing)}")
    if strange := pipe_in(folder):
        return Finding(release.name, INCOMPLETE, strange)
    try:
        loaded = _folders(release, folder) if release.release_file is None else _wilds(release, root)
    except ModuleNotFoundError as error:
        return Finding(
            release.name,
            INCOMPLETE,
            f"{error.name} is not installed, so the loader cannot be asked; install it with 'pip install {error.name}'",
        )
    except Exception as error:  # whatever the loader of another package raises is what it says
        return Finding(
            release.name,
            INCOMPLETE,
            f"the loader says of {folder}: {type(error).__name__}: {' '.join(str(error).split())}",
        )
    wrong = _first_wrong(loaded.paths, decode)
    if wrong:
        return Finding(release.name, INCOMPLETE, wrong)
    return _usable(release, folder, loaded)


def _wilds(release: Release, root: str | os.PathLike) -> Loaded:
    import wilds

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        dataset = wilds.get_dataset(dataset=release.name, root_dir=str(root), download=False)
    counts = {split: int((dataset.split_array == number).sum()) for split, number in dataset.split_dict.items()}
    return Loaded(counts, release.image_paths(dataset))


def _folders(release: Release, folder: Path) -> Loaded:
    """As DomainBed reads its sets: every subfolder is an environment, in alphabetical order, each with classes of its
    own. ImageNet-9 is no set of DomainBed's, its folders of classes lie one deeper and only those that it needs count.
    """
    from torchvision.datasets import ImageFolder

    deeper = any("/" in name for name in release.needs)
    names = release.needs if deeper else sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    environments = {name: ImageFolder(str(folder / name)) for name in names}
    extra = sorted(set(environments) - set(release.needs))
    if extra:
        raise ValueError(f"DomainBed takes the folder {extra[0]!r} for one more environment than {release.name} has")
    classes = {name: environment.classes for name, environment in environments.items()}
    first, *others = classes
    for name in others:
        if classes[name] != classes[first]:
            raise ValueError(
                f"{name} has the classes {classes[name]}, {first} has {classes[first]}: the same number would mean "
                f"different things"
            )
    paths = [path for environment in environments.values() for path, _ in environment.samples]
    return Loaded({name: len(environment) for name, environment in environments.items()}, paths)


def _first_wrong(paths: list[str], decode: bool) -> str | None:
    """The missing images, or those that cannot be decoded, in words; None if there are none."""
    wrong = [(row, path, "missing") for row, path in enumerate(paths) if not os.path.isfile(path)]
    if decode and not wrong:
        with strict_decoding(), ThreadPool() as pool:
            reasons = progress(pool.imap(fault, paths, chunksize=64), total=len(paths), desc="decoding", unit="image")
            wrong = [(row, paths[row], reason) for row, reason in enumerate(reasons) if reason]
    if not wrong:
        return None
    row, path, reason = wrong[0]
    return f"{len(wrong):,} of {len(paths):,} images cannot be used; the first is row {row}: {path} ({reason})"


def _usable(release: Release, folder: Path, loaded: Loaded) -> Finding:
    counts = ", ".join(f"{part} {count:,}" for part, count in loaded.counts.items())
    if is_synthetic(folder):
        return Finding(release.name, SYNTHETIC, f"{folder}, made by 'cim-plugin data demo': {counts}")
    if is_subset(folder):
        return Finding(release.name, SUBSET, f"{folder}, a part that 'cim-plugin data get --subset' took: {counts}")
    differences = release.differences(loaded.counts)
    return Finding(
        release.name,
        PRESENT,
        f"{folder}: " + (f"unlike the published release: {differences}" if differences else f"{counts}, as published"),
    )
