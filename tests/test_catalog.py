"""The table of algorithms: what it refuses and in which words, its random draws, the classifiers that it builds, and
its copy in the docs.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from retired import FLAGS_GONE, GONE, HARMLESS, said, said_of_flag
from torch import nn

from cim_plugin import catalog
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.algorithms.similarity.colours import Colours
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.catalog import SIMILARITIES
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


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def _defaults(algorithm: str, **changes) -> dict:
    return {**{name: entry.default for name, entry in catalog.hyperparameters(algorithm).items()}, **changes}


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
    catalog.check(algorithm, _defaults(algorithm, lr=5e-5, batch_size=32, cimbalom="not ours", scale=None))


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
        catalog.check(algorithm, _defaults(algorithm, **changes))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "algorithm, name, value, accepted",
    [(algorithm, name, value, words) for algorithm, name, values, words in REFUSED for value in values],
)
def test_a_value_that_cannot_be_used_is_refused_in_one_line(algorithm, name, value, accepted):
    with pytest.raises(InputError) as error:
        catalog.check(algorithm, _defaults(algorithm, **{name: value}))
    assert str(error.value) == f"{name}={value!r} is not {accepted}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_missing_hyperparameter_is_named(algorithm):
    for name, entry in catalog.hyperparameters(algorithm).items():
        values = _defaults(algorithm)
        del values[name]
        with pytest.raises(InputError) as error:
            catalog.check(algorithm, values)
        assert str(error.value) == f"{algorithm} needs the hyperparameter {name!r} (default {entry.default!r})"


@pytest.mark.parametrize(
    "changes", [{"cim_lambda": 0}, {"cim_lambda": 0.0}, {"cim_lambda": 3}, {"vib_dimension": 1}, {"vib_beta": 0}]
)
def test_unusual_but_valid_values_are_accepted(changes):
    """λ = 0 is the control: the network without its loss."""
    catalog.check("CIM_VIB", _defaults("CIM_VIB", **changes))


# --- what version 0.1 had --------------------------------------------------------------------------------------------


def test_the_retired_ones_are_in_one_table_with_what_did_nothing_and_what_to_do():
    """A name of which only a value is gone has that value beside it."""
    expected = {name: (HARMLESS[name], instead) for name, (_, instead) in GONE.items() if name in HARMLESS}
    expected["cim_similarity=pytorch_msssim"] = (None, GONE["cim_similarity"][1])
    assert catalog.RETIRED == expected
    assert catalog.RETIRED_FLAGS.keys() == set(FLAGS_GONE)
    assert not catalog.RETIRED.keys() & catalog.all_hyperparameters().keys()


@pytest.mark.parametrize("algorithm", ["CIM", "CIM_VIB", "CIM+groupDRO"])
@pytest.mark.parametrize("name", GONE)
def test_a_retired_value_is_answered_in_one_line(name, algorithm):
    with pytest.raises(InputError) as error:
        catalog.check(algorithm, _defaults(algorithm, **{name: GONE[name][0]}))
    assert str(error.value) == f"{algorithm}: {said(name)}" and "\n" not in str(error.value)


def test_values_that_did_nothing_are_accepted_and_do_nothing():
    """The hyperparameters of every run of then, as DomainBed's model.pkl and results.json hold them."""
    catalog.check("CIM_VIB", _defaults("CIM_VIB", **HARMLESS))
    assert catalog.retired(HARMLESS) is None and catalog.retired({"lr": 0.1}) is None
    torch.manual_seed(0)
    plain = _build("CIM").state_dict()
    torch.manual_seed(0)
    then = _build("CIM", **HARMLESS).state_dict()
    assert plain.keys() == then.keys() and all(torch.equal(plain[name], then[name]) for name in plain)


