"""An optimizer that trains the transformation network by an Adam of its own, and all else as its host does.

The network starts from random weights where the encoder is often pretrained, and L_con's gradient in it is small: a
host's rate for fine-tuning leaves m where it starts, SGD at any rate that suits an encoder; docs/mask.md has the
figures. Adam's steps do not depend on the gradient's size. The poster names no optimizer.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer

WITH_SGD = 1e-3  #: learning rate of the network's Adam where 0 is asked for and the host's optimizer is SGD


def with_own_adam(optimizer: Optimizer, network: nn.Module | None, learning_rate: float) -> Optimizer | WithOwnAdam:
    """Give a network Adam, without weight decay, unless the host's optimizer is to keep it.

    Args:
        optimizer: the host's, of all weights. It loses those of the network; a schedule that is made for it goes on
            with the others.
        network: psi, or None where there is none.
        learning_rate: of the network's Adam; 0: the host's optimizer keeps the network, but for SGD, beside which it is
            ``WITH_SGD``, as it was in version 0.1.

    Returns:
        What to step: ``optimizer`` itself where nothing changes.
    """
    learning_rate = learning_rate or (WITH_SGD if isinstance(optimizer, SGD) else 0.0)
    return WithOwnAdam(optimizer, network, learning_rate) if network is not None and learning_rate else optimizer


class WithOwnAdam:
    """Two optimizers where a host, a precision plugin or a checkpoint wants one; see :func:`with_own_adam`."""

    def __init__(self, optimizer: Optimizer, network: nn.Module, learning_rate: float):
        weights = list(network.parameters())
        own = {id(weight) for weight in weights}
        for group in optimizer.param_groups:
            group["params"] = [weight for weight in group["params"] if id(weight) not in own]
        self.parts: dict[str, Optimizer] = {"others": optimizer, "network": Adam(weights, learning_rate)}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
