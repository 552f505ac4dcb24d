"""What is averaged with what, and what is said about it."""

from __future__ import annotations

import json
import math
import statistics

import pytest
from retired import GONE, HARMLESS
from run_folders import GROUP_DRO, wilds_record, write_wilds

from cim_plugin.compare import averages
from cim_plugin.runs.record import Selected

ERM = {0: (0.9, 0.5, 0.4, 0.8), 1: (0.9, 0.6, 0.45, 0.8), 2: (0.8, 0.5, 0.35, 0.9)}
CIM = {0: (0.9, 0.6, 0.60, 0.8), 1: (0.9, 0.6, 0.50, 0.8), 2: (0.8, 0.6, 0.55, 0.9)}


def write_rows(folder, **rows):
    """name -> (algorithm, seed -> group accuracies, settings of wilds_record)."""
    for name, (algorithm, of_seeds, settings) in rows.items():
        for seed, groups in of_seeds.items():
            write_wilds(folder / f"{name}-{seed}", algorithm, seed, groups, **settings)


def labels(table, rule="worst_group") -> list[str]:
    return [row.family.label for row in table.rows if row.rule == rule]


def test_mean_and_standard_deviation_over_seeds(compare, tmp_path):
    write_rows(tmp_path, erm=("ERM", ERM, {}))
    (table,) = compare(tmp_path, ["worst_group"])
    (row,) = table.rows
    for name, values in (
        ("worst group", [min(groups) for groups in ERM.values()]),
        ("average", [statistics.mean(groups) for groups in ERM.values()]),
    ):
        assert row.cells[name].mean == pytest.approx(statistics.mean(values)) and row.cells[
            name
        ].spread == pytest.approx(statistics.stdev(values))
        assert row.cells[name].n == 3


def test_difference_to_erm_is_paired_by_seed(compare, tmp_path):
    write_rows(tmp_path, erm=("ERM", ERM, {}), cim=("CIM", {**CIM, 3: (0.1, 0.1, 0.1, 0.1)}, {}))
    (table,) = compare(tmp_path, ["worst_group"])
    erm, cim = table.rows
    differences = [min(CIM[seed]) - min(ERM[seed]) for seed in ERM]
    assert cim.gains["worst group"].mean == pytest.approx(statistics.mean(differences))
    assert cim.gains["worst group"].spread == pytest.approx(statistics.stdev(differences) / math.sqrt(3))
    assert not erm.gains and cim.gains["worst group"].n == 3
    assert "its difference to ERM is over 3 of 4 seeds" in cim.marks
    assert "no result of seed 3" in erm.marks


def test_one_seed_has_no_spread(compare, tmp_path):
    write_rows(tmp_path, erm=("ERM", {0: ERM[0]}, {}), cim=("CIM", {0: CIM[0]}, {}))
    (table,) = compare(tmp_path, ["worst_group"])
    assert table.rows[1].cells["worst group"].spread is None and table.rows[1].gains["worst group"].spread is None


def test_rules_choose_their_own_epochs(compare, tmp_path):
    write_rows(tmp_path, erm=("ERM", {0: ERM[0]}, {"average_rule": (0.9, 0.9, 0.1, 0.9)}))
    (table,) = compare(tmp_path)
    assert {row.rule: row.cells["worst group"].mean for row in table.rows} == {"worst_group": 0.4, "average": 0.1}


def test_controls_follow_their_algorithm_and_are_named(compare, tmp_path):
    write_rows(
        tmp_path,
        control=("CIM", CIM, {"hyperparameters": {"cim_lambda": 0.0}}),
        other=("CIM", CIM, {"hyperparameters": {"cim_lambda": 0.5, "cim_mask": "per_channel"}}),
        usual=("CIM", CIM, {"hyperparameters": {"cim_lambda": 1.0}}),
        erm=("ERM", ERM, {}),
        dro=("groupDRO", ERM, {}),
        foreign=("SomethingElse", ERM, {}),
    )
    (table,) = compare(tmp_path)
    assert labels(table) == [
        "ERM",
        "groupDRO",
        "CIM",
        "CIM, cim_lambda=0 (control)",
        "CIM, cim_lambda=0.5, cim_mask=per_channel",
        "SomethingElse",
    ]
    assert [row.family.control for row in table.rows[:6]] == [False, False, False, True, False, False]
    assert all(row.gains for row in table.rows[1:6])


