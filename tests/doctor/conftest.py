"""An environment of a test's own, with stand-ins of torch and torchvision that go together."""

from __future__ import annotations

import sys

import pytest
from fake_environment import Environment, write_metadata


@pytest.fixture
def environment(tmp_path) -> Environment:
    made = Environment(tmp_path / "packages", tmp_path / "cache", tmp_path / "work")
    for folder in made:
        folder.mkdir()
    made.torch()
    made.torchvision()
    return made


@pytest.fixture
def only_installed(tmp_path, monkeypatch):
    """A function (package=version ...): of these alone this process finds metadata."""

    def install(**versions: str) -> None:
        monkeypatch.setattr(sys, "path", [str(tmp_path / "installed")])
        for name, version in versions.items():
            write_metadata(tmp_path / "installed", name, version)

    return install
