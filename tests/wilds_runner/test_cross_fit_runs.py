"""Runs with --cross_fit: out of fold, triplets and selection by the file, refusals, stopped and resumed, several
processes.
"""

from __future__ import annotations

import functools
import json
import shutil
import signal
from collections import Counter

import pytest
import torch
from small_runs import (
    SIZES,
    contrasts,
    ctrl_c_in,
    finish,
    prediction_path,
    prepared,
    read_csv,
    read_metadata,
    read_model,
    relative_files,
    results,
    rows_of_epochs,
    rule_folder,
    start,
    train,
    words,
)
from test_cross_fit import _reference_cells
from test_distributed import assert_same_weights
from test_resume import RUN as THREE_EPOCHS
from test_resume import assert_same_run, stop_at

from cim_plugin import cli

pytestmark = pytest.mark.slow

STEPS = 20
FLAGS = ("--cross_fit", str(STEPS))
RUN = (*THREE_EPOCHS, *FLAGS)
PAIRS = ("--cim_pairs", "cross_environment")


@pytest.fixture(scope="module")
def run(release, tmp_path_factory):
    """The folder of a finished run of CIM_VIB. Not to be changed."""
    log_dir = tmp_path_factory.mktemp("cross_fit")
    assert train(release, log_dir, *RUN, *PAIRS, algorithm="CIM_VIB") == 0
    return log_dir


@pytest.fixture(scope="module")
def stopped(release, tmp_path_factory):
    """The folder of the same run, stopped in its second epoch. Not to be changed."""
    log_dir = tmp_path_factory.mktemp("stopped")
    with ctrl_c_in(log_dir, 1):
        assert train(release, log_dir, *RUN, *PAIRS, algorithm="CIM_VIB") == 130
    return log_dir


def read_pseudo(folder) -> dict[str, list[tuple[int, int]]]:
    """Split -> (label, pseudo-environment) of its images in order, as the file has them."""
    rows = read_csv(folder / "cross_fit.csv")
    assert [(row["split"], int(row["row"])) for row in rows] == [
        (split, row) for split in ("train", "val") for row in range(SIZES[split])
    ]
    return {
        split: [(int(row["label"]), int(row["pseudo_environment"])) for row in rows if row["split"] == split]
        for split in ("train", "val")
    }


# --- triplets and selection -------------------------------------------------------------------------------------------


def test_batches_and_triplets_of_a_run_go_by_the_file(release, tmp_path):
    """Grouped by the label alone there is one true environment, with which such pairs are refused."""
    flags = [*PAIRS, "--groupby_fields", "y", "--n_epochs", "12"]
    assert train(release, tmp_path / "without", *flags, algorithm="CIM") == 2
    loop = prepared(release, tmp_path / "with", "--cross_fit", "60", *flags, algorithm="CIM")
    drawn = contrasts(loop)
    loop.run()
    pairs, rows = read_pseudo(tmp_path / "with")["train"], rows_of_epochs(loop)
    assert len(rows) == len(drawn) == 36 and loop.training.classifier.contrast.pairs == "cross_environment"
    for batch, (labels, environments) in zip(rows, drawn):
        assert list(zip(labels.tolist(), environments.tolist())) == [pairs[row] for row in batch]
    cells = _reference_cells(pairs)
    counts, natural = Counter(cells[row] for batch in rows for row in batch), Counter(cells)
    assert len(natural) == 4 and max(natural.values()) > 2 * min(natural.values())
    assert all(abs(counts[cell] - 180) < 5 * (720 / 4 * 3 / 4) ** 0.5 for cell in natural)


def _reference_score(folder, path) -> float:
    """The worst accuracy over (label, agrees) of a file of validation predictions, counted one by one."""
    pairs, predicted = read_pseudo(folder)["val"], list(map(int, path.read_text().split()))
    cells = _reference_cells(pairs)
    hits = Counter(cell for cell, label in zip(cells, predicted, strict=True) if cell[0] == label)
    return min(hits[cell] / count for cell, count in Counter(cells).items())


def test_the_rule_chooses_the_first_epoch_with_the_highest_worst_accuracy_over_pseudo_groups(release, tmp_path):
    assert train(release, tmp_path, "--cross_fit", "60", "--n_epochs", "24", "--save_step", "1") == 0
    scores = [
        _reference_score(tmp_path, tmp_path / f"waterbirds_split:val_seed:0_epoch:{epoch}_pred.csv")
        for epoch in range(24)
    ]
    assert len(set(scores)) > 1
    chosen = results(tmp_path)["selection"]["worst_pseudo_group"]
    assert (chosen["epoch"], chosen["score"]) == (scores.index(max(scores)), pytest.approx(max(scores)))
    assert chosen["needs"] == "no group labels"
    for split in ("val", "test"):
        expected = tmp_path / f"waterbirds_split:{split}_seed:0_epoch:{chosen['epoch']}_pred.csv"
        assert prediction_path(tmp_path, "worst_pseudo_group", split).read_bytes() == expected.read_bytes()
    model = torch.load(tmp_path / f"waterbirds_seed:0_epoch:{chosen['epoch']}_model.pth", weights_only=True)[
        "algorithm"
    ]
    assert_same_weights(model, read_model(tmp_path, "worst_pseudo_group"))


