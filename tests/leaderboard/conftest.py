"""``cim-plugin leaderboard`` in the process of a test, small data sets, and finished runs on them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from submissions import LENGTHS, prediction

from cim_plugin import cli
from cim_plugin.leaderboard import truth


@pytest.fixture
def leaderboard(capsys):
    """A function of the words after 'cim-plugin leaderboard' -> exit status, lines of the output, lines of the
    errors.
    """

    def run(*words) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        try:
            status = cli.main(["leaderboard", *map(str, words)])
        except SystemExit as end:  # argparse
            status = end.code
        output, errors = capsys.readouterr()
        assert "Traceback" not in errors
        return status, output.splitlines(), errors.splitlines()

    return run


@pytest.fixture
def small_counts(monkeypatch):
    """The published counts are those of the small data sets."""
    monkeypatch.setattr(truth, "published_lengths", LENGTHS.__getitem__)


@pytest.fixture
def pack(leaderboard, tmp_path, small_counts):
    """A function (words before -o) -> exit status, output, errors, of packing into submission.tar.gz of the test's
    folder.
    """
    return lambda *words: leaderboard("pack", *words, "-o", tmp_path / "submission.tar.gz")


@pytest.fixture
def findings(leaderboard, small_counts):
    """A function (submission, exit status) -> the findings of 'check' without data, and its notes."""

    def run(submission: Path, expected: int) -> tuple[list[str], list[str]]:
        status, output, errors = leaderboard("check", submission)
        assert (status, errors) == (expected, []), (output, errors)
        known = ("note: ", "not checked without --root_dir: ", "cannot be seen in the files: ", f"{submission}: ")
        return [line for line in output if not line.startswith(known)], [
            line.removeprefix("note: ") for line in output if line.startswith("note: ")
        ]

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A root with small releases of camelyon17 and iwildcam that the wilds package reads."""
    pytest.importorskip("wilds")
    from small_releases import write_camelyon17, write_iwildcam

    root = tmp_path_factory.mktemp("data")
    write_camelyon17(root)
    write_iwildcam(root)
    return root


@pytest.fixture(scope="session")
def wilds_evaluate(wilds_checkout):
    """WILDS' own examples/evaluate.py as a module; skips with the reason where there is no checkout."""
    path = wilds_checkout / "examples" / "evaluate.py"
    specification = importlib.util.spec_from_file_location("wilds_evaluate", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> Path:
    """The folder of a real run of 'cim-plugin train' on the small camelyon17, seed 0."""
    log_dir = tmp_path_factory.mktemp("trained")
    small = (
        "--model small_cnn --target_resolution 28 --batch_size 8 --n_epochs 1 --loader_kwargs num_workers=0 --cache "
        "false --progress_bar false"
    )
    words = [
        "train",
        "-d",
        "camelyon17",
        "--algorithm",
        "CIM_VIB",
        "--root_dir",
        str(data),
        "--log_dir",
        str(log_dir),
        *small.split(),
    ]
    assert cli.main(words) == 0
    return log_dir


@pytest.fixture(scope="session")
def evaluators(data) -> dict:
    """Split -> a function (labels) -> the metrics, by wilds' own data set."""
    import torch
    import wilds

    from cim_plugin.wilds_runner import groupwise

    groupwise.install()
    dataset = wilds.get_dataset("camelyon17", root_dir=str(data))

    def evaluator(split: str):
        subset = dataset.get_subset(split)
        return lambda labels: {
            name: float(value)
            for name, value in dataset.eval(torch.tensor(labels), subset.y_array, subset.metadata_array)[0].items()
        }

    return {split: evaluator(split) for split in LENGTHS["camelyon17"]}


@pytest.fixture(scope="session")
def ten_runs(trained, evaluators, tmp_path_factory) -> Path:
    """A folder of ten finished runs: the trained one, and nine made from it, each with its own predictions and their
    metrics. Not to be changed.
    """
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained, folder / "seed_0")
    for seed in range(1, 10):
        copy = folder / f"seed_{seed}"
        results = json.loads((trained / "results.json").read_text())
        results["seed"] = results["config"]["seed"] = seed
        results["config"]["log_dir"] = str(copy)
        for rule, choice in results["selection"].items():
            for split, length in LENGTHS["camelyon17"].items():
                labels = [
                    seed >> (row + ord(rule[0])) % 4 & 1 for row in range(length)
                ]  # other ones for every seed and rule
                choice["splits"][split]["metrics"] = evaluators[split](labels)
                path = prediction(copy, split, seed, rule)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(f"{label}\n" for label in labels))
        (copy / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def runs(ten_runs, tmp_path) -> Path:
    """The ten runs, for a test to damage."""
    shutil.copytree(ten_runs, tmp_path / "runs")
    return tmp_path / "runs"
