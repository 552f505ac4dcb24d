"""Steps, epochs, evaluation and selection of a run, and when its state is saved."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import Tensor

from ..algorithms.classifier import LossTerms
from ..errors import NotFinite
from . import cross_fit, pseudo, results
from .evaluation import Outcome, evaluate, predict
from .loading import Batch, seed_of, to_pixels
from .logs import RunLog
from .optimization import WARMUPS
from .processes import gather_lists, on_rank_zero
from .state import Progress, begin_by, environments, groups_of_pseudo, save, state_of, weighed_groups
from .training import Training

SAVE_SECONDS = 600  #: a long epoch is saved this often between its steps
AFTER_NOT_FINITE = "the last good state is kept. Try a smaller --lr or --max_grad_norm 1, with another --log_dir"


class Stopped(Exception):
    """The run was asked to stop and has saved its state."""


class Loop:
    """The epochs of a run that are left.

    Args:
        training: its parts.
        progress: how far it is.
        log: what it writes.
    """

    def __init__(self, training: Training, progress: Progress, log: RunLog):
        self.training, self.progress, self.log = training, progress, log
        self.not_finite = torch.tensor(-1, device=training.fabric.device)  #: the first batch whose loss is not finite
        self.stop_asked = False  #: set it from a signal handler to stop after the step that runs

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            Stopped: ``stop_asked`` was set; the state is saved.
            NotFinite: the loss is NaN or infinite; the last good state is kept.
            InputError: an image cannot be read or a file cannot be written.
        """
        config = self.training.config
        if config.has_first_phase and self.progress.pseudo is None:
            self._first_phase()
        while self.progress.epoch < config.n_epochs:
            self._train_epoch()
            self._finish_epoch()

    def state(self) -> dict[str, Any]:
        return state_of(self.training, self.progress, self.log)

    def _first_phase(self) -> None:
        """Find or read pseudo-environments. The state comes after the file: one that counts on the file finds it."""
        training, config = self.training, self.training.config
        given = pseudo.of_config(config, training.data)
        of_run = _find(self) if given is None else given
        path = os.path.join(config.log_dir, pseudo.name_of(config) or pseudo.PREDICTED)
        on_rank_zero(training.fabric, lambda: pseudo.write(path, training.data, of_run))
        begin_by(training, self.progress, of_run)
        save(training, self.state())

    def _train_epoch(self) -> None:
        training, progress, fabric = self.training, self.progress, self.training.fabric
        batches = training.order.epoch(progress.epoch, fabric.global_rank, fabric.world_size)
        training.model.train()
        if progress.batch == 0:
            self.log.write(f"\nEpoch [{progress.epoch}]:\n\nTrain:\n")
        saved = time.monotonic()
        with progress.clock.measure("train"):
            for batch in training.loaders["train"](batches[progress.batch :]):
                self._step(batch, len(batches))
                if not training.ends_step(progress.batch, len(batches)):  # a state has no gradients
                    continue
                self._stop_if_asked(self.state)
                if fabric.world_size == 1 and time.monotonic() - saved > SAVE_SECONDS:
                    self._check_weights()
                    save(training, self.state())
                    saved = time.monotonic()

    def _stop_if_asked(self, state) -> None:
        if self.stop_asked:
            self._check_weights()
            save(self.training, state())
            raise Stopped(f"stopped at epoch {self.progress.epoch}, batch {self.progress.batch}")

    def _step(self, batch: Batch, n_batches: int) -> None:
        training, progress, config = self.training, self.progress, self.training.config
        split, device = training.data.splits["train"], training.fabric.device
        weighed = weighed_groups(training, progress, "train")
        assert weighed is not None  # the first phase has found them
        labels, groups, weighed, pairs_by = (
            values[batch.rows].to(device, non_blocking=True)
            for values in (split.labels, split.groups, weighed, environments(training, progress))
        )
        torch.manual_seed(seed_of(config.seed, "step", progress.epoch, progress.batch))
        steps_now = training.ends_step(progress.batch + 1, n_batches)
        terms, objective = _backward(training, batch, labels, weighed, pairs_by, steps_now)
        self.not_finite = torch.where(
            (self.not_finite < 0) & ~objective.detach().isfinite(), progress.batch, self.not_finite
        )
        if steps_now:
            self._update_weights()
        predictions = terms.logits.detach().argmax(1)
        progress.seen.append((batch.rows, predictions))
        self.log.add_batch(terms, objective, predictions == labels, groups)
        progress.batch += 1
        if progress.batch % (config.log_every * config.gradient_accumulation_steps) == 0:
            self._check_finite()
            self.log.train_line(progress.epoch, progress.batch)

    def _update_weights(self) -> None:
        training, config = self.training, self.training.config
        if config.max_grad_norm is not None:
            training.fabric.clip_gradients(
                training.model, training.optimizer, max_norm=config.max_grad_norm, error_if_nonfinite=False
            )
        training.optimizer.step()
        training.optimizer.zero_grad()
        if training.scheduler is not None and config.scheduler in WARMUPS:
            training.scheduler.step()

    def _check_finite(self) -> None:
        batch = int(self.training.fabric.all_reduce(self.not_finite, reduce_op="max"))
        if batch >= 0:
            raise NotFinite(f"the loss is not finite at epoch {self.progress.epoch}, batch {batch}; {AFTER_NOT_FINITE}")

    def _check_weights(self) -> None:
        """To be done before a state is saved: a step may have ruined weights with which no loss was computed yet."""
        self._check_finite()
        if not all(weight.isfinite().all() for weight in self.training.classifier.parameters()):
            raise NotFinite(
                f"a weight is not finite after epoch {self.progress.epoch}, batch {self.progress.batch - 1}; "
                f"{AFTER_NOT_FINITE}"
            )

    def _finish_epoch(self) -> None:
        training, progress, log = self.training, self.progress, self.log
        before = self.state()  # what to go on from when evaluation is interrupted: it changes no weight
        if log.averages.count:
            self._check_finite()
            log.train_line(progress.epoch, progress.batch)
        self._check_weights()
        outcomes, predicted = self._evaluate(lambda: self._stop_if_asked(lambda: before))
        _step_by_epoch(training, outcomes)
        choosing = progress.choose(training.rules, outcomes)
        metric = training.config.val_metric
        log.write(f"Validation {metric}: {outcomes['val'].metrics[metric]:.3f}\n")
        if "best" in choosing:
            log.write(f"Epoch {progress.epoch} has the best validation performance so far.\n")
        progress.end_epoch()
        state = {**self.state(), "predicted": predicted}
        save(training, state)
        on_rank_zero(training.fabric, lambda: results.publish(training, progress, predicted, state["cost"]))

    def _evaluate(self, after_batch) -> tuple[dict[str, Outcome], dict[str, Tensor]]:
        """Split -> its outcome, of the training split what its batches were taken for; and split -> predictions."""
        training, progress, log = self.training, self.progress, self.log
        rows, seen = gather_lists(
            training.fabric, [row for row, _ in progress.seen], [labels for _, labels in progress.seen]
        )
        outcomes = {"train": evaluate(training.data, training.data.splits["train"], seen, rows)}
        log.outcome("train", outcomes["train"], progress.epoch)
        predicted = {}
        with progress.clock.measure("evaluation"):
            for key in training.splits:
                predicted[key], losses = predict(training, key, after_batch)
                groups = groups_of_pseudo(progress, key)
                outcomes[key] = evaluate(training.data, training.data.splits[key], predicted[key], pseudo_groups=groups)
                log.outcome(key, outcomes[key], progress.epoch)
                log.evaluation(key, predicted[key], losses, progress.epoch, weighed_groups(training, progress, key))
        return outcomes, predicted


