"""Pseudo-environments without labels of environments or groups: what short reference models take an image for.

A model that has been trained for few steps goes by what is easiest. On images that it has not seen its prediction tells
the
nuisance that the label is tied to; where it is wrong, the image is one of the few in which label and nuisance disagree
(Liu et al., 2021, arXiv:2107.09044, find them by their training error; out of fold no image is memorised). Where many
different
grounds make the figure the easier of the two, it must not see the figure: tiles of the image in random order keep
colours and textures.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import re
from typing import Any, Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, NotFinite
from ..files import Unreadable, read_text
from ..progress import progress
from .checkpoint import write_whole
from .config import is_pretrained
from .datasets import Dataset, Split
from .loading import Loader, seed_of, to_pixels
from .optimization import make_optimizer

FOLDS = 2
MODELS = 4  #: per fold, their probabilities averaged; docs/study.md has what one and four are worth
#: of AdamW, by whether the model starts from pretrained weights. Not the run's: a schedule for 300 epochs teaches
#: nothing in 100 steps, and
#: pseudo-environments do not depend on what a sweep draws
LEARNING_RATES = {False: 1e-3, True: 1e-4}
WEIGHT_DECAY = 0.01
SPLITS = ("train", "val")
FILE = "cross_fit.csv"
HEADER = "split,row,label,pseudo_environment"


def pseudo_groups(labels: Tensor, environments: Tensor) -> Tensor:
    """The cell of every image, (N,) int64: 2·label where the pseudo-environment is the label's, 2·label + 1 where it is
    another one.
    """
    return 2 * labels + (environments != labels)


def shares_that_agree(splits: Mapping[str, Split], pseudo: Mapping[str, Tensor]) -> dict[str, float]:
    """Split -> the share of its images, in [0, 1], whose pseudo-environment is that of their label."""
    return {key: (values == splits[key].labels).double().mean().item() for key, values in pseudo.items()}


# --- the reference models ---------------------------------------------------------------------------------------------


def shuffle_tiles(images: Tensor, tiles: int) -> Tensor:
    """Cut every image into equal tiles and put them into an order of its own, drawn from torch's generator.

    What fills a ground, its colours and its texture, is left; the shape of what is larger than a tile is not.

    Args:
        images: (N, C, H, W), any dtype.
        tiles: per side; 1 leaves the images as they are. Where it does not divide a side, the pixels left over at the
            end stay in place.

    Returns:
        (N, C, H, W), as the images.
    """
    if tiles == 1:
        return images
    n, channels, height, width = images.shape
    h, w = height // tiles, width // tiles
    cut = (
        images[:, :, : tiles * h, : tiles * w]
        .reshape(n, channels, tiles, h, tiles, w)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(n, tiles * tiles, -1)
    )
    order = torch.rand(n, tiles * tiles, device=images.device).argsort(1)
    moved = (
        cut.gather(1, order[:, :, None].expand_as(cut))
        .reshape(n, tiles, tiles, channels, h, w)
        .permute(0, 3, 1, 4, 2, 5)
    )
    images = images.clone()
    images[:, :, : tiles * h, : tiles * w] = moved.reshape(n, channels, tiles * h, tiles * w)
    return images


def predict_out_of_fold(
    config: dict[str, Any],
    splits: Mapping[str, Split],
    loaders: Mapping[str, Loader],
    make_model: Callable[[int], nn.Module],
    fabric,
    show: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """The class that models take every training image for which were trained on the other half, and validation images
    that of all models together.

    An image gets the class with the largest probability, averaged over those models. Of group labels none are used, of
    validation data no labels at all.

    Args:
        config: the run's; the models are trained for "cross_fit" steps of its batch size, by AdamW at
            :data:`LEARNING_RATES`, and see "cross_fit_tiles" tiles.
        splits: "train" and "val".
        loaders: theirs, without augmentation.
        make_model: number of the model, from 0 to FOLDS·MODELS - 1 -> a fresh one, pixels (N, 3, H, W) in [0, 1] ->
            logits (N, K).
        fabric: says device and precision; one process works, whatever their number.
        show: show a progress bar.
        after_batch: called after every batch; what it raises ends the work.

    Returns:
        "train" and "val" -> (N,) int64 in [0, K).

    Raises:
        NotFinite: the logits of a model are NaN or infinite.
        InputError: an image cannot be read.
    """
    labels, size = splits["train"].labels, config["batch_size"]
    fold = torch.randperm(len(labels), generator=_generator(config, "folds")) % FOLDS
    members = [torch.nonzero(fold == number).flatten() for number in range(FOLDS)]
    of_val = torch.arange(len(splits["val"].labels))
    batches = sum(
        MODELS * config["cross_fit"] + math.ceil(len(rows) / size) + math.ceil(len(of_val) / size) for rows in members
    )
    found, probabilities = torch.empty_like(labels), 0
    with progress(total=batches, unit="batch", desc="reference models", show=show, leave=False) as bar:

        def done() -> None:
            bar.update()
            after_batch()

        for held_out, rows in enumerate(members):
            models = []
            for number in range(held_out * MODELS, (held_out + 1) * MODELS):
                models.append(make_model(number).to(fabric.device))
                _fit(
                    models[-1],
                    loaders["train"],
                    torch.nonzero(fold != held_out).flatten(),
                    labels,
                    number,
                    config,
                    fabric,
                    done,
                )
            found[rows] = _probabilities(models, loaders["train"], rows, config, fabric, done).argmax(1)
            probabilities = probabilities + _probabilities(models, loaders["val"], of_val, config, fabric, done)
    return {"train": found, "val": probabilities.argmax(1)}


def _generator(config: dict[str, Any], *words: Any) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(config["seed"], "cross_fit", *words))


def _fit(
    model: nn.Module, loader: Loader, rows: Tensor, labels: Tensor, number: int, config: dict[str, Any], fabric, done
) -> None:
    """Train on batches that are drawn from the rows with replacement."""
    own = {
        "optimizer": "AdamW",
        "optimizer_kwargs": {},
        "lr": LEARNING_RATES[is_pretrained(config)],
        "weight_decay": WEIGHT_DECAY,
    }
    optimizer = make_optimizer({**config, **own}, model.parameters(), fabric.device.type)
    precision = copy.deepcopy(
        fabric.strategy.precision
    )  # a loss scale of its own: the run's starts as without references
    draws = rows[
        torch.randint(
            len(rows), (config["cross_fit"], config["batch_size"]), generator=_generator(config, "batches", number)
        )
    ].tolist()
    model.train()
    for step, batch in enumerate(loader([[(row, 0) for row in of_batch] for of_batch in draws])):
        torch.manual_seed(seed_of(config["seed"], "cross_fit", "step", number, step))  # of tiles and dropout
        images = shuffle_tiles(to_pixels(batch.images, fabric.device), config["cross_fit_tiles"])
        with precision.forward_context():
            logits = model(images)
        precision.backward(F.cross_entropy(logits.float(), labels[batch.rows].to(fabric.device)), model)
        precision.optimizer_step(optimizer)
        optimizer.zero_grad()
        done()


@torch.no_grad()
def _probabilities(
    models: list[nn.Module], loader: Loader, rows: Tensor, config: dict[str, Any], fabric, done
) -> Tensor:
    """The mean over the models of every row's probabilities, (N, K) float32 on the CPU. Every image is read once."""
    for model in models:
        model.eval()
    parts = []
    for number, batch in enumerate(
        loader([[(row, 0) for row in part.tolist()] for part in rows.split(config["batch_size"])])
    ):
        torch.manual_seed(seed_of(config["seed"], "cross_fit", "tiles", number))
        images = shuffle_tiles(to_pixels(batch.images, fabric.device), config["cross_fit_tiles"])
        with fabric.autocast():
            logits = torch.stack([model(images).float() for model in models])
        if not logits.isfinite().all():
            raise NotFinite(
                "the logits of a reference model of --cross_fit are not finite; try another --precision, or other "
                "weights to start from"
            )
        parts.append(logits.softmax(-1).mean(0).cpu())
        done()
    return torch.cat(parts)


