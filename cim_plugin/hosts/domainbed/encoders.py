"""Networks beside the host's ResNets, by name (:mod:`..encoders`), for images of any size: on a machine without a GPU a
ResNet at 224 pixels takes days.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...models.assembly import count_features
from .. import encoders
from .image_size import IMAGE_SIZE, given

LARGE = (224, 224)  #: the one size of photographs for which the host has a network


class NamedNetwork(nn.Module):
    """A network in the form of the host's ``ResNet``, whose hyperparameters it obeys.

    Its weights are in channels_last order, which takes a third off a step of a MobileNetV2 on a CPU.

    Args:
        network: images (N, C, H, W) -> features (N, F).
        n_outputs: F.
        hparams: the host's. ``resnet_dropout`` is of the features; with ``freeze_bn`` batch normalisation goes by its
            running statistics in training, too.
    """

    def __init__(self, network: nn.Module, n_outputs: int, hparams: Mapping[str, Any]):
        super().__init__()
        self.network, self.n_outputs = network.to(memory_format=torch.channels_last), n_outputs
        self.frozen = bool(hparams.get("freeze_bn"))
        self.dropout = nn.Dropout(hparams.get("resnet_dropout", 0.0))
        self.activation = nn.Identity()  # the host's URM puts another one here
        self.train()

    def train(self, mode: bool = True) -> NamedNetwork:
        super().train(mode)
        for module in self.network.modules() if self.frozen else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as the host normalises them -> features (N, F)."""
        return self.activation(self.dropout(self.network(images)))


def featurizer_by(inner: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The host's ``Featurizer``, which also knows ``model`` and ``image_size``.

    Args:
        inner: the host's own.

    The one returned raises InputError where the network or its weights cannot be had, or it cannot take the images.
    """

    @functools.wraps(inner)
    def Featurizer(input_shape, hparams):
        _check(tuple(input_shape), hparams)
        if encoders.MODEL not in hparams or len(input_shape) != 3:
            return inner(input_shape, hparams)
        network, _ = encoders.make(hparams, pretrained=True)
        return NamedNetwork(network, count_features(network, input_shape[0], tuple(input_shape[1:])), hparams)

    return Featurizer


def _check(input_shape: tuple[int, ...], hparams: Mapping[str, Any]) -> None:
    """Raise InputError for hyperparameters of ours that do nothing, or without which there is no network."""
    idle = [name for name in encoders.KINDS if name in hparams] if encoders.MODEL not in hparams else []
    if idle:
        raise InputError(f"--hparams: {idle[0]} does nothing without model, the name of a network")
    size = given(hparams)
    if size is None:
        return
    if input_shape[1:] != (size, size):
        found = "x".join(map(str, input_shape[1:]))
        raise InputError(
            f"--hparams: {IMAGE_SIZE}={size} is for data sets of image files, such as PACS; this one has images of "
            f"{found}"
        )
    if (size, size) != LARGE and encoders.MODEL not in hparams:
        raise InputError(
            f'--hparams: {IMAGE_SIZE}={size} needs a network for such images; add "model": "mobilenetv2_100" or another'
        )
