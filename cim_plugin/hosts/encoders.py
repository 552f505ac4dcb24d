"""Networks beside a host's own, by the names of ``cim-plugin train``, for every algorithm of the host.

``--hparams '{"model": "mobilenetv2_100", "pretrained_model_path": "weights.pt"}'``; ``model_kwargs`` are the network's
arguments. Whoever names no ``model`` gets the host's networks.
"""

from __future__ import annotations

from typing import Any, Mapping

from torch import nn

from ..errors import InputError
from ..models.encoders import make_encoder

MODEL = "model"  #: the hyperparameter that names a network
KINDS = {MODEL: (str, "a name"), "model_kwargs": (dict, "an object"), "pretrained_model_path": (str, "a path")}


def make(hparams: Mapping[str, Any], pretrained: bool) -> tuple[nn.Module, int]:
    """The network of :data:`MODEL`, images (N, C, H, W) -> features (N, F), and F.

    Args:
        hparams: those of the host, with :data:`MODEL`.
        pretrained: whether its library's weights are loaded where ``pretrained_model_path`` names none and
            ``model_kwargs`` does not say.

    Raises:
        InputError: a hyperparameter is of another kind, or the network or its weights cannot be had.
    """
    for name, (kind, expected) in KINDS.items():
        if hparams.get(name) is not None and not isinstance(hparams[name], kind):
            raise InputError(f"--hparams: {name} is {hparams[name]!r}, not {expected}")
    path = hparams.get("pretrained_model_path")
    options = {"pretrained": pretrained and path is None, **(hparams.get("model_kwargs") or {})}
    return make_encoder(hparams[MODEL], options, path)
