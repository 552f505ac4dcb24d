"""Model selection of SubpopBench's results, compared with the host's own functions and with a case worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from interpreters import run_python
from subpopbench_folders import split, write_run

from cim_plugin import cli
from cim_plugin.compare import tables
from cim_plugin.errors import InputError
from cim_plugin.runs import find

METHODS = {
    "worst_group": "ValWorstAccAttributeYes",
    "worst_class": "ValWorstAccAttributeNo",
    "oracle": "OracleWorstAcc",
}
SWEEPS = {"average": "sweep_acc", "worst group": "sweep_acc_worst", "mean of groups": "sweep_acc_adjusted"}


def cells(folder) -> dict[str, dict[str, dict[str, list]]]:
    """rule -> algorithm -> column -> [mean, standard error, number of seeds] in %."""
    (table,) = tables.build(find.find([str(folder)]).runs, tuple(METHODS))
    found: dict = {rule: {} for rule in METHODS}
    for row in table.rows:
        found[row.rule][row.family.algorithm] = {
            name: [100 * cell.mean, 100 * cell.spread, cell.n] for name, cell in row.cells.items()
        }
    return found


def _reference_cells(host, folder) -> dict:
    """The same by SubpopBench's own functions, as its collect_results calls them."""
    code = f"""
import json, numpy as np
from subpopbench.learning import model_selection
from subpopbench.utils import reporting
groups = reporting.get_grouped_records(reporting.load_records({str(folder)!r}))
cells = {{}}
for rule, name in {METHODS!r}.items():
    method, cells[rule] = getattr(model_selection, name), {{}}
    for algorithm in sorted(set(group["algorithm"] for group in groups)):
        cells[rule][algorithm] = {{}}
        for column, sweep in {SWEEPS!r}.items():
            data = [getattr(method, sweep)(group["records"]) for group in groups if group["algorithm"] == algorithm]
            cells[rule][algorithm][column] = [100 * np.mean(data), 100 * np.std(data / np.sqrt(len(data))), len(data)]
print(json.dumps(cells))
"""
    done = run_python("-c", code, PYTHONPATH=str(host), CIM_PLUGIN_AUTOLOAD="0")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_numbers_are_those_of_the_hosts_own_collection(subpopbench, tmp_path):
    """Accuracies of few values, so that there are many equal ones."""
    rng = np.random.default_rng(0)

    def some_split():
        groups = rng.integers(0, 4, 4) / 4
        return split(tuple(groups.tolist()), float(groups.mean()))

    for algorithm in ("ERM", "CIM"):
        for seed in range(3):
            for draw in range(3):
                write_run(
                    tmp_path,
                    [(some_split(), some_split()) for _ in range(4)],
                    algorithm=algorithm,
                    seed=seed,
                    hparams_seed=draw,
                )
    reference, found = _reference_cells(subpopbench, tmp_path), cells(tmp_path)
    for rule in METHODS:
        for algorithm in ("ERM", "CIM"):
            for column in SWEEPS:
                assert found[rule][algorithm][column] == pytest.approx(reference[rule][algorithm][column], abs=1e-9)


def test_rules_by_hand(tmp_path):
    """Validation's worst group is best at the first step, its worst class at the second, test's worst group last."""
    write_run(
        tmp_path,
        [
            (split((0.5, 0.5, 0.5, 0.5), 0.5), split((0.1, 0.2, 0.3, 0.4), 0.25)),
            (split((1.0, 0.4, 1.0, 0.4), 0.7), split((0.2, 0.3, 0.4, 0.5), 0.35)),
            (split((0.0, 0.0, 0.0, 0.0), 0.0), split((0.6, 0.7, 0.8, 0.9), 0.75)),
        ],
    )
    found = {rule: of_rule["ERM"] for rule, of_rule in cells(tmp_path).items()}
    assert {rule: values["worst group"][0] for rule, values in found.items()} == pytest.approx(
        {"worst_group": 10, "worst_class": 20, "oracle": 60}
    )
    assert found["worst_group"]["mean of groups"] == pytest.approx([25, 0, 1])


def test_known_and_unknown_attributes_are_rows_of_their_own(tmp_path, capsys):
    for attributes in ("yes", "no"):
        for algorithm in ("ERM", "CIM"):
            for seed in range(2):
                groups = split((0.5, 0.5, 0.5, 0.5 + seed / 10), 0.5)
                folder = tmp_path / attributes
                write_run(folder, [(groups, groups)], algorithm=algorithm, seed=seed, train_attr=attributes)
    assert cli.main(["compare", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "SubpopBench" in out and "train_attr=no" in out and "train_attr=yes" in out


def test_a_killed_run_is_left_out_and_its_half_line_is_not_read(tmp_path):
    whole = split((0.5, 0.5, 0.5, 0.5), 0.5)
    write_run(tmp_path, [(whole, whole)])
    killed = write_run(tmp_path, [(whole, whole), (whole, whole)], algorithm="CIM", done=False)
    text = (killed / "results.json").read_text()
    (killed / "results.json").write_text(text[:-200])
    runs = {run.algorithm: run for run in find.find([str(tmp_path)]).runs}
    assert runs["ERM"].unfinished is None and runs["CIM"].unfinished == "step 0"


def test_a_run_without_an_evaluation_is_said_in_one_line(tmp_path):
    place = write_run(tmp_path, [], done=False)
    (place / "results.json").unlink()
    with pytest.raises(InputError, match="stopped before its first evaluation"):
        find.find([str(tmp_path)])


@pytest.mark.parametrize("field, said", [("te", "'te' is missing"), ("va", "'va' is missing")])
def test_what_is_missing_is_named(tmp_path, field, said):
    whole = split((0.5, 0.5, 0.5, 0.5), 0.5)
    place = write_run(tmp_path, [(whole, whole)])
    record = json.loads((place / "results.json").read_text())
    del record[field]
    (place / "results.json").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=said):
        find.find([str(tmp_path)])
