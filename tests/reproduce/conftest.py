"""The modules of the reproduction scripts can be imported, as they can where the scripts run."""

from __future__ import annotations

import sys

import pytest
from stand_ins import SCRIPTS


@pytest.fixture(autouse=True)
def _modules(monkeypatch):
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS / "reproduction"))
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:  # their names are common words
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(SCRIPTS)):
            del sys.modules[name]