@pytest.mark.parametrize("given", [["per_channel"], [], ["shared"]], ids=["value", "none", "harmless"])
@pytest.mark.parametrize("joined", [True, False], ids=["--a=b", "--a b"])
@pytest.mark.parametrize("name", FLAGS_GONE)
def test_a_retired_flag_is_answered_in_one_line(name, given, joined, capsys):
    """With and without a value, also one that did nothing: there is no such flag."""
    parser = argparse.ArgumentParser()
    for flag, keywords in catalog.RETIRED_FLAGS.items():
        parser.add_argument(f"--{flag}", **keywords)
    assert vars(parser.parse_args([])) == {} and name not in parser.format_help()
    words = [f"--{name}={given[0]}"] if joined and given else [f"--{name}", *given]
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words)
    assert ended.value.code == 2 and capsys.readouterr().err.splitlines()[-1].endswith(f"error: {said_of_flag(name)}")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_model_of_an_old_run_can_be_built_in_the_place_for_it(channels):
    """With what its values meant then; outside of that place they are refused again."""
    gone = {name: value for name, (value, _) in GONE.items()}
    with catalog.retired_allowed():
        model = _build("CIM", channels, **gone)
        exact = _build("CIM", cim_floor="exact").contrast.similarity
        shared = _build("CIM", cim_mask="shared").morphing.network
    assert model.morphing(torch.rand(2, channels, 28, 28)).mask.shape == (2, channels, 28, 28)
    for similarity in (model.contrast.similarity, exact):
        assert isinstance(similarity, MSSSIM) and (similarity.scales, similarity.floor) == (2, "exact")
    assert shared(torch.rand(2, 3, 28, 28)).shape == (2, 1, 28, 28)
    with pytest.raises(InputError):
        _build("CIM", channels, **gone)


def test_other_mistakes_of_an_old_run_are_refused_as_ever():
    with catalog.retired_allowed():
        for changes in ({"cim_lamda": 1.0}, {"cim_lambda": -1.0}, {"cim_similarity": "ssim"}):
            with pytest.raises(InputError, match=next(iter(changes))):
                _build("CIM", cim_mask="per_channel", **changes)
        with pytest.raises(ZeroDivisionError), catalog.retired_allowed():
            1 / 0
        catalog.check("CIM", _defaults("CIM", cim_mask="per_channel"))  # still inside
    with pytest.raises(InputError):
        catalog.check("CIM", _defaults("CIM", cim_mask="per_channel"))


@pytest.mark.parametrize(
    "words, value", [(["false"], False), (["False"], False), (["true"], True), (["TRUE"], True), ([], True)]
)
def test_the_flag_of_a_hyperparameter_that_is_true_or_false(words, value):
    """argparse's own type=bool makes true of "false"."""
    entry = catalog.Hyperparameter(False, lambda r: False, "fixed", lambda v: isinstance(v, bool), "true or false", "")
    parser = argparse.ArgumentParser()
    parser.add_argument("--it", **entry.flag)
    assert parser.parse_args(["--it", *words]).it is value


# --- building --------------------------------------------------------------------------------------------------------


def _encoder(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def _build(algorithm: str, channels: int = 3, side: int = 28, n_environments: int | None = 2, **changes):
    return catalog.build(
        algorithm,
        _defaults(algorithm, **changes),
        encoder=_encoder(channels),
        n_features=32,
        make_head=lambda n_inputs: nn.Linear(n_inputs, 2),
        image_size=(side, side),
        pixel_space=PixelSpace.raw(channels),
        n_environments=n_environments,
    )


CROSS = {"cim_pairs": "cross_environment"}
VARIANTS = [
    *((algorithm, {}) for algorithm in ALGORITHMS),
    *(("CIM", changes) for changes in (CROSS, {"cim_targets": "morphed"}, {"cim_reading": "similarity"})),
    *(("CIM", changes) for changes in ({"cim_similarity": "colours"}, {"cim_lambda": 0})),
    *((algorithm, {"cim_mask_stride": 2}) for algorithm in ("CIM", "CIM_VIB")),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("algorithm, changes", VARIANTS)
def test_every_row_trains_a_step(algorithm, changes, channels):
    model = _build(algorithm, channels, **changes)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    images, labels, environments = torch.rand(8, channels, 28, 28), torch.arange(8) % 2, torch.arange(8) // 4
    loss = model.total(model.loss_terms(images, labels, environments).losses)
    loss.backward()
    torch.optim.Adam(model.parameters(), 1e-3).step()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name]), f"{name} did not learn"
    assert model(images).shape == (8, 2)


def test_every_value_reaches_its_part():
    choices = {"cim_pairs": "cross_environment", "cim_targets": "morphed", "cim_reading": "similarity"}
    model = _build("CIM_VIB", cim_lambda=0.3, vib_beta=0.02, vib_dimension=5, **choices)
    assert model.weights == {"supervised": 1.0, "contrastive": 0.3, "kl": 0.02}
    contrast = model.contrast
    assert (contrast.pairs, contrast.targets, contrast.reading) == ("cross_environment", "morphed", "similarity")
    assert isinstance(contrast.similarity, MSSSIM)
    assert (contrast.similarity.scales, contrast.similarity.floor) == (2, "smooth")
    assert model.morphing(torch.rand(1, 3, 28, 28)).mask.shape[1] == 1
    assert model.morphing.network.features(torch.rand(1, 3, 28, 28)).shape[-1] == 7
    assert (model.bottleneck.mean.in_features, model.bottleneck.mean.out_features, model.head.in_features) == (32, 5, 5)


