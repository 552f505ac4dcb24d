"""``cim-plugin export RUN``: a trained model in a format that other programs read."""

from __future__ import annotations

import argparse
import io
import os
from typing import TYPE_CHECKING, Callable

from ..errors import InputError
from ..files import kind, write_whole
from ..runs.rules import RULES

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.model import Model

#: as much as logits of two programs may differ: convolutions add up in another order
TOLERANCE = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder or file of a trained model, as cim_plugin.load takes it")
    parser.add_argument("--format", choices=tuple(FORMATS), required=True, help="; ".join(_described()))
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write; by default RUN's name with a suffix")
    parser.add_argument("--rule", choices=tuple(RULES), default="best", help="the selection rule whose model is meant")


def run(args: argparse.Namespace) -> int:
    """Write the file, look whether it gives the model's logits, and say what it takes. Exit status 0.

    Raises:
        InputError: the model cannot be loaded, a package is missing, or the file cannot be written.
    """
    suffix, what, write = FORMATS[args.format]
    name = os.path.splitext(os.path.basename(os.path.normpath(args.run)))[0]
    output = args.output or f"{name}{suffix}"
    if not output.endswith(suffix):
        raise InputError(f"--output {output} must end in {suffix}, as files of {args.format} do")
    if os.path.exists(output) and not os.path.isfile(output):
        raise InputError(f"--output {output} cannot be written: it is {kind(output)}")
    from ..models.load import load

    model = load(args.run, rule=args.rule)
    content, difference = write(model, _example(model))
    if not difference <= TOLERANCE:
        raise InputError(f"the exported model gives logits that differ by {difference:.2g}; nothing was written")
    write_whole(output, content)
    recipe = model.recipe
    height, width = recipe.image_size
    taken = "pixels in [0, 1]" if not any(recipe.mean) else f"normalised by mean {recipe.mean} and std {recipe.std}"
    print(f"{output}: {what}; images (N, {recipe.channels}, {height}, {width}), {taken} -> logits (N, classes)")
    print(f"classes: {', '.join(model.class_names)}")
    print(f"its logits differ from the model's by at most {difference:.1e}")
    return 0


def _example(model: Model) -> Tensor:
    """Two images of noise in the unit that the model takes, always the same."""
    import torch

    recipe = model.recipe
    pixels = torch.rand(2, recipe.channels, *recipe.image_size, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (recipe.mean, recipe.std))
    return (pixels - mean) / std


def torch_export(model: Model, images: Tensor) -> tuple[bytes, float]:
    """A program of ``torch.export`` for any number of images, and how far its logits are off."""
    import torch

    file = io.BytesIO()
    torch.export.save(_program(model, images), file)
    content = file.getvalue()
    return content, _difference(torch.export.load(io.BytesIO(content)).module(), model, images)


def onnx(model: Model, images: Tensor) -> tuple[bytes, float]:
    """An ONNX model for any number of images, and how far its logits are off in ONNX Runtime."""
    _import("onnx")
    _import("onnxscript")
    runtime = _import("onnxruntime")
    import torch

    program = torch.onnx.export(
        _program(model, images), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
    )
    content = program.model_proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, _difference(
        lambda batch: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]),
        model,
        images,
    )


def safetensors(model: Model, images: Tensor) -> tuple[bytes, float]:
    """The weights with what ``cim_plugin.load`` rebuilds the model from, and how far the logits of that one are off."""
    import tempfile

    from ..models.load import load
    from ..models.pretrained import as_bytes

    content = as_bytes(model)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.safetensors")
        write_whole(file, content)
        return content, _difference(load(file), model, images)


def _program(model: Model, images: Tensor):
    import torch

    return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("n_images")},))


def _difference(other: Callable[[Tensor], Tensor], model: Model, images: Tensor) -> float:
    """The largest difference of two models' logits, for two images and for one: the number may not be fixed."""
    import torch

    with torch.no_grad():
        pairs = [(other(batch), model(batch)) for batch in (images, images[:1])]
    return max(float((first - second).abs().max()) for first, second in pairs)


def _import(name: str):
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"--format onnx needs the package {name}; pip install 'cim_plugin[export]'") from error


#: format -> (how its files end, what it is, model and images -> content and difference of the logits)
FORMATS: dict[str, tuple[str, str, Callable[[Model, Tensor], tuple[bytes, float]]]] = {
    "torch-export": (".pt2", "a program of torch.export", torch_export),
    "onnx": (".onnx", "an ONNX model", onnx),
    "safetensors": (".safetensors", "weights that cim_plugin.load reads", safetensors),
}


def _described() -> list[str]:
    return [f"{name}: {what}" for name, (_, what, _) in FORMATS.items()]