def test_different_configurations_are_different_rows(compare, tmp_path):
    write_rows(
        tmp_path,
        erm=("ERM", {0: ERM[0]}, {}),
        slow=("ERM", {0: ERM[1]}, {"config": {"lr": 0.1, "log_every": 7, "log_dir": "elsewhere"}}),
        cim=("CIM", {0: CIM[0]}, {"config": {"lr": 0.1}}),
        odd=("VIB", {0: CIM[0]}, {"config": {"lr": 0.1, "n_epochs": 9}}),
        near=("VIB", {0: CIM[0]}, {"config": {"lr": 0.1000000001, "n_epochs": 9}}),
    )
    (table,) = compare(tmp_path, ["worst_group"])
    assert labels(table) == [
        "ERM, lr=0.001, n_epochs=3",
        "ERM, lr=0.1, n_epochs=3",
        "CIM, lr=0.1, n_epochs=3",
        "VIB, lr=0.1, n_epochs=9",
        "VIB, lr=0.1000000001, n_epochs=9",
    ]
    assert [row.family.name for row in table.rows] == [
        "ERM, lr=0.001",
        "ERM, lr=0.1",
        "CIM",
        "VIB, lr=0.1",
        "VIB, lr=0.1000000001",
    ]
    assert table.in_full == [
        f"{row.family.name}: {row.family.label}" for row in table.rows if row.family.name != row.family.label
    ]
    assert len(table.in_full) == 5
    assert "ERM, lr=0.1 has the flags of, and is compared with: CIM." in table.notes
    assert "Compared with no ERM, as none has their flags: VIB, lr=0.1; VIB, lr=0.1000000001." in table.notes
    assert table.rows[2].gains["worst group"].mean == pytest.approx(
        min(CIM[0]) - min(ERM[1])
    )  # not with the other learning rate
    assert not table.rows[3].gains
    assert any("Mixed configurations are kept apart" in note and "lr, n_epochs" in note for note in table.notes)


def test_a_flag_that_is_off_is_not_named(compare, tmp_path):
    write_rows(tmp_path, erm=("ERM", ERM, {}), balanced=("ERM", CIM, {"config": {"cross_fit": 300}}))
    (table,) = compare(tmp_path, ["worst_group"])
    assert sorted(row.family.name for row in table.rows) == ["ERM", "ERM, cross_fit=300"]


def test_what_an_algorithm_implies_is_no_other_configuration(compare, tmp_path):
    write_rows(tmp_path, erm=("ERM", ERM, {}), dro=("groupDRO", CIM, {}), even=("ERM", ERM, {"config": GROUP_DRO}))
    (table,) = compare(tmp_path, ["worst_group"])
    assert labels(table) == ["ERM", "ERM, distinct_groups=true, uniform_over_groups=true", "groupDRO"]
    assert table.rows[2].gains["worst group"].n == 3


def test_a_flag_that_is_younger_than_a_run_has_its_default(compare, tmp_path):
    older = wilds_record("CIM", 0)
    newer = wilds_record("CIM", 1, config={"precision": "32"})
    assert "precision" not in older["config"]
    for name, record in (("older", older), ("newer", newer)):
        (write_wilds(tmp_path / name) / "results.json").write_text(json.dumps(record))
    (table,) = compare(tmp_path, ["worst_group"])
    assert labels(table) == ["CIM"] and len(table.rows[0].selected) == 2


