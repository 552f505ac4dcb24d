"""The study's data."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments.mnist_files import write_mnist


@pytest.fixture(scope="session")
def mnist(tmp_path_factory) -> Path:
    """A folder with images for every task."""
    return write_mnist(tmp_path_factory.mktemp("mnist"), 22_000, 4_000)


@pytest.fixture(scope="session")
def photos(mnist):
    """The task of digits on photographs, seed 0, of the stand-in."""
    from scripts.experiments.tasks import Folders, make_task

    return make_task("photos_95", 0, Folders(mnist, mnist))
