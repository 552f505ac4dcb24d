"""An environment of a test's own, with stand-ins of torch and torchvision that go together."""

from __future__ import annotations

import pytest
from fake_environment import Environment


@pytest.fixture
def environment(tmp_path) -> Environment:
    made = Environment(tmp_path / "packages", tmp_path / "cache", tmp_path / "work")
    for folder in made:
        folder.mkdir()
    made.torch()
    made.torchvision()
    return made