def test_incomplete_runs_are_marked_and_not_averaged(compare, tmp_path):
    write_rows(
        tmp_path,
        erm=("ERM", {0: ERM[0]}, {}),
        stopped=("ERM", {1: ERM[1]}, {"status": "running", "epochs": 2}),
        never=("VIB", {0: ERM[1]}, {"status": "running"}),
    )
    (table,) = compare(tmp_path, ["worst_group"])
    assert table.rows[0].cells["worst group"] == averages.Cell(0.4, None, 1)
    assert any("1 incomplete left out" in mark and "stopped-1 (epoch 2 of 3)" in mark for mark in table.rows[0].marks)
    assert labels(table) == ["ERM", "VIB"] and not table.rows[1].cells and "no result of seed 0" in table.rows[1].marks


def test_failed_seeds_are_marked(compare, tmp_path):
    write_rows(tmp_path, erm=("ERM", ERM, {}))
    record = wilds_record("ERM", 3)
    record["selection"] = {rule: chosen for rule, chosen in record["selection"].items() if rule in ("last", "oracle")}
    (write_wilds(tmp_path / "nan") / "results.json").write_text(json.dumps(record))
    (table,) = compare(tmp_path, ["worst_group"])
    (row,) = table.rows
    assert row.cells["average"].n == 3 and any(
        "seed 3 failed: worst_group chose no epoch" in mark and "nan" in mark for mark in row.marks
    )


def test_duplicate_seeds_are_marked_and_count_once(compare, tmp_path):
    write_rows(tmp_path, a=("ERM", {0: ERM[0]}, {}), b=("ERM", {0: ERM[0]}, {}), c=("ERM", {0: ERM[1]}, {}))
    (table,) = compare(tmp_path, ["worst_group"])
    (row,) = table.rows
    assert row.cells["worst group"] == averages.Cell(0.4, None, 1)
    assert [mark.split("(")[1] for mark in row.marks if "is there twice" in mark] == [
        "the same numbers)",
        "other numbers)",
    ]


def test_test_data_and_parts_and_versions_are_marked(compare, tmp_path):
    write_rows(
        tmp_path,
        erm=("ERM", {0: ERM[0]}, {"config": {"frac": 0.5}}),
        cim=("CIM", {0: CIM[0]}, {"config": {"frac": 0.5}}),
        new=("CIM", {1: CIM[0]}, {"config": {"frac": 0.5}, "versions": {"torch": "2.9"}, "device": "other"}),
    )
    (table,) = compare(tmp_path, ["average", "oracle"])
    assert "--frac 0.5: a part of every split only" in table.warnings  # said once: it holds for all rows
    oracle = [row for row in table.rows if row.rule == "oracle"]
    assert all("selected on TEST data: not a result that may be reported" in row.marks for row in oracle)
    (mixed,) = [mark for mark in oracle[1].marks if "mixed" in mark]
    assert "device (a device, other)" in mixed and "version of torch (2.5, 2.9)" in mixed


def test_a_difference_across_circumstances_is_marked(compare, tmp_path):
    """Said of the row that is compared, and not where its own mark has said it already."""
    other = {
        "device": "other",
        "versions": {"python": "3.11", "torch": "2.9", "cim_plugin": "0.2, commit 1234567 and more"},
    }
    write_rows(
        tmp_path,
        erm=("ERM", {0: ERM[0], 1: ERM[1]}, {}),
        cim=("CIM", {0: CIM[0], 1: CIM[1]}, other),
        vib=("VIB", {0: CIM[0]}, {}),
        scl=("SCL_E2E", {0: CIM[0]}, {}),
        also=("SCL_E2E", {1: CIM[0]}, other),
    )
    (table,) = compare(tmp_path, ["worst_group"])
    across = {
        row.family.algorithm: [mark for mark in row.marks if "across configurations" in mark] for row in table.rows
    }
    said = (
        "its difference to ERM is across configurations: device (other, a device), version of cim_plugin (0.2, commit "
        "1234567 , null), version of torch (2.9, 2.5)"
    )
    assert across == {"ERM": [], "CIM": [said], "VIB": [], "SCL_E2E": []}
    assert any(
        "mixed configurations" in mark for row in table.rows for mark in row.marks if row.family.algorithm == "SCL_E2E"
    )
    assert any(
        "paired by seed at the same flags; a row that differs from its ERM in device or versions says so" in note
        for note in table.notes
    )


