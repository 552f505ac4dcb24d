"""The map of docs/architecture.md names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
FILES = sorted(set(re.findall(r"[\w/]*\w\.py\b", TEXT)))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_named_exists(name):
    assert list(ROOT.glob(f"[acs]*/**/{name}")) or (ROOT / name).is_file()
