"""Encoders by name: our small one for small images, torchvision's and timm's, each without its classification layer."""

from __future__ import annotations

import difflib
import os
import warnings
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..files import kind
from . import seal

ALIASES = {"wideresnet50": "wide_resnet50_2"}  #: WILDS' name -> torchvision's
#: arguments by which timm and torchvision are told where weights come from
WEIGHTS_FROM_ELSEWHERE = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "weights", "weights_backbone")
TRANSFORM_INPUT = (
    "googlenet",
    "inception_v3",
    #: which torchvision lets do so with its weights only; a resumed run is built without them, and is to be the same
    #: network
)


class SmallCNN(nn.Sequential):
    """Four convolutions with group normalisation for images of 28 to 64 pixels, 80,000 parameters. Uses no batch
    statistics.

    Args:
        channels: of the images.
    """

    n_features = 64

    def __init__(self, channels: int = 3):
        def block(n_inputs: int, n_outputs: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(n_inputs, n_outputs, 3, stride, padding=1, bias=False),
                nn.GroupNorm(8, n_outputs),
                nn.ReLU(inplace=True),
            ]

        super().__init__(
            *block(channels, 32, 2),
            *block(32, 48, 1),
            *block(48, 64, 2),
            *block(64, 64, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def make_encoder(name: str, model_kwargs: dict[str, Any], pretrained_model_path: str | None) -> tuple[nn.Module, int]:
    """An encoder, images (N, 3, H, W) -> features (N, F), and F.

    Args:
        name: "small_cnn", a torchvision model, or a timm model; "timm/NAME" where both have the name.
        model_kwargs: "pretrained" and other arguments of the model.
        pretrained_model_path: a state dict to load instead of the library's weights.

    Raises:
        InputError: the name is unknown, the weights cannot be had, or the file does not fit.
    """
    if loading := [key for key in model_kwargs if key in WEIGHTS_FROM_ELSEWHERE]:
        raise InputError(
            f"--model_kwargs {loading[0]}={model_kwargs[loading[0]]} lets a library load weights as it likes, and "
            f"older ones execute what is in them; give the file by --pretrained_model_path"
        )
    options = dict(model_kwargs)
    pretrained = bool(options.pop("pretrained", False)) and pretrained_model_path is None
    try:
        encoder, n_features = _make(ALIASES.get(name, name), pretrained, options)
    except InputError:
        raise
    except TypeError as error:
        raise InputError(f"--model {name} does not take --model_kwargs {options}: {_first_line(error)}") from error
    except Exception as error:
        if options and not pretrained:  # whatever the library raises for values that it cannot use
            raise InputError(
                f"--model {name} cannot be made with --model_kwargs {options}: {_first_line(error)}"
            ) from error
        if not pretrained:
            raise
        raise InputError(
            f"the pretrained weights of {name} cannot be had ({_first_line(error)}); without network put the file into "
            f"{torch.hub.get_dir()}/checkpoints "
            "(timm: the Hugging Face cache), name one by --pretrained_model_path, or train from scratch with "
            "--model_kwargs pretrained=false"
        ) from error
    if pretrained_model_path is not None:
        load_weights(encoder, pretrained_model_path)
    return encoder, n_features


def _make(name: str, pretrained: bool, options: dict[str, Any]) -> tuple[nn.Module, int]:
    import torchvision

    if name == "small_cnn":  # there are no pretrained weights of it
        return SmallCNN(**options), SmallCNN.n_features
    torchvision_models = torchvision.models.list_models(module=torchvision.models)
    if name in torchvision_models:
        if name in TRANSFORM_INPUT:
            options.setdefault("transform_input", True)
            options.pop("aux_logits", None)  # cut off below, whatever it says
        model = torchvision.models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None, **options)
        return model, _cut_last_layer(name, model)
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"--model {name!r} is not a model of torchvision, and timm is not installed; 'pip install timm'"
        ) from error
    bare = name.removeprefix("timm/")
    architecture, dot, _ = bare.partition(".")
    if not timm.is_model(architecture) or (dot and bare not in timm.list_models(f"{architecture}.*", pretrained=True)):
        near = difflib.get_close_matches(
            bare, {*torchvision_models, *timm.list_models(), *timm.list_models(f"{architecture}.*", pretrained=True)}
        )
        raise InputError(
            f"--model {name!r} is neither small_cnn nor a model of torchvision or timm"
            + (f"; near: {', '.join(near)}" if near else "")
        )
    model = timm.create_model(bare, pretrained=pretrained, num_classes=0, **options)
    return model, getattr(
        model, "head_hidden_size", model.num_features
    )  # timm's num_features are those before the last hidden layer


def _cut_last_layer(name: str, model: nn.Module) -> int:
    """Replace a torchvision model's last linear layer by nothing, auxiliary outputs too; the length of its input."""
    if getattr(model, "aux_logits", False):
        model.aux_logits = False
        for head in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, head):
                setattr(model, head, None)
    linear = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(
            f"--model {name} has no last linear layer to leave out; choose a model that ends in one, e.g. resnet18"
        )
    path, layer = linear[-1]
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    return layer.in_features


def load_weights(encoder: nn.Module, path: str) -> None:
    """Load a state dict saved by torchvision, timm, WILDS or this plugin; a classification layer in it is left out.

    Raises:
        InputError: the file is missing, holds more than tensors, or has not all of the encoder's weights.
    """
    state = read_checkpoint(path, "--pretrained_model_path", ours=False)
    for wrapper in ("algorithm", "state_dict", "model"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    own = encoder.state_dict()
    for prefix in ("", "encoder.1.", "encoder.", "featurizer.", "model.module.", "model.", "module."):
        named = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if set(own) <= set(named) and all(
            getattr(named[name], "shape", None) == value.shape for name, value in own.items()
        ):
            encoder.load_state_dict({name: named[name] for name in own})
            return
    missing = next((name for name in own if name not in state), None)
    what = f"has no {missing!r}" if missing else "has weights of other shapes"
    raise InputError(f"--pretrained_model_path {path} {what}: it is not of this --model")


def read_checkpoint(path: str, flag: str, ours: bool = True) -> dict[str, Any]:
    """A dictionary of tensors and plain values from a file; nothing in it is executed.

    Args:
        ours: whether a host or this package has written it, see :func:`.seal.fault`.

    Raises:
        InputError: the file is missing, damaged, or would need code to be executed.
    """
    if not os.path.isfile(path):
        raise InputError(f"{flag}: {path} " + (f"is {kind(path)}" if os.path.exists(path) else "does not exist"))
    try:
        with open(path, "rb") as file:
            fault = seal.fault(file, ours)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on a pickle protocol: it loads, or the error says why not
                state = None if fault else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{flag}: {path} is not a checkpoint of tensors and plain values, and nothing else is loaded "
            f"({_first_line(error)})"
        ) from error
    if fault:
        raise InputError(f"{flag}: {path} is damaged: {fault}; restore the file")
    if not isinstance(state, dict):
        raise InputError(f"{flag}: {path} holds a {type(state).__name__}, not a state dict")
    return state


def _first_line(error: BaseException) -> str:
    """Of torch's refusal the reason; before it stands how to load the file all the same."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
