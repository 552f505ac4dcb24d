"""Model selection of DomainBed's results, compared with the host's own functions, its printed table, and a case worked
by hand.
"""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest
from interpreters import HERE, run_python
from retired import GONE, HARMLESS
from run_folders import domainbed_records, write_domainbed, write_sweep

from cim_plugin import cli
from cim_plugin.compare import tables
from cim_plugin.runs import domainbed, domainbed_selection, find
from cim_plugin.runs.record import Unreadable

METHODS = {
    "training_domain": "IIDAccuracySelectionMethod",
    "leave_one_out": "LeaveOneOutSelectionMethod",
    "oracle": "OracleSelectionMethod",
}


def _reference_cells(domainbed, folder) -> dict[str, dict[str, list]]:
    """rule -> "algorithm environment" -> [mean, standard error, number of trials] in %, by DomainBed's own functions,
    as collect_results calls them.
    """
    code = f"""
import json, numpy as np
from domainbed import model_selection
from domainbed.lib import reporting
groups = reporting.get_grouped_records(reporting.load_records({str(folder)!r}))
cells = {{}}
for rule, name in {METHODS!r}.items():
    method = getattr(model_selection, name)
    done = groups.map(lambda group: {{**group, "sweep_acc": method.sweep_acc(group["records"])}})
    done = done.filter(lambda group: group["sweep_acc"] is not None)
    cells[rule] = {{}}
    for algorithm in sorted(set(group["algorithm"] for group in groups)):
        for env in sorted(set(group["test_env"] for group in groups)):
            data = list(done.filter_equals("algorithm, test_env", (algorithm, env)).select("sweep_acc"))
            if data:
                error = 100 * np.std(data / np.sqrt(len(data)))
                cells[rule][f"{{algorithm}} {{env}}"] = [100 * np.mean(data), error, len(data)]
print(json.dumps(cells))
"""
    done = run_python("-c", code, PYTHONPATH=str(domainbed), CIM_PLUGIN_AUTOLOAD="0")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def cells(folder, environments) -> dict[str, dict[str, list]]:
    (table,) = tables.build(find.find([str(folder)]).runs)
    found = {rule: {} for rule in METHODS}
    for row in table.rows:
        for number in range(environments):
            cell = row.cells.get(table.columns[number])
            if cell is not None:
                found[row.rule][f"{row.family.algorithm} {number}"] = [100 * cell.mean, 100 * cell.spread, cell.n]
    return found


def assert_same(found, expected):
    assert {rule: set(values) for rule, values in found.items()} == {
        rule: set(values) for rule, values in expected.items()
    }
    for rule, values in expected.items():
        for name, value in values.items():
            assert found[rule][name] == pytest.approx(value, rel=1e-12, abs=1e-12), (rule, name)


@pytest.mark.host
@pytest.mark.parametrize("digits", [1, 4], ids=["many ties", "few ties"])
def test_numbers_of_random_sweeps_are_the_hosts(digits, domainbed_files, tmp_path):
    write_sweep(
        tmp_path, np.random.default_rng(digits), n_environments=4, n_trials=3, n_draws=3, n_steps=4, digits=digits
    )
    assert_same(cells(tmp_path, 4), _reference_cells(domainbed_files, tmp_path))


@pytest.mark.host
def test_numbers_of_an_irregular_sweep_are_the_hosts(domainbed_files, tmp_path):
    """Missing runs, missing steps, a run started twice, the same arguments twice with another seed, three environments
    held out.
    """
    rng = np.random.default_rng(7)
    write_sweep(tmp_path, rng, n_environments=4, n_trials=3, n_draws=3)
    for name in ("ERM-0-0-0", "ERM-1-1-0-1", "CIM-2-0-2", "CIM-2-1-2", "CIM-2-2-2"):
        (tmp_path / name / "results.jsonl").unlink()
    for name, kept in (("ERM-2-0-1", 1), ("CIM-0-1-1-2", 2)):
        path = tmp_path / name / "results.jsonl"
        path.write_text("".join(path.read_text().splitlines(True)[:kept]))
    again = tmp_path / "CIM-1-0-0" / "results.jsonl"
    again.write_text(again.read_text() * 2)
    accuracies = rng.uniform(0.3, 0.9, (3, 4, 2)).tolist()
    write_domainbed(
        tmp_path / "twice", domainbed_records([1], accuracies, trial_seed=0, hparams_seed=1, steps=(0, 10, 15), seed=5)
    )
    write_domainbed(tmp_path / "three", domainbed_records([0, 1, 2], rng.uniform(0.3, 0.9, (2, 4, 2)).tolist()))
    assert_same(cells(tmp_path, 4), _reference_cells(domainbed_files, tmp_path))


