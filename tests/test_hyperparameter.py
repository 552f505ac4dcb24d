"""Values as users give them: numbers of other libraries, what only looks like one, and flags."""

from __future__ import annotations

import argparse
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from small_classifier import defaults

from cim_plugin import catalog
from cim_plugin.errors import InputError
from cim_plugin.hyperparameter import Hyperparameter


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("cim_lambda", np.float64(0.5), 0.5),
        ("cim_lambda", np.float32(0.5), 0.5),
        ("cim_lambda", torch.tensor(0.5), 0.5),
        ("cim_lambda", np.array(0.5), 0.5),
        ("cim_lambda", Decimal("0.5"), 0.5),
        ("cim_lambda", Fraction(1, 2), 0.5),
        ("cim_lambda", 10**20, 1e20),
        ("cim_mask_stride", np.int64(2), 2),
        ("vib_dimension", torch.tensor(64), 64),
    ],
)
def test_numbers_of_other_libraries_are_the_number(name, value, expected):
    found = catalog.check("CIM_VIB", defaults("CIM_VIB", **{name: value}))[name]
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "name, value",
    [
        ("cim_lambda", 10**400),
        ("cim_lambda", np.array([0.5])),
        ("cim_lambda", torch.tensor(torch.nan)),
        ("cim_lambda", np.bool_(True)),
        ("cim_pairs", np.array(["random"])),
        ("vib_dimension", 10**20),
        ("vib_dimension", torch.tensor(64.0)),
    ],
)
def test_what_only_looks_like_a_number_is_one_short_line(name, value):
    with pytest.raises(InputError, match=f"{name}=") as error:
        catalog.check("CIM_VIB", defaults("CIM_VIB", **{name: value}))
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    "words, value", [(["false"], False), (["False"], False), (["true"], True), (["TRUE"], True), ([], True)]
)
def test_the_flag_of_a_hyperparameter_that_is_true_or_false(words, value):
    """argparse's own type=bool makes true of "false"."""
    entry = Hyperparameter(False, lambda r: False, "fixed", lambda v: isinstance(v, bool), "true or false", "")
    parser = argparse.ArgumentParser()
    parser.add_argument("--it", **entry.flag)
    assert parser.parse_args(["--it", *words]).it is value
