"""Reading the folders of 'cim-plugin train': real ones against their predictions, made ones against what is written in
them.
"""

from __future__ import annotations

import csv
import json

import pytest
from run_folders import wilds_record, write_wilds

from cim_plugin import cli
from cim_plugin.runs import train
from cim_plugin.runs.record import Unreadable


def _reference_accuracies(root, algorithm, rule) -> tuple[float, float]:
    """Average and worst-group accuracy on the test split, from the predicted labels and the release's table."""
    with open(root / "data" / "waterbirds_v1.0" / "metadata.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "2"]
    predicted = (
        (root / "runs" / algorithm / "selection" / rule / "waterbirds_split:test_seed:0_epoch:best_pred.csv")
        .read_text()
        .split()
    )
    groups: dict[tuple, list[bool]] = {}
    for row, label in zip(rows, predicted, strict=True):
        groups.setdefault((row["y"], row["place"]), []).append(row["y"] == label)
    correct = [hit for hits in groups.values() for hit in hits]
    return sum(correct) / len(correct), min(sum(hits) / len(hits) for hits in groups.values())


def test_numbers_of_real_runs_are_those_of_their_predictions(trained_runs, compare):
    (table,) = compare(trained_runs / "runs")
    assert table.synthetic and table.columns == ["average", "worst group", "adjusted average"]
    assert [(row.rule, row.family.label) for row in table.rows] == [
        (rule, label) for rule in ("worst_group", "average") for label in ("ERM", "CIM, cim_lambda=0 (control)")
    ]
    for row in table.rows:
        average, worst = _reference_accuracies(trained_runs, row.family.algorithm, row.rule)
        assert row.cells["average"].mean == pytest.approx(average, abs=1e-12)
        assert row.cells["worst group"].mean == pytest.approx(worst, abs=1e-6)  # the evaluator works in float32
        assert row.cells["average"].spread is None and row.cells["average"].n == 1
    erm, control = table.rows[:2]
    assert control.gains["average"].mean == pytest.approx(control.cells["average"].mean - erm.cells["average"].mean)
    assert all(run.step_seconds > 0 and run.memory["host"] > 1e7 for row in table.rows for run in row.finished)


def test_curve_of_a_real_run_peaks_where_the_rule_chose(trained_runs):
    (run,) = train.read(str(trained_runs / "runs" / "ERM"))
    curve = train.curve(run)
    chosen = json.loads((trained_runs / "runs" / "ERM" / "results.json").read_text())["selection"]["worst_group"]
    assert curve.x == [0, 1] and curve.y[chosen["epoch"]] == max(curve.y) == pytest.approx(chosen["score"])


def test_names_are_those_of_the_training_command():
    from cim_plugin.wilds_runner import checkpoint, evaluation, selection

    assert set(train.RULES) == {"best", *selection.RULES}
    assert train.WORST_GROUP == evaluation.WORST_GROUP
    assert train.STATE == checkpoint.STATE


def test_fields_are_read(tmp_path):
    folder = write_wilds(
        tmp_path / "run", "CIM", 3, hyperparameters={"cim_lambda": 0.5, "cim_mask": "shared"}, synthetic=True
    )
    (run,) = train.read(str(folder))
    assert (run.dataset, run.algorithm, run.seed, run.synthetic, run.unfinished) == ("waterbirds", "CIM", 3, True, None)
    assert run.settings == {"cim_lambda": 0.5}
    assert run.flags["lr"] == 0.001 and not run.flags.keys() & {"seed", "log_every", "uniform_over_groups"}
    assert run.step_seconds == 0.1 and run.memory == {"host": 2**30}
    assert run.measured["worst_group"]["values"] == {
        "average": pytest.approx(0.65),
        "worst group": 0.4,
        "adjusted average": 0.9,
    }


def test_memory_of_a_gpu_run_is_the_gpus(tmp_path):
    (run,) = train.read(str(write_wilds(tmp_path / "run", peak_memory_bytes={"resident": 5, "gpu": 7})))
    assert run.memory == {"GPU": 7}


def test_metric_of_a_data_set_without_groups(compare, tmp_path):
    record = wilds_record(config={"val_metric": "F1-macro_all"})
    for chosen in record["selection"].values():
        test = chosen["splits"]["test"]
        test["metrics"] = {"acc_avg": 0.65, "F1-macro_all": 0.25}
    folder = write_wilds(tmp_path / "run")
    (folder / "results.json").write_text(json.dumps(record))
    (table,) = compare(tmp_path, ["average"])
    assert table.columns == ["average", "F1-macro_all"] and table.rows[0].cells["F1-macro_all"].mean == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("dataset"), "field 'dataset' is missing"),
        (lambda r: r.update(dataset=5), "field 'dataset' is '5', not a text"),
        (lambda r: r.update(seed=True), "field 'seed' is 'True', not a whole number"),
        (lambda r: r.update(selection=[]), "field 'selection' is 'list', not an object"),
        (lambda r: r["config"].pop("hyperparameters"), "field 'hyperparameters' is missing"),
        (lambda r: r["selection"]["average"].pop("epoch"), "selection.average: field 'epoch' is missing"),
        (
            lambda r: r["selection"]["average"]["splits"]["test"].update(accuracy=float("nan")),
            "'test.accuracy' is 'nan', not a finite number",
        ),
        (
            lambda r: r["selection"]["average"]["splits"]["test"]["metrics"].update(acc_wg=1.5),
            "metric 'acc_wg' is 1.5, not an accuracy",
        ),
        (
            lambda r: r["selection"]["average"]["splits"]["test"].update(groups=7),
            "field 'test.groups' is '7', not an object",
        ),
        (lambda r: r.update(steps=10**400), "field 'steps'"),
        (lambda r: r["seconds"].update(train="long"), "field 'seconds.train' is 'long', not a finite number"),
        (lambda r: r.update(versions=None), "field 'versions' is 'None', not an object"),
    ],
)
def test_damaged_results_are_named(change, message, tmp_path, capsys):
    record = wilds_record()
    change(record)
    folder = write_wilds(tmp_path / "run")
    (folder / "results.json").write_text(json.dumps(record))
    assert cli.main(["compare", str(folder)]) == 2
    told = capsys.readouterr().err
    assert f"{folder}/results.json" in told and message in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "epoch,acc_wg\n0,0.5\n1", "epoch,acc_wg\n0,nan\n", "epoch,acc_wg\nx,0.1\n"]
)
def test_damaged_curves_are_errors(text, tmp_path):
    folder = write_wilds(tmp_path / "run")
    (folder / "val_eval.csv").write_text(text)
    (run,) = train.read(str(folder))
    with pytest.raises(Unreadable, match=r"val_eval.csv, line \d"):
        train.curve(run)
