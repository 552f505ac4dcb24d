"""``cim-plugin predict RUN IMAGES...``: the classes of photographs, and pictures of m."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from ..errors import InputError
from ..files import kind, reason, write_whole
from ..flags import whole
from ..progress import progress
from ..runs.rules import RULES

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder or file of a trained model, as cim_plugin.load takes it")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="JPEG and PNG files, and folders of them")
    parser.add_argument("--csv", metavar="FILE", help="write the table here, not to standard output")
    parser.add_argument("--masks", metavar="DIR", help="a new folder of pictures: x, m and psi(x) side by side")
    parser.add_argument("--probabilities", action="store_true", help="a column for every class, too")
    parser.add_argument("--rule", choices=tuple(RULES), default="best", help="the selection rule whose model is meant")
    parser.add_argument("--batch_size", type=whole(1, 65536), default=32, help="images at a time")


def run(args: argparse.Namespace) -> int:
    """Print the table, or write it. Exit status 0; 2 where an image cannot be read, and then nothing is written.

    Raises:
        InputError: the model cannot be loaded, or something cannot be written.
    """
    files = find_images(args.images)
    if args.masks is not None and os.path.lexists(args.masks):
        raise InputError(f"--masks {args.masks} exists already; name a new folder")
    if args.csv is not None and os.path.exists(args.csv) and not os.path.isfile(args.csv):
        raise InputError(f"--csv {args.csv} cannot be written: it is {kind(args.csv)}")
    from ..models.load import load

    model = load(args.run, rule=args.rule)
    if args.masks is not None and not model.recipe.has_psi:
        raise InputError(f"--masks: {model.algorithm} has no transformation network, so there is no m; leave it out")
    faults = [(file, why) for file, why in zip(files, _faults(files)) if why is not None]
    for file, why in faults:
        print(f"cim-plugin predict: error: {file} cannot be read ({why}); replace it or leave it out", file=sys.stderr)
    if faults:
        return 2
    with _appearing(args.masks) as masks:
        table = _predicted(model, files, args, masks)
        if args.csv is not None:
            write_whole(args.csv, table.encode())
    if args.csv is None:
        print(table, end="")
    return 0


@contextlib.contextmanager
def _appearing(folder: str | None) -> Iterator[str | None]:
    """Another folder to fill, which gets this name when all is in it, and is gone where an exception ends it."""
    if folder is None:
        yield None
        return
    part = f"{folder.rstrip(os.sep)}.part-{os.getpid()}"
    try:
        os.makedirs(part)
        yield part
        os.rename(part, folder)
    except OSError as error:
        raise InputError(f"--masks {folder} cannot be made ({reason(error)}); name another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def find_images(paths: list[str]) -> list[str]:
    """The files, and of folders all images in and below them in the order of their names.

    Raises:
        InputError: a path does not exist, or a folder holds none.
    """
    from ..data.images import SUFFIXES

    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(str(file) for file in Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"{path} holds no image ({', '.join(SUFFIXES)}); name files, or another folder")
            found += inside
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise InputError(f"{path} does not exist; name images, or folders of them")
    return found


def _faults(files: list[str]) -> Iterator[str | None]:
    from ..data.images import fault

    return (fault(file) for file in progress(files, desc="reading", unit="image", leave=False))


def _predicted(model: Model, files: list[str], args: argparse.Namespace, masks: str | None) -> str:
    """The table; pictures of m go to the folder ``masks``."""
    import torch

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "class", "probability", *(model.class_names if args.probabilities else ())])
    with torch.no_grad(), progress(total=len(files), desc="predicting", unit="image", leave=False) as bar:
        for start in range(0, len(files), args.batch_size):
            batch = files[start : start + args.batch_size]
            images = torch.stack([_read(model, file) for file in batch])
            for file, probabilities in zip(batch, model(images).softmax(1)):
                table.writerow([file, *_row(model, probabilities, args.probabilities)])
            if masks is not None:
                _draw(model, images, batch, start, len(files), masks)
            bar.update(len(batch))
    return text.getvalue()


def _row(model: Model, probabilities: Tensor, every: bool) -> list[str]:
    best = int(probabilities.argmax())
    return [model.class_names[best], *(f"{p:.6f}" for p in [probabilities[best], *(probabilities if every else ())])]


def _read(model: Model, file: str) -> Tensor:
    from PIL import Image

    from ..data.images import strict_decoding

    try:
        with strict_decoding(), Image.open(file) as image:
            return model.transform(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file} cannot be read any more ({error}); nothing was written") from error


def _draw(model: Model, images: Tensor, files: list[str], start: int, total: int, folder: str) -> None:
    """One PNG per image, x, m and psi(x) side by side; a number before the name keeps names apart and in order."""
    import torch
    from PIL import Image

    x, m, psi = model.morph(images)
    parts = (x, m.mean(1, keepdim=True), psi)
    panels = torch.cat([part.expand(-1, 3, -1, -1) for part in parts], 3)
    for number, (file, panel) in enumerate(zip(files, panels), start):
        pixels = (panel.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        name = f"{number:0{len(str(total - 1))}}_{Path(file).stem}.png"
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        write_whole(os.path.join(folder, name), content.getvalue())
