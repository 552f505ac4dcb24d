"""Plots: which there are, that they can be opened, and that names cannot break them. How they look was looked at."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from interpreters import HERE, run_python
from PIL import Image
from run_folders import wilds_record, write_sweep, write_wilds

from cim_plugin.compare import figures, plots, tables
from cim_plugin.runs import find

pytest.importorskip("matplotlib", reason="plots need matplotlib")


@pytest.fixture(scope="module")
def both_hosts(tmp_path_factory) -> list[tables.Table]:
    folder = tmp_path_factory.mktemp("runs")
    for algorithm, gain in (("ERM", 0), ("CIM", 0.1)):
        for seed in range(2):
            write_wilds(
                folder / f"{algorithm}{seed}",
                algorithm,
                seed,
                (0.9, 0.5 + gain, 0.4 + 0.03 * seed + gain, 0.8),
                average_rule=(0.9, 0.5, 0.3, 0.9),
            )
    write_wilds(folder / "control", "CIM", 0, hyperparameters={"cim_lambda": 0})
    (folder / "ERM1" / "val_eval.csv").unlink()
    write_sweep(folder / "sweep", np.random.default_rng(0), n_trials=2, n_draws=1)
    return tables.build(find.find([str(folder)]).runs)


def texts(plot: plots.Plot) -> list[str]:
    return [element.text for element in ElementTree.fromstring(plot.content).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def drawn(both_hosts) -> dict[str, plots.Plot]:
    return {plot.name: plot for plot in plots.draw(both_hosts, "svg", svg_fonttype="none")}


def test_every_kind_of_plot_is_there_for_every_rule(drawn):
    expected = {
        f"01-Debug28-{kind}-{rule}"
        for kind in ("worst-against-average", "parts", "cost-against-gain")
        for rule in ("training_domain", "leave_one_out", "oracle")
    }
    expected |= {
        f"02-waterbirds-{kind}-{rule}"
        for kind in ("worst-against-average", "parts", "cost-against-gain")
        for rule in ("worst_group", "average")
    }
    expected |= {f"01-Debug28-training-{name}" for name in ("01-ERM", "02-CIM")}
    expected |= {f"02-waterbirds-training-{name}" for name in ("01-ERM", "02-CIM", "03-CIM-cim-lambda-0-control")}
    assert set(drawn) == expected


def test_labels_say_what_is_drawn(drawn):
    words = texts(drawn["01-Debug28-worst-against-average-oracle"])
    assert {
        "Debug28, DomainBed - SYNTHETIC data",
        "ERM",
        "CIM",
        "average accuracy, %",
        "worst-environment accuracy, %",
    } <= set(words)
    words = texts(drawn["02-waterbirds-training-01-ERM"])
    assert {"chosen by worst_group", "chosen by average", "epoch", "validation worst-group accuracy, %"} <= set(words)
    assert "Left out:" in " ".join(words) and "val_eval.csv" in "".join(words)  # of seed 1
    assert "CIM, cim_lambda=0 (control)" in texts(drawn["02-waterbirds-parts-average"])


def test_where_no_curve_can_be_read_the_plot_says_why(tmp_path):
    (write_wilds(tmp_path / "run") / "val_eval.csv").write_text("x")
    last = list(plots.draw(tables.build(find.find([str(tmp_path)]).runs), "svg", svg_fonttype="none"))[-1]
    assert "-training-01-" in last.name and "no column epoch" in " ".join(texts(last))


def test_rows_that_differ_in_their_last_settings_are_told_apart(tmp_path):
    many = {"cim_pairs": "cross_environment", "cim_targets": "morphed", "cim_composites": True, "cim_sparsity": 0.5}
    for stride in (1, 2):
        write_wilds(tmp_path / str(stride), "CIM", 0, hyperparameters={**many, "cim_mask_stride": stride})
    plot = next(plots.draw(tables.build(find.find([str(tmp_path)]).runs), "svg", svg_fonttype="none"))
    legend = [line for line in texts(plot) if "cim_" in line]
    assert len(set(legend)) == 2 and all(len(line) <= figures.LEGEND_WIDTH for line in legend)
    assert any("cim_mask_stride=2" in line for line in legend)


def test_cost_is_that_of_the_erm_that_a_row_is_compared_with(tmp_path):
    for lr, steps in ((0.1, 60), (0.001, 6)):  # 0.1 and 1 second a step
        for algorithm, seconds in (("ERM", 6.0), ("CIM", 12.0)):
            write_wilds(
                tmp_path / f"{algorithm}{lr}", algorithm, 0, config={"lr": lr}, steps=steps, seconds={"train": seconds}
            )
    (table,) = tables.build(find.find([str(tmp_path)]).runs, ["worst_group"])
    axes = dict(plots._figures(table))["cost-against-gain-worst_group"].axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_marker() not in ("None", "*")] == [
        [2.0],
        [2.0],
    ]


def test_points_are_where_the_numbers_are(both_hosts):
    """The figure's own data, before it is drawn."""
    (table,) = [table for table in both_hosts if table.host == "wilds"]
    of_table = dict(plots._figures(table))
    lines = {
        tuple(map(tuple, line.get_xydata().round(6).tolist()))
        for line in of_table["worst-against-average-worst_group"].axes[0].lines
    }
    cim = next(row for row in table.rows if row.family.label == "CIM" and row.rule == "worst_group")
    seeds = tuple(
        (round(100 * one.values["average"], 6), round(100 * one.values["worst group"], 6)) for one in cim.selected
    )
    assert (
        seeds in lines
        and ((round(100 * cim.cells["average"].mean, 6), round(100 * cim.cells["worst group"].mean, 6)),) in lines
    )
    bars = of_table["parts-worst_group"].axes[0].containers
    assert [bar.get_width() for bar in bars[1]] == pytest.approx(
        [100 * np.mean([one.parts[name] for one in cim.selected]) for name in cim.selected[0].parts]
    )
    picks = [
        line.get_xydata().tolist()
        for line in of_table["training-02-CIM"].axes[0].lines
        if line.get_marker() not in ("None", None)
    ]
    assert [[x for x, _ in of_rule] for of_rule in picks] == [[1, 1], [2, 2]]
    assert [y for _, y in picks[0]] == pytest.approx([50, 50])


