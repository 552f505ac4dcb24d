"""The table of algorithms: what it refuses and in which words, its random draws, and its copy in the docs."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_classifier import defaults

from cim_plugin import catalog
from cim_plugin.errors import InputError

ALGORITHMS = ["CIM", "CIM_VIB", "VIB", "SCL_E2E", "CnC"]
TABLES = Path(__file__).parent.parent / "docs" / "hyperparameters.md"

#: hyperparameter -> the range or the values that TABLES and code promise for sweeps
DRAWS = {
    "cim_lambda": (1e-2, 1e1),
    "cim_pairs": {"random"},
    "cim_targets": {"input"},
    "cim_reading": {"distance"},
    "cim_mask_stride": {4},
    "cim_gradient": {"both"},
    "cim_learning_rate": {1e-3},
    "cim_similarity": {"ms_ssim"},
    "vib_beta": (1e-5, 1e0),
    "vib_dimension": {64, 128, 256},
    "scl_weight": (1e-2, 1e1),
    "scl_temperature": {0.05, 0.1, 0.2},
    "scl_pairs": {"random"},
    "group_dro_step_size": (1e-3, 1e-1),
    "jtt_upweight": (1.0, 1e2),
    "jtt_steps": {50, 100, 200, 400},
}
USERS = [*catalog.BASELINES, *ALGORITHMS, *catalog.COMPOSED]
ENTRIES = {name: entry for entries in catalog.PARTS.values() for name, entry in entries.items()}


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_algorithms_and_their_hyperparameters():
    assert list(catalog.ALGORITHMS) == ALGORITHMS
    cim = {name for name in DRAWS if name.startswith("cim_")}
    vib, scl = {"vib_beta", "vib_dimension"}, {"scl_weight", "scl_temperature", "scl_pairs"}
    assert [set(catalog.hyperparameters(algorithm)) for algorithm in ALGORITHMS] == [cim, cim | vib, vib, scl, scl]
    assert ENTRIES.keys() == DRAWS.keys()
    assert [set(catalog.hyperparameters(algorithm)) for algorithm in ("ERM", "groupDRO", "JTT")] == [
        set(),
        {"group_dro_step_size"},
        {"jtt_upweight", "jtt_steps"},
    ]


#: a name, whose hyperparameters it takes, and whether a host knows it by this plugin only
NAMES = [
    *((algorithm, algorithm, True) for algorithm in ALGORITHMS),
    ("CIM+groupDRO", "CIM+groupDRO", True),
    *((name, "CIM", True) for name in ("CIM+CORAL", "CIM+ERM", "CIM+GroupDRO")),
    *((name, name, False) for name in ("ERM", "groupDRO", "JTT")),
    *((name, None, False) for name in ("CORAL", "GroupDRO", "CIMM", "cim+CORAL", "", None, 3, ["CIM"])),
]


@pytest.mark.parametrize("name, owner, is_ours", NAMES)
def test_whose_hyperparameters_a_name_takes(name, owner, is_ours):
    assert (catalog.owner(name), catalog.is_ours(name)) == (owner, is_ours)


@pytest.mark.parametrize("name", DRAWS)
def test_a_flag_reads_back_what_it_is_given(name):
    """argparse's own type=bool would make True of "False"."""
    entry = ENTRIES[name]
    parser = argparse.ArgumentParser()
    parser.add_argument("--flag", **entry.flag)
    for value in {
        entry.default,
        *(entry.draw(np.random.RandomState(seed)) for seed in range(5)),
        *((True, False) if entry.default is False else ()),
    }:
        assert parser.parse_args(["--flag", str(value)]).flag == value
    assert parser.parse_args([]).flag is None
    assert f"{entry.help}: {entry.values} (default: {entry.default})" in " ".join(parser.format_help().split())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_defaults_are_accepted_beside_the_hosts_own_values(algorithm):
    catalog.check(algorithm, defaults(algorithm, lr=5e-5, batch_size=32, cimbalom="not ours", scale=None))


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_native_json_values_that_the_check_accepts(name):
    """A host writes them to disk as JSON: numpy's numbers would break it."""
    entry, promised = ENTRIES[name], DRAWS[name]
    draws = [entry.draw(np.random.RandomState(seed)) for seed in range(200)]
    for value in draws:
        assert type(value) in (bool, int, float, str) and type(value) is type(entry.default)
        assert json.loads(json.dumps(value)) == value
        entry.check(name, value)
    if isinstance(promised, set):
        assert set(draws) == promised
    else:
        low, high = promised
        assert low <= min(draws) and max(draws) <= high
        exponents = np.log10(draws)
        assert (
            np.histogram(exponents, bins=4, range=np.log10(promised))[0].min() > 30
        )  # of 50 expected: spread evenly over the exponents


