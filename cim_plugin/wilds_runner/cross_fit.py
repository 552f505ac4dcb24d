"""``--cross_fit`` and the first model of JTT: pseudo-environments of a data set's training and validation images by
short reference models, see :mod:`..algorithms.pseudo_environments`.
"""

from __future__ import annotations

import contextlib
import copy
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from .. import catalog
from ..algorithms import pseudo_environments
from ..algorithms.pseudo_environments import FOLDS, MODELS, Found, chosen, flagged_shares
from ..algorithms.reference_models import ReferenceModels, balanced_draws
from ..errors import NotFinite
from ..progress import progress
from ..runs.configuration import Configuration
from . import checkpoint
from .datasets import Split
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
CURVE = "cross_fit_curve.csv"  #: of a run whose number of steps was chosen
MOST_NAMES = 20  #: classes whose flagged shares are named in the log


def find(training: Training, show: bool, after_batch: Callable[[], None]) -> Found:
    """The pseudo-environments of a training, see :func:`predict_out_of_fold` and, for JTT,
    :func:`predict_by_first_model`.
    """
    config, data, transform = training.config, training.data, training.transform
    plain = make_loader(config, data, "train", transform, training.cache, augment=False)
    loaders = {"train": plain, "val": training.loaders["val"]}
    make_model = partial(reference_model, training.session)
    predict = predict_by_first_model if catalog.trains_twice(config.algorithm) else predict_out_of_fold
    return predict(Surroundings(config, data.splits, loaders, make_model, training.fabric, show, after_batch))


def reference_model(session: Session, number: int) -> nn.Module:
    """A fresh one, as the run's ERM would be with another seed."""
    seed = seed_of(session.config.seed, "cross_fit", "model", number)
    config = replace(session.config, algorithm="ERM", hyperparameters={}, seed=seed)
    return build_model(config, session.facts, session.transform)


def write_curve(folder: str, found: Found) -> None:
    """cross_fit_curve.csv: a line per look at the models; no file where the number of steps was given."""
    if found.curve:
        lines = [f"{look.steps},{look.agreement:.4f},{look.flagged:.4f}" for look in found.curve]
        text = "\n".join(["steps,agreement,flagged", *lines, ""])
        checkpoint.write_whole(os.path.join(folder, CURVE), text.encode())


def in_words(training: Training, found: Found) -> str:
    """For log.txt: the steps, how many images of every class are flagged, and a warning of classes that flags say
    nothing of; of JTT how many images its first model gets wrong.
    """
    if catalog.trains_twice(training.config.algorithm):
        return _errors_in_words(training, found)
    names, labels = training.session.facts.class_names, training.data.splits["train"].labels
    shares = flagged_shares(labels, found.train, len(names)).tolist()
    lines = [f"Cross-fit: {_steps_in_words(found)}"]
    known = sorted((share, name) for share, name in zip(shares, names) if share == share)
    shown = known if len(known) <= MOST_NAMES else known[-MOST_NAMES:]
    of_all = "" if len(known) == len(shown) else f" (the {MOST_NAMES} largest of {len(known)} classes)"
    lines.append(
        f"Flagged, as the pseudo-environment is not the class{of_all}: "
        + ", ".join(f"{100 * share:.1f}% of {name}" for share, name in reversed(shown))
    )
    for share, name in reversed(known):
        if share > 0.5:
            lines.append(
                f"warning: {100 * share:.1f}% of {name} are flagged: the reference models do not know this class, so "
                f"its flags tell no rare images; try --cross_fit_tiles 1, or another number of --cross_fit steps"
            )
    return "\n" + "".join(f"{line}\n" for line in lines)


def _errors_in_words(training: Training, found: Found) -> str:
    wrong = {
        key: (values != training.data.splits[key].labels).double().mean().item()
        for key, values in (("train", found.train), ("val", found.val))
    }
    shares = ", ".join(f"{100 * share:.1f}% of {key}" for key, share in wrong.items())
    words = f"\nJTT: the first model is wrong for {shares}\n"
    if wrong["train"]:
        return words
    return f"{words}warning: nothing is upweighted, so this is ERM; give fewer --jtt_steps than {found.steps}\n"


