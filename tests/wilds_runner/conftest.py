"""A release of noise and one of digits that the real WaterbirdsDataset reads, and finished runs."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import train, write_release

from cim_plugin.wilds_runner.datasets import open_dataset

GROUP_SIZES = {
    "train": (12, 5, 3, 10),
    "val": (4, 3, 3, 2),
    "test": (2, 3, 2, 2),
}  #: of (place, y) = (0, 0), (0, 1), (1, 0), (1, 1)


@pytest.fixture(scope="session")
def noise_release(tmp_path_factory) -> Path:
    """A root with a Waterbirds release of 51 images of noise, 20 x 24 pixels."""
    root = tmp_path_factory.mktemp("noise")
    folder = root / "waterbirds_v1.0"
    folder.mkdir()
    (folder / "RELEASE_v1.0.txt").write_text("noise")
    rng = np.random.default_rng(0)
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for split, sizes in enumerate(GROUP_SIZES.values()):
        for group in rng.permutation(np.repeat(range(4), sizes)):
            name = f"{len(lines)}.png"
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / name)
            lines.append(f"{len(lines)},{name},{group % 2},{split},{group // 2},none")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def noise_config(configure, noise_release):
    """A function (flag words) -> a configuration for the release of noise, at 16 x 16 pixels without worker
    processes.
    """
    words = [
        "--root_dir",
        str(noise_release),
        "--transform",
        "image_base",
        "--target_resolution",
        "16",
        "--loader_kwargs",
        "num_workers=0",
    ]
    return lambda *more: configure(*words, *more)


@pytest.fixture
def noise(noise_config):
    """The release of noise as a run sees it."""
    return open_dataset(noise_config())


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """A root with a Waterbirds release of 140 digits on photographs that the real WaterbirdsDataset reads."""
    root = tmp_path_factory.mktemp("release")
    write_release(root)
    return root


@pytest.fixture(scope="session")
def trained(release, tmp_path_factory):
    """A function (algorithm) -> the folder of its finished run of three epochs, made when it is first asked for. Not to
    be changed.
    """

    @functools.cache
    def folder(algorithm: str) -> Path:
        log_dir = tmp_path_factory.mktemp(algorithm)
        assert train(release, log_dir, "--n_epochs", "3", algorithm=algorithm) == 0
        return log_dir

    return folder


@pytest.fixture
def own_release(release, tmp_path):
    """A root whose release a test may damage."""
    shutil.copytree(release, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def attempt(tmp_path, capsys):
    """A function like ``train`` that returns the exit status and the lines on stderr, after checking that they hold no
    traceback.
    """

    def run(root, *more: str, log_dir=tmp_path / "run", **choice):
        try:
            status = train(root, log_dir, *more, **choice)
        except SystemExit as end:  # argparse
            status = end.code
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return status, errors.splitlines()

    return run