def test_cnc_differs_from_scl_in_nothing_but_the_default_of_its_pairs():
    """Draws of a sweep leave it there, too."""
    scl, cnc = (catalog.hyperparameters(name) for name in ("SCL_E2E", "CnC"))
    assert cnc["scl_pairs"].default == cnc["scl_pairs"].draw(np.random.RandomState(0)) == "cross_environment"
    assert scl["scl_pairs"].default == "random"
    assert [(name, entry) for name, entry in scl.items() if cnc[name] != entry] == [("scl_pairs", scl["scl_pairs"])]
    assert catalog.complete("CnC", {"scl_pairs": "random"})["scl_pairs"] == "random"


@pytest.mark.parametrize(
    "name, known",
    [("CIM", "CIM"), ("CIM+CORAL", "CIM"), ("CIM+groupDRO", "CIM+groupDRO"), ("CORAL", None), (None, None)],
)
def test_what_is_not_named_has_its_default_and_what_is_keeps_its_value(name, known):
    given = {"lr": 0.1, "cim_lambda": 3.0}
    complete = catalog.complete(name, given)
    assert {key: complete[key] for key in given} == given
    assert {key: value for key, value in complete.items() if key not in given} == {
        key: ENTRIES[key].default for key in (catalog.hyperparameters(known) if known else ()) if key not in given
    }


def test_what_a_run_of_before_does_not_name_is_what_it_was_then():
    """Version 0.1 left the network to the host's optimizer, and one that says so keeps saying it."""
    assert catalog.complete_old("CIM", {})["cim_learning_rate"] == 0.0
    assert catalog.complete_old("CIM", {"cim_learning_rate": 0.01})["cim_learning_rate"] == 0.01
    others = catalog.complete_old("CIM_VIB", {"lr": 0.1})
    assert others.pop("cim_learning_rate") != (now := catalog.complete("CIM_VIB", {"lr": 0.1})).pop("cim_learning_rate")
    assert others == now and catalog.complete_old("ERM", {"lr": 0.1}) == {"lr": 0.1}


def test_the_choice_of_similarities_is_the_table_of_them():
    entry, names = ENTRIES["cim_similarity"], list(catalog.SIMILARITIES)
    assert all(entry.accepts(name) for name in names) and names[0] == entry.default
    assert entry.values == " or ".join(map(repr, names))


# --- refused values --------------------------------------------------------------------------------------------------

CIM_NAMES = (
    "cim_lambda, cim_pairs, cim_targets, cim_reading, cim_mask_stride, cim_gradient, cim_learning_rate, cim_similarity"
)

UNKNOWN = [
    ("CIM", {"cim_lamda": 2}, "CIM has no hyperparameter 'cim_lamda' (given 2); did you mean 'cim_lambda'?"),
    ("CIM_VIB", {"vib_dim": 64}, "CIM_VIB has no hyperparameter 'vib_dim' (given 64); did you mean 'vib_dimension'?"),
    ("CIM", {"cim_zzz": "x"}, f"CIM has no hyperparameter 'cim_zzz' (given 'x'); known: {CIM_NAMES}"),
    ("VIB", {"cim_lambda": 1.0}, "VIB has no hyperparameter 'cim_lambda' (given 1.0); known: vib_beta, vib_dimension"),
    ("ERM", {"cim_lambda": 1.0}, "ERM has no hyperparameter 'cim_lambda' (given 1.0); it has none of its own"),
    (
        "SCL_E2E",
        {"vib_beta": 0.1},
        "SCL_E2E has no hyperparameter 'vib_beta' (given 0.1); known: scl_weight, scl_temperature, scl_pairs",
    ),
]

