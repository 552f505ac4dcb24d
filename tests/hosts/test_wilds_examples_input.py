"""Flags and wrong input of ``examples/run_expt.py``, what it says without a library, and other projects that only look
like it.
"""

from __future__ import annotations

import argparse

import pytest
import retired
from hosts.wilds_run_expt import TRANSFORMERS, run_expt
from interpreters import ask

from cim_plugin import catalog
from cim_plugin.hosts.wilds_examples import adapter

WRONG = {
    "misspelt flag": ("CIM", ["--cim_lamda", "0.5"], "unrecognized arguments: --cim_lamda 0.5"),
    "no number": ("CIM", ["--cim_lambda", "much"], "argument --cim_lambda: 'much' is not a number"),
    "negative λ": ("CIM", ["--cim_lambda", "-1"], "error: cim_lambda=-1.0 is not a finite number of at least 0"),
    "flag of another of ours": ("CIM", ["--vib_beta", "0.1"], "error: CIM has no hyperparameter 'vib_beta'"),
    "unknown pairs": (
        "CIM_VIB",
        ["--cim_pairs", "cross_fit"],
        "error: cim_pairs='cross_fit' is not 'random' or 'cross_environment'",
    ),
    "our flag with theirs": ("ERM", ["--cim_lambda", "0.5"], "unrecognized arguments: --cim_lambda 0.5"),
    "other loss": (
        "CIM",
        ["--loss_function", "multitask_bce"],
        "error: CIM is for classification of images of one label",
    ),
    "text": (
        "VIB",
        ["--transform", "bert", "--model", "bert-base-uncased", "--max_token_length", "9"],
        "error: VIB works on images; --transform bert gives none",
    ),
    "standardised per image": ("CIM", ["--transform", "rxrx1"], "error: CIM morphs pixels, and --transform rxrx1"),
    "groups as they come": (
        "CIM+groupDRO",
        ["--uniform_over_groups", "False"],
        "error: CIM+groupDRO needs --uniform_over_groups true",
    ),
    "a retired value": (
        "CIM",
        ["--cim_similarity", "pytorch_msssim"],
        f"error: CIM: {retired.said('cim_similarity')}",
    ),
    "a retired flag": ("CIM", ["--cim_mask=per_channel"], f"error: {retired.said_of_flag('cim_mask')}"),
}


