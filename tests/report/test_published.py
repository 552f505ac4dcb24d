"""The poster's numbers, against its text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from interpreters import HERE

from cim_plugin.compare import sheets

SEED = HERE.parent.parent / "shared" / "seed"


@pytest.fixture(scope="module")
def published() -> dict:
    return json.loads(sheets.PUBLISHED.read_text(encoding="utf-8"))


def _reference_rows(text: str) -> dict[str, list[list[str]]]:
    """Title -> rows of method, then numbers as printed, from the poster's tab-separated text."""
    tables: dict[str, list[list[str]]] = {}
    title = ""
    for line in text.splitlines():
        if line.startswith("####"):
            title = line.strip("# ")
        cells = [re.sub(r"</?\w+>", "", cell).replace(" E2E ", " E2E ").strip() for cell in line.split("\t")]
        if len(cells) < 4:
            continue
        if cells[0] in ("CelebA", "Waterbirds"):
            title = cells[0]
        if title in ("CelebA", "Waterbirds", "Preservation of Subgroup Performance"):
            cells = cells[1:]
        numbers = [cell for cell in cells[1:] if re.fullmatch(r"\d+\.\d+", cell)]
        if numbers:
            tables.setdefault(title, []).append([cells[0], *numbers])
    return tables


def test_every_number_is_the_posters(published):
    texts = sorted(SEED.glob("*.txt")) if SEED.is_dir() else []
    if not texts:
        pytest.skip(f"the poster's text is not in {SEED}")
    expected = _reference_rows("\n".join(Path(path).read_text(encoding="utf-8") for path in texts))
    found = {}
    for table in published["tables"]:
        if "source" in table:  # not the poster
            continue
        found[table["title"]] = [
            [row["cells"][0], *(cell for cell in row["cells"][1:] if re.fullmatch(r"\d+\.\d+", cell))]
            for row in table["rows"]
        ]
    names = {
        "Background Challenge": "Background Challenge",
        "VLCS": "Out-of-Domain Generalization (VLCS)",
        "CelebA": "CelebA",
        "Waterbirds": "Waterbirds",
    }
    assert {key: len(expected[title]) for key, title in names.items()} == {
        "Background Challenge": 4,
        "VLCS": 12,
        "CelebA": 7,
        "Waterbirds": 8,
    }
    assert found == {
        next(title for title in found if title.startswith(key)): expected[title] for key, title in names.items()
    }


def test_averages_that_do_not_follow_from_their_row_are_flagged(published):
    (vlcs,) = [table for table in published["tables"] if table["title"].startswith("VLCS (")]
    for row in vlcs["rows"]:
        *environments, average = map(float, row["cells"][1:])
        assert ("doubt" in row) == (abs(sum(environments) / 4 - average) > 0.0051), row
        if "doubt" in row:
            assert f"{sum(environments) / 4:.2f}" in row["doubt"]


def test_background_gaps_that_do_not_follow_are_flagged(published):
    (challenge,) = [table for table in published["tables"] if table["title"].startswith("Background")]
    for row in challenge["rows"]:
        _, same, random, gap = map(float, row["cells"][1:])
        assert ("doubt" in row) == (abs(same - random - gap) > 0.051), row


def test_every_table_has_a_source_and_is_set_apart(published):
    for entry in published["tables"]:
        sheet = sheets._published(entry, published["source"])
        assert (
            sheet.title.startswith("PUBLISHED, not measured here")
            and ("arXiv:2007.01434" if "DomainBed" in entry["title"] else "arXiv:2106.06620") in sheet.notes[-1]
        )
        assert all(len(line) == len(sheet.header) for line in sheet.lines)


RESULTS = "domainbed/results/2020_10_06_7df6f06/results.tex"
SECTIONS = {
    "training_domain": "training-domain validation set",
    "leave_one_out": "leave-one-domain-out cross-validation",
    "oracle": "test-domain validation set (oracle)",
}


@pytest.mark.host
def test_every_number_of_domainbeds_is_in_its_own_results(published, domainbed):
    (table,) = [table for table in published["tables"] if table["title"] == "VLCS in DomainBed"]
    text = (domainbed / RESULTS).read_text()
    for row in table["rows"]:
        name, *numbers = row["cells"]
        method, rule = name.split(", ")
        section = text.split(f"\\subsection{{Model selection: {SECTIONS[rule]}}}")[1].split("\\subsubsection{VLCS}")[1]
        (line, *_) = [line for line in section.splitlines() if line.split("&")[0].strip() == method]
        assert [cell.split()[0] for cell in line.split("&")[1:]] == numbers