#: algorithm, hyperparameter, values that are refused, and the words for what is accepted
REFUSED = [
    (
        "CIM",
        "cim_lambda",
        [-1, -1e-9, math.nan, math.inf, "1", True, None, [1.0]],
        "a finite number of at least 0 (default 1.0)",
    ),
    ("VIB", "vib_beta", [-0.1, math.nan, math.inf, "0"], "a finite number of at least 0 (default 0.001)"),
    ("VIB", "vib_dimension", [0, -3, 2.5, 64.0, True, "64", math.nan], "a whole number of at least 1 (default 256)"),
    ("SCL_E2E", "scl_weight", [-0.1, False], "a finite number of at least 0 (default 1.0)"),
    ("SCL_E2E", "scl_temperature", [0, -0.1, math.nan, math.inf, True, "0.1"], "a finite number above 0 (default 0.1)"),
    ("SCL_E2E", "scl_pairs", ["cross_fit", None, 1], "'random' or 'cross_environment' (default 'random')"),
    ("CnC", "scl_pairs", ["mined", True], "'random' or 'cross_environment' (default 'cross_environment')"),
    ("JTT", "jtt_upweight", [0.5, 0, -1, math.inf, "20", True], "a finite number of at least 1 (default 20.0)"),
    ("JTT", "jtt_steps", [0, -1, 2.0, "9", True], "a whole number of at least 1 (default 100)"),
    ("CIM", "cim_pairs", ["oracle", ["random"], None, 0], "'random' or 'cross_environment' (default 'random')"),
    ("CIM", "cim_targets", ["psi"], "'input' or 'morphed' (default 'input')"),
    ("CIM", "cim_reading", [""], "'distance' or 'similarity' (default 'distance')"),
    ("CIM", "cim_mask_stride", [1, 3, 2.0, "4", None], "2 or 4 (default 4)"),
    ("CIM", "cim_learning_rate", [-1e-3, math.inf, "0.001", False], "a finite number of at least 0 (default 0.001)"),
    ("CIM", "cim_gradient", ["none", None], "'both' or 'contrastive' (default 'both')"),
    ("CIM_VIB", "cim_similarity", ["ssim", "MS_SSIM"], "'ms_ssim' or 'colours' (default 'ms_ssim')"),
]


@pytest.mark.parametrize("algorithm, changes, message", UNKNOWN)
def test_an_unknown_key_with_one_of_our_prefixes_is_refused_with_a_suggestion(algorithm, changes, message):
    with pytest.raises(InputError) as error:
        catalog.check(algorithm, defaults(algorithm, **changes))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "algorithm, name, value, accepted",
    [(algorithm, name, value, words) for algorithm, name, values, words in REFUSED for value in values],
)
def test_a_value_that_cannot_be_used_is_refused_in_one_line(algorithm, name, value, accepted):
    with pytest.raises(InputError) as error:
        catalog.check(algorithm, defaults(algorithm, **{name: value}))
    assert str(error.value) == f"{name}={value!r} is not {accepted}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_missing_hyperparameter_is_named(algorithm):
    for name, entry in catalog.hyperparameters(algorithm).items():
        values = defaults(algorithm)
        del values[name]
        with pytest.raises(InputError) as error:
            catalog.check(algorithm, values)
        assert str(error.value) == f"{algorithm} needs the hyperparameter {name!r} (default {entry.default!r})"


@pytest.mark.parametrize(
    "changes", [{"cim_lambda": 0}, {"cim_lambda": 0.0}, {"cim_lambda": 3}, {"vib_dimension": 1}, {"vib_beta": 0}]
)
def test_unusual_but_valid_values_are_accepted(changes):
    """λ = 0 is the control: the network without its loss."""
    catalog.check("CIM_VIB", defaults("CIM_VIB", **changes))


# --- documentation and import ----------------------------------------------------------------------------------------


def test_the_markdown_names_every_algorithm_and_every_hyperparameter_with_its_users():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in catalog.markdown().splitlines()
        if line.startswith("| `")
    ]
    cells = {row[0].strip("`"): row[1:] for row in rows}
    assert list(cells) == [*USERS, *DRAWS]
    assert {len(cells[name]) for name in DRAWS} == {5}
    for name in DRAWS:
        users, default = cells[name][:2]
        assert users == ", ".join(f"`{algorithm}`" for algorithm in USERS if name in catalog.hyperparameters(algorithm))
        assert default == f"`{ENTRIES[name].default!r}`"


def test_the_readme_shows_the_table():
    assert catalog.markdown() in TABLES.read_text(), (
        "copy the output of 'python -m cim_plugin.catalog' into docs/hyperparameters.md"
    )


def test_printing_the_table_does_not_import_torch():
    code = (
        "import runpy, sys; runpy.run_module('cim_plugin.catalog', run_name='__main__'); sys.exit('torch' in "
        "sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == catalog.markdown() + "\n"
