"""A loss or a weight that is not finite ends a run: one line, exit status 1, and the last good state."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from small_runs import after_steps, assert_refused, model_path, results

# --- the loss ---------------------------------------------------------------------------------------------------------


def ruin_after(last: int):
    """A context in which the update after so many steps writes NaN into the last weights, the head's."""

    @torch.no_grad()
    def ruin(number, optimizer):
        if number == last:
            optimizer.param_groups[0]["params"][-1].fill_(float("nan"))

    return after_steps(ruin)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(attempt, release, tmp_path):
    with ruin_after(4):  # the first batch of the second epoch
        assert_refused(attempt(release), "epoch 1, batch 1", "--lr", status=1)
    state = torch.load(tmp_path / "run" / "state.pth", weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 0)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert results(tmp_path / "run")["status"] == "running"
    assert attempt(release, "--resume")[0] == 0 and results(tmp_path / "run")["status"] == "finished"


@pytest.mark.parametrize("algorithm", ["ERM", "groupDRO", "CIM_VIB"])
def test_an_absurd_learning_rate_is_met_in_the_first_epoch(attempt, release, tmp_path, algorithm):
    assert_refused(
        attempt(release, "--lr", "1e30", "--optimizer", "SGD", algorithm=algorithm), "epoch 0, batch ", "--lr", status=1
    )
    assert not model_path(tmp_path / "run", "last").exists()


@pytest.mark.parametrize("hours", [0, 1], ids=["at the end of an epoch", "within one"])
def test_weights_that_the_last_step_has_ruined_are_not_saved(attempt, release, tmp_path, monkeypatch, hours):
    """Every loss is finite here: the update after the sixth one writes NaN. A look at the clock takes so many hours:
    within a long epoch a run is saved, too.
    """
    monkeypatch.setattr(time, "monotonic", itertools.count(0, 3600 * hours).__next__)
    with ruin_after(6):
        assert_refused(attempt(release), "a weight is not finite after epoch 1, batch 2", "--lr", status=1)
    state = torch.load(tmp_path / "run" / "state.pth", weights_only=True)
    assert (state["epoch"], state["batch"]) == ((1, 2) if hours else (1, 0))
    assert all(value.isfinite().all() for value in state["model"].values())
