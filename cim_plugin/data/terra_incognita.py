"""TerraIncognita (Beery et al., 2018): from Caltech Camera Traps to the folders that DomainBed reads,
`terra_incognita/location_<n>/<class>/<image>`.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from typing import Any

from ..errors import InputError
from .conversion import Plan
from .releases import RELEASES
from .source import Copies, Source

#: files of the archive of annotations, in DomainBed's order
ANNOTATIONS = tuple(f"{part}_annotations.json" for part in ("cis_test", "cis_val", "train", "trans_test", "trans_val"))
LOCATIONS = ("38", "46", "100", "43")
CLASSES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")


def plan(source: Source) -> tuple[Source, Plan]:
    """As DomainBed's script does: an image with several animals goes into the folder of each.

    Returns:
        The images by their paths in the release, and what becomes of them.

    Raises:
        InputError: an annotation file is missing or wrong, or an image is not there.
    """
    images, labels = _read(source)
    members = {posixpath.basename(name): name for name in source.names}
    originals: dict[str, str] = {}
    for identifier, (location, file) in images.items():
        for label in labels.get(identifier, ()):
            if file not in members:
                raise InputError(f"{source.path}: the annotations list {file!r}, which is in no archive")
            originals[f"location_{location}/{label}/{file}"] = members[file]
    release = RELEASES["TerraIncognita"]
    counts = Counter(path.split("/")[0] for path in originals)
    images_of = {path: path for path in originals}
    return Copies(source, originals), Plan(release, {}, images_of, {name: counts[name] for name in release.needs})


def _read(source: Source) -> tuple[dict[Any, tuple[str, str]], dict[Any, list[str]]]:
    """Image -> its location and file, of the four locations; image -> its classes, of the ten."""
    tables: dict[str, list[dict]] = {"images": [], "annotations": [], "categories": []}
    for name in ANNOTATIONS:
        for part, rows in _json(source, name).items():
            if part in tables:
                tables[part] += rows
    try:
        categories = {row["id"]: row["name"] for row in tables["categories"]}
        images = {
            row["id"]: (str(row["location"]), _plain(source, row["file_name"]))
            for row in tables["images"]
            if str(row["location"]) in LOCATIONS
        }
        labels: dict[Any, list[str]] = {}
        for row in tables["annotations"]:
            if categories[row["category_id"]] in CLASSES:
                labels.setdefault(row["image_id"], []).append(categories[row["category_id"]])
    except (KeyError, TypeError) as error:
        raise InputError(f"{source.path}: the annotations are wrong ({type(error).__name__}: {error})") from error
    return images, labels


def _json(source: Source, name: str) -> dict[str, list]:
    try:
        content = json.loads(source.read(source.find(name)))
    except ValueError as error:
        raise InputError(f"{source.path}: {name} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{source.path}: {name} holds no tables")
    return content


def _plain(source: Source, file: Any) -> str:
    if not isinstance(file, str) or posixpath.basename(file) != file or file.startswith(".") or not file.isprintable():
        raise InputError(
            f"{source.path}: the annotations name a file {file!r}, which is not a plain name; it is refused"
        )
    return file
