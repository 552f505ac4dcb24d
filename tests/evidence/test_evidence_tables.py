"""Tables of the evidence by made-up runs, against numbers that scipy and plain loops give."""

from __future__ import annotations

import json
import re
from statistics import mean, stdev

import numpy as np
import pytest
from made_up import finish, plan_of
from scipy import stats

from cim_plugin import cli
from scripts.evidence import __main__ as command
from scripts.evidence import comparisons, kept
from scripts.evidence.differences import family, holm
from scripts.evidence.plan import Run
from scripts.evidence.rows import ROWS
from scripts.evidence.settings import SEARCH_SEED
from scripts.evidence.tables import TABLES, found

WORST = {
    "ERM": (0.10, 0.12, 0.08, 0.11, 0.14),
    "CIM": (0.30, 0.33, 0.29, 0.35, 0.31),
    "VIB": (0.20, 0.28, 0.31, 0.12, 0.45),
    "CIM-0": (0.28, 0.41),
}


@pytest.fixture
def plan(tmp_path):
    made = plan_of(tmp_path)
    for name, of_seeds in WORST.items():
        for seed, worst in enumerate(of_seeds):
            finish(made, Run(name, seed), worst, average=1 - worst, by_groups=worst / 2)
    return made


def cells(table: str) -> dict[str, list[str]]:
    """First cell of a line -> the others."""
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {first: others for first, *others in lines}


def _reference_holm(p_values: list[float], n_tests: int, alpha: float) -> set[int]:
    """Holm's procedure as it is written: which tests are rejected."""
    rejected: set[int] = set()
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for k, place in enumerate(order, 1):
        if p_values[place] >= alpha / (n_tests + 1 - k):
            break
        rejected.add(place)
    return rejected


def test_a_corrected_interval_excludes_zero_where_holm_rejects():
    rng = np.random.default_rng(0)
    n_rejected = set()
    for _ in range(300):
        samples = rng.normal(rng.choice([0, 0, 1, 3], (6, 1)), 1, (6, 5))
        tests = [stats.ttest_1samp(sample, 0) for sample in samples]
        levels = holm([test.pvalue for test in tests], 9)
        excluded = {
            place
            for place, (test, level) in enumerate(zip(tests, levels))
            if not test.confidence_interval(1 - level).low <= 0 <= test.confidence_interval(1 - level).high
        }
        assert excluded == _reference_holm([test.pvalue for test in tests], 9, 0.05)
        n_rejected.add(len(excluded))
    assert len(n_rejected) > 3


def test_the_smallest_p_value_has_bonferronis_level_of_the_whole_family():
    assert holm([0.2, 0.001], 9) == [0.05 / 8, 0.05 / 9]
    assert holm([0.2, 0.02], 9) == [0.05 / 9] * 2  # nothing is rejected


def test_accuracies_are_means_and_deviations_over_seeds(plan):
    shown = cells(TABLES["accuracies"](plan, found(plan)))
    worst = [100 * value for value in WORST["CIM"]]
    average = [100 - value for value in worst]
    assert shown["CIM"] == [
        "5",
        f"{mean(worst):.1f} ± {stdev(worst):.1f}",
        f"{mean(average):.1f} ± {stdev(average):.1f}",
    ]
    assert list(shown) == ["row", "ERM", "VIB, β=0.001", "CIM", "CIM, λ=0"]
    by_groups = cells(TABLES["by_groups"](plan, found(plan)))
    assert by_groups["CIM"][1] == f"{mean(worst) / 2:.1f} ± {stdev(worst) / 2:.1f}"


def test_differences_are_paired_and_their_intervals_are_scipys_at_holms_levels(plan):
    shown = cells(TABLES["differences"](plan, found(plan)))
    tests = {
        other: stats.ttest_rel([100 * v for v in WORST["CIM"]], [100 * v for v in WORST[other]])
        for other in ("ERM", "VIB")
    }
    assert tests["ERM"].pvalue < 0.05 / 9 and tests["VIB"].pvalue > 0.05 / 8
    for other, level in (("ERM", 0.05 / 9), ("VIB", 0.05 / 8)):
        interval = tests[other].confidence_interval(1 - level)
        row = shown[f"CIM − {ROWS[other].says}"]
        assert row[2] == f"{interval.low:+.1f} to {interval.high:+.1f}"
    assert (shown["CIM − ERM"][3], shown["CIM − VIB, β=0.001"][3]) == ("above", "open")


def test_rows_with_two_seeds_have_no_interval(plan):
    row = cells(TABLES["differences"](plan, found(plan)))["CIM − CIM, λ=0"]
    gain = 100 * mean([0.30 - 0.28, 0.33 - 0.41])
    assert row == ["2", f"{gain:+.1f}", "", ""]


def test_no_cell_has_both_a_deviation_and_an_interval(plan):
    for name, table in TABLES.items():
        for row in cells(table(plan, found(plan))).values():
            assert not any("±" in cell and re.search(r"\d to [+-]", cell) for cell in row), name


def test_the_posters_claims_stand_beside_what_is_seen(plan):
    shown = cells(TABLES["poster"](plan, found(plan)))
    here = 100 * (mean(WORST["CIM"]) - mean(WORST["ERM"]))
    assert shown["CIM above ERM"] == ["+13.3", f"{here:+.1f}", f"{here - (73.35 - 60.0):+.1f}"]
    assert shown["CIM above VIB, β=0.001"][0] == "-2.0"
    assert shown["CIM above CIM, λ=0"] == ["not given", "-3.0", ""]


