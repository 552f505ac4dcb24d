"""A table as text: no wider than a terminal where names can be broken, and nothing lost."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from cim_plugin.compare import text
from cim_plugin.compare.sheets import Sheet

NAMES = ["ERM", "CIM, cim_gradient=contrastive, groups=true", "CIM, cim_lambda=0.01, cross_fit=auto, …"]
SCORES = [f"{name}{what}" for name in ("", "ΔERM ") for what in ("average", "worst group")]
HEADER = ["selected by", "algorithm", "seeds", *SCORES, "adjusted average", "ms/step", "GiB host"]


def sheet(names: list[str], grouped: bool = True) -> Sheet:
    """Two rules with a row of every name, whose cells differ."""
    lines = []
    for rule in ("worst_group", "average"):
        for number, name in enumerate(names):
            scores = [f"{10 * number + column}.{len(rule) % 10} ± 12.3" for column in range(5)]
            lines.append([rule, name, "5", *scores, f"{100 + number}", f"{number}.50"])
    return Sheet("title", HEADER, lines, frozenset({len(names)}), 2, [], [], [], [], grouped, 2)


def drawn(of: Sheet) -> str:
    return text.table(of, [of.header, *of.lines])


def test_a_wide_table_fits_into_a_terminal_and_loses_nothing():
    of = sheet(NAMES)
    found = drawn(of)
    assert max(map(len, found.splitlines())) <= text.WIDEST
    words = re.sub(r",\n  ", ", ", re.sub(r"  +[-–\d].*", "", found))  # names, with what was broken joined
    assert all(words.count(name.split(", ")[-1]) == 3 for name in NAMES[1:])  # under both rules, and with its cost
    for line in of.lines:
        assert all(cell in found for cell in line[2:])


def test_what_it_costs_is_said_once_where_the_table_would_be_too_wide():
    found = drawn(sheet(NAMES))
    scores, costs = found.split("\n\n")[:-1], found.split("\n\n")[-1]
    assert "ms/step" in costs and "ms/step" not in "".join(scores)
    assert [line.split()[-2:] for line in costs.splitlines()[-3:]] == [[f"{100 + n}", f"{n}.50"] for n in range(3)]


def test_a_narrow_table_keeps_its_costs():
    of = sheet(["ERM", "CIM"])
    header, *lines = [[*line[:4], *line[-2:]] for line in (HEADER, *of.lines)]
    found = drawn(replace(of, header=header, lines=lines)).splitlines()
    assert found[1].split() == ["algorithm", "seeds", "average", "ms/step", "host"] and found[0].split() == ["GiB"]
    assert found[3] == "selected by worst_group"
    assert re.split("  +", found[4]) == ["ERM", "5", "0.1 ± 12.3", "100", "0.50"]


def test_a_table_that_is_not_grouped_has_all_columns():
    of = replace(sheet(["ERM"], grouped=False), n_costs=0)  # as published ones
    assert "selected by" in drawn(of) and drawn(of).count("worst_group") == 1


@pytest.mark.parametrize("width", [5, 12, 100])
def test_headings_are_broken_between_words(width):
    broken = text._stacked("ΔERM worst group", width)
    assert " ".join(broken) == "ΔERM worst group" and all(len(part) <= width for part in broken)
