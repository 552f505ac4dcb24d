"""Group means and group DRO against plain loops over Algorithm 1 of Sagawa et al. (2020), and against the objective as
WILDS writes it.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cim_plugin.algorithms.group_dro import GroupWeights, group_means

N_GROUPS = 5
IN_TRAINING = torch.tensor([True, True, False, True, True])  #: group 2 is not in the training set
BATCHES = [[0, 1, 3, 4, 4, 0], [0, 0, 0], [4, 3, 1, 0, 1, 1, 3], [3], [1, 4]]


def _reference_means(values: list[float], groups: list[int], n_groups: int) -> list[float]:
    members = [[value for value, group in zip(values, groups) if group == g] for g in range(n_groups)]
    return [sum(own) / len(own) if own else 0.0 for own in members]


def _reference_steps(
    losses: list[list[float]], groups: list[list[int]], present: list[bool], step_size: float
) -> list[tuple[list[float], float]]:
    """After every batch the weights, and the objective sum_g q_g loss_g, one number at a time."""
    q = [1 / sum(present) if here else 0.0 for here in present]
    steps = []
    for batch_losses, batch_groups in zip(losses, groups):
        means = _reference_means(batch_losses, batch_groups, len(q))
        q = [weight * math.exp(step_size * mean) for weight, mean in zip(q, means)]
        q = [weight / sum(q) for weight in q]
        steps.append((q, sum(weight * mean for weight, mean in zip(q, means))))
    return steps


def batch_losses(batches: list[list[int]]) -> list[Tensor]:
    return [3 * torch.rand(len(batch), dtype=torch.float64) for batch in batches]


@pytest.mark.parametrize("groups", [[0, 1, 2], [2, 2, 2], [0, 2, 0, 2, 2, 1], [4]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_group_means_equal_a_loop_and_an_empty_group_has_zero(groups, dtype):
    values = torch.randn(len(groups), dtype=dtype)
    means, counts = group_means(values, torch.tensor(groups), N_GROUPS)
    assert means.dtype == dtype
    torch.testing.assert_close(means, torch.tensor(_reference_means(values.tolist(), groups, N_GROUPS), dtype=dtype))
    assert counts.tolist() == [groups.count(g) for g in range(N_GROUPS)]


@pytest.mark.parametrize("step_size", [0.0, 0.01, 1.0])
def test_several_steps_equal_a_loop(step_size):
    losses = batch_losses(BATCHES)
    weights = GroupWeights(IN_TRAINING, step_size).double()
    expected = _reference_steps([values.tolist() for values in losses], BATCHES, IN_TRAINING.tolist(), step_size)
    for values, groups, (q, objective) in zip(losses, BATCHES, expected):
        weighted = weights(values, torch.tensor(groups))
        assert weighted.shape == values.shape
        torch.testing.assert_close(
            weights.weights, torch.tensor(q, dtype=torch.float64), rtol=1e-6, atol=0
        )  # the buffer starts in float32
        assert weighted.mean().item() == pytest.approx(objective, rel=1e-6)


def test_the_step_is_that_of_wilds():
    """WILDS keeps (groups,) losses and takes their product with the weights; its gradient reaches the samples as ours
    does.
    """
    values = (3 * torch.rand(6)).requires_grad_()
    groups, step_size = torch.tensor([0, 1, 1, 3, 4, 4]), 0.5
    one_hot = torch.nn.functional.one_hot(groups, N_GROUPS).float()
    group_losses = one_hot.T @ values / one_hot.sum(0).clamp(min=1)
    q = IN_TRAINING / IN_TRAINING.sum() * torch.exp(step_size * group_losses.data)
    objective = group_losses @ (q / q.sum())

    weights = GroupWeights(IN_TRAINING, step_size)
    ours = weights(values, groups).mean()
    torch.testing.assert_close(ours, objective)
    torch.testing.assert_close(torch.autograd.grad(ours, values)[0], torch.autograd.grad(objective, values)[0])


def test_a_group_that_training_lacks_stays_at_zero_and_the_others_sum_to_one():
    weights = GroupWeights(IN_TRAINING, 1.0)
    assert weights.weights.tolist() == [0.25, 0.25, 0, 0.25, 0.25]
    for values, groups in zip(batch_losses(BATCHES), BATCHES):
        weights(values, torch.tensor(groups))
        assert weights.weights[2] == 0
        assert weights.weights.sum().item() == pytest.approx(1, abs=1e-6)


def test_the_group_with_the_higher_loss_gains_weight():
    weights = GroupWeights(torch.tensor([True, True]), 0.1)
    weights(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    assert weights.weights[1] > 0.5 > weights.weights[0]


def test_weights_stand_still_in_evaluation():
    weights = GroupWeights(torch.tensor([True, True]), 0.5)
    weights(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    before = weights.weights.clone()
    weights.eval()
    weighted = weights(torch.tensor([5.0, 1.0, 1.0]), torch.tensor([0, 1, 1]))
    assert torch.equal(weights.weights, before)
    assert weighted.mean().item() == pytest.approx((before[0] * 5 + before[1] * 1).item())


def test_no_gradient_flows_through_the_weights():
    """The gradient is the weight per sample, whatever the step size makes of the losses."""
    losses = torch.tensor([1.0, 4.0, 2.0], requires_grad=True)
    weights = GroupWeights(torch.tensor([True, True]), 1.0)
    weights(losses, torch.tensor([0, 1, 1])).mean().backward()
    q = weights.weights
    torch.testing.assert_close(losses.grad, torch.stack([q[0], q[1] / 2, q[1] / 2]))
    assert not q.requires_grad


def test_weights_travel_with_the_state_dict():
    weights = GroupWeights(IN_TRAINING, 0.5)
    weights(torch.rand(6), torch.tensor(BATCHES[0]))
    other = GroupWeights(IN_TRAINING, 0.5)
    other.load_state_dict(weights.state_dict())
    assert torch.equal(other.weights, weights.weights)
    assert not other.weights.equal(GroupWeights(IN_TRAINING, 0.5).weights)


def test_a_large_step_does_not_overflow():
    weights = GroupWeights(torch.tensor([True, True, False]), 100.0)
    losses = weights(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 1]))
    assert losses.isfinite().all() and weights.weights.tolist() == [0, 1, 0]