@pytest.fixture(scope="module")
def host_sweep(domainbed_files):
    """The sweep that the host's repository carries, and the table that its collect_results printed."""
    folder = domainbed_files / "domainbed" / "misc"
    if not (folder / "test_sweep_data").is_dir():
        pytest.skip("this DomainBed carries no test_sweep_data")
    return folder / "test_sweep_data", (folder / "test_sweep_results.txt").read_text()


@pytest.mark.host
def test_the_hosts_own_sweep_gives_its_printed_table_without_the_host(host_sweep):
    sweep, expected = host_sweep
    code = (
        f"import sys; sys.modules['domainbed'] = None; from cim_plugin import cli; sys.exit(cli.main(['compare', "
        f"{str(sweep)!r}]))"
    )
    done = run_python("-c", code, PYTHONPATH=str(HERE.parent), CIM_PLUGIN_AUTOLOAD="0", PYTHONUTF8="1")
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ") for line in done.stdout.splitlines() if line.startswith("ERM")]
    ours = [[word.strip() for word in row if word.strip()][2:7] for row in rows]
    printed = [line for line in expected.splitlines() if line.startswith("ERM")]
    theirs = [line.replace("+/-", "±").split("  ") for line in printed]
    theirs = [[word.strip() for word in row[1:] if word.strip()] for row in theirs]
    per_environment, averages = (
        theirs[::2],
        theirs[1::2],
    )  # the table of the data set, and that of averages over data sets
    assert [row[:4] for row in ours] == [row[:4] for row in per_environment]
    assert [row[4].split(" ")[0] for row in ours] == [row[4] for row in per_environment]
    assert [row[4] for row in ours] == [row[0] for row in averages]


@pytest.mark.host
def test_environments_are_called_as_in_the_host(domainbed_files):
    tree = ast.parse((domainbed_files / "domainbed" / "datasets.py").read_text())
    theirs = {}
    for definition in ast.walk(tree):
        if isinstance(definition, ast.ClassDef):
            values = [
                line.value
                for line in definition.body
                if isinstance(line, ast.Assign) and line.targets[0].id == "ENVIRONMENTS"
            ]
            theirs.update((definition.name, ast.literal_eval(value)) for value in values)
    ours = {
        name: list(environments)
        for name, environments in domainbed_selection.ENVIRONMENTS.items()
        if name != "DebugDigitsOnPhotos"
    }
    assert ours == {name: theirs[name] for name in ours}


def test_environments_of_our_own_data_set():
    from cim_plugin.hosts.domainbed.adapter import DIGITS_ON_PHOTOS

    assert domainbed_selection.ENVIRONMENTS["DebugDigitsOnPhotos"] == tuple(DIGITS_ON_PHOTOS)


