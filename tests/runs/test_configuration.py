"""The fields of a configuration, their flags and the record of them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import FrozenInstanceError, replace

import pytest

from cim_plugin.runs.configuration import FLAG_NAMES, FLAGS, MAY_DIFFER, Configuration, completed, filled, open_values


def test_every_field_but_the_hyperparameters_is_a_flag_and_the_record_has_the_fields_in_order():
    config = filled("waterbirds", "CIM", hyperparameters={"cim_lambda": 1.0})
    names = [entry.name for entry in dataclasses.fields(Configuration)]
    assert [*FLAG_NAMES, "hyperparameters"] == names == list(config.as_record())
    assert json.loads(json.dumps(config.as_record())) == config.as_record()


def test_a_record_makes_the_configuration_again():
    config = filled("fmow", "ERM", cross_fit=3, root_dir="data")
    assert Configuration(**json.loads(json.dumps(config.as_record()))) == config
    assert config.cross_fit_tiles == 4


def test_what_a_field_is_says_how_its_flag_is_read():
    assert (FLAGS["run"]["resume"]["nargs"], FLAGS["run"]["resume"]["const"]) == ("?", True)
    assert FLAGS["algorithm"]["groupby_fields"]["nargs"] == "+" == FLAGS["data"]["target_resolution"]["nargs"]
    assert FLAGS["model"]["model_kwargs"]["metavar"] == "KEY=VALUE"
    assert "nargs" not in FLAGS["optimization"]["lr"]


def test_a_configuration_does_not_change():
    config = filled("waterbirds", "ERM")
    with pytest.raises(FrozenInstanceError):
        config.lr = 1.0
    record = config.as_record()
    record["model_kwargs"]["pretrained"] = "changed"
    assert config.model_kwargs == {"pretrained": True}


def test_defaults_of_one_do_not_change_with_another():
    open_values()["loader_kwargs"]["num_workers"] = 99
    assert filled("waterbirds", "ERM").loader_kwargs["num_workers"] == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": "fast"},
        {"lr": None},
        {"batch_size": 1.0},
        {"batch_size": True},
        {"resume": 1},
        {"groupby_fields": [1]},
        {"target_resolution": [1.5, 2]},
        {"model_kwargs": []},
        {"version": 1.0},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_by_name(wrong):
    with pytest.raises(TypeError, match=f"{next(iter(wrong))} is "):
        replace(filled("waterbirds", "ERM"), **wrong)


def test_a_whole_number_is_a_number_and_none_is_off():
    config = replace(filled("waterbirds", "ERM"), lr=1, max_grad_norm=None, cache="auto")
    assert (config.lr, config.max_grad_norm, config.cache) == (1, None, "auto")


@pytest.mark.parametrize(
    "given, pretrained",
    [
        ({}, True),
        ({"model_kwargs": {"pretrained": False}}, False),
        ({"model": "small_cnn", "model_kwargs": {"pretrained": True}}, False),
        ({"model": "small_cnn", "pretrained_model_path": "weights.pth"}, True),
    ],
)
def test_where_an_encoder_starts(given, pretrained):
    assert replace(filled("waterbirds", "ERM"), **given).is_pretrained == pretrained


def test_an_older_record_is_completed_by_todays_defaults_and_what_it_has_stays():
    older = {"algorithm": "CIM", "precision": "bf16-mixed", "hyperparameters": {"cim_lambda": 2.0}}
    now = completed(older)
    assert (now["precision"], now["log_every"], now["hyperparameters"]["cim_lambda"]) == ("bf16-mixed", 50, 2.0)
    assert now["hyperparameters"]["cim_similarity"] and "lr" not in now  # of which the dataset decides


def test_flags_that_may_differ_on_resume_exist():
    of_older_runs = {"tensorboard"}
    assert MAY_DIFFER - of_older_runs <= set(FLAG_NAMES) and "log_dir" in MAY_DIFFER and "lr" not in MAY_DIFFER
