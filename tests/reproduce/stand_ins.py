"""Small data sets in the layouts of the real ones, and the commands that read them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
from experiments.mnist_files import write_idx
from hosts import forked_host
from interpreters import HERE
from PIL import Image

SCRIPTS = HERE.parent / "scripts"
SMALL_SWEEP = Path(__file__).parent / "small_sweep"  #: a DomainBed of the standard library only, with its sweep script
VLCS = {
    "environments": ("Caltech101", "LabelMe", "SUN09", "VOC2007"),
    "classes": ("bird", "car", "chair", "dog", "person"),
}
IN9_CLASSES = ("00_dog", "01_bird", "02_wheeled vehicle")
VARIANTS = ("original", "mixed_same", "mixed_rand", "only_fg")


def reproduce(
    experiment: str, *words: str, cwd: Path, host: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """What ``scripts/reproduce/<experiment> words`` does once .venv is set up, in ``cwd``, with ``host`` as DomainBed
    or without one.
    """
    places = {
        "XDG_CACHE_HOME": str(cwd / "cache"),
        "TORCH_HOME": str(cwd / "torch"),
        "MNIST_HOME": str(cwd / "mnist"),
        "CUDA_VISIBLE_DEVICES": "",
        "DOMAINBED_HOME": str(host or ""),
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (host, HERE.parent)))),
    }
    command = ["-m", "scripts.reproduce", experiment, *words]
    return forked_host.run(host or cwd, *command, cwd=cwd, timeout=280, **places, **environment)


def write_noise(path: Path, rng: np.random.Generator, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path, "JPEG")


def write_vlcs(root: Path, n_images: int = 6) -> None:
    rng = np.random.default_rng(0)
    for environment in VLCS["environments"]:
        for label in VLCS["classes"]:
            for number in range(n_images):
                write_noise(root / "VLCS" / environment / label / f"{number}.jpg", rng)


def write_imagenet9(root: Path, n_training: int = 20, n_test: int = 2) -> None:
    """As the release unpacks, whose fg_mask holds arrays, and the training set of the variant "original"."""
    rng = np.random.default_rng(0)
    for name in IN9_CLASSES:
        (root / "fg_mask" / "val" / name).mkdir(parents=True, exist_ok=True)
        np.save(root / "fg_mask" / "val" / name / "0.npy", np.zeros((2, 2), dtype=bool))
        for number in range(n_training):
            write_noise(root / "original" / "train" / name / f"n{number:03}.JPEG", rng)
        for variant in VARIANTS:
            for number in range(n_test):
                write_noise(root / variant / "val" / name / f"fg_{number}.JPEG", rng)


def write_mnist(folder: Path, n_training: int = 120, n_test: int = 60) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Four idx files of noise with an empty border, digits in turn; what was written, by split."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, stem, n in (("train", "train", n_training), ("test", "t10k", n_test)):
        pixels = np.zeros((n, 28, 28), dtype=np.uint8)
        pixels[:, 4:-4, 4:-4] = rng.integers(0, 256, (n, 20, 20))
        labels = np.arange(n, dtype=np.uint8) % 10
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)
        written[split] = pixels, labels
    return written


def cells_of(text: str, rule: str, algorithm: str) -> list[str]:
    """The cells of an algorithm's row in the part of a report's table that a rule chose: its name, seeds, and so on."""
    lines = text.splitlines()
    part = lines[lines.index(f"selected by {rule}") + 1 :]
    return next(re.split(r"\s{2,}", line) for line in part if re.match(rf"{re.escape(algorithm)}\b", line))