@pytest.mark.parametrize("algorithm, words, said", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line(algorithm, words, said, checkout, shims, release, tmp_path):
    if "bert" in words:  # the host makes its tokenizer first
        (tmp_path / "transformers.py").write_text(
            TRANSFORMERS + "from unittest.mock import MagicMock\nBertTokenizerFast = MagicMock()\n"
        )
        shims = tmp_path
    done = run_expt(checkout, shims, release, tmp_path / "log", algorithm, "--n_epochs", "1", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert said in done.stderr.splitlines()[-1]


#: hyperparameter -> an algorithm that has it, another accepted value, and a wrong one with what is said of it
FLAG_VALUES = {
    "cim_lambda": ("CIM", 0.5, "-1", "at least 0"),
    "cim_pairs": ("CIM", "cross_environment", "cross_fit", "'random' or 'cross_environment'"),
    "cim_targets": ("CIM", "morphed", "output", "'input' or 'morphed'"),
    "cim_reading": ("CIM", "similarity", "inverse", "'distance' or 'similarity'"),
    "cim_mask_stride": ("CIM", 2, "3", "2 or 4"),
    "cim_gradient": ("CIM", "contrastive", "none", "'both' or 'contrastive'"),
    "cim_learning_rate": ("CIM", 0.01, "inf", "at least 0"),
    "cim_similarity": ("CIM", "colours", "ssim", "'ms_ssim' or 'colours'"),
    "vib_beta": ("VIB", 0.1, "much", "'much' is not a number"),
    "vib_dimension": ("CIM_VIB", 64, "2.5", "2.5 is not a whole number"),
    "scl_weight": ("SCL_E2E", 2.0, "-1", "at least 0"),
    "scl_temperature": ("SCL_E2E", 0.2, "0", "above 0"),
    "scl_pairs": ("SCL_E2E", "cross_environment", "pseudo", "'random' or 'cross_environment'"),
    "group_dro_step_size": ("CIM+groupDRO", 0.1, "inf", "at least 0"),
}


def parsed(algorithm: str, *words: str) -> argparse.Namespace:
    """What a parser with two of the host's flags makes of these words when our flags are added in the moment of
    parsing.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm")
    parser.add_argument("--group_dro_step_size", type=float)
    inner = argparse.ArgumentParser.parse_args
    adapter._add_flags_when_parsing()
    try:
        return parser.parse_args(["--algorithm", algorithm, *words])
    finally:
        assert argparse.ArgumentParser.parse_args is inner


def test_every_flag_takes_the_values_of_its_hyperparameter(capfd):
    assert FLAG_VALUES.keys() == catalog.all_hyperparameters().keys() - catalog.hyperparameters("JTT").keys()
    for name, (algorithm, value, wrong, said) in FLAG_VALUES.items():
        assert name == "group_dro_step_size" or not hasattr(
            parsed(algorithm), name
        )  # the default comes from the host's table of defaults
        assert getattr(parsed(algorithm, f"--{name}", str(value)), name) == value
        with pytest.raises(SystemExit) as ended:
            parsed(algorithm, f"--{name}", wrong)
        assert ended.value.code == 2 and said in capfd.readouterr().err.splitlines()[-1], name


@pytest.mark.parametrize("name", retired.FLAGS_GONE)
def test_a_retired_flag_is_one_line(name, capfd):
    with pytest.raises(SystemExit) as ended:
        parsed("CIM", f"--{name}={retired.GONE[name][0]}")
    last = capfd.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and last.endswith(f"error: {retired.said_of_flag(name)}")


def test_help_shows_our_flags_with_their_defaults(checkout, shims, release, tmp_path):
    done = run_expt(checkout, shims, release, tmp_path / "log", "ERM", "--help")
    assert done.returncode == 0
    for name in catalog.all_hyperparameters():
        assert (f"--{name}" in done.stdout) == (name not in catalog.hyperparameters("JTT"))
    assert "weight λ of L_con: a finite number of at least 0 (default: 1.0)" in " ".join(done.stdout.split())


def test_missing_transformers_is_one_line_for_ours_and_the_hosts_own_words_for_others(checkout, release, tmp_path):
    ours, others = (
        run_expt(checkout, tmp_path, release, tmp_path / "log", name, "--n_epochs", "1") for name in ("CIM", "ERM")
    )
    assert ours.returncode == 2 and len(ours.stderr.splitlines()) == 1
    assert "transformers" in ours.stderr and "pip install 'transformers<4.40'" in ours.stderr
    assert (
        others.returncode == 1
        and others.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'transformers'"
    )


NAMESAKES = {
    "configs/supported.py": "algorithms = ['mine']\nalgo_log_metrics = process_outputs_functions = {}\n",
    "configs/algorithm.py": "algorithm_defaults = {'ERM': {'lr': 1}}\n",
    "algorithms/initializer.py": "infer_d_out = initialize_loss = algo_log_metrics = None\ndef initialize_algorithm(): "
    "return 'mine'\n",
}


def look_at_namesakes():
    import argparse
    import sys
    import warnings

    sys.argv = ["train.py", "--algorithm", "CIM"]
    before = argparse.ArgumentParser.parse_args
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import algorithms.initializer
        import configs.algorithm
        import configs.supported
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm")
    return [
        configs.supported.algorithms,
        configs.algorithm.algorithm_defaults,
        algorithms.initializer.initialize_algorithm(),
        vars(parser.parse_args()),
        argparse.ArgumentParser.parse_args is before,
        "torch" in sys.modules,
        len(caught),
    ]


def test_modules_of_the_same_names_in_another_project_are_left_alone(tmp_path):
    for name, text in NAMESAKES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    told, stderr = ask(look_at_namesakes, path=tmp_path, cwd=tmp_path)
    assert told == [["mine"], {"ERM": {"lr": 1}}, "mine", {"algorithm": "CIM"}, True, False, 0] and not stderr


def test_use_wandb_without_the_package_is_one_line(checkout, shims, release, tmp_path):
    words = ["CIM", "--use_wandb", "true"]
    done = run_expt(checkout, shims, release, tmp_path / "logs", *words, then="sys.modules['wandb'] = None")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: --use_wandb needs the package 'wandb'")
