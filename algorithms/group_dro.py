"""Group distributionally robust optimisation (Sagawa et al., 2020, arXiv:1911.08731, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributed import SINGLE_PROCESS, Shard
from .inputs import class_numbers


def group_means(values: Tensor, groups: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Mean of ``values`` (N,) per group, 0 for an empty one, and the counts: ``groups`` (N,) int64 -> (n_groups,)
    each.

    >>> group_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 3)
    (tensor([2., 0., 5.]), tensor([2., 0., 1.]))
    """
    empty = torch.zeros(n_groups, dtype=values.dtype, device=values.device)
    sums, counts = (
        empty.index_add(0, groups, values),
        empty.index_add(0, groups, torch.ones_like(values)),
    )  # bincount would wait for a GPU
    return sums / counts.clamp(min=1), counts


class GroupWeights(nn.Module):
    """The weight of every group, raised exponentially with the group's loss.

    Args:
        in_training: (n_groups,) bool, which groups the training set holds; the others keep weight 0.
        step_size: of the exponentiated gradient; not negative.
    """

    weights: Tensor

    def __init__(self, in_training: Tensor, step_size: float):
        super().__init__()
        self.step_size = step_size
        self.register_buffer("weights", in_training.float() / in_training.sum())

    def forward(self, losses: Tensor, groups: Tensor, shard: Shard = SINGLE_PROCESS) -> Tensor:
        """Per-sample losses (N,) and their groups (N,), whole numbers -> (N,), whose mean over the global batch is
        sum_g q_g · loss_g.

        In training the weights move first, by the losses of this batch, as in Algorithm 1.
        """
        groups = class_numbers(groups, "groups")
        everyone = shard.gather(groups)
        means, counts = group_means(shard.gather(losses.detach()), everyone, len(self.weights))
        if self.training:
            moved = self.weights * torch.exp(
                self.step_size * (means - means.max())
            )  # the same weights, and no overflow
            self.weights.copy_(moved / moved.sum())
        return losses * (self.weights * len(everyone) / counts.clamp(min=1))[groups]
