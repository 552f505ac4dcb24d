"""ImageNet-9 (Xiao et al., 2020): from the release of the Background Challenge and the archive of a training set to the
folders that ``scripts/reproduce background_challenge`` reads, `<variant>/val/<class>/<image>` and
`original/train/<class>/<image>`.
"""

from __future__ import annotations

import re
from collections import Counter

from ..errors import InputError
from .conversion import Plan
from .images import SUFFIXES
from .releases import RELEASES
from .source import Source

RELEASE = "bg_challenge"  #: folder in the release's archive
TRAINING = "original/train"  #: of the training set; its val/ was not cleaned by hand and is left out
_IMAGE = re.compile(rf"(?:.*/)?(?:{RELEASE}/(?P<test>[^/]+/val/[^/]+/[^/]+)|(?P<train>{TRAINING}/[^/]+/[^/]+))")


def plan(source: Source) -> Plan:
    """Sort the images into variants and classes.

    Raises:
        InputError: a variant that is needed has no images, or two images would become one.
    """
    images: dict[str, str] = {}
    for name in source.names:
        found = _IMAGE.fullmatch(name)
        if found and name.lower().endswith(SUFFIXES):
            images[name] = found["test"] or found["train"]
    release = RELEASES["imagenet9"]
    counts = Counter("/".join(path.split("/")[:2]) for path in images.values())
    repeated = [path for path, count in Counter(images.values()).items() if count > 1]
    if repeated:
        raise InputError(f"{source.path} holds two images that would become {repeated[0]}")
    for part in release.needs:
        if not counts[part]:
            raise InputError(f"{source.path} holds no images of {part}")
    return Plan(release, {}, images, {part: counts[part] for part in release.needs})
