"""Waterbirds and CelebA from the command to the table."""

from __future__ import annotations

import json

import pytest
from stand_ins import cells_of, reproduce
from wilds_runner.small_runs import write_celeba, write_release

pytestmark = pytest.mark.slow


def test_table_of_all_rules_stands_beside_the_published_one(tmp_path):
    write_release(tmp_path / "data")
    done = reproduce("waterbirds", "--quick", "--algorithms", "CIM_VIB", "--vib_beta", "0.01", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "reproduction" / "quick" / "waterbirds" / "CIM_VIB-0" / "results.json").read_text())
    assert (
        result["status"] == "finished"
        and result["config"]["hyperparameters"]["vib_beta"] == 0.01
        and result["config"]["frac"] == 1
    )
    for rule in ("worst_group", "average", "worst_class", "last", "oracle"):
        line = cells_of(done.stdout, rule, "CIM_VIB")
        test = result["selection"][rule]["splits"]["test"]
        for value in (test["accuracy"], test["metrics"]["acc_wg"], test["metrics"]["adj_acc_avg"]):
            assert f"{100 * value:.1f}" in line
    assert "adjusted" in done.stdout and "Trained with WILDS' defaults" in done.stdout.splitlines()[-1]
    assert "waterbirds, cim-plugin train - SYNTHETIC data" in done.stdout
    assert "PUBLISHED, not measured here: Waterbirds" in done.stdout and done.stdout.count("PUBLISHED") == 1


def test_celeba(tmp_path):
    write_celeba(tmp_path / "data")
    done = reproduce("celebA", "--quick", "--algorithms", "groupDRO", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        cells_of(done.stdout, "average", "groupDRO")[1] == "1" and "PUBLISHED, not measured here: CelebA" in done.stdout
    )


def test_defaults_are_those_of_the_data_set_and_five_seeds_unless_flags_are_passed_on(tmp_path):
    from scripts.reproduce.options import SEEDS
    from scripts.reproduce.subgroups import ALGORITHMS
    from scripts.reproduce.trainings import configurations

    configs = configurations("celebA", tmp_path, tmp_path, ALGORITHMS, SEEDS, ["--n_epochs", "7"])
    assert [(config.algorithm, config.seed) for config in configs] == [
        (algorithm, seed) for seed in range(5) for algorithm in ALGORITHMS
    ]
    assert {(config.model, config.lr, config.batch_size, config.n_epochs, config.frac) for config in configs} == {
        ("resnet50", 1e-3, 64, 7, 1.0)
    }


def test_published_setup_is_that_of_the_cited_rows_and_flags_come_after_it(tmp_path):
    write_celeba(tmp_path / "data")
    done = reproduce("celebA", "--quick", "--algorithms", "ERM", "--published-setup", "--n_epochs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "reproduction" / "quick" / "celebA" / "ERM-0" / "results.json").read_text())[
        "config"
    ]
    assert (config["weight_decay"], config["n_epochs"]) == (1e-4, 2)
    assert "as the published rows of ERM were" in done.stdout.splitlines()[-1]


def test_hyperparameter_goes_to_the_algorithms_that_have_it(tmp_path):
    from scripts.reproduce.trainings import configurations

    found = configurations(
        "waterbirds", tmp_path, tmp_path, ["ERM", "VIB", "CIM_VIB"], [0], ["--vib_beta", "0.5", "--cim_lambda", "0"]
    )
    assert [{name: config.hyperparameters.get(name) for name in ("vib_beta", "cim_lambda")} for config in found] == [
        {"vib_beta": None, "cim_lambda": None},
        {"vib_beta": 0.5, "cim_lambda": None},
        {"vib_beta": 0.5, "cim_lambda": 0.0},
    ]
    with pytest.raises(ValueError, match="ERM has no hyperparameter 'vib_beta'"):
        configurations("waterbirds", tmp_path, tmp_path, ["ERM"], [0], ["--vib_beta", "0.5"])


def test_quick_takes_few_images_of_a_real_release(tmp_path):
    from scripts.reproduce.subgroups import quick_flags

    folder = write_celeba(tmp_path)
    assert quick_flags("celebA", tmp_path)[-2:] == ["--frac", "1"]
    (folder / "RELEASE_v1.0.txt").write_text("")
    assert quick_flags("celebA", tmp_path)[-2:] == ["--frac", f"{500 / 162770:g}"]
