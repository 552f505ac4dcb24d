"""The pages of the evidence say what the command does."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.evidence import __main__ as command
from scripts.evidence import comparisons, settings
from scripts.experiments.docs_page import END, with_tables

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "evidence_protocol.md").read_text()


def test_the_protocol_has_as_many_comparisons_as_the_code():
    table = PAGE.split("| row | is to be above |\n|---|---|\n")[1].split("\n\n")[0]
    assert len(table.splitlines()) == len(comparisons.COMPARISONS) == len(set(comparisons.COMPARISONS)) == 9


def test_the_protocol_has_the_rates_the_seed_of_the_search_and_the_rule():
    *rates, last = (f"{rate:.4f}".rstrip("0") for rate in settings.RATES)
    assert f"{', '.join(rates)} and {last}" in PAGE
    assert f"seed {settings.SEARCH_SEED}" in PAGE and f"`{settings.RULE}`" in PAGE
    assert f"{settings.Settings.side} pixels, {settings.Settings.n_epochs} epochs" in PAGE


@pytest.mark.parametrize("page", ["evidence.md", "evidence/tables.md"])
def test_every_line_of_the_docs_that_asks_for_tables_is_one_that_the_command_takes(page):
    text = (DOCS / page).read_text()
    asked = []

    def tables(words: list[str]) -> str:
        asked.append(command.make_parser().parse_args(["subgroups", *words]))
        return "a table"

    written = with_tables(text, tables, command.COMMAND)
    assert len(asked) == text.count(END) == written.count("a table") >= 1
    assert all(args.tables for args in asked)


def test_the_page_is_short():
    text = (DOCS / "evidence.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(text.split()) - len(" ".join(rows).split()) <= 900