# --- the file ---------------------------------------------------------------------------------------------------------

_FIX = "restore the file that the run wrote, or begin again with another --log_dir"


def write(folder: str, data: Dataset, pseudo: Mapping[str, Tensor]) -> None:
    """cross_fit.csv of a run: a line per image of the training and the validation split, in order."""
    lines = [
        f"{start}{value}"
        for start, value in zip(_starts(data), itertools.chain.from_iterable(pseudo[key].tolist() for key in SPLITS))
    ]
    text = "\n".join([HEADER, *lines, ""])
    write_whole(os.path.join(folder, FILE), lambda file: file.write(text.encode()))


def read(folder: str, data: Dataset) -> dict[str, Tensor]:
    """What :func:`write` wrote: "train" and "val" -> (N,) int64 in [0, K).

    Raises:
        InputError: the file is missing or damaged, or of other data.
    """
    path = os.path.join(folder, FILE)
    try:
        lines = read_text(path).splitlines()
    except Unreadable as error:
        raise InputError(f"{error}; {_FIX}") from error
    starts = _starts(data)
    if len(lines) != len(starts) + 1:
        raise InputError(f"{path} has {len(lines)} lines where {len(starts) + 1} belong; {_FIX}")
    if lines[0] != HEADER:
        raise InputError(f"{path}, line 1: {lines[0][:80]!r} where {HEADER!r} belongs; {_FIX}")
    values = []
    for number, (line, start) in enumerate(zip(lines[1:], starts), 2):
        value = line.removeprefix(start)
        is_number = re.fullmatch("[0-9]{1,9}", value) is not None
        if not (line.startswith(start) and is_number and int(value) < data.n_classes):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} where {start!r} and a class from 0 to {data.n_classes - 1} belong; "
                f"{_FIX}"
            )
        values.append(int(value))
    return dict(zip(SPLITS, torch.tensor(values).split([len(data.splits[key].labels) for key in SPLITS])))


def _starts(data: Dataset) -> list[str]:
    """All of every line but the pseudo-environment."""
    return [f"{key},{row},{label}," for key in SPLITS for row, label in enumerate(data.splits[key].labels.tolist())]
