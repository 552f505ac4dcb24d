"""Averages against loops over the samples."""

from __future__ import annotations

import math

import pytest
import torch

from cim_plugin.wilds_runner.averages import Averages

N_GROUPS = 4
BATCHES = [[0, 1, 1, 3], [3, 3], [0, 0, 1]]  #: the groups of the samples; nobody is in group 2


def samples() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for groups in BATCHES:
        values = {name: torch.rand(len(groups), generator=generator) for name in ("loss", "objective", "L_con")}
        batches.append({"groups": torch.tensor(groups), **values, "acc": values["loss"] > 0.5})
    return batches


def _reference_line(batches: list[dict], n_groups: int) -> dict[str, float]:
    rows = [dict(zip(batch, row)) for batch in batches for row in zip(*(values.tolist() for values in batch.values()))]

    def mean(name: str, group: int | None = None) -> float:
        values = [row[name] for row in rows if group is None or row["groups"] == group]
        return sum(values) / len(values) if values else math.nan

    line = {}
    for name in ("loss", "acc"):
        line |= {f"{name}_group:{group}": mean(name, group) for group in range(n_groups)} | {f"{name}_avg": mean(name)}
    line["objective"] = mean("objective")
    line |= {f"count_group:{group}": sum(row["groups"] == group for row in rows) for group in range(n_groups)}
    return line | {"count": len(rows), "L_con": mean("L_con")}


def averages(batches: list[dict], n_groups: int = N_GROUPS) -> Averages:
    result = Averages(n_groups, "cpu")
    for batch in batches:
        result.add(**batch)
    return result


@pytest.mark.parametrize("n_groups", [N_GROUPS, 0])
def test_averages_equal_a_loop_and_have_the_columns_in_order(n_groups):
    line, expected = averages(samples(), n_groups).line(), _reference_line(samples(), n_groups)
    assert list(line) == list(expected)
    assert line == pytest.approx(expected, rel=1e-9, nan_ok=True)
    assert (n_groups == 0) or math.isnan(line["loss_group:2"])


def test_columns_are_those_of_wilds_then_ours():
    names = (
        [f"loss_group:{g}" for g in range(N_GROUPS)]
        + ["loss_avg"]
        + [f"acc_group:{g}" for g in range(N_GROUPS)]
        + ["acc_avg", "objective"]
    )
    assert list(averages(samples()).line()) == names + [f"count_group:{g}" for g in range(N_GROUPS)] + [
        "count",
        "L_con",
    ]


def test_group_weights_are_averaged_over_the_images_of_their_group():
    """As run_expt's running average does, which counts a batch by its images of the group; a group without images has
    no value.
    """
    weights = torch.rand(len(BATCHES), N_GROUPS, generator=torch.Generator().manual_seed(1))
    total = Averages(N_GROUPS, "cpu")
    for batch, weight in zip(samples(), weights):
        total.add(**batch, group_weights=weight)
    line = total.line()
    pairs = [(group, weight) for batch, weight in zip(BATCHES, weights) for group in batch]
    for group in (0, 1, 3):
        seen = [weight[group].item() for g, weight in pairs if g == group]
        assert line[f"weight_group:{group}"] == pytest.approx(sum(seen) / len(seen))
    assert math.isnan(line["weight_group:2"])
    names = list(line)
    assert names[names.index("objective") + 1 : names.index("count_group:0")] == [
        f"weight_group:{group}" for group in range(N_GROUPS)
    ]


def test_after_a_reset_only_what_follows_counts():
    total = averages(samples()[:1])
    total.reset()
    for batch in samples()[1:]:
        total.add(**batch)
    assert total.line() == pytest.approx(_reference_line(samples()[1:], N_GROUPS), nan_ok=True)


def test_sums_that_are_saved_and_loaded_go_on(tmp_path):
    first, *rest = samples()
    torch.save(averages([first]).state(), tmp_path / "state.pth")
    resumed = Averages(N_GROUPS, "cpu")
    resumed.load(torch.load(tmp_path / "state.pth", weights_only=True))
    for batch in rest:
        resumed.add(**batch)
    assert resumed.line() == pytest.approx(averages(samples()).line(), nan_ok=True, rel=0, abs=0)


def test_sums_of_processes_add_up():
    """Two processes with equally many samples each; a reduction adds the other's tensors."""
    first, second = (
        averages(samples()[:1]),
        averages([{name: values.flip(0) for name, values in samples()[0].items()} | {"loss": torch.rand(4)}]),
    )
    expected = {name: first.sums[name] + second.sums[name] for name in first.sums}
    others = iter(second.sums.values())
    fabric = type("Fabric", (), {"world_size": 2, "all_reduce": lambda self, value, reduce_op: value + next(others)})()
    first.add_up(fabric)
    assert first.count == 8
    assert all(torch.equal(first.sums[name], expected[name]) for name in expected)
    assert first.line()["loss_avg"] == pytest.approx(expected["loss"].item() / 8)


def test_values_leave_the_graph_behind():
    loss = torch.rand(3, requires_grad=True)
    total = Averages(0, "cpu")
    total.add(torch.zeros(3, dtype=torch.int64), loss=loss, acc=loss > 0.5, objective=loss)
    assert not any(value.requires_grad for value in total.sums.values())
