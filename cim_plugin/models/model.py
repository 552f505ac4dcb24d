"""A classifier as people use it: built for a loop of one's own, or loaded from what a run has left."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from .. import catalog
from ..algorithms.classifier import RobustClassifier
from ..errors import InputError
from .preparation import Preparation
from .recipe import Recipe


class Morphed(NamedTuple):
    """What the encoder sees of a batch; all floats of the weights' dtype, on their device."""

    x: Tensor  #: the images as pixels, (N, C, H, W) in [0, 1]
    m: Tensor  #: the weighting matrix, (N, 1, H, W) in (0, 1)
    psi: Tensor  #: m∘x, (N, C, H, W) in [0, 1]


class Model(nn.Module):
    """A classifier with its loss, its transform and the names of its classes.

    ``cim_plugin.build`` and ``cim_plugin.load`` make it.

    Attributes:
        algorithm: its name, e.g. "CIM".
        class_names: list of K names, in the order of the logits.
        transform: PIL image of any size and mode -> (C, H, W) float32, as ``forward`` takes a batch of.
        recipe: all that it is rebuilt from, but for the weights.
    """

    def __init__(self, classifier: RobustClassifier, recipe: Recipe):
        super().__init__()
        self.classifier = classifier
        self.recipe = recipe

    @property
    def algorithm(self) -> str:
        return self.recipe.algorithm

    @property
    def class_names(self) -> list[str]:
        return list(self.recipe.class_names)

    @property
    def transform(self) -> Preparation:
        return Preparation(self.recipe)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), floats as ``transform`` gives them -> logits (N, K), without any noise.

        Raises:
            ValueError: the images are no floats, or have another number of dimensions or channels.
        """
        return self.classifier(images)

    def loss(
        self, images: Tensor, labels: Tensor, environments: Tensor | None = None, groups: Tensor | None = None
    ) -> Tensor:
        """The training loss of a batch, a scalar () with a gradient: the sum of ``losses``, each by its weight.

        Args:
            images: (N, C, H, W) floats, as ``forward`` takes them.
            labels: (N,) whole numbers from 0 to K - 1.
            environments: (N,) int64; only ``cim_pairs="cross_environment"`` needs them.
            groups: (N,) int64; only group DRO needs them.

        Raises:
            ValueError: a shape, a dtype or a label cannot be used; or the first batch's values are not what the model
                was told of them, such as pixels from 0 to 255.
        """
        if self.classifier.group_weights is not None and groups is None:
            raise InputError(f"{self.algorithm} weighs groups; give loss(images, labels, groups=...)")
        return self.classifier.total(self.losses(images, labels, environments), groups)

    def losses(self, images: Tensor, labels: Tensor, environments: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of the loss per image, name -> (N,): "supervised", and what the algorithm adds, e.g. "contrastive".

        Arguments and errors are those of ``loss``.
        """
        return self.classifier.loss_terms(images, labels, environments).losses

    def morph(self, images: Tensor) -> Morphed:
        """x, m and psi(x) of images (N, C, H, W), floats as ``forward`` takes them.

        Raises:
            InputError: the algorithm has no transformation network.
        """
        if self.recipe.split:
            return self._split(images)
        if self.classifier.morphing is None:
            raise InputError(f"{self.algorithm} has no transformation network, so there is no m to look at")
        morphed = self.classifier.morphing(images)
        return Morphed(morphed.pixels, morphed.mask, morphed.psi)

    def _split(self, images: Tensor) -> Morphed:
        """Of a mask over maps, brought to the size of the image; the classifier sees the maps weighted by it."""
        network = self.classifier.encoder
        maps = network[0](images) if isinstance(network, nn.Sequential) else images
        masks = network[-1] if isinstance(network, nn.Sequential) else network
        m = masks.split(masks.maps(maps)).m
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.recipe.mean, self.recipe.std))
        x, m = images * std + mean, F.interpolate(m, images.shape[-2:], mode="bilinear", align_corners=False)
        return Morphed(x, m, m * x)

    def parameter_groups(self, lr: float, network_lr: float | None = None, **others: Any) -> list[dict[str, Any]]:
        """The weights for an optimizer of Adam's kind, the transformation network with a rate of its own and no decay.

        ``torch.optim.AdamW(model.parameter_groups(lr=1e-4, weight_decay=1e-2))``. SGD moves the network hardly at any
        rate that suits an encoder: give it the first group, and the second one to an Adam.

        Args:
            lr: learning rate of encoder and head.
            network_lr: of the transformation network; None takes the hyperparameter ``cim_learning_rate``, and ``lr``
                where that is 0.
            others: more options of the first group, such as ``weight_decay``.

        Returns:
            One group, or two where there is a transformation network.
        """
        network = self.classifier.morphing
        own = list(network.parameters()) if network is not None else []
        taken = {id(weight) for weight in own}
        rest = [weight for weight in self.parameters() if id(weight) not in taken]
        groups = [{"params": rest, "lr": lr, **others}]
        if own:
            rate = network_lr or self.recipe.hyperparameters["cim_learning_rate"] or lr
            groups.append({"params": own, "lr": rate, "weight_decay": 0.0})
        return groups

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write weights and recipe into a folder that ``cim_plugin.load`` reads: model.safetensors, which has both,
        config.json and README.md for readers.

        Raises:
            InputError: safetensors is missing, or the folder cannot be written.
        """
        from .pretrained import save

        save(self, folder)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Write what ``save_pretrained`` writes into a repository of the Hugging Face Hub, and make it if need be.

        Args:
            repository: "owner/name"; ``cim_plugin.load("hf://owner/name")`` reads it.
            options: of huggingface_hub's ``upload_folder``, such as ``commit_message`` or ``token``, and ``private``.

        Returns:
            The address of the commit.

        Raises:
            InputError: huggingface_hub or safetensors is missing, or the Hub refuses.
        """
        from .pretrained import push

        return push(self, repository, **options)

    def extra_repr(self) -> str:
        """The algorithm, the number of classes and the size of the images, in words."""
        height, width = self.recipe.image_size
        what = catalog.TRAINABLE[self.algorithm][1]
        return f"{self.algorithm} ({what}), {len(self.recipe.class_names)} classes, images of {height}x{width}"