def _find(loop: Loop) -> pseudo.Pseudo:
    """What reference models, or JTT's first model, tell."""
    training, fabric, log = loop.training, loop.training.fabric, loop.log
    with loop.progress.clock.measure("cross_fit"):
        found = on_rank_zero(
            fabric,
            lambda: cross_fit.find(training, not log.bar.disable, lambda: loop._stop_if_asked(loop.state)),
        )
    on_rank_zero(fabric, lambda: cross_fit.write_curve(training.config.log_dir, found))
    log.write(cross_fit.in_words(training, found))
    return pseudo.predicted(training.data, {"train": found.train, "val": found.val})


def _backward(
    training: Training, batch: Batch, labels: Tensor, groups: Tensor, pairs_by: Tensor, steps_now: bool
) -> tuple[LossTerms, Tensor]:
    """Loss terms and objective of a batch; the objective's gradients are added to the weights'."""
    fabric = training.fabric
    with fabric.no_backward_sync(training.model, enabled=not steps_now):
        # of another method than forward Fabric's wrapper takes care with several processes only
        with fabric.autocast():
            terms = training.model.loss_terms(to_pixels(batch.images, fabric.device), labels, pairs_by)
        objective = training.classifier.total(terms.losses, groups)
        fabric.backward(objective)
    return terms, objective


def _step_by_epoch(training: Training, outcomes: dict[str, Outcome]) -> None:
    """A step of a schedule that goes by epochs."""
    config = training.config
    if config.scheduler is None or config.scheduler in WARMUPS:
        return
    if config.scheduler != "ReduceLROnPlateau":
        training.scheduler.step()
        return
    metrics = outcomes[config.scheduler_metric_split].metrics
    training.scheduler.step(metrics[config.scheduler_metric_name or config.val_metric])
