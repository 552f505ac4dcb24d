"""Networks beside those of ``--image_arch``: torchvision's, timm's and ours, by the names of ``cim-plugin train``.

``--hparams '{"model": "mobilenetv2_100", "pretrained_model_path": "weights.pt"}'``; ``model_kwargs`` are the network's
arguments. Whoever names none gets the host's networks.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping

from torch import nn

from ...errors import InputError
from ...models.encoders import make_encoder

MODEL = "model"  #: the hyperparameter that names a network
OPTIONS = {"model_kwargs": dict, "pretrained_model_path": str}  #: and those that only go with it


def featurizer_by(networks: Any, inner: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The host's ``Featurizer``, which also knows :data:`MODEL`.

    Args:
        networks: the host's module, whose wrapper of foreign networks (batch normalisation stays as it is) is used.
        inner: the host's own.
    """

    @functools.wraps(inner)
    def Featurizer(data_type, input_shape, hparams):
        if data_type != "images" or MODEL not in hparams:
            return inner(data_type, input_shape, hparams)
        network, n_outputs = make_encoder(hparams[MODEL], *_options(hparams))
        return networks.ImportedModel(network, n_outputs, input_shape, hparams)

    return Featurizer


def _options(hparams: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    for name, kind in OPTIONS.items():
        if hparams.get(name) is not None and not isinstance(hparams[name], kind):
            expected = "an object" if kind is dict else "a path"
            raise InputError(f"--hparams: {name} is {hparams[name]!r}, not {expected}")
    path = hparams.get("pretrained_model_path")
    pretrained = {"pretrained": bool(hparams["pretrained"]) and path is None}
    return {**pretrained, **(hparams.get("model_kwargs") or {})}, path
