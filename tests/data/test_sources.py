"""The table of mirrors: complete, consistent, and the one that docs/data_sources.md shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from interpreters import HERE

from cim_plugin.data.get import LAYOUTS
from cim_plugin.data.releases import RELEASES
from cim_plugin.data.sources import PLACES, SOURCES, listing

MIRRORS = [pytest.param(mirror, id=f"{e.name}-{mirror.place}") for e in SOURCES.values() for mirror in e.mirrors]


def test_every_data_set_is_in_both_tables():
    assert set(SOURCES) == set(RELEASES)
    assert all(entry.citation and bool(entry.mirrors) != bool(entry.without) for entry in SOURCES.values())


@pytest.mark.parametrize("mirror", MIRRORS)
def test_a_mirror_says_all_that_is_needed(mirror):
    assert mirror.place in PLACES and mirror.layout in LAYOUTS and mirror.licence and mirror.size > 100e6
    assert bool(mirror.files) == (mirror.place != "kaggle")
    for file in mirror.files:
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.name.startswith("https://") == (mirror.place == "url")
    if mirror.place == "hf":
        pinned = all(file.sha256 for file in mirror.files)
        assert re.fullmatch("[0-9a-f]{40}", mirror.revision) or pinned  # a branch may move, a checksum does not
    sizes = [file.size for file in mirror.files]
    if sizes and all(sizes):
        assert sum(sizes) == mirror.size


def test_the_table_is_printed(data):
    status, out, _ = data("list")
    assert status == 0 and out == listing()
    assert all(f"| {name} |" in out and f"{name}: {SOURCES[name].citation}" in out for name in SOURCES)
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {7} and len(rows) == 2 + len(MIRRORS) + 3


def test_the_document_shows_the_table_of_today():
    text = Path(HERE.parent, "docs", "data_sources.md").read_text(encoding="utf-8")
    assert listing() in text, "put what 'cim-plugin data list' prints into docs/data_sources.md"
