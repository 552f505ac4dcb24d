"""Reference models that learn from each other's mistakes, as in XRM (Pezeshki et al., ICML 2024, arXiv:2309.16748)."""

from __future__ import annotations

import torch

from cim_plugin.algorithms.reference_models import ReferenceModels, fit, mean_probabilities


class FlippingModels(ReferenceModels):
    """Before a model learns from a batch, labels give way to what a model of the other half takes the images for: the
    surer that one is, the likelier, never at chance and always at certainty. A label that has given way stays so.

    Written from the paper's description, not from its code.
    """

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.of_pair = [self.labels.clone() for _ in range(len(self) // 2)]

    def train(self, start: int, stop: int) -> None:
        for place in range(start, stop):
            for number in range(len(self)):
                self._take_step(number, place)

    def _take_step(self, number: int, place: int) -> None:
        pair, rows = number % (len(self) // 2), self.draws[number][place]
        (images,) = self.images("train", [rows], [("step", number, place)])
        other = self.models[(number + len(self) // 2) % len(self)]
        sureness, said = mean_probabilities([other], [images], self.tiles, self.evaluating).max(1)
        chance = 1 / self.n_classes
        gives_way = torch.rand(len(rows)) < (sureness - chance) / (1 - chance)
        self.of_pair[pair][rows] = torch.where(gives_way, said, self.of_pair[pair][rows])
        fit(self.models[number], [(images, self.of_pair[pair][rows])], self.steps[number], self.tiles, self.training)

    @property
    def n_classes(self) -> int:
        return int(self.labels.max()) + 1
