"""Hyperparameters that are no more: how they are answered, and what they mean in a run of then."""

from __future__ import annotations

import argparse

import pytest
import torch
from retired import FLAGS_GONE, GONE, HARMLESS, said, said_of_flag
from small_classifier import build, defaults

from cim_plugin import catalog, retired
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.errors import InputError


def test_the_retired_ones_are_in_one_table_with_what_did_nothing_and_what_to_do():
    """A name of which only a value is gone has that value beside it."""
    expected = {name: (HARMLESS[name], instead) for name, (_, instead) in GONE.items() if name in HARMLESS}
    expected["cim_similarity=pytorch_msssim"] = (None, GONE["cim_similarity"][1])
    assert retired.RETIRED == expected
    assert retired.FLAGS.keys() == set(FLAGS_GONE)
    assert not retired.RETIRED.keys() & catalog.all_hyperparameters().keys()


@pytest.mark.parametrize("algorithm", ["CIM", "CIM_VIB", "CIM+groupDRO"])
@pytest.mark.parametrize("name", GONE)
def test_a_retired_value_is_answered_in_one_line(name, algorithm):
    with pytest.raises(InputError) as error:
        catalog.check(algorithm, defaults(algorithm, **{name: GONE[name][0]}))
    assert str(error.value) == f"{algorithm}: {said(name)}" and "\n" not in str(error.value)


def test_values_that_did_nothing_are_accepted_and_do_nothing():
    """The hyperparameters of every run of then, as DomainBed's model.pkl and results.json hold them."""
    catalog.check("CIM_VIB", defaults("CIM_VIB", **HARMLESS))
    assert retired.words(HARMLESS) is None and retired.words({"lr": 0.1}) is None
    torch.manual_seed(0)
    plain = build("CIM").state_dict()
    torch.manual_seed(0)
    then = build("CIM", **HARMLESS).state_dict()
    assert plain.keys() == then.keys() and all(torch.equal(plain[name], then[name]) for name in plain)


@pytest.mark.parametrize("given", [["per_channel"], [], ["shared"]], ids=["value", "none", "harmless"])
@pytest.mark.parametrize("joined", [True, False], ids=["--a=b", "--a b"])
@pytest.mark.parametrize("name", FLAGS_GONE)
def test_a_retired_flag_is_answered_in_one_line(name, given, joined, capsys):
    """With and without a value, also one that did nothing: there is no such flag."""
    parser = argparse.ArgumentParser()
    for flag, keywords in retired.FLAGS.items():
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
    with retired.allowed():
        model = build("CIM", channels, **gone)
        exact = build("CIM", cim_floor="exact").contrast.similarity
        shared = build("CIM", cim_mask="shared").morphing.network
    assert model.morphing(torch.rand(2, channels, 28, 28)).mask.shape == (2, channels, 28, 28)
    for similarity in (model.contrast.similarity, exact):
        assert isinstance(similarity, MSSSIM) and (similarity.scales, similarity.floor) == (2, "exact")
    assert shared(torch.rand(2, 3, 28, 28)).shape == (2, 1, 28, 28)
    with pytest.raises(InputError):
        build("CIM", channels, **gone)


def test_other_mistakes_of_an_old_run_are_refused_as_ever():
    with retired.allowed():
        for changes in ({"cim_lamda": 1.0}, {"cim_lambda": -1.0}, {"cim_similarity": "ssim"}):
            with pytest.raises(InputError, match=next(iter(changes))):
                build("CIM", cim_mask="per_channel", **changes)
        with pytest.raises(ZeroDivisionError), retired.allowed():
            1 / 0
        catalog.check("CIM", defaults("CIM", cim_mask="per_channel"))  # still inside
    with pytest.raises(InputError):
        catalog.check("CIM", defaults("CIM", cim_mask="per_channel"))
