"""``--cross_fit`` and the first model of JTT: pseudo-environments of a data set's training and validation images, see
:mod:`..algorithms.pseudo_environments`, and the file that keeps them.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from .. import catalog
from ..algorithms import pseudo_environments
from ..algorithms.pseudo_environments import FOLDS, MODELS, STEPS
from ..algorithms.reference_models import ReferenceModels, balanced_draws
from ..errors import InputError, NotFinite
from ..files import Unreadable, read_text
from ..progress import progress
from ..runs.configuration import Configuration
from .checkpoint import write_whole
from .datasets import Dataset, Split, digest_of
from .loading import Loader, make_loader, seed_of, to_pixels
from .model import build_model
from .optimization import make_optimizer

if TYPE_CHECKING:
    from .session import Session
    from .training import Training

AUTO = "auto"  #: of --cross_fit: as many steps as the models agree best at
#: of AdamW, by whether the model starts from pretrained weights. Not the run's: a schedule for 300 epochs teaches
#: nothing in 100 steps, and
#: pseudo-environments do not depend on what a sweep draws
LEARNING_RATES = {False: 1e-3, True: 1e-4}
WEIGHT_DECAY = 0.01
SPLITS = ("train", "val")
FILE = "cross_fit.csv"
HEADER = "split,row,label,pseudo_environment"


def find(training: Training, show: bool, after_batch: Callable[[], None]) -> dict[str, Tensor]:
    """The pseudo-environments of a training, see :func:`predict_out_of_fold` and, for JTT,
    :func:`predict_by_first_model`.
    """
    config, data, transform = training.config, training.data, training.transform
    plain = make_loader(config, data, "train", transform, training.cache, augment=False)
    loaders = {"train": plain, "val": training.loaders["val"]}
    make_model = partial(reference_model, training.session)
    predict = predict_by_first_model if catalog.trains_twice(config.algorithm) else predict_out_of_fold
    return predict(config, data.splits, loaders, make_model, training.fabric, show, after_batch)


def reference_model(session: Session, number: int) -> nn.Module:
    """A fresh one, as the run's ERM would be with another seed."""
    seed = seed_of(session.config.seed, "cross_fit", "model", number)
    config = replace(session.config, algorithm="ERM", hyperparameters={}, seed=seed)
    return build_model(config, session.facts, session.transform)


def in_words(config: Configuration, splits: Mapping[str, Split], pseudo: Mapping[str, Tensor]) -> str:
    """For log.txt: how often pseudo-environment and label agree, and a warning where that says nothing."""
    shares = shares_that_agree(splits, pseudo)
    if catalog.trains_twice(config.algorithm):
        return _errors_in_words(config, shares)
    found = ", ".join(f"{100 * share:.1f}% of {key}" for key, share in shares.items())
    words = f"\nCross-fit: the pseudo-environment agrees with the label for {found}\n"
    largest = torch.bincount(splits["train"].labels).max().item() / len(pseudo["train"])
    if shares["train"] > largest:
        return words
    return (
        f"{words}warning: always the largest class would agree for {100 * largest:.1f}% of train: the reference models "
        f"have learnt too little for pseudo-environments; give --cross_fit more steps\n"
    )


