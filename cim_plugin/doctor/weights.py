"""Pretrained weights of the default backbones: whether they are where torch and timm look before they download."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Iterator

from .findings import NOTE, OK, WARNING, Finding, Surroundings

#: torchvision's, by the name that DomainBed and 'cim-plugin train' use -> who starts from it by default
TORCHVISION = {
    "resnet50": "waterbirds, celebA, iwildcam and rxrx1 of 'cim-plugin train', and DomainBed at 224x224",
    "densenet121": "fmow of 'cim-plugin train'",
    "resnet18": "DomainBed with resnet18=true",
}
#: timm's, which DomainBed loads beside resnet50 -> who starts from it
TIMM = {"resnet50.ram_in1k": "DomainBed at 224x224 by default (resnet50_augmix=true)"}


def hub() -> Path:
    """Where torch.hub keeps files."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return Path(os.path.expanduser(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")), "hub", "checkpoints")


def hugging_face() -> Path:
    """Where timm's files are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")))


def weights(surroundings: Surroundings) -> Iterator[Finding]:
    files = surroundings.torch.get("files")
    if files is None:
        yield Finding(
            NOTE,
            f"the files of pretrained weights are not known while torchvision does not work "
            f"({surroundings.torch.get('fault')})",
        )
    for name, user in TORCHVISION.items():
        if files is not None:
            yield _of_file(name, hub() / files[name], user)
    for name, user in TIMM.items():
        folder = hugging_face() / f"models--timm--{name}"
        found = [
            path
            for path in folder.glob("snapshots/*/*")
            if path.suffix in (".safetensors", ".bin", ".pth") and path.is_file()
        ]
        yield Finding(OK, f"{name} of timm is in {folder}") if found else _missing(name, folder, user)


def _of_file(name: str, path: Path, user: str) -> Finding:
    if not path.is_file():
        return _missing(name, path, user)
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if digest and not _sha256(path).startswith(digest.group(1)):
        return Finding(
            WARNING,
            f"{path} is damaged: its checksum is not the one in its name",
            "remove it, and fetch it again on a machine with network",
        )
    return Finding(OK, f"{name} is in {path}")


def _missing(name: str, place: Path, user: str) -> Finding:
    return Finding(
        NOTE,
        f"no pretrained weights of {name}, for {user}",
        f"the first run downloads them; without network put them at {place}",
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