def test_results_and_log_say_how_many_agree_and_what_it_took(run):
    shares = {
        split: sum(label == environment for label, environment in pairs) / len(pairs)
        for split, pairs in read_pseudo(run).items()
    }
    assert results(run)["agreeing_pseudo_environments"] == pytest.approx(shares)
    assert results(run)["seconds"]["cross_fit"] > 0 and results(run)["steps"] == 9
    text = (run / "log.txt").read_text()
    assert f"Cross-fit: {STEPS} steps of every reference model\n" in text.split("Epoch [0]")[0]
    assert text.count("Cross-fit:") == 1 and not (run / "cross_fit_curve.csv").exists()
    for label, name in enumerate(("landbird", "waterbird")):
        flags = [environment != label for of, environment in read_pseudo(run)["train"] if of == label]
        assert f" {100 * sum(flags) / len(flags):.1f}% of {name}" in text
        warned = f"of {name} are flagged: the reference models do not know this class" in text
        assert warned == (sum(flags) / len(flags) > 0.5)


def test_labels_in_the_file_are_those_of_the_data(run, release):
    rows = read_metadata(release / "waterbirds_v1.0")
    for number, split in enumerate(("train", "val")):
        assert [label for label, _ in read_pseudo(run)[split]] == [
            int(row["y"]) for row in rows if row["split"] == str(number)
        ]


def test_a_run_does_not_go_on_with_another_pseudo_environment(run, release, tmp_path, capsys):
    """One flipped bit turns a class into another, which the file may hold."""
    folder = shutil.copytree(run, tmp_path / "run")
    file = folder / "cross_fit.csv"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    assert train(release, folder, *RUN, *PAIRS, "--resume", algorithm="CIM_VIB") == 2
    assert f"{file} is not as the run wrote it; restore the file" in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["ERM", "VIB", "SCL_E2E", "CIM"])
def test_every_algorithm_trains_with_it_from_the_same_pseudo_environments(release, tmp_path, run, algorithm):
    assert (
        train(
            release, tmp_path, *FLAGS, "--precision", "bf16-mixed" if algorithm == "VIB" else "32", algorithm=algorithm
        )
        == 0
    )
    assert rule_folder(tmp_path, "worst_pseudo_group").is_dir() and results(tmp_path)["status"] == "finished"
    if algorithm != "VIB":
        assert (tmp_path / "cross_fit.csv").read_bytes() == (run / "cross_fit.csv").read_bytes()


def test_without_the_flag_there_is_no_file_no_rule_and_no_share(trained):
    folder = trained("ERM")
    assert not {"cross_fit.csv"} & relative_files(folder) and "worst_pseudo_group" not in results(folder)["selection"]
    assert results(folder)["agreeing_pseudo_environments"] is None and results(folder)["config"]["cross_fit"] is None


# --- stopped and resumed ----------------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_in_training_reads_the_file_and_ends_as_one_that_was_left_alone(
    release, tmp_path, run, stopped
):
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert train(release, folder, *RUN, *PAIRS, "--resume", algorithm="CIM_VIB") == 0
    assert_same_run(folder, run)
    assert results(folder)["agreeing_pseudo_environments"] == results(run)["agreeing_pseudo_environments"]
    assert results(folder)["seconds"]["cross_fit"] == round(
        torch.load(stopped / "state.pth", weights_only=True)["clock"]["cross_fit"], 3
    )


def test_ctrl_c_among_the_reference_models_loses_nothing_that_matters(release, tmp_path, run, capsys):
    argv = [*RUN, *PAIRS]
    with ctrl_c_in(tmp_path, None):
        assert train(release, tmp_path, *argv, algorithm="CIM_VIB") == 130
    assert "cim-plugin train: stopped at epoch 0, batch 0; go on with: " in capsys.readouterr().err
    assert relative_files(tmp_path) == {"log.txt", "state.pth"}
    assert train(release, tmp_path, *argv, "--resume", algorithm="CIM_VIB") == 0
    assert_same_run(tmp_path, run)


