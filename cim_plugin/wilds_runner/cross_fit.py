"""``--cross_fit``: pseudo-environments of a data set's training and validation images, see
:mod:`..algorithms.pseudo_environments`, and the file that keeps them.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import re
from dataclasses import replace
from typing import Any, Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..algorithms.pseudo_environments import fit, mean_probabilities, out_of_fold
from ..errors import InputError, NotFinite
from ..files import Unreadable, read_text
from ..progress import progress
from ..runs.configuration import Configuration
from .checkpoint import write_whole
from .datasets import Dataset, Split, digest_of
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


def shares_that_agree(splits: Mapping[str, Split], pseudo: Mapping[str, Tensor]) -> dict[str, float]:
    """Split -> the share of its images, in [0, 1], whose pseudo-environment is that of their label."""
    return {key: (values == splits[key].labels).double().mean().item() for key, values in pseudo.items()}


# --- the reference models ---------------------------------------------------------------------------------------------


def predict_out_of_fold(
    config: Configuration,
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
        config: the run's; the models are trained for cross_fit steps of its batch size, by AdamW at
            :data:`LEARNING_RATES`, and see cross_fit_tiles tiles.
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
    labels, size = splits["train"].labels, config.batch_size
    fold = torch.randperm(len(labels), generator=_generator(config, "folds")) % FOLDS
    of_val = torch.arange(len(splits["val"].labels))
    batches = sum(
        MODELS * config.cross_fit + math.ceil(rows / size) + math.ceil(len(of_val) / size)
        for rows in torch.bincount(fold, minlength=FOLDS).tolist()
    )
    with progress(total=batches, unit="batch", desc="reference models", show=show, leave=False) as bar:

        def done() -> None:
            bar.update()
            after_batch()

        def probabilities(held_out: int, others: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            models = []
            for number in range(held_out * MODELS, (held_out + 1) * MODELS):
                models.append(make_model(number).to(fabric.device))
                _fit(models[-1], loaders["train"], others, labels, number, config, fabric, done)
            return tuple(
                _probabilities(models, loaders[key], of_split, config, fabric, done)
                for key, of_split in (("train", rows), ("val", of_val))
            )

        return dict(zip(SPLITS, out_of_fold(labels, fold, probabilities)))


def _generator(config: Configuration, *words: Any) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(config.seed, "cross_fit", *words))


def _fit(
    model: nn.Module, loader: Loader, rows: Tensor, labels: Tensor, number: int, config: Configuration, fabric, done
) -> None:
    """Train on batches that are drawn from the rows with replacement."""
    rate = LEARNING_RATES[config.is_pretrained]
    own = replace(config, optimizer="AdamW", optimizer_kwargs={}, lr=rate, weight_decay=WEIGHT_DECAY)
    optimizer = make_optimizer(own, model.parameters(), fabric.device.type)
    precision = copy.deepcopy(
        fabric.strategy.precision
    )  # a loss scale of its own: the run's starts as without references
    draws = rows[
        torch.randint(len(rows), (config.cross_fit, config.batch_size), generator=_generator(config, "batches", number))
    ].tolist()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step, batch in enumerate(loader([[(row, 0) for row in of_batch] for of_batch in draws])):
            torch.manual_seed(seed_of(config.seed, "cross_fit", "step", number, step))  # of tiles and dropout
            yield to_pixels(batch.images, fabric.device), labels[batch.rows].to(fabric.device)

    def take_step(loss: Tensor) -> None:
        precision.backward(loss, model)
        precision.optimizer_step(optimizer)
        optimizer.zero_grad()
        done()

    fit(model, batches(), take_step, config.cross_fit_tiles, precision.forward_context)


def _probabilities(
    models: list[nn.Module], loader: Loader, rows: Tensor, config: Configuration, fabric, done
) -> Tensor:
    """The mean over the models of every row's probabilities, (N, K) float32 on the CPU. Every image is read once."""

    def batches() -> Iterator[Tensor]:
        parts = rows.split(config.batch_size)
        for number, batch in enumerate(loader([[(row, 0) for row in part.tolist()] for part in parts])):
            torch.manual_seed(seed_of(config.seed, "cross_fit", "tiles", number))
            yield to_pixels(batch.images, fabric.device)
            done()

    try:
        return mean_probabilities(models, batches(), config.cross_fit_tiles, fabric.autocast)
    except FloatingPointError as error:
        raise NotFinite(
            "the logits of a reference model of --cross_fit are not finite; try another --precision, or other "
            "weights to start from"
        ) from error


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
                f"{path}, line {number}: {line[:80]!r} where {start!r} and a class from 0 to {data.n_classes - 1} "
                f"belong; "
                f"{_FIX}"
            )
        values.append(int(value))
    return dict(zip(SPLITS, torch.tensor(values).split([len(data.splits[key].labels) for key in SPLITS])))


def fingerprint(pseudo: Mapping[str, Tensor] | None) -> dict[str, str]:
    """As :func:`.datasets.fingerprint`; {} where a run has none."""
    return {} if pseudo is None else {"the pseudo-environments": digest_of(pseudo[key] for key in SPLITS)}


def check_unchanged(folder: str, data: Dataset, before: Mapping[str, str]) -> None:
    """Read the file, and hold it to the fingerprint of the run, which an older one lacks.

    Raises:
        InputError: see :func:`read`; or it says what the run did not write.
    """
    for what, digest in fingerprint(read(folder, data)).items():
        if before.get(what, digest) != digest:
            raise InputError(f"{os.path.join(folder, FILE)} is not as the run wrote it; {_FIX}")


def _starts(data: Dataset) -> list[str]:
    """All of every line but the pseudo-environment."""
    return [f"{key},{row},{label}," for key in SPLITS for row, label in enumerate(data.splits[key].labels.tolist())]
