"""The protocol says what the command does."""

from __future__ import annotations

from pathlib import Path

from scripts.evidence import comparisons, settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evidence_protocol.md").read_text()


def test_the_protocol_has_as_many_comparisons_as_the_code():
    table = PAGE.split("| row | is to be above |\n|---|---|\n")[1].split("\n\n")[0]
    assert len(table.splitlines()) == len(comparisons.COMPARISONS) == len(set(comparisons.COMPARISONS)) == 9


def test_the_protocol_has_the_rates_the_seed_of_the_search_and_the_rule():
    assert "0.0001, 0.0003 and 0.001" in PAGE and settings.RATES == (1e-4, 3e-4, 1e-3)
    assert f"seed {settings.SEARCH_SEED}" in PAGE and f"`{settings.RULE}`" in PAGE
    assert f"{settings.Settings.side} pixels, {settings.Settings.n_epochs} epochs" in PAGE