MOMENTS = {
    "among the reference models": ("reference", "reference_model", 2),
    "before the file has its name": ("os", "replace", 1, "cross_fit.csv"),
    "between the file and the state that counts on it": ("os", "replace", 1, "state.pth"),
    "in the first epoch": ("loop", "_step", 2),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(release, tmp_path, run, moment):
    owner, name, call, *path_end = moment
    argv = words(release, tmp_path, *RUN, *PAIRS, "--resume", algorithm="CIM_VIB")
    assert (
        finish(start(argv, functools.partial(stop_at, owner, name, call, signal.SIGKILL, *path_end))) == -signal.SIGKILL
    )
    assert finish(start(argv)) == 0
    assert_same_run(tmp_path, run)
    assert relative_files(tmp_path) == relative_files(run)


HEADER = "split,row,label,pseudo_environment"
DAMAGES = {
    "missing": (lambda lines: None, "cannot be read (No such file or directory)"),
    "not text": (lambda lines: b"\xff\xfe", "is not UTF-8 text (byte 0)"),
    "empty": (lambda lines: [], "has 0 lines where 102 belong"),
    "cut": (lambda lines: lines[:50], "has 50 lines where 102 belong"),
    "of another header": (lambda lines: ["a,b", *lines[1:]], f", line 1: 'a,b' where '{HEADER}' belongs"),
    "of rows in another order": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], ", line 2: 'train,1,"),
    "of other labels": (lambda lines: [*lines[:70], "val,9,7,0", *lines[71:]], ", line 71: 'val,9,7,0' where 'val,9,"),
    "with a class that is not there": (
        lambda lines: [*lines[:1], f"{lines[1][:-1]}2", *lines[2:]],
        "and a class from 0 to 1 belong",
    ),
    "with a class below 0": (
        lambda lines: [*lines[:1], f"{lines[1][:-1]}-1", *lines[2:]],
        "and a class from 0 to 1 belong",
    ),
    "with half a class": (
        lambda lines: [*lines[:1], f"{lines[1][:-1]}0.5", *lines[2:]],
        "and a class from 0 to 1 belong",
    ),
    "with a column too many": (
        lambda lines: [*lines[:1], f"{lines[1]},0", *lines[2:]],
        "and a class from 0 to 1 belong",
    ),
}


@pytest.mark.parametrize("damage, message", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named_in_one_line(release, tmp_path, stopped, capsys, damage, message):
    folder = shutil.copytree(stopped, tmp_path / "run")
    path = folder / "cross_fit.csv"
    new = damage(path.read_text().splitlines())
    path.unlink()
    if new is not None:
        path.write_bytes(new if isinstance(new, bytes) else "".join(f"{line}\n" for line in new).encode())
    assert train(release, folder, *RUN, *PAIRS, "--resume", algorithm="CIM_VIB") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"error: {path}" in line and message in line
    assert line.endswith("; restore the file that the run wrote, or begin again with another --log_dir")


def test_another_number_of_steps_is_another_run(release, tmp_path, stopped, capsys):
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert train(release, folder, *RUN, *PAIRS, "--cross_fit", "3", "--resume", algorithm="CIM_VIB") == 2
    assert f"had cross_fit {STEPS}, now it is 3" in capsys.readouterr().err


def test_eval_only_needs_no_file(release, tmp_path, run):
    name = "waterbirds_seed:0_epoch:best_model.pth"
    (tmp_path / name).write_bytes((run / name).read_bytes())
    assert train(release, tmp_path, *RUN, *PAIRS, "--eval_only", algorithm="CIM_VIB") == 0
    assert prediction_path(tmp_path, "best", "test").read_bytes() == prediction_path(run, "best", "test").read_bytes()


# --- compare and show -------------------------------------------------------------------------------------------------


def test_compare_shows_the_rule_of_runs_that_have_it_and_says_which_have_not(run, trained, capsys):
    assert cli.main(
        ["compare", str(run), str(trained("ERM")), "--rules", "worst_pseudo_group", "--format", "json"]
    ) in (0, 1)
    shown = capsys.readouterr().out
    assert "worst accuracy over (label, whether the pseudo-environment agrees)" in shown
    assert (
        f"seed 0 has no pseudo-groups, it was trained without --cross_fit: {trained('ERM')}" in shown
        and "failed" not in shown
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_show_draws_pairs_by_the_pseudo_environments_where_there_are_any(run, capsys, split):
    assert (
        cli.main(
            [
                "show",
                str(run),
                "--rule",
                "worst_pseudo_group",
                "--split",
                split,
                "--json",
                "--images",
                "0",
                "1",
                "2",
                "3",
            ]
        )
        == 0
    )
    shown = json.loads(capsys.readouterr().out)["shown"]
    pairs = read_pseudo(run).get(split)
    drawn = [example for example in shown if example["positive"] and pairs is not None]
    assert split == "test" or drawn
    for example in drawn:
        (label, environment), positive, negative = (
            pairs[number] for number in (example["image"], example["positive"]["image"], example["negative"]["image"])
        )
        assert positive[0] == label != negative[0] and positive[1] != environment == negative[1]