def test_png_can_be_opened_and_has_content(both_hosts):
    for plot in plots.draw(both_hosts[:1], "png"):
        image = Image.open(io.BytesIO(plot.content))
        assert (
            image.format == "PNG"
            and min(image.size) > 400
            and len(set(image.convert("L").resize((60, 60)).tobytes())) > 50
        )


def test_drawing_twice_gives_the_same_bytes(both_hosts):
    first, second = ([plot.content for plot in plots.draw(both_hosts[:1], "svg")] for _ in range(2))
    assert first == second


def test_hostile_and_long_names_are_drawn(tmp_path):
    hostile = "$\\frac{</text><script>_^ \x1b\n" + "long " * 60
    record = wilds_record(hostile, dataset="../../" + hostile)
    for chosen in record["selection"].values():
        chosen["splits"]["test"]["groups"] = {
            f"{hostile}{number}": {"accuracy": 0.5, "count": 1} for number in range(30)
        }
    (write_wilds(tmp_path / "run") / "results.json").write_text(json.dumps(record))
    drawn = list(plots.draw(tables.build(find.find([str(tmp_path)]).runs), "svg", svg_fonttype="none"))
    assert len(drawn) == 5
    for plot in drawn:
        assert "/" not in plot.name and len(plot.name) < 120
        ElementTree.fromstring(plot.content)
        assert b"<script" not in plot.content
    assert any("12 of 30 groups" in " ".join(texts(plot)) for plot in drawn)


def test_no_display_and_no_state_of_pyplot_is_touched(tmp_path):
    write_wilds(tmp_path / "run")
    code = f"""
import sys
from cim_plugin import cli
assert cli.main(["compare", {str(tmp_path)!r}]) == 0
assert not {{"matplotlib", "torch", "pandas"}} & set(sys.modules)
assert cli.main(["compare", {str(tmp_path)!r}, "--plots", {str(tmp_path / "plots")!r}]) == 0
assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
import matplotlib
assert not any(key.startswith("text.parse_math") and not matplotlib.rcParams[key] for key in matplotlib.rcParams)
"""
    done = run_python("-c", code, PYTHONPATH=str(HERE.parent), DISPLAY=None, CIM_PLUGIN_AUTOLOAD="0", PYTHONUTF8="1")
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".png", ".svg"}
