"""VLCS (Fang et al., 2013): from the layouts that are about to the folders that DomainBed reads,
`VLCS/<environment>/<class>/<image>`.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from ..errors import InputError
from ..progress import progress
from .conversion import Plan
from .images import SUFFIXES
from .manifest import digest
from .releases import RELEASES
from .source import Source

#: folder in a source, in lower case -> DomainBed's
ENVIRONMENTS = {
    "caltech101": "Caltech101",
    "caltech": "Caltech101",
    "labelme": "LabelMe",
    "sun09": "SUN09",
    "sun": "SUN09",
    "voc2007": "VOC2007",
    "pascal": "VOC2007",
}
CLASSES = ("bird", "car", "chair", "dog", "person")
FOLDERS = {name: name for name in CLASSES} | {str(number): name for number, name in enumerate(CLASSES)}
SPLITS = (
    "",
    "full",
    "train",
    "crossval",
    "test",
)  #: folders between environment and class in the layout with numbered classes; none in DomainBed's


class Origin(NamedTuple):
    """Where an image of the source belongs."""

    environment: str
    split: str  #: "" where the source has none
    label: str
    file: str

    @property
    def path(self) -> str:
        """In the release. The split goes into the file's name, because splits repeat names."""
        return f"{self.environment}/{self.label}/{self.split and self.split + '_'}{self.file}"


def plan(source: Source) -> Plan:
    """Sort the images of the source into environments and classes.

    Raises:
        InputError: a folder is no known class, or an environment lacks a class.
    """
    origins = {name: origin for name in source.names if (origin := _origin(name, source)) is not None}
    kept = _without_copies(source, origins)
    _check_paths(source, kept)
    found = Counter((kept[name].environment, kept[name].label) for name in kept)
    release = RELEASES["VLCS"]
    for environment in release.needs:
        for label in CLASSES:
            if not found[environment, label]:
                raise InputError(
                    f"{source.path} holds no images of {label!r} for {environment}; DomainBed would number the classes "
                    f"wrongly"
                )
    counts = {environment: sum(found[environment, label] for label in CLASSES) for environment in release.needs}
    return Plan(release, {}, {name: origin.path for name, origin in kept.items()}, counts)


def _origin(name: str, source: Source) -> Origin | None:
    """None for what is no image inside the folder of an environment."""
    *folders, file = name.split("/")
    environments = [i for i, folder in enumerate(folders) if folder.lower() in ENVIRONMENTS]
    if not environments or not file.lower().endswith(SUFFIXES):
        return None
    environment, *inside = folders[environments[-1] :]
    split = inside.pop(0) if inside and inside[0] in SPLITS else ""
    if len(inside) != 1 or inside[0].lower() not in FOLDERS:
        raise InputError(
            f"{source.path}: {name!r} lies in no folder of a known class; known: {', '.join(CLASSES)}, or 0 to "
            f"{len(CLASSES) - 1}"
        )
    return Origin(ENVIRONMENTS[environment.lower()], split, FOLDERS[inside[0].lower()], file)


def _check_paths(source: Source, origins: dict[str, Origin]) -> None:
    taken: dict[str, str] = {}
    for name, origin in origins.items():
        if not origin.path.isprintable():
            raise InputError(f"{source.path}: rename {name!r}, whose name cannot be printed")
        if taken.setdefault(origin.path, name) != name:
            raise InputError(
                f"{source.path}: {taken[origin.path]!r} and {name!r} would both become {origin.path}; pass a folder "
                f"that holds VLCS once"
            )


def _without_copies(source: Source, origins: dict[str, Origin]) -> dict[str, Origin]:
    """One of each image that lies in several splits: in some copies `full` holds `train` and `crossval`, in others
    `test` as well.
    """
    if len({origin.split for origin in origins.values()}) < 2:
        return origins
    contents = source.contents(origins)
    digests = {
        name: digest(content)
        for name, content in progress(
            contents, total=len(origins), desc="comparing the splits", unit="image", leave=False
        )
    }
    first: dict[tuple[str, str, str], str] = {}
    for name, origin in sorted(origins.items(), key=lambda item: SPLITS.index(item[1].split)):
        first.setdefault((origin.environment, origin.label, digests[name]), origin.split)
    return {
        name: origin
        for name, origin in origins.items()
        if first[origin.environment, origin.label, digests[name]] == origin.split
    }