def _errors_in_words(config: Configuration, shares: Mapping[str, float]) -> str:
    wrong = ", ".join(f"{100 * (1 - share):.1f}% of {key}" for key, share in shares.items())
    words = f"\nJTT: the first model is wrong for {wrong}\n"
    if shares["train"] < 1:
        return words
    steps = config.hyperparameters["jtt_steps"]
    return f"{words}warning: nothing is upweighted, so this is ERM; give fewer --jtt_steps than {steps}\n"


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
    """See :func:`~..algorithms.pseudo_environments.cross_fit`. Of group labels none are used; labels of validation data
    only where the number of steps is chosen.

    Args:
        config: the run's; the models are trained for cross_fit steps, a number or :data:`AUTO`, of its batch size, by
            AdamW at :data:`LEARNING_RATES`, and see cross_fit_tiles tiles.
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
    labels = splits["train"].labels
    steps = None if config.cross_fit == AUTO else config.cross_fit
    fold = pseudo_environments.folds(labels, _generator(config, "folds"))
    draws = [_draws(config, labels, fold, number, steps or STEPS[-1]) for number in range(FOLDS * MODELS)]
    with _references(config, labels, loaders, make_model, draws, fabric, show, after_batch) as references:
        found = pseudo_environments.cross_fit(
            references, labels, splits["val"].labels, fold, steps, _generator(config, "sample")
        )
    return {"train": found.train, "val": found.val}


def predict_by_first_model(
    config: Configuration,
    splits: Mapping[str, Split],
    loaders: Mapping[str, Loader],
    make_model: Callable[[int], nn.Module],
    fabric,
    show: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """What the first model of JTT (Liu et al., 2021, arXiv:2107.09044) takes every image for: one model, trained for
    jtt_steps on batches that are drawn from all training images alike. It is asked about these very images; validation
    images, which the paper does not ask about, serve to choose by.

    Arguments, result and errors are those of :func:`predict_out_of_fold`.
    """
    labels, steps = splits["train"].labels, config.hyperparameters["jtt_steps"]
    shape = (steps, config.batch_size)
    draws = [torch.randint(len(labels), shape, generator=_generator(config, "batches", 0))]
    with _references(config, labels, loaders, make_model, draws, fabric, show, after_batch) as references:
        references.train(0, steps)
        return {
            key: references.probabilities([0], key, torch.arange(len(splits[key].labels))).argmax(1) for key in SPLITS
        }


@contextlib.contextmanager
def _references(
    config: Configuration,
    labels: Tensor,
    loaders: Mapping[str, Loader],
    make_model: Callable[[int], nn.Module],
    draws: list[Tensor],
    fabric,
    show: bool,
    after_batch: Callable[[], None],
) -> Iterator[ReferenceModels]:
    """A model for each of the draws, see :class:`ReferenceModels`; NotFinite where logits inside are not finite."""
    with progress(total=sum(map(len, draws)), unit="step", desc="reference models", show=show, leave=False) as bar:

        def images(split: str, batches: list[Tensor], seeds: list[tuple]) -> Iterator[Tensor]:
            for batch, words in zip(loaders[split]([[(row, 0) for row in rows.tolist()] for rows in batches]), seeds):
                torch.manual_seed(seed_of(config.seed, "cross_fit", *words))  # of tiles and dropout
                yield to_pixels(batch.images, fabric.device)
                bar.update(words[0] == "step")
                after_batch()

        models = [make_model(number).to(fabric.device) for number in range(len(draws))]
        steppers = [_stepper(model, config, fabric) for model in models]
        precisions = (fabric.strategy.precision.forward_context, fabric.autocast)
        tiles = config.cross_fit_tiles or 1
        try:
            yield ReferenceModels(models, steppers, draws, labels, images, tiles, *precisions)
        except FloatingPointError as error:
            raise NotFinite(
                "the logits of a reference model are not finite; try another --precision, or other weights to start "
                "from"
            ) from error


def _generator(config: Configuration, *words: Any) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(config.seed, "cross_fit", *words))


def _draws(config: Configuration, labels: Tensor, fold: Tensor, number: int, steps: int) -> Tensor:
    rows = torch.nonzero(fold != number // MODELS).flatten()
    return balanced_draws(labels, rows, (steps, config.batch_size), _generator(config, "batches", number))


def _stepper(model: nn.Module, config: Configuration, fabric) -> Callable[[Tensor], None]:
    """Takes the loss and steps an optimizer of the model's own."""
    rate = LEARNING_RATES[config.is_pretrained]
    own = replace(config, optimizer="AdamW", optimizer_kwargs={}, lr=rate, weight_decay=WEIGHT_DECAY)
    optimizer = make_optimizer(own, model.parameters(), fabric.device.type)
    # a loss scale of its own: the run's starts as without references
    precision = copy.deepcopy(fabric.strategy.precision)

    def step(loss: Tensor) -> None:
        precision.backward(loss, model)
        precision.optimizer_step(optimizer)
        optimizer.zero_grad()

    return step


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
