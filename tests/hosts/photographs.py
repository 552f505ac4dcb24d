"""Noise in the layout of PACS."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")


def write_photographs(root: Path) -> None:
    """PACS with 6 photographs of noise per environment: two classes with names."""
    generator = torch.Generator().manual_seed(0)
    for environment in DOMAINS:
        for number, name in enumerate(("dog", "elephant") * 3):
            pixels = torch.randint(256, (50, 40, 3), generator=generator, dtype=torch.uint8).numpy()
            file = root / "PACS" / environment / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