def _steps_in_words(found: Found) -> str:
    if not found.curve:
        return f"{found.steps} steps of every reference model"
    best = chosen(found.curve)
    return (
        f"{found.steps} steps of every reference model, after which the two halves agree best on what they flag (kappa "
        f"{best.agreement:.2f}, {100 * best.flagged:.1f}% of val); {CURVE} has the curve"
    )


# --- the reference models ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surroundings:
    """What reference models are made of, what they see, and what they run on."""

    config: Configuration  #: the run's
    splits: Mapping[str, Split]  #: "train" and "val"
    loaders: Mapping[str, Loader]  #: theirs, without augmentation
    make_model: Callable[[int], nn.Module]  #: number of the model -> a fresh one, pixels (N, 3, H, W) -> logits (N, K)
    fabric: Any  #: says device and precision; one process works, whatever their number
    show: bool = False  #: a progress bar
    after_batch: Callable[[], None] = lambda: None  #: called after every batch; what it raises ends the work


def predict_out_of_fold(around: Surroundings) -> Found:
    """See :func:`~..algorithms.pseudo_environments.cross_fit`. Of group labels none are used; labels of validation data
    only where the number of steps is chosen. The models are trained for cross_fit steps, a number or :data:`AUTO`, of
    the run's batch size, by AdamW at :data:`LEARNING_RATES`, and see cross_fit_tiles tiles.

    Raises:
        NotFinite: the logits of a model are NaN or infinite.
        InputError: an image cannot be read.
    """
    config, labels = around.config, around.splits["train"].labels
    steps = None if config.cross_fit == AUTO else config.cross_fit
    # the first batches are to be the same, whatever the number of steps
    most = max(steps or 0, pseudo_environments.STEPS[-1])
    fold = pseudo_environments.folds(labels, _generator(config, "folds"))
    draws = [_draws(config, labels, fold, number, most) for number in range(FOLDS * MODELS)]
    with _references(around, draws, FOLDS * MODELS * (steps or most)) as references:
        return pseudo_environments.cross_fit(
            references, labels, around.splits["val"].labels, fold, steps, _generator(config, "sample")
        )


def predict_by_first_model(around: Surroundings) -> Found:
    """What the first model of JTT (Liu et al., 2021, arXiv:2107.09044) takes every image for: one model, trained for
    jtt_steps on batches that are drawn from all training images alike. It is asked about these very images; validation
    images, which the paper does not ask about, serve to choose by. Raises as :func:`predict_out_of_fold`.
    """
    config, splits = around.config, around.splits
    steps, n_images = config.hyperparameters["jtt_steps"], len(splits["train"].labels)
    draws = [torch.randint(n_images, (steps, config.batch_size), generator=_generator(config, "batches", 0))]
    with _references(around, draws, steps) as references:
        references.train(0, steps)
        train, val = (
            references.probabilities([0], key, torch.arange(len(splits[key].labels))).argmax(1)
            for key in ("train", "val")
        )
    return Found(train, val, steps, [])


@contextlib.contextmanager
def _references(around: Surroundings, draws: list[Tensor], total: int) -> Iterator[ReferenceModels]:
    """A model for each of the draws, see :class:`ReferenceModels`, which take at most ``total`` steps together;
    NotFinite where logits inside are not finite.
    """
    config, fabric = around.config, around.fabric
    with progress(total=total, unit="step", desc="reference models", show=around.show, leave=False) as bar:

        def images(split: str, batches: list[Tensor], seeds: list[tuple]) -> Iterator[Tensor]:
            rows = [[(row, 0) for row in batch.tolist()] for batch in batches]
            for batch, words in zip(around.loaders[split](rows), seeds):
                torch.manual_seed(seed_of(config.seed, "cross_fit", *words))  # of tiles and dropout
                yield to_pixels(batch.images, fabric.device)
                bar.update(words[0] == "step")
                around.after_batch()

        models = [around.make_model(number).to(fabric.device) for number in range(len(draws))]
        steppers = [_stepper(model, config, fabric) for model in models]
        precisions = (fabric.strategy.precision.forward_context, fabric.autocast)
        labels, tiles = around.splits["train"].labels, config.cross_fit_tiles or 1
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
