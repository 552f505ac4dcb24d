"""Checks of values out of a file: what passes, and what is said of the rest."""

from __future__ import annotations

import math

import pytest
import torch

from cim_plugin.wilds_runner import checks
from cim_plugin.wilds_runner.checks import Wrong


@pytest.mark.parametrize(
    "check, value",
    [
        (checks.whole(0, 3), 3),
        (checks.real(), math.nan),
        (checks.real(0, 1), 1),
        (checks.none_or(checks.text), None),
        (checks.numbers(None, 3), torch.tensor([0, 2])),
        (checks.tensor(None, (2,), ()), torch.zeros(2)),
        (checks.series(checks.flag, 2), [True, False]),
        (checks.record({"a": checks.text}, {"b": checks.flag}), {"a": "x"}),
        (checks.like({"a": [1, torch.zeros(2)], "b": None}), {"a": (2.5, torch.ones(2)), "b": "any"}),
    ],
)
def test_what_fits_is_passed_over(check, value):
    assert check(value, "it") is None


@pytest.mark.parametrize(
    "check, value, said",
    [
        (checks.whole(0, 3), 4, "'x' is 4 where a whole number from 0 to 3 belongs"),
        (checks.whole(), True, "'x' is True where a whole number from 0 on belongs"),
        (checks.real(0, 1), math.nan, "'x' is nan where a number from 0 to 1 belongs"),
        (checks.numbers(None, 3), torch.tensor([0, 3]), "a tensor (n,) of whole numbers below 3 belongs"),
        (checks.numbers(2, 3), torch.tensor([0]), "a tensor (2,) of whole numbers below 3 belongs"),
        (checks.tensor(torch.float32, (2,), finite=True), torch.tensor([0.0, math.inf]), "not finite"),
        (checks.pair(checks.flag, checks.text), (True, 1), "'x'[1] is 1 where text belongs"),
        (checks.record({"a": checks.text}), {}, "'x' has no 'a'"),
        (checks.record({"a": checks.text}), {"a": "", "b": 1}, "'x' has 'b', which is not known"),
        (checks.table(checks.text, checks.flag), {"a": 1}, "'x'['a'] is 1 where True or False belongs"),
        (checks.like([1, 2]), [1], "'x' is a list where a list of 2 belongs"),
        (checks.like({"a": torch.zeros(2)}), {"a": torch.zeros(3)}, "'x'['a'] is a tensor (3,)"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(check, value, said):
    with pytest.raises(Wrong) as raised:
        check(value, "'x'")
    assert said in str(raised.value)