def test_selection_worked_by_hand(compare, tmp_path):
    """Environment 0 is held out; two draws, two steps. Training-domain validation averages the out-accuracies of 1 and
    2.
    """
    first = [[(0.10, 0.11), (0, 0.5), (0, 0.7)], [(0.20, 0.99), (0, 0.9), (0, 0.4)]]  # validation .60 and .65
    second = [[(0.30, 0.12), (0, 0.8), (0, 0.6)], [(0.40, 0.13), (0, 0.5), (0, 0.5)]]  # .70 and .50
    pairs = {
        (0, 1): (0.3, 0.9),
        (0, 2): (0.5, 0.9),
        "second": (0.2, 0.3),
    }  # in-accuracy of the other held-out environment per step
    write_domainbed(tmp_path / "a", domainbed_records([0], first, hparams_seed=0))
    write_domainbed(tmp_path / "b", domainbed_records([0], second, hparams_seed=1))
    for draw in (0, 1):
        for held_out in ((0, 1), (0, 2)):
            values = pairs[held_out] if draw == 0 else pairs["second"]
            accuracies = [[(0.0, 0.0), (value, 0.0), (value, 0.0)] for value in values]
            write_domainbed(tmp_path / f"{held_out}{draw}", domainbed_records(held_out, accuracies, hparams_seed=draw))
    (table,) = compare(tmp_path)
    assert {row.rule: row.cells["env 0"].mean for row in table.rows} == {
        "training_domain": 0.30,  # second draw, first step: .70
        "leave_one_out": 0.20,  # first draw, second step: (.9 + .9) / 2
        "oracle": 0.20,  # last steps only: out-accuracy .99 against .13
    }
    (picked,) = table.rows[0].selected[0].picks
    assert picked[0].folder.endswith("b") and picked[1] == 0


def test_a_killed_run_is_left_out_and_its_half_line_does_not_hurt(compare, tmp_path):
    full = domainbed_records([0], [[(0.5, 0.5)] * 2] * 2)
    write_domainbed(tmp_path / "finished", full)
    killed = write_domainbed(
        tmp_path / "killed", domainbed_records([0], [[(0.9, 0.9)] * 2] * 2, trial_seed=1), done=False
    )
    with open(killed / "results.jsonl", "a") as file:
        file.write('{"args": {"algor')
    (table,) = compare(tmp_path, ["oracle"])
    (row,) = table.rows
    assert row.cells["env 0"].mean == 0.5 and len(row.selected) == 1
    assert any("1 incomplete left out" in mark and "killed (step 10 of 10)" in mark for mark in row.marks)


def test_a_finished_file_that_is_cut_is_an_error_with_its_line(tmp_path):
    folder = write_domainbed(tmp_path / "run", domainbed_records([0], [[(0.5, 0.5)] * 2] * 2))
    path = folder / "results.jsonl"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(Unreadable, match=r"results.jsonl, line 2: not JSON"):
        domainbed.read(str(folder))


def test_runs_that_shared_a_folder_are_told_apart(compare, tmp_path):
    records = domainbed_records([0], [[(0.4, 0.4)] * 2] * 2) + domainbed_records(
        [0], [[(0.6, 0.6)] * 2] * 2, algorithm="CIM"
    )
    write_domainbed(tmp_path / "train_output", records)
    (table,) = compare(tmp_path, ["oracle"])
    assert [(row.family.algorithm, row.cells["env 0"].mean) for row in table.rows] == [("ERM", 0.4), ("CIM", 0.6)]
    assert any("holds 2 runs with different arguments" in warning for warning in table.warnings)


def test_what_a_reader_must_know_is_marked(compare, tmp_path):
    same = [[(0.5, 0.5)] * 2] * 2
    write_domainbed(tmp_path / "a", domainbed_records([0], same))
    write_domainbed(tmp_path / "b", domainbed_records([0], same, seed=1))
    write_domainbed(tmp_path / "c", domainbed_records([1], same, holdout_fraction=0.5))
    write_domainbed(tmp_path / "d", domainbed_records([0], same, trial_seed=1) * 2)
    (table,) = compare(tmp_path, ["oracle"])
    told = "\n".join(table.rows[0].marks)
    assert "is there twice, pooled as in collect_results" in told
    assert "mixed configurations: runs differ in holdout_fraction (0.2, 0.5)" in told
    assert "was started 2 times" in told
    assert "selected on TEST data" in told
    assert table.synthetic and "SYNTHETIC" in table.title and "SYNTHETIC" in table.warnings[0]


