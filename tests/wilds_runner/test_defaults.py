"""The defaults against the tables and the filling of a real WILDS checkout, and against a hand-made example."""

from __future__ import annotations

import copy
import importlib.util
from argparse import Namespace
from pathlib import Path

import pytest

from cim_plugin import catalog
from cim_plugin.runs import defaults
from cim_plugin.runs.configuration import FLAG_NAMES, open_values

DATASETS = ["waterbirds", "celebA", "iwildcam", "camelyon17", "rxrx1", "fmow"]


def _table(checkout: Path, name: str, table: str) -> dict:
    spec = importlib.util.spec_from_file_location(
        f"wilds_configs_{name}", checkout / "examples" / "configs" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, table)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _reference_fill(config: dict, tables: list[dict]) -> dict:
    """The first table that says something of an open field wins; dictionaries key by key."""
    filled = copy.deepcopy(config)
    for name in filled:
        for table in tables:
            value = table.get(name)
            if isinstance(value, dict):
                for key in value:
                    if key not in filled[name]:
                        filled[name][key] = value[key]
            elif filled[name] is None:
                filled[name] = _plain(value)
    return filled


@pytest.mark.parametrize("algorithm", ["ERM", "groupDRO"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_run_expt_command_means_the_same_here(dataset, algorithm, wilds_checkout, configure):
    """Every field that both know, filled from WILDS' own tables in WILDS' order."""
    models, schedulers = (
        _table(wilds_checkout, "model", "model_defaults"),
        _table(wilds_checkout, "scheduler", "scheduler_defaults"),
    )
    of_dataset = _table(wilds_checkout, "datasets", "dataset_defaults")[dataset]
    tables = [
        of_dataset,
        _table(wilds_checkout, "algorithm", "algorithm_defaults")[algorithm],
        _table(wilds_checkout, "data_loader", "loader_defaults"),
        models[of_dataset["model"]],
        schedulers.get(of_dataset["scheduler"], {}),
    ]
    actual = configure("--dataset", dataset, "--algorithm", algorithm)
    expected = _reference_fill(open_values(), tables)
    given = {"dataset": dataset, "algorithm": algorithm, "root_dir": "data"}
    if algorithm == "groupDRO":
        expected["randaugment_n"] = 2  # WILDS leaves it open there, and cannot augment
    expected |= {**given, "no_group_logging": bool(expected["no_group_logging"])}
    assert {name: _plain(getattr(actual, name)) for name in FLAG_NAMES} == expected


def test_the_step_size_of_group_dro_is_that_of_wilds(wilds_checkout, configure):
    expected = _table(wilds_checkout, "algorithm", "algorithm_defaults")["groupDRO"]["group_dro_step_size"]
    assert configure("--algorithm", "groupDRO").hyperparameters["group_dro_step_size"] == expected


@pytest.mark.parametrize("model", ["densenet121", "wideresnet50", "resnet18", "resnet34", "resnet50", "resnet101"])
def test_models_have_the_defaults_of_wilds(model, wilds_checkout, configure):
    expected = _table(wilds_checkout, "model", "model_defaults")[model]
    actual = configure("--dataset", "celebA", "--model", model)
    assert actual.model_kwargs == expected["model_kwargs"]
    assert actual.target_resolution == list(expected["target_resolution"])


@pytest.mark.parametrize("scheduler", list(defaults.SCHEDULERS))
def test_schedulers_have_the_defaults_of_wilds(scheduler, wilds_checkout, configure):
    expected = _table(wilds_checkout, "scheduler", "scheduler_defaults")[scheduler]["scheduler_kwargs"]
    actual = configure(
        "--dataset",
        "celebA",
        "--scheduler",
        scheduler,
        *(["--scheduler_metric_name", "acc_avg"] if scheduler == "ReduceLROnPlateau" else []),
    )
    assert actual.scheduler_kwargs == (
        expected or {"mode": "max"}
    )  # of ReduceLROnPlateau alone: our metrics are accuracies


def test_every_dataset_of_the_package_is_known_or_refused_with_a_reason():
    wilds = pytest.importorskip("wilds")
    assert set(wilds.supported_datasets) <= {*defaults.DATASETS, *defaults.OTHER_DATASETS}
    assert not {*defaults.DATASETS} & {*defaults.OTHER_DATASETS}


@pytest.mark.parametrize("algorithm", [name for name in catalog.TRAINABLE if "groupDRO" not in name])
def test_only_group_dro_samples_groups_uniformly(algorithm, configure):
    config = configure("--algorithm", algorithm)
    assert (config.train_loader, config.uniform_over_groups, config.distinct_groups) == (
        "standard",
        False,
        None,
    )


# --- filling, by hand ------------------------------------------------------------------------------------------------


@pytest.fixture
def tables(monkeypatch):
    """Tables of which several say something of the same field."""
    replaced = Namespace(
        DATASETS={
            "set": {
                "model": "net",
                "lr": 1,
                "optimizer": "SGD",
                "optimizer_kwargs": {"momentum": 0.9},
                "scheduler": "warm",
                "scheduler_kwargs": {"a": 1},
            }
        },
        ALGORITHMS={"own": {"lr": 2, "batch_size": 2}, None: {"batch_size": 9}},
        LOADER={"batch_size": 3, "loader_kwargs": {"workers": 4, "pin": True}},
        MODELS={"net": {"batch_size": 4, "n_epochs": 4, "model_kwargs": {"deep": True}}, None: {"n_epochs": 8}},
        SCHEDULERS={
            "warm": {"n_epochs": 5, "scheduler_kwargs": {"a": 5, "b": 5}},
            "cold": {"scheduler_kwargs": {"c": 6}},
        },
    )
    for name, table in vars(replaced).items():
        monkeypatch.setattr(defaults, name, table)
    return replaced


OPEN = {
    **dict.fromkeys(
        ["model", "optimizer", "scheduler", "lr", "batch_size", "n_epochs", "groupby_fields", "no_group_logging"]
    ),
    **{f"{name}_kwargs": {} for name in ("optimizer", "scheduler", "loader", "model")},
}


@pytest.mark.parametrize(
    "given, algorithm, expected",
    [
        ({}, "own", {"lr": 1, "batch_size": 2, "n_epochs": 4}),
        ({}, "another", {"batch_size": 9}),
        ({"model": "unlisted"}, "own", {"n_epochs": 8, "model_kwargs": {}}),
        (
            {},
            "own",
            {
                "optimizer_kwargs": {"momentum": 0.9},
                "scheduler_kwargs": {"a": 1, "b": 5},
                "loader_kwargs": {"workers": 4, "pin": True},
            },
        ),
        ({"lr": 0, "batch_size": 7}, "own", {"lr": 0, "batch_size": 7}),
        ({"optimizer_kwargs": {"nesterov": True}}, "own", {"optimizer_kwargs": {"momentum": 0.9, "nesterov": True}}),
        ({"optimizer_kwargs": {"momentum": 0}}, "own", {"optimizer_kwargs": {"momentum": 0}}),
        ({"loader_kwargs": {"workers": 0}}, "own", {"loader_kwargs": {"workers": 0, "pin": True}}),
        ({"optimizer": "SGD"}, "own", {"optimizer_kwargs": {"momentum": 0.9}}),
        ({"optimizer": "Adam"}, "own", {"optimizer_kwargs": {}, "scheduler_kwargs": {"a": 1, "b": 5}}),
        ({"scheduler": "cold"}, "own", {"scheduler_kwargs": {"c": 6}, "optimizer_kwargs": {"momentum": 0.9}}),
        ({}, "own", {"no_group_logging": False}),
        ({"groupby_fields": ["y"]}, "own", {"no_group_logging": False}),
        ({"groupby_fields": ["y"], "no_group_logging": True}, "own", {"no_group_logging": True}),
    ],
)
def test_open_fields_are_filled_in_order_and_given_ones_stay(tables, given, algorithm, expected):
    config = {**copy.deepcopy(OPEN), **copy.deepcopy(given)}
    defaults.fill(config, "set", algorithm)
    assert {name: config[name] for name in expected} == expected


def test_filling_changes_no_table(tables):
    before = copy.deepcopy(vars(tables))
    config = copy.deepcopy(OPEN)
    defaults.fill(config, "set", "own")
    config["loader_kwargs"]["workers"] = 99
    config["optimizer_kwargs"]["momentum"] = 99
    assert vars(tables) == before
