"""Runs with --cross_fit alone, --pseudo_environments and --groups pseudo: what they go by, refusals, and resuming."""

from __future__ import annotations

import csv
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
    prepared,
    read_csv,
    read_metadata,
    read_model,
    results,
    rows_of_epochs,
    start,
    train,
    words,
)
from test_cross_fit_runs import read_pseudo
from test_resume import RUN as THREE_EPOCHS
from test_resume import assert_same_run, stop_at

from cim_plugin import cli
from cim_plugin.algorithms import pseudo_environments
from cim_plugin.errors import InputError

pytestmark = pytest.mark.slow

LOOKS = (2, 4, 6)
PAIRS = ("--cim_pairs", "cross_environment")


@pytest.fixture(scope="module")
def table(release, tmp_path_factory):
    """A file with the third of the digit images that each is in: three environments, which nothing else knows of."""
    path = tmp_path_factory.mktemp("table") / "clusters.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "image", "environment"])
        for number, row in enumerate(read_metadata(release / "waterbirds_v1.0")):
            split = list(SIZES)[int(row["split"])]
            writer.writerow([split, row["img_filename"], f"cluster {(number + int(row['y'])) % 3}"])
    return path


def few_looks() -> None:
    """Such that --cross_fit alone takes no longer than these tests have."""
    pseudo_environments.STEPS = LOOKS


@pytest.fixture(autouse=True)
def looks(monkeypatch):
    monkeypatch.setattr(pseudo_environments, "STEPS", LOOKS)


def kinds(table) -> dict[str, tuple[str, list[str]]]:
    """Name -> algorithm and flags."""
    by_file = ["--pseudo_environments", str(table)]
    return {
        "auto": ("CIM", ["--cross_fit", *PAIRS]),
        "a file": ("CIM", [*by_file, *PAIRS]),
        "group DRO": ("groupDRO", ["--groups", "pseudo", "--cross_fit", "4"]),
        "CIM+group DRO, a file": ("CIM+groupDRO", ["--groups", "pseudo", *by_file]),
    }


KINDS = list(kinds(None))


@pytest.fixture(scope="module")
def finished(release, table, tmp_path_factory):
    """A function (kind) -> the folder of a finished run. Not to be changed."""

    @functools.cache
    def run(kind: str):
        algorithm, flags = kinds(table)[kind]
        log_dir = tmp_path_factory.mktemp("finished")
        assert train(release, log_dir, *THREE_EPOCHS, *flags, algorithm=algorithm) == 0
        return log_dir

    return run


# --- the number of steps ----------------------------------------------------------------------------------------------


def test_the_curve_is_a_file_and_the_log_says_which_number_was_chosen(finished):
    folder = finished("auto")
    curve = [(int(row["steps"]), float(row["agreement"])) for row in read_csv(folder / "cross_fit_curve.csv")]
    assert [steps for steps, _ in curve] == list(LOOKS)
    best = max(value for _, value in curve)
    steps, agreement = [point for point in curve if point[1] >= best - 0.02][-1]
    text = (folder / "log.txt").read_text()
    assert f"Cross-fit: {steps} steps of every reference model, after which the two halves agree best" in text
    assert f"(kappa {agreement:.2f}, " in text and results(folder)["config"]["cross_fit"] == "auto"


def test_auto_ends_with_the_predictions_of_a_run_that_is_given_the_number_it_chose(release, finished, tmp_path):
    steps = (finished("auto") / "log.txt").read_text().partition("Cross-fit: ")[2].split()[0]
    assert train(release, tmp_path, "--cross_fit", steps, "--n_epochs", "1") == 0
    assert (tmp_path / "cross_fit.csv").read_bytes() == (finished("auto") / "cross_fit.csv").read_bytes()


# --- a file -----------------------------------------------------------------------------------------------------------


def clusters(release) -> dict[str, list[tuple[int, int]]]:
    """Split -> (label, environment) of its images, as :func:`table` has them."""
    found: dict[str, list[tuple[int, int]]] = {split: [] for split in SIZES}
    for number, row in enumerate(read_metadata(release / "waterbirds_v1.0")):
        found[list(SIZES)[int(row["split"])]].append((int(row["y"]), (number + int(row["y"])) % 3))
    return found


def test_batches_and_triplets_go_by_the_file(release, table, tmp_path):
    flags = ["--pseudo_environments", str(table), *PAIRS, "--groupby_fields", "y", "--n_epochs", "20"]
    loop = prepared(release, tmp_path, *flags, algorithm="CIM")
    drawn = contrasts(loop)
    loop.run()
    cells, rows = clusters(release)["train"], rows_of_epochs(loop)
    for batch, (labels, environments) in zip(rows, drawn, strict=True):
        assert list(zip(labels.tolist(), environments.tolist())) == [cells[row] for row in batch]
    counts = Counter(cells[row] for batch in rows for row in batch)
    assert len(counts) == 6 and all(abs(count - 200) < 5 * (1200 / 6 * 5 / 6) ** 0.5 for count in counts.values())