def test_all_nine_comparisons_are_of_rows_that_are_or_are_to_come():
    named = {name for pair in comparisons.COMPARISONS for name in pair}
    assert named - set(ROWS) == {"recommended", "recommended-0"} - set(ROWS)


def test_equal_differences_are_certain_or_nothing():
    same = {"CIM": {0: 1.0, 1: 2.0, 2: 3.0}, "ERM": {0: 0.0, 1: 1.0, 2: 2.0}, "VIB": {0: 1.0, 1: 2.0, 2: 3.0}}
    assert [one.verdict for one in family(same)] == ["above", "open"]


def test_the_search_shows_validation_scores_and_what_was_taken(tmp_path):
    rates = (1e-4, 3e-4, 1e-3)
    plan = plan_of(tmp_path, "ERM", "AFR", rates=rates)
    for rate, score in zip(rates, (0.2, 0.4, 0.3)):
        finish(plan, Run("ERM", SEARCH_SEED, rate), 0, score=score)
    assert cells(TABLES["search"](plan, {}))["ERM"] == ["20.0", "40.0", "30.0", "0.0003"]


def test_overlap_has_an_interval_from_three_seeds_on(plan):
    for seed, area in enumerate((0.6, 0.7, 0.65)):
        overlap = {"on_bird": 0.9, "off_bird": 0.1, "auc": area}
        (kept.Path(plan.place(Run("CIM", seed))) / "overlap.json").write_text(json.dumps(overlap))
    row = cells(TABLES["overlap"](plan, found(plan)))["CIM"]
    interval = stats.ttest_1samp([0.6, 0.7, 0.65], 0).confidence_interval(0.95)
    assert row[:4] == ["3", "0.900 ± 0.000", "0.100 ± 0.000", "0.650 ± 0.050"]
    assert row[4] == f"{interval.low:.3f} to {interval.high:.3f}"


def test_costs_are_those_of_the_clock_and_name_the_machine(plan):
    (kept.Path(plan.place(Run("CIM", 0))) / "machine.json").write_text(json.dumps({"machine": "a small one, 2 cores"}))
    table = TABLES["cost"](plan, found(plan))
    assert "a small one, 2 cores" in table and f"{17 * 100 / 3600:.1f} hours" in table
    assert cells(table)["CIM"] == ["5", "100"]


# --- kept runs --------------------------------------------------------------------------------------------------------


def arguments(folder, *more: str):
    words = ["subgroups", "--output_dir", str(folder), "--search", "0", *map(str, more)]
    return command.make_parser().parse_args(words)


def test_packed_runs_give_the_same_tables_and_name_no_folder_of_the_machine(plan, tmp_path_factory, capsys):
    before = command.tables(arguments(plan.folder, "--tables"))
    assert command.run(arguments(plan.folder, "--pack")) == 0
    assert "17 runs are in" in capsys.readouterr().out
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / kept.FILE).write_bytes((kept.Path(plan.folder) / kept.FILE).read_bytes())
    assert command.tables(arguments(elsewhere, "--tables")) == before
    packed = kept.packed_in(str(elsewhere))
    text = json.dumps(packed)
    assert plan.folder not in text and "/somewhere" not in text
    name = f"{plan.settings.name}/CIM/lr_0.0001/seed_3"
    assert packed[name]["config"]["log_dir"] == f"OUT/{name}"


def test_packing_again_keeps_what_was_packed_and_adds_what_is_new(plan, tmp_path_factory):
    assert kept.pack(plan.folder) == 17
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / kept.FILE).write_bytes((kept.Path(plan.folder) / kept.FILE).read_bytes())
    finish(plan_of(elsewhere), Run("CIM", 0), 0.99)  # stands in the place of the packed one
    finish(plan_of(elsewhere), Run("JTT", 0), 0.5)
    assert kept.pack(str(elsewhere)) == 18
    results = found(plan_of(elsewhere))
    assert results["CIM"][0]["selection"]["worst_pseudo_group"]["splits"]["test"]["metrics"]["acc_wg"] == 0.99


def test_a_page_gets_the_tables_that_its_lines_ask_for(plan, tmp_path):
    page = tmp_path / "page.md"
    line = f"`{command.COMMAND} --search 0 --tables differences`:"
    page.write_text(f"Text.\n\n{line}\nold\n<!-- end of the tables -->\n\nMore.\n")
    assert command.run(arguments(plan.folder, "--page", page)) == 0
    text = page.read_text()
    wanted = command.tables(arguments(plan.folder, "--tables", "differences"))
    assert text == f"Text.\n\n{line}\n\n{wanted}\n\n<!-- end of the tables -->\n\nMore.\n"


def test_a_picture_has_a_point_per_run(plan, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda axis, *a, **k: drawn.append((a[0], a[2:3])) or plot(axis, *a, **k))
    assert command.run(arguments(plan.folder, "--figure", tmp_path / "all.png")) == 0
    points = [list(x) for x, marks in drawn if marks == ("o",)]
    assert points == [[100 * value for value in WORST[name]] for name in ("ERM", "VIB", "CIM", "CIM-0")]
    assert (tmp_path / "all.png").stat().st_size > 1000


def test_a_picture_of_nothing_is_refused(tmp_path, capsys):
    assert cli.exit_status("evidence", lambda: command.run(arguments(tmp_path, "--figure", tmp_path / "a.png"))) == 2
    assert "would be empty" in capsys.readouterr().err
