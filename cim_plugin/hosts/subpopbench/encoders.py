"""Networks beside those of ``--image_arch``, by name: see :mod:`..encoders`."""

from __future__ import annotations

import functools
from typing import Any, Callable

from torch import nn

from .. import encoders


def featurizer_by(networks: Any, inner: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The host's ``Featurizer``, which also knows ``model``.

    Args:
        networks: the host's module, whose wrapper of foreign networks (batch normalisation stays as it is) is used.
        inner: the host's own.
    """

    @functools.wraps(inner)
    def Featurizer(data_type, input_shape, hparams):
        if data_type != "images" or encoders.MODEL not in hparams:
            return inner(data_type, input_shape, hparams)
        network, n_outputs = encoders.make(hparams, bool(hparams["pretrained"]))
        return networks.ImportedModel(network, n_outputs, input_shape, hparams)

    return Featurizer