def test_selection_goes_by_the_file(release, table, tmp_path):
    flags = ["--pseudo_environments", str(table), "--n_epochs", "6", "--save_step", "1"]
    assert train(release, tmp_path, *flags) == 0
    cells, scores = clusters(release)["val"], []
    for epoch in range(6):
        path = tmp_path / f"waterbirds_split:val_seed:0_epoch:{epoch}_pred.csv"
        right = [int(word) == label for word, (label, _) in zip(path.read_text().split(), cells, strict=True)]
        hits, sizes = Counter(cell for cell, hit in zip(cells, right) if hit), Counter(cells)
        scores.append(min(hits[cell] / size for cell, size in sizes.items()))
    chosen = results(tmp_path)["selection"]["worst_pseudo_group"]
    assert (chosen["epoch"], chosen["score"]) == (scores.index(max(scores)), pytest.approx(max(scores)))


def test_the_run_keeps_them_and_show_and_another_run_read_them(release, table, finished, tmp_path, capsys):
    folder = finished("a file")
    kept = read_csv(folder / "pseudo_environments.csv")
    assert [(row["split"], int(row["label"]), int(row["pseudo_environment"])) for row in kept] == [
        (split, label, environment) for split in ("train", "val") for label, environment in clusters(release)[split]
    ]
    assert not (folder / "cross_fit.csv").exists() and results(folder)["agreeing_pseudo_environments"] is None
    capsys.readouterr()
    assert cli.main(["show", str(folder), "--split", "val", "--json", "--images", "0", "1", "2"]) == 0
    cells = clusters(release)["val"]
    for example in json.loads(capsys.readouterr().out)["shown"]:
        if not example["positive"]:
            continue
        own, positive, negative = (
            cells[number] for number in (example["image"], example["positive"]["image"], example["negative"]["image"])
        )
        assert positive[0] == own[0] != negative[0] and positive[1] != own[1] == negative[1]
    assert cli.main(["show", str(finished("CIM+group DRO, a file")), "--json", "--images", "0"]) == 0
    flags = ["--pseudo_environments", str(folder / "pseudo_environments.csv"), *PAIRS]
    assert train(release, tmp_path, *THREE_EPOCHS, *flags, algorithm="CIM") == 0
    assert_same_run(tmp_path, folder)


# --- group DRO --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["group DRO", "CIM+group DRO, a file"])
def test_group_dro_weighs_pseudo_groups(release, table, tmp_path, kind):
    algorithm, flags = kinds(table)[kind]
    loop, weighed = prepared(release, tmp_path, *flags, "--n_epochs", "2", algorithm=algorithm), []

    def record(weights, arguments):
        if weights.training:
            weighed.append((arguments[1].tolist(), weights.weights.clone()))

    loop.training.classifier.group_weights.register_forward_pre_hook(record)
    loop.run()
    if kind == "group DRO":
        cells = [2 * label + (environment != label) for label, environment in read_pseudo(tmp_path)["train"]]
        n_groups = 4
    else:
        cells, n_groups = [3 * label + environment for label, environment in clusters(release)["train"]], 6
    rows = rows_of_epochs(loop)
    assert [groups for groups, _ in weighed] == [[cells[row] for row in batch] for batch in rows]
    held = torch.tensor([float(group in cells) for group in range(n_groups)])
    torch.testing.assert_close(weighed[0][1], held / held.sum())
    assert not torch.equal(weighed[-1][1], weighed[0][1])
    columns = read_csv(tmp_path / "train_algo.csv")[0]
    assert "loss_group:0" not in "".join(columns) or not any(name.startswith("group_weight") for name in columns)


