"""psi as the first layer of featurizers that somebody else builds, copies and optimises, and λ·L_con beside their
losses.

Since psi is a part of the featurizer, a copy of the network has a copy of it, an average of weights has its average, a
masked gradient is masked there too, and the optimiser that moves the featurizer moves psi, at a rate of psi's own.
Only L_con is added: its gradient joins psi's for the length of each step of an optimiser that holds psi's weights, so
that the step is one on (what the base minimises there) + λ·L_con, and the base never sees it.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ...algorithms.contrastive import TripletContrast
from ...algorithms.mask_statistics import MaskStatistics
from ...algorithms.morphing import InputMorphing
from ..batches import Batch


@contextlib.contextmanager
def psi_in_front(
    networks: Any, make_featurizer: Callable[..., nn.Module], make_psi: Callable[[], InputMorphing]
) -> Iterator[list[InputMorphing]]:
    """Put psi before every featurizer that ``networks.Featurizer`` gives inside this context.

    The first one owns a new psi, as a submodule; others that are built beside it see the images through the same one.
    psi's initial weights are drawn beside the base's random numbers, which stay what they are without psi.

    Args:
        networks: the module whose ``Featurizer`` is called; put back at the end.
        make_featurizer: (the module's own Featurizer, input_shape, hparams) -> the featurizer.
        make_psi: makes a psi.

    Yields:
        The psi that was built: a list that is empty until the first featurizer is there.
    """
    inner = networks.Featurizer
    built: list[InputMorphing] = []

    def Featurizer(input_shape, hparams):
        featurizer = make_featurizer(inner, input_shape, hparams)
        if not built:
            with torch.random.fork_rng(devices=[]):
                built.append(make_psi())
            _first(featurizer).psi = built[0]
        featurizer.sees_through = [built[0]]  # in a list: the owner alone has it as a submodule
        featurizer.register_forward_pre_hook(_morph)
        return featurizer

    networks.Featurizer = Featurizer
    try:
        yield built
    finally:
        networks.Featurizer = inner


def _first(module: nn.Module) -> nn.Module:
    """Where psi can be a submodule: a Sequential would run it as its last layer."""
    return _first(module[0]) if isinstance(module, nn.Sequential) and len(module) else module


def _morph(featurizer: nn.Module, inputs: tuple) -> tuple:
    """A function and no closure: it is copied with its module and then finds the copy's psi."""
    images, *others = inputs
    return (featurizer.sees_through[0](images).images, *others)


def draw_weights(psi: InputMorphing) -> None:
    """Draw psi's initial weights again, from the random numbers as they stand now, as a new psi would."""
    for module in (*psi.network.features, psi.network):  # torch draws those of every layer before the network does
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


class AddedContrast:
    """While a base's update runs: add λ·L_con's gradient to every step that moves a psi, the base's own or a copy.

    Args:
        algorithm: the base; the copies of its psi that it makes and runs meanwhile count too.
        contrast: L_con.
        hparams: those of CIM: ``cim_lambda``, ``cim_gradient`` and ``cim_learning_rate``.
        batch: the images that L_con is computed on.
    """

    def __init__(self, algorithm: nn.Module, contrast: TripletContrast, hparams: Mapping[str, Any], batch: Batch):
        self.contrast, self.batch = contrast, batch
        self.weight, self.learning_rate = hparams["cim_lambda"], hparams["cim_learning_rate"]
        self.alone = hparams["cim_gradient"] == "contrastive"
        self.psis = {id(module): module for module in algorithm.modules() if isinstance(module, InputMorphing)}
        self.steps: list[dict[str, Tensor]] = []  #: at every step that moved a psi L_con's mean and statistics, ()
        self._gradients: list[tuple[Tensor, Tensor | None]] = []  #: a weight, and its gradient as the base left it
        self._groups: list[tuple[dict[str, Any], list[Tensor]]] = []  #: of a base's optimizer, and what it held
        self._hooks: list[Any] = []

    def __enter__(self) -> AddedContrast:
        hooks = (
            register_module_forward_pre_hook(self._note),
            register_optimizer_step_pre_hook(self._add),
            register_optimizer_step_post_hook(self._restore),
        )
        self._hooks = list(hooks)
        return self

    def __exit__(self, *_) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, module: nn.Module, inputs: tuple) -> None:
        if isinstance(module, InputMorphing):
            self.psis[id(module)] = module

    def _add(self, optimizer: torch.optim.Optimizer, arguments: tuple, keywords: dict) -> None:
        moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for psi in list(self.psis.values()):
            parameters = [parameter for parameter in psi.parameters() if id(parameter) in moved]
            if parameters:
                if self.learning_rate:
                    self._set_apart(optimizer, parameters)
                for parameter, gradient in zip(parameters, self._gradient(psi, parameters)):
                    self._gradients.append((parameter, parameter.grad))
                    alone = self.alone or parameter.grad is None
                    parameter.grad = gradient if alone else parameter.grad + gradient

    def _gradient(self, psi: InputMorphing, parameters: list[Tensor]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            morphed = psi(self.batch.images)
            losses, valid = self.contrast(morphed, self.batch.labels, self.batch.environments)
            loss = losses.mean()
            statistics = MaskStatistics.of(morphed.mask, losses, valid, self.contrast.reading)
            self.steps.append({"L_con": loss.detach(), **statistics.of_batch()})
            return torch.autograd.grad(self.weight * loss, parameters)

    def _set_apart(self, optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> None:
        """Put psi's weights into groups of their own rate, without weight decay, for the length of the step."""
        own = {id(parameter) for parameter in parameters}
        for group in list(optimizer.param_groups):
            apart = [parameter for parameter in group["params"] if id(parameter) in own]
            if apart:
                self._groups.append((group, group["params"]))
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
                optimizer.param_groups.append({**group, "params": apart, "lr": self.learning_rate, "weight_decay": 0.0})

    def _restore(self, optimizer: torch.optim.Optimizer, arguments: tuple, keywords: dict) -> None:
        if self._groups:
            del optimizer.param_groups[-len(self._groups) :]
        for group, parameters in reversed(self._groups):
            group["params"] = parameters
        self._groups.clear()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self._gradients.clear()

    def logged(self) -> dict[str, float]:
        """L_con and those of ``mask_statistics.NAMES``, averaged over the steps that moved a psi; empty where none
        did.
        """
        if not self.steps:
            return {}
        values = torch.stack([torch.stack(list(of_step.values())) for of_step in self.steps]).mean(0).tolist()
        return dict(zip(self.steps[0], values))