@pytest.mark.parametrize("key", ["loss", "penalty"])
def test_a_run_whose_loss_became_nan_has_no_finished_number(compare, tmp_path, key):
    same = [[(0.5, 0.5)] * 2] * 2
    write_domainbed(tmp_path / "a", domainbed_records([0], same))
    first, *others = domainbed_records([0], [[(0.9, 0.9)] * 2] * 2, trial_seed=1)
    write_domainbed(tmp_path / "b", [first, *({**record, key: float("nan")} for record in others)])
    (table,) = compare(tmp_path, ["oracle"])
    assert table.rows[0].cells["env 0"].mean == 0.5
    told = "\n".join([*table.rows[0].marks, *table.warnings])
    assert f"{tmp_path / 'b'} (the loss is not finite at step {others[0]['step']})" in told


def test_controls_are_rows_of_their_own_and_draws_are_not(compare, tmp_path):
    same = [[(0.5, 0.5)] * 2] * 2
    for name, settings in (("a", None), ("b", '{"cim_lambda": 0}'), ("c", '{"cim_lambda": 0, "lr": 0.1}')):
        write_domainbed(
            tmp_path / name, domainbed_records([0], same, algorithm="CIM", hparams=settings, trial_seed=ord(name))
        )
    drawn = [
        {**record, "hparams": {"cim_lambda": 0.3}}
        for record in domainbed_records([0], same, algorithm="CIM", hparams_seed=1, trial_seed=ord("a"))
    ]
    write_domainbed(tmp_path / "d", drawn)
    (table,) = compare(tmp_path, ["oracle"])
    assert [(row.family.label, len(row.family.runs)) for row in table.rows] == [
        ("CIM", 2),
        ("CIM, cim_lambda=0 (control)", 2),
    ]
    assert any("hparams.lr (null, 0.1)" in mark for mark in table.rows[1].marks)
    assert any("Uneven search" in note and "CIM 2" in note for note in table.notes)


@pytest.mark.parametrize("name", GONE)
def test_what_an_old_run_was_given_and_is_no_more_is_in_its_label(name, compare, tmp_path):
    same = [[(0.5, 0.5)] * 2] * 2
    value = GONE[name][0]
    for folder, settings in (("now", {}), ("then", HARMLESS), ("gone", {**HARMLESS, name: value})):
        records = domainbed_records([0], same, algorithm="CIM", hparams=json.dumps(settings), trial_seed=len(folder))
        write_domainbed(tmp_path / folder, records)
    (table,) = compare(tmp_path, ["oracle"])
    shown = value if isinstance(value, str) else json.dumps(value)
    assert {row.family.label: len(row.family.runs) for row in table.rows} == {"CIM": 2, f"CIM, {name}={shown}": 1}


def test_compositions_have_settings_and_controls(compare, tmp_path):
    same = [[(0.5, 0.5)] * 2] * 2
    off = '{"cim_lambda": 0}'
    for name, algorithm, settings in (("a", "CIM+CORAL", None), ("b", "CIM+CORAL", off), ("c", "CORAL", off)):
        write_domainbed(tmp_path / name, domainbed_records([0], same, algorithm=algorithm, hparams=settings))
    (table,) = compare(tmp_path, ["oracle"])
    assert [row.family.label for row in table.rows] == ["CIM+CORAL", "CIM+CORAL, cim_lambda=0 (control)", "CORAL"]