def test_the_values_of_other_rows_reach_their_parts():
    other = _build("CIM", side=176, cim_similarity="colours", cim_mask_stride=2)
    assert isinstance(other.contrast.similarity, Colours)
    assert other.morphing.network.features(torch.rand(1, 3, 28, 28)).shape[-1] == 14
    assert _build("CIM", side=176).contrast.similarity.scales == 5
    scl = _build("SCL_E2E", scl_weight=0.4, scl_temperature=0.2)
    assert (scl.weights, scl.temperature) == ({"supervised": 1.0, "supervised_contrastive": 0.4}, 0.2)
    assert [_build(name).pairs for name in ("SCL_E2E", "CnC")] == ["random", "cross_environment"]


def test_the_choice_of_similarities_is_the_table_of_them():
    accepts = ENTRIES["cim_similarity"].accepts
    assert all(accepts(name) for name in SIMILARITIES) and next(iter(SIMILARITIES)) == ENTRIES["cim_similarity"].default
    assert ENTRIES["cim_similarity"].values == " or ".join(repr(name) for name in SIMILARITIES)


def test_colours_ask_for_no_window_of_ms_ssim(recwarn):
    losses = (
        _build("CIM", side=8, cim_similarity="colours").loss_terms(torch.rand(8, 3, 8, 8), torch.arange(8) % 2).losses
    )
    assert losses["contrastive"].abs().max() > 0 and not recwarn.list


@pytest.mark.parametrize("targets", ["input", "morphed"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_l_con_by_colours_reaches_the_transformation_network(channels, targets):
    model = _build("CIM", channels=channels, cim_similarity="colours", cim_targets=targets)
    losses = model.loss_terms(torch.rand(8, channels, 28, 28), torch.arange(8) % 2).losses
    losses["contrastive"].mean().backward()
    assert losses["contrastive"].abs().min() > 0
    assert all(parameter.grad.any() for parameter in model.morphing.parameters()) and all(
        parameter.grad is None for parameter in model.encoder.parameters()
    )


@pytest.mark.parametrize("algorithm", ["CIM", "SCL_E2E"])
def test_encoder_and_head_start_as_a_plain_classifiers_do(algorithm):
    model = _build(algorithm)
    torch.manual_seed(0)
    encoder, head = _encoder(3), nn.Linear(32, 2)
    for part, plain in ((model.encoder, encoder), (model.head, head)):
        assert all(torch.equal(a, b) for a, b in zip(part.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize(
    "arguments, changes, message",
    [
        (
            {"side": 10},
            {},
            "CIM: height 10 is smaller than MS-SSIM's 11-pixel window; use images of at least 11 pixels a side",
        ),
        ({"channels": 4}, {}, "CIM: images have 1 to 3 channels, 4 were given"),
        (
            {"n_environments": 1},
            CROSS,
            "cim_pairs='cross_environment' needs at least 2 training environments, 1 here; use 'random'",
        ),
        (
            {"n_environments": None},
            CROSS,
            "cim_pairs='cross_environment' needs at least 2 training environments, none here; use 'random'",
        ),
        ({}, {"cim_lambda": -1}, "cim_lambda=-1 is not a finite number of at least 0 (default 1.0)"),
    ],
)
def test_what_does_not_go_with_the_images_or_the_host_is_refused(arguments, changes, message):
    with pytest.raises(InputError) as error:
        _build("CIM", **arguments, **changes)
    assert str(error.value) == message


@pytest.mark.parametrize("n_environments, said", [(1, "1"), (None, "none")])
def test_pairs_of_cnc_need_two_environments(n_environments, said):
    with pytest.raises(InputError) as error:
        _build("CnC", n_environments=n_environments)
    assert str(error.value) == (
        f"scl_pairs='cross_environment' needs at least 2 training environments, {said} here; use 'random'"
    )
    _build("CnC", n_environments=n_environments, scl_pairs="random")


@pytest.mark.parametrize("algorithm", ["VIB", "SCL_E2E"])
def test_algorithms_without_morphing_take_any_image(algorithm):
    assert _build(algorithm, channels=5, side=9)(torch.rand(2, 5, 9, 9)).shape == (2, 2)


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
    found = catalog.check("CIM_VIB", _defaults("CIM_VIB", **{name: value}))[name]
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
        catalog.check("CIM_VIB", _defaults("CIM_VIB", **{name: value}))
    assert "\n" not in str(error.value) and len(str(error.value)) < 200
