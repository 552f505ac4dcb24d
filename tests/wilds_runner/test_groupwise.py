"""Group averages against a loop, against torch_scatter where it is installed, and inside the evaluators of wilds."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from cim_plugin.wilds_runner import groupwise
from cim_plugin.wilds_runner.groupwise import avg_over_groups, install

MODULES = [
    "wilds.common.utils",
    "wilds.common.metrics.metric",
    "wilds.common.metrics.all_metrics",
    "wilds.common.metrics.loss",
]


def _reference_average(values: list, groups: list[int], n_groups: int) -> tuple[list, list[int]]:
    """torch_scatter's mean: 0 for an empty group; whole numbers are divided rounding down."""
    members = [[value for value, group in zip(values, groups) if group == g] for g in range(n_groups)]
    whole = all(isinstance(value, int) for value in values)
    return [(sum(own) // len(own) if whole else sum(own) / len(own)) if own else 0 for own in members], [
        len(own) for own in members
    ]


CASES = [([0], 1), ([2, 2, 2], 4), ([0, 1, 2, 3] * 5, 4), ([3, 0, 3, 0, 0], 6), ([1, 0, 1, 1, 2, 5, 5, 1], 7)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups, n_groups", CASES)
def test_averages_of_floats_equal_a_loop(groups, n_groups, dtype):
    values = torch.randn(len(groups), dtype=dtype)
    averages, counts = avg_over_groups(values, torch.tensor(groups), n_groups)
    expected, expected_counts = _reference_average(values.tolist(), groups, n_groups)
    torch.testing.assert_close(averages, torch.tensor(expected, dtype=dtype))
    assert (averages.dtype, counts.dtype, counts.tolist()) == (dtype, torch.float32, expected_counts)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("groups, n_groups", CASES)
def test_averages_of_whole_numbers_round_down(groups, n_groups, dtype):
    values = torch.randint(-9, 10, (len(groups),), dtype=dtype)
    averages, counts = avg_over_groups(values, torch.tensor(groups), n_groups)
    assert averages.dtype == dtype
    assert (averages.tolist(), counts.tolist()) == _reference_average(values.tolist(), groups, n_groups)


def test_a_negative_whole_number_is_rounded_down_and_not_towards_zero():
    assert avg_over_groups(torch.tensor([-1, -2]), torch.tensor([0, 0]), 1)[0].tolist() == [-2]


def test_averages_equal_torch_scatter():
    torch_scatter = pytest.importorskip(
        "torch_scatter", reason="torch_scatter is not installed, which is the usual case"
    )
    for dtype in (torch.float32, torch.int64):
        values, groups = (10 * torch.randn(100)).to(dtype), torch.randint(0, 7, (100,))
        expected = torch_scatter.scatter(src=values, index=groups, dim_size=9, reduce="mean")
        torch.testing.assert_close(avg_over_groups(values, groups, 9)[0], expected)


# --- where it is put -------------------------------------------------------------------------------------------------


@pytest.fixture
def host_functions(monkeypatch):
    """Every place where wilds has the function, holding a stand-in for its own; put back afterwards."""

    def its_own():
        raise AssertionError("not called")

    modules = [importlib.import_module(name) for name in MODULES]
    for module in modules:
        monkeypatch.setattr(module, "avg_over_groups", its_own)
    return lambda: {module.avg_over_groups for module in modules}, its_own


def test_ours_is_used_where_torch_scatter_is_missing(host_functions, monkeypatch):
    functions, its_own = host_functions
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    install()
    assert functions() == {groupwise.avg_over_groups}
    install()
    assert functions() == {groupwise.avg_over_groups}


@pytest.mark.parametrize(
    "content, is_replaced", [("", False), ("raise OSError('undefined symbol: of another torch')", True)]
)
def test_the_hosts_own_stays_where_torch_scatter_can_be_imported(
    host_functions, monkeypatch, tmp_path, content, is_replaced
):
    functions, its_own = host_functions
    (tmp_path / "torch_scatter.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch_scatter", raising=False)
    install()
    sys.modules.pop("torch_scatter", None)
    assert functions() == {groupwise.avg_over_groups if is_replaced else its_own}


def test_every_use_in_the_package_of_wilds_is_covered():
    """A module that imports the function by name would keep torch_scatter's."""
    import wilds

    (root,) = map(Path, wilds.__path__)
    texts = {
        ".".join(("wilds", *path.relative_to(root).with_suffix("").parts)): path.read_text()
        for path in root.rglob("*.py")
    }
    assert {name for name, text in texts.items() if "avg_over_groups" in text} == set(MODULES)
    assert {name for name, text in texts.items() if "torch_scatter" in text} == {"wilds.common.utils"}


def test_the_waterbirds_evaluator_gives_the_numbers_of_a_loop(noise):
    split = noise.splits["test"]
    predictions = (torch.arange(len(split.labels)) * 7 % 3 == 0).long()
    metrics, _ = noise.wilds.eval(predictions, split.labels, split.metadata)
    places, labels = {"land": 0, "water": 1}, {"landbird": 0, "waterbird": 1}
    cells = {f"y:{label}_background:{place}": (places[place], labels[label]) for label in labels for place in places}
    frequencies = dict(
        zip(cells, (3498, 184, 56, 1057))
    )  # of the groups in Waterbirds' training set (Sagawa et al., 2020)
    accuracies = {}
    for name, (place, label) in cells.items():
        rows = [
            i for i, (background, y) in enumerate(split.metadata[:, :2].tolist()) if (background, y) == (place, label)
        ]
        accuracies[name] = sum(predictions[i].item() == label for i in rows) / len(rows)
        assert metrics[f"acc_{name}"] == pytest.approx(accuracies[name])
        assert metrics[f"count_{name}"] == len(rows)
    assert metrics["acc_wg"] == pytest.approx(min(accuracies.values()))
    average = sum(frequencies[name] * accuracy for name, accuracy in accuracies.items()) / sum(frequencies.values())
    assert metrics["adj_acc_avg"] == pytest.approx(average, abs=1e-6)
    assert len(set(accuracies.values())) > 1