def test_a_difference_to_erm_across_configurations_is_marked(compare, tmp_path):
    """The host's tables pool all configurations, so that any ERM is what a row is compared with."""

    def write(name, algorithm, trial=0, **more):
        for target in (0, 1):
            records = domainbed_records(
                [target], [[(0.5, 0.5)] * 2], algorithm=algorithm, trial_seed=trial, steps=(0,), **more
            )
            write_domainbed(tmp_path / f"{name}-{target}", records)

    write("erm", "ERM", hparams='{"lr": 0.1}')
    write("other", "CIM", hparams='{"lr": 0.1, "cim_lambda": 1.0}', holdout_fraction=0.5)
    write("alike", "VIB", hparams='{"lr": 0.1, "vib_beta": 0.5}')
    write("mixed", "CORAL", hparams='{"lr": 0.1}')
    write("mixed1", "CORAL", 1, hparams='{"lr": 0.2}')
    write("mixed2", "IRM", hparams='{"lr": 0.2}')
    write("mixed3", "IRM", 1, hparams='{"lr": 0.3}')
    (table,) = compare(tmp_path, ["training_domain"])
    across = {
        row.family.algorithm: [mark for mark in row.marks if "across configurations" in mark] for row in table.rows
    }
    assert across == {
        "ERM": [],
        "CIM": ["its difference to ERM is across configurations: holdout_fraction (0.5, 0.2)"],
        "VIB": [],
        "CORAL": [],
        "IRM": ["its difference to ERM is across configurations: hparams.lr (0.2, 0.3, 0.1)"],
    }
    (note,) = [note for note in table.notes if note.startswith("Δ")]
    assert note.endswith("paired by trial; a row that differs from its ERM in configuration says so.")


def test_difference_to_erm_is_paired_by_trial(compare, tmp_path):
    for algorithm, values in (("ERM", (0.5, 0.6)), ("CIM", (0.7, 0.65))):
        for trial, value in enumerate(values):
            for target in (0, 1):
                accuracies = [[(value, 0.5)] * 2]
                write_domainbed(
                    tmp_path / f"{algorithm}{trial}{target}",
                    domainbed_records([target], accuracies, algorithm=algorithm, trial_seed=trial),
                )
    (table,) = compare(tmp_path, ["training_domain"])
    gain = table.rows[1].gains["average"]
    assert (
        gain.mean == pytest.approx((0.2 + 0.05) / 2) and gain.spread == pytest.approx(0.075) and gain.n == 2
    )  # half the difference of two


def test_step_time_and_memory(tmp_path):
    records = domainbed_records([0], [[(0.5, 0.5)] * 2] * 3, steps=(0, 10, 20))
    for record, seconds, memory in zip(records, (2.0, 0.1, 0.3), (1.0, 1.5, 1.5)):
        record |= {"step_time": seconds, "mem_gb": memory}
    (run,) = domainbed.read(str(write_domainbed(tmp_path / "run", records)))
    assert run.step_seconds == pytest.approx((1 * 2.0 + 10 * 0.1 + 10 * 0.3) / 21)
    assert run.memory == {"GPU": 1.5 * 2**30}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["args"].pop("dataset"), "line 1: field 'dataset' is missing"),
        (lambda record: record["args"].update(trial_seed="0"), "line 1: field 'trial_seed' is '0', not a whole number"),
        (lambda record: record.pop("env0_in_acc"), "line 1: field 'env0_in_acc' is missing"),
        (lambda record: record.pop("env1_out_acc"), "line 1: field 'env1_out_acc' is missing"),
        (
            lambda record: record.update(env1_in_acc=float("nan")),
            "line 1: field 'env1_in_acc' is 'nan', not a finite number",
        ),
        (
            lambda record: record.update(env1_in_acc=98.5),
            "line 1: field 'env1_in_acc' is 98.5, not an accuracy between 0 and 1",
        ),
        (lambda record: record["args"].update(test_envs=[0, 1]), "field 'args.test_envs' is [0, 1]; some, not all"),
        (lambda record: record["args"].update(test_envs=[7]), "environments 0 to 1 are expected"),
        (lambda record: record["args"].update(hparams="{"), "args.hparams, line 1: not JSON"),
        (lambda record: record.update(args=3), "line 1: field 'args' is '3', not an object"),
        (lambda record: record.update(step=-1), "line 1: field 'step' is -1"),
    ],
)
def test_damaged_records_are_named_with_file_and_line(change, message, tmp_path, capsys):
    (record,) = domainbed_records([0], [[(0.5, 0.5)] * 2])
    change(record)
    folder = write_domainbed(tmp_path / "run", [record])
    assert cli.main(["compare", str(folder)]) == 2
    told = capsys.readouterr().err
    assert f"{folder}/results.jsonl" in told and message in told and told.count("\n") == 1