def test_no_control_where_the_mask_is_trained_all_the_same(compare, tmp_path):
    for name, settings in {
        "composites": {"cim_composites": True},
        "sparsity": {"cim_sparsity": 0.5},
        "mask": {"cim_mask": "per_channel"},
    }.items():
        write_wilds(tmp_path / name, "CIM", 0, hyperparameters={"cim_lambda": 0.0, **settings})
    write_wilds(tmp_path / "code", "CIM_VIB", 0, hyperparameters={"vib_beta": 0.0, "cim_composites": True})
    (table,) = compare(tmp_path, ["worst_group"])
    assert sorted(labels(table)) == [
        "CIM, cim_lambda=0, cim_composites=true",
        "CIM, cim_lambda=0, cim_mask=per_channel (control)",
        "CIM, cim_lambda=0, cim_sparsity=0.5",
        "CIM_VIB, vib_beta=0, cim_composites=true (control)",
    ]


@pytest.mark.parametrize("name", GONE)
def test_what_an_old_run_had_and_is_no_more_is_in_its_label(name, compare, tmp_path):
    """Beside runs of then that had what did nothing, which are one row with those of today."""
    write_wilds(tmp_path / "now", "CIM", 0, hyperparameters={"cim_lambda": 1.0})
    write_wilds(tmp_path / "then", "CIM", 1, hyperparameters={"cim_lambda": 1.0, **HARMLESS})
    value = GONE[name][0]
    write_wilds(tmp_path / "gone", "CIM", 0, hyperparameters={"cim_lambda": 1.0, **HARMLESS, name: value})
    (table,) = compare(tmp_path, ["worst_group"])
    shown = value if isinstance(value, str) else json.dumps(value)
    assert {row.family.label: len(row.family.runs) for row in table.rows} == {"CIM": 2, f"CIM, {name}={shown}": 1}


def test_synthetic_and_real_data_have_a_table_each(compare, tmp_path):
    write_rows(
        tmp_path,
        real=("ERM", ERM, {}),
        made=("ERM", ERM, {"synthetic": True}),
        other=("ERM", ERM, {"dataset": "celebA"}),
    )
    assert [table.title for table in compare(tmp_path)] == [
        "celebA, cim-plugin train",
        "waterbirds, cim-plugin train",
        "waterbirds, cim-plugin train - SYNTHETIC data",
    ]


def test_no_evaluation_of_the_test_split_is_said(compare, tmp_path):
    record = wilds_record()
    for chosen in record["selection"].values():
        chosen["splits"] = {"val": chosen["splits"]["test"]}
    (write_wilds(tmp_path / "run") / "results.json").write_text(json.dumps(record))
    (table,) = compare(tmp_path, ["average"])
    assert not table.rows[0].cells and any(
        "seed 0 has no evaluation of the test split" in text for text in (*table.rows[0].marks, *table.warnings)
    )


def test_pairs_need_both_seeds():
    ours, theirs = [
        [Selected(seed, {"average": value}, {}, ()) for seed, value in values]
        for values in ([(0, 0.5), (1, 0.7)], [(1, 0.4), (2, 0.9)])
    ]
    assert averages.paired(ours, theirs, "average") == averages.Cell(pytest.approx(0.3), None, 1)
    assert averages.paired(ours, theirs[1:], "average") is None
    assert averages.paired(ours, theirs, "worst group") is None