# --- batches as without them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ERM", "groupDRO", "CIM"])
def test_unbalanced_batches_are_those_of_a_run_without_pseudo_environments(release, table, tmp_path, algorithm):
    """To the last bit, and the run is chosen by pseudo-groups as well."""
    flags = ("--pseudo_environments", str(table), "--balance_batches", "false")
    assert train(release, tmp_path / "with", *flags, algorithm=algorithm) == 0
    assert train(release, tmp_path / "without", algorithm=algorithm) == 0
    one, other = (read_model(tmp_path / name) for name in ("with", "without"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    chosen, without = (results(tmp_path / name)["selection"] for name in ("with", "without"))
    assert chosen.pop("worst_pseudo_group")["needs"] == "no group labels" and chosen == without


def test_pairs_go_by_pseudo_environments_of_unbalanced_batches(release, table, tmp_path):
    flags = ("--pseudo_environments", str(table), *PAIRS, "--n_epochs", "1")
    for name, more in (("balanced", ()), ("not", ("--balance_batches", "false"))):
        assert train(release, tmp_path / name, *flags, *more, algorithm="CIM") == 0
    assert train(release, tmp_path / "true groups", *PAIRS, "--n_epochs", "1", algorithm="CIM") == 0
    first = [read_csv(tmp_path / name / "train_algo.csv")[0] for name in ("balanced", "not", "true groups")]
    assert len({row["L_con"] for row in first}) == 3
    assert first[1]["loss_avg"] == first[2]["loss_avg"] != first[0]["loss_avg"]  # of the same images


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--cross_fit 5 --pseudo_environments f.csv", "both bring pseudo-environments; leave one out"),
        ("--groups pseudo --algorithm groupDRO", "does nothing without --cross_fit or --pseudo_environments"),
        ("--groups pseudo --cross_fit 5", "--groups pseudo does nothing with ERM, which weighs no groups"),
        ("--pseudo_environments f.csv --uniform_over_groups", "--uniform_over_groups true by groups; leave one out"),
        ("--pseudo_environments f.csv --algorithm groupDRO", "add --groups pseudo, or leave one out"),
        (
            "--balance_batches false",
            "--balance_batches false does nothing without --cross_fit or --pseudo_environments",
        ),
        ("--balance_batches false --groups pseudo --cross_fit 5 --algorithm groupDRO", "needs --balance_batches true"),
        (
            "--balance_batches false --cross_fit 5 --algorithm JTT",
            "--cross_fit 5 brings pseudo-environments, JTT draws",
        ),
        ("--pseudo_environments f.csv --cross_fit_tiles 2", "--cross_fit_tiles 2 does nothing without --cross_fit"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(configure, flags, message):
    with pytest.raises(InputError) as error:
        configure(*flags.split())
    assert message in str(error.value)


def test_a_wrong_file_ends_before_the_first_step(release, table, tmp_path, capsys):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("".join(table.read_text().splitlines(keepends=True)[:30]))
    assert train(release, tmp_path / "run", "--pseudo_environments", str(wrong)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{wrong}: no line for 31 of the 60 images of train, first row 29, " in line
    assert not (tmp_path / "run").exists()


# --- stopped and resumed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_was_left_alone(release, table, tmp_path, finished, kind):
    algorithm, flags = kinds(table)[kind]
    with ctrl_c_in(tmp_path, 1):
        assert train(release, tmp_path, *THREE_EPOCHS, *flags, algorithm=algorithm) == 130
    assert train(release, tmp_path, *THREE_EPOCHS, *flags, "--resume", algorithm=algorithm) == 0
    assert_same_run(tmp_path, finished(kind))


MOMENTS = {
    "before the state that counts on the pseudo-environments": ("os", "replace", 1, "state.pth"),
    "in the second epoch": ("loop", "_step", 5),
}


def killed(stop) -> None:
    few_looks()
    stop()


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(release, table, tmp_path, finished, kind, moment):
    algorithm, flags = kinds(table)[kind]
    owner, name, call, *path_end = moment
    argv = words(release, tmp_path, *THREE_EPOCHS, *flags, "--resume", algorithm=algorithm)
    stop = functools.partial(stop_at, owner, name, call, signal.SIGKILL, *path_end)
    assert finish(start(argv, functools.partial(killed, stop))) == -signal.SIGKILL
    assert finish(start(argv, few_looks)) == 0
    assert_same_run(tmp_path, finished(kind))


def test_a_run_does_not_go_on_with_another_file(release, table, tmp_path, finished, capsys):
    folder, other = shutil.copytree(finished("a file"), tmp_path / "run"), tmp_path / "clusters.csv"
    lines = table.read_text().splitlines(keepends=True)
    changed = (
        lines[3].replace("cluster 0", "cluster x").replace("cluster 1", "cluster 0").replace("cluster 2", "cluster 0")
    )
    other.write_text("".join([*lines[:3], changed.replace("cluster x", "cluster 1"), *lines[4:]]))
    flags = ["--pseudo_environments", str(other), *PAIRS]
    assert train(release, folder, *THREE_EPOCHS, *flags, "--resume", algorithm="CIM") == 2
    assert "pseudo_environments" in capsys.readouterr().err


def test_a_file_that_has_changed_is_refused(release, table, tmp_path, capsys):
    own = tmp_path / "clusters.csv"
    shutil.copyfile(table, own)
    flags = ["--pseudo_environments", str(own), *PAIRS]
    folder = tmp_path / "run"
    assert train(release, folder, *THREE_EPOCHS, *flags, algorithm="CIM") == 0
    lines = own.read_text().splitlines(keepends=True)
    split, image, word = lines[3].strip().split(",")
    lines[3] = f"{split},{image},cluster {(int(word[-1]) + 1) % 3}\n"
    own.write_text("".join(lines))
    capsys.readouterr()
    assert train(release, folder, *THREE_EPOCHS, *flags, "--resume", algorithm="CIM") == 2
    assert f"--pseudo_environments {own} has other environments than the run in {folder} was begun with" in (
        capsys.readouterr().err
    )
