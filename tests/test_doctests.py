"""The examples in the method's docstrings are run."""

import doctest
import importlib
from pathlib import Path

import pytest

METHOD = Path(__file__).parent.parent / "algorithms"
MODULES = sorted(
    ".".join(path.relative_to(METHOD).with_suffix("").parts)
    for path in METHOD.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_the_method_has_examples():
    assert {"contrastive", "triplets", "similarity.ms_ssim"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_as_they_say(name):
    result = doctest.testmod(importlib.import_module(f"cim_plugin.algorithms.{name}"))
    assert result.attempted and not result.failed
