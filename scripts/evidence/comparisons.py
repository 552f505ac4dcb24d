"""What was to be compared, fixed before any test accuracy of these rows: docs/evidence_protocol.md."""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]

#: a row, and what it is to be above in the worst group. All of them are one family of tests, present or not
COMPARISONS: Pairs = (
    ("CIM", "ERM"),
    ("CIM", "VIB"),
    ("CIM_VIB", "ERM"),
    ("CIM_VIB", "VIB"),
    ("CIM", "CIM-0"),
    ("CIM_VIB", "CIM_VIB-0"),
    ("recommended", "ERM-balanced"),
    ("recommended", "recommended-0"),
    ("recommended", "CnC"),
)
#: the same of heads on larger images: is it the mask?
OF_HEADS: Pairs = (
    ("recommended", "pseudo-head"),
    ("recommended", "recommended-0"),
    ("recommended", "maps"),
)
#: the same of forms of a mask over maps, by their names
OF_FORMS: Pairs = (("adversary", "split"), ("adversary", "class"), ("adversary", "maps"))
#: the same of domains, in the average over those that are left out: a family of its own
OF_DOMAINS: Pairs = (
    ("CIM", "ERM"),
    ("CIM", "VIB"),
    ("CIM", "SCL_E2E"),
    ("CIM_VIB", "CIM"),
    ("CIM+CORAL", "CORAL"),
)
FEWEST_SEEDS = 3  #: below which no interval is printed

#: worst-group accuracy on Waterbirds in %, as the poster has it; it gives no row with λ = 0
POSTER = {"ERM": 60.0, "VIB": 75.31, "CIM": 73.35, "CIM_VIB": 77.23}
