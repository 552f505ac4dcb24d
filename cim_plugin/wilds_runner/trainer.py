"""One training run: epochs, evaluation, selection, and a state from which it goes on after any stop."""

from __future__ import annotations

import copy
import math
import os
import time
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import catalog
from ..algorithms.classifier import LOG_NAMES, LossTerms, RobustClassifier, collapse_in_words
from ..algorithms.distributed import Shard
from ..algorithms.pseudo_environments import pseudo_groups
from ..announcer import Announcer
from ..errors import InputError, NotFinite
from ..models.transforms import Transform
from ..runs.configuration import Configuration
from ..runs.layout import STATE
from . import checkpoint, cross_fit, results, selection
from .datasets import Dataset, fingerprint
from .evaluation import Outcome, evaluate
from .loading import Batch, Loader, TrainingOrder, evaluation_order, make_loader, seed_of, to_pixels
from .logs import Averages, LogFiles
from .model import build_model, compile_modules, group_environments, without_weights
from .optimization import WARMUPS, make_optimizer, make_scheduler
from .processes import on_rank_zero

MASK_MEAN = "mask_mean"  #: in train_algo.csv
NO_TRIPLET = "no_triplet"  #: the share of anchors without a positive or a negative, in train_algo.csv
SAVE_SECONDS = 600  #: a long epoch is saved this often between its steps
AFTER_NOT_FINITE = "the last good state is kept. Try a smaller --lr or --max_grad_norm 1, with another --log_dir"


class Stopped(Exception):
    """The run was asked to stop and has saved its state."""


class Trainer:
    """A run and all that it keeps between steps.

    Args:
        config: from :func:`~.config.make_config`.
        data: the opened dataset.
        transform: of its images.
        fabric: Lightning's Fabric, launched.
        cache: (n_images, H, W, C) uint8, the resized images of the whole dataset, or None.
        fresh: the run begins here; False where a file will replace the weights, so that no pretrained ones are needed.
    """

    def __init__(
        self, config: Configuration, data: Dataset, transform: Transform, fabric, cache=None, fresh: bool = True
    ):
        self.config = config
        self.data = data
        self.fabric = fabric
        self.rules = selection.rules(config.val_metric, config.val_metric_decreasing)
        self.splits = _evaluated_splits(config, data)
        self._check_metrics()
        self.order = TrainingOrder(config, data.splits["train"], data.grouper)
        self.transform, self.cache = transform, cache
        self.loaders: dict[str, Loader] = {
            key: make_loader(config, data, key, transform, cache) for key in ("train", *self.splits)
        }
        self.environments = group_environments(config, data, "train")
        self.pseudo: dict[str, Tensor] | None = (
            None  #: with --cross_fit, once they are known: split -> (N,) int64 pseudo-environments
        )

        self.classifier = build_model(config if fresh else without_weights(config), data, transform)
        _check_size(self.classifier, config, transform)
        _check_batch_of_one(self.classifier, config, len(self.environments), fabric.world_size, transform)
        if config.compile:
            compile_modules(self.classifier)
        optimizer = make_optimizer(config, self.classifier.parameters(), fabric.device.type)
        n_steps = math.ceil(len(self.order) / config.gradient_accumulation_steps) * config.n_epochs
        self.scheduler = make_scheduler(config, optimizer, n_steps)
        optimizer = catalog.optimizer(optimizer, self.classifier, config.hyperparameters)
        self.model, self.optimizer = fabric.setup(self.classifier, optimizer)
        self.model.mark_forward_method("loss_terms")
        self.classifier.shard = Shard(fabric.global_rank, fabric.world_size, self._gather)

        self.epoch = 0  #: the epoch that runs or comes next
        self.batch = 0  #: the batch of it that comes next
        self.chosen: dict[str, selection.Chosen] = {}
        self.outcomes: dict[str, dict[str, Outcome]] = {}  #: rule -> split -> outcome
        self.seen: list[tuple[Tensor, Tensor]] = []  #: rows and predictions of this epoch's training batches
        self.averages = Averages(0 if config.no_group_logging else data.grouper.n_groups, fabric.device)
        self.not_finite = torch.tensor(-1, device=fabric.device)  #: the first step whose loss is not finite
        self.clock = results.Clock()
        self.cost_before: dict[str, Any] = {}  #: :func:`results.cost` of the sessions before this one
        self.announcer = Announcer()
        self.fingerprint = fingerprint(data)
        self.logs: LogFiles  #: set by :meth:`start`
        self.bar: Any  #: a tqdm progress bar, set by :meth:`start`
        self.stop_asked = False  #: set it from a signal handler to stop after the step that runs

    def _check_metrics(self) -> None:
        """Before the first epoch, which may take hours: a perfect prediction has the metrics that every other one
        has.
        """
        val = self.data.splits["val"]
        perfect = evaluate(self.data, val, val.labels)
        self.rules["best"].applies({"val": perfect})
        metric = self.config.scheduler_metric_name
        if self.config.scheduler == "ReduceLROnPlateau" and metric not in perfect.metrics:
            raise InputError(
                f"--scheduler_metric_name {metric!r} is not among the metrics: {', '.join(perfect.metrics)}"
            )

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Run the epochs that are left.

        Raises:
            Stopped: ``stop_asked`` was set; the state is saved.
            NotFinite: the loss is NaN or infinite; the last good state is kept.
            InputError: an image cannot be read or a file cannot be written.
        """
        if self.config.cross_fit is not None and self.pseudo is None:
            self._cross_fit()
        while self.epoch < self.config.n_epochs:
            self._train_epoch()
            self._finish_epoch()

    def _cross_fit(self) -> None:
        """Find the pseudo-environments. The state comes after the file: one that counts on the file finds it."""
        with self.clock.measure("cross_fit"):
            pseudo = on_rank_zero(self.fabric, self._pseudo_environments)
        on_rank_zero(self.fabric, lambda: cross_fit.write(self.config.log_dir, self.data, pseudo))
        self._go_by(pseudo)
        shares = cross_fit.shares_that_agree(self.data.splits, pseudo)
        self.logs.write(
            f"\nCross-fit: the pseudo-environment agrees with the label for "
            f"{', '.join(f'{100 * share:.1f}% of {key}' for key, share in shares.items())}\n"
        )
        largest = torch.bincount(self.data.splits["train"].labels).max().item() / len(pseudo["train"])
        if shares["train"] <= largest:
            self.logs.write(
                f"warning: always the largest class would agree for {100 * largest:.1f}% of train: the reference "
                f"models have learnt too little for pseudo-environments; "
                "give --cross_fit more steps\n"
            )
        self._save(self.state())

    def _pseudo_environments(self) -> dict[str, Tensor]:
        plain = make_loader(self.config, self.data, "train", self.transform, self.cache, augment=False)
        loaders = {"train": plain, "val": self.loaders["val"]}
        return cross_fit.predict_out_of_fold(
            self.config,
            self.data.splits,
            loaders,
            self._reference_model,
            self.fabric,
            not self.bar.disable,
            lambda: self._stop_if_asked(self.state),
        )

    def _reference_model(self, number: int) -> RobustClassifier:
        config = replace(
            self.config,
            algorithm="ERM",
            hyperparameters={},
            seed=seed_of(self.config.seed, "cross_fit", "model", number),
        )
        return build_model(config, self.data, self.transform)

    def _go_by(self, pseudo: dict[str, Tensor]) -> None:
        """Batches, triplets and selection go by the pseudo-environments from now on."""
        self.pseudo, self.environments = pseudo, pseudo["train"]
        self.order.balance(self.data.splits["train"].labels, self._pseudo_groups("train"))

    def _pseudo_groups(self, key: str) -> Tensor | None:
        if self.pseudo is None or key not in self.pseudo:
            return None
        return pseudo_groups(self.data.splits[key].labels, self.pseudo[key])

    def _train_epoch(self) -> None:
        batches = self.order.epoch(self.epoch, self.fabric.global_rank, self.fabric.world_size)
        self.model.train()
        if self.batch == 0:
            self.logs.write(f"\nEpoch [{self.epoch}]:\n\nTrain:\n")
        saved = time.monotonic()
        with self.clock.measure("train"):
            for batch in self.loaders["train"](batches[self.batch :]):
                self._step(batch, len(batches))
                if not self._ends_step(self.batch, len(batches)):  # a state has no gradients
                    continue
                self._stop_if_asked(self.state)
                if self.fabric.world_size == 1 and time.monotonic() - saved > SAVE_SECONDS:
                    self._check_weights()
                    self._save(self.state())
                    saved = time.monotonic()

    def _stop_if_asked(self, state) -> None:
        if self.stop_asked:
            self._check_weights()
            self._save(state())
            raise Stopped(f"stopped at epoch {self.epoch}, batch {self.batch}")

    def _step(self, batch: Batch, n_batches: int) -> None:
        split = self.data.splits["train"]
        device = self.fabric.device
        labels, groups, environments = (
            values[batch.rows].to(device, non_blocking=True)
            for values in (split.labels, split.groups, self.environments)
        )
        torch.manual_seed(seed_of(self.config.seed, "step", self.epoch, self.batch))
        steps_now = self._ends_step(self.batch + 1, n_batches)
        with self.fabric.no_backward_sync(self.model, enabled=not steps_now):
            with (
                self.fabric.autocast()
            ):  # of another method than forward Fabric's wrapper takes care with several processes only
                terms = self.model.loss_terms(to_pixels(batch.images, device), labels, environments)
            objective = self.classifier.total(terms.losses, groups)
            self.fabric.backward(objective)
        self.not_finite = torch.where(
            (self.not_finite < 0) & ~objective.detach().isfinite(), self.batch, self.not_finite
        )
        if steps_now:
            self._update_weights()
        predictions = terms.logits.detach().argmax(1)
        self.seen.append((batch.rows, predictions))
        self._add_to_log(terms, objective, predictions == labels, groups)
        self.batch += 1
        self.bar.update()
        if self.batch % (self.config.log_every * self.config.gradient_accumulation_steps) == 0:
            self._log_line()

    def _ends_step(self, n_done: int, n_batches: int) -> bool:
        """Whether the weights change after so many batches of an epoch."""
        return n_done % self.config.gradient_accumulation_steps == 0 or n_done == n_batches

    def _update_weights(self) -> None:
        if self.config.max_grad_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.max_grad_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scheduler is not None and self.config.scheduler in WARMUPS:
            self.scheduler.step()

    def _add_to_log(self, terms: LossTerms, objective: Tensor, correct: Tensor, groups: Tensor) -> None:
        extra = {LOG_NAMES[name]: values for name, values in terms.losses.items() if name != "supervised"}
        if terms.without_triplet is not None:
            extra |= {NO_TRIPLET: (terms.without_triplet / len(groups)).expand(len(groups)), MASK_MEAN: terms.mask_mean}
        self.averages.add(
            groups,
            self._group_weights(),
            loss=terms.losses["supervised"],
            acc=correct,
            objective=objective.expand(len(groups)),
            **extra,
        )

    def _log_line(self) -> None:
        self._check_finite()
        if self.fabric.world_size > 1:
            self.averages.add_up(self.fabric)
        line = self.averages.line()
        if MASK_MEAN in line:
            no_triplet = "no image has a positive and a negative, L_con is 0; a larger --batch_size has more"
            found = {
                NO_TRIPLET: no_triplet if line[NO_TRIPLET] == 1 else None,
                MASK_MEAN: collapse_in_words(line[MASK_MEAN]),
            }
            for words in self.announcer.changes(found):
                self.logs.write(f"warning: {words} (epoch {self.epoch}, batch {self.batch - 1})\n")
        steps = math.ceil(self.batch / self.config.gradient_accumulation_steps)
        self.logs.row(
            "train_algo.csv", {"epoch": self.epoch, "batch": steps, **line}, self.epoch * len(self.order) + self.batch
        )
        self.bar.set_postfix_str(
            f"epoch {self.epoch}, loss {line['loss_avg']:.3f}, acc {line['acc_avg']:.3f}", refresh=False
        )
        self.averages.reset()

    def _check_finite(self) -> None:
        step = int(self.fabric.all_reduce(self.not_finite, reduce_op="max"))
        if step >= 0:
            raise NotFinite(f"the loss is not finite at epoch {self.epoch}, batch {step}; {AFTER_NOT_FINITE}")

    def _check_weights(self) -> None:
        """To be done before a state is saved: a step may have ruined weights with which no loss was computed yet."""
        self._check_finite()
        if not all(weight.isfinite().all() for weight in self.classifier.parameters()):
            raise NotFinite(
                f"a weight is not finite after epoch {self.epoch}, batch {self.batch - 1}; {AFTER_NOT_FINITE}"
            )

    # --- the end of an epoch ------------------------------------------------------------------------------------------

    def _finish_epoch(self) -> None:
        before = self.state()  # what to go on from when evaluation is interrupted: it changes no weight
        if self.averages.count:
            self._log_line()
        self._check_weights()
        rows, predictions = self._gather_lists([row for row, _ in self.seen], [labels for _, labels in self.seen])
        outcomes = {"train": evaluate(self.data, self.data.splits["train"], predictions, rows)}
        self._log_outcome("train", outcomes["train"])
        predicted = {}
        with self.clock.measure("evaluation"):
            for key in self.splits:
                predicted[key], losses, outcomes[key] = self.evaluate_split(
                    key, lambda: self._stop_if_asked(lambda: before)
                )
                self._log_outcome(key, outcomes[key])
                self._log_evaluation(key, predicted[key], losses)
        self._step_epoch_scheduler(outcomes)
        chosen = selection.choose(self.rules, self.chosen, outcomes, self.epoch)
        self.outcomes.update({name: outcomes for name, choice in chosen.items() if choice.epoch == self.epoch})
        self.chosen = chosen
        best = outcomes["val"].metrics[self.config.val_metric]
        self.logs.write(f"Validation {self.config.val_metric}: {best:.3f}\n")
        if "best" in chosen and chosen["best"].epoch == self.epoch:
            self.logs.write(f"Epoch {self.epoch} has the best validation performance so far.\n")
        self.epoch, self.batch, self.seen = self.epoch + 1, 0, []
        state = {**self.state(), "predicted": predicted}
        self._save(state)
        self._publish(predicted, state["cost"])

    def evaluate_split(self, key: str, after_batch=lambda: None) -> tuple[Tensor, Tensor, Outcome]:
        """Predicted labels (N,) int64 and cross-entropies (N,) of a whole split in dataset order, and what the
        evaluator says.
        """
        self.model.eval()
        split, device = self.data.splits[key], self.fabric.device
        batches = evaluation_order(
            len(split.labels), self.config.batch_size, self.fabric.global_rank, self.fabric.world_size
        )
        rows, found, losses = [], [], []
        with torch.no_grad():
            for batch in self.loaders[key](batches):
                logits = self.model(to_pixels(batch.images, device)).float()
                rows.append(batch.rows)
                found.append(logits.argmax(1))
                losses.append(F.cross_entropy(logits, split.labels[batch.rows].to(device), reduction="none"))
                after_batch()
        rows, predictions, losses = self._gather_lists(rows, found, losses)
        if not torch.equal(rows, torch.arange(len(split.labels))):
            raise RuntimeError(f"split {key} was not read exactly once")
        return predictions, losses, evaluate(self.data, split, predictions, pseudo_groups=self._pseudo_groups(key))

    def _step_epoch_scheduler(self, outcomes: dict[str, Outcome]) -> None:
        name = self.config.scheduler
        if name is None or name in WARMUPS:
            return
        if name != "ReduceLROnPlateau":
            self.scheduler.step()
            return
        self.scheduler.step(outcomes[self.config.scheduler_metric_split].metrics[self.config.scheduler_metric_name])

    def _log_outcome(self, key: str, outcome: Outcome) -> None:
        self.logs.row(f"{key}_eval.csv", {"epoch": self.epoch, **outcome.metrics}, self.epoch)
        if key in ("train", "val"):
            self.logs.write(f"Epoch eval, {self.data.splits[key].name}:\n{outcome.text}\n")

    def _log_evaluation(self, key: str, predictions: Tensor, losses: Tensor) -> None:
        """The line of {split}_algo.csv. Evaluation draws no triplets and no noise: its objective is the supervised
        loss, as the algorithm weighs groups.
        """
        split, device = self.data.splits[key], self.fabric.device
        objective = self.classifier.total({"supervised": losses.to(device)}, split.groups.to(device)).cpu()
        averages = Averages(self.averages.n_groups, "cpu")
        averages.add(
            split.groups,
            self._group_weights(),
            loss=losses,
            acc=predictions == split.labels,
            objective=objective.expand(len(losses)),
        )
        n_batches = math.ceil(len(losses) / self.config.batch_size)
        self.logs.row(f"{key}_algo.csv", {"epoch": self.epoch, "batch": n_batches, **averages.line()}, self.epoch)

    def _group_weights(self) -> Tensor | None:
        weighing = self.classifier.group_weights
        return weighing.weights if weighing is not None else None

    # --- the state ----------------------------------------------------------------------------------------------------

    def start(self, logs: LogFiles, bar) -> None:
        """Say where to log; do this before anything else, and before :meth:`load` fills the rest from a state."""
        self.logs, self.bar = logs, bar

    def state(self) -> dict[str, Any]:
        """Everything from which the run goes on: tensors and plain values."""
        return {
            "config": self.config.as_record(),
            "epoch": self.epoch,
            "batch": self.batch,
            "cross_fit": self.pseudo is not None,  # cross_fit.csv is there
            "model": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "precision": self.fabric.strategy.precision.state_dict(),
            "chosen": {name: tuple(choice) for name, choice in self.chosen.items()},
            "outcomes": {
                name: {key: outcome._asdict() for key, outcome in of_rule.items()}
                for name, of_rule in self.outcomes.items()
            },
            "seen": list(self.seen),
            "averages": self.averages.state(),
            "log_sizes": dict(self.logs.sizes),
            "clock": self.clock.seconds,
            "cost": results.cost(self),
            "lasting": dict(self.announcer.lasting),
            "data": self.fingerprint | cross_fit.fingerprint(self.pseudo),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`, which :func:`~.state_check.check_state` has looked at; files that were due when it
        was saved are written now.
        """
        self.classifier.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        if state.get("cross_fit"):
            self._go_by(cross_fit.read(self.config.log_dir, self.data))
        self.chosen = {name: selection.Chosen(*choice) for name, choice in state["chosen"].items()}
        self.outcomes = {
            name: {key: Outcome(**outcome) for key, outcome in of_rule.items()}
            for name, of_rule in state["outcomes"].items()
        }
        self.seen = [(rows, predictions.to(self.fabric.device)) for rows, predictions in state["seen"]]
        self.averages.load(state["averages"])
        self.clock.go_on_from(state["clock"])
        self.bar.update(self.epoch * len(self.order) + self.batch)
        self.cost_before = state.get("cost", {})
        self.announcer.lasting = state.get("lasting", {})
        if "predicted" in state:
            self._publish(state["predicted"], self.cost_before or results.cost(self))

    def _save(self, state: dict[str, Any]) -> None:
        on_rank_zero(self.fabric, lambda: checkpoint.save(os.path.join(self.config.log_dir, STATE), state))

    def _publish(self, predicted: dict[str, Tensor], cost: dict[str, Any]) -> None:
        on_rank_zero(self.fabric, lambda: results.publish(self, predicted, cost))

    # --- processes ----------------------------------------------------------------------------------------------------

    def _gather(self, values: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return values
        return self.fabric.all_gather(values, sync_grads=values.requires_grad).flatten(0, 1)

    def _gather_lists(self, *lists: list[Tensor]) -> list[Tensor]:
        """Every list of (n,) tensors as one tensor on the CPU, over all processes in the order of ranks."""
        own = [torch.cat(values).cpu() if values else torch.empty(0, dtype=torch.int64) for values in lists]
        if self.fabric.world_size == 1:
            return own
        everyone: list = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(everyone, own)
        return [torch.cat([part[i] for part in everyone]) for i in range(len(lists))]


def _evaluated_splits(config: Configuration, data: Dataset) -> list[str]:
    others = [key for key in data.splits if key not in ("train", "val")]
    unknown = [key for key in config.eval_splits if key not in data.splits]
    if unknown:
        raise InputError(f"--eval_splits {unknown[0]!r} is not a split of {config.dataset}: {', '.join(data.splits)}")
    wanted = others if config.evaluate_all_splits else [key for key in others if key in config.eval_splits]
    return ["val", *(key for key in wanted if len(data.splits[key].labels))]


@torch.no_grad()
def _check_size(classifier: RobustClassifier, config: Configuration, transform: Transform) -> None:
    """Raise InputError where the model, or --cross_fit_tiles, cannot take images of this size."""
    if (config.cross_fit_tiles or 1) > min(transform.size):
        raise InputError(
            f"--cross_fit_tiles {config.cross_fit_tiles} is more than a side of {min(transform.size)} pixels can be "
            f"cut into; give a smaller number"
        )
    try:
        classifier.eval()(torch.zeros(1, 3, *transform.size))
    except (AssertionError, RuntimeError, ValueError) as error:
        height, width = transform.size
        raise InputError(
            f"--model {config.model} cannot take images of {height}x{width} ({str(error) or type(error).__name__}); "
            f"give another --target_resolution"
        ) from error
    finally:
        classifier.train()


@torch.no_grad()
def _check_batch_of_one(
    classifier: RobustClassifier, config: Configuration, n_images: int, n_processes: int, transform: Transform
) -> None:
    """Raise InputError where an epoch ends in one image and the model cannot train on it, before the first epoch is
    lost.
    """
    left = n_images % config.batch_size if config.train_loader == "standard" else 0
    if (left or config.batch_size) // n_processes == 1:
        try:
            copy.deepcopy(classifier).train()(torch.zeros(1, 3, *transform.training_size))
        except ValueError as error:
            raise InputError(
                f"--batch_size {config.batch_size} leaves one image to the last batch of {n_images}, and the batch "
                f"normalisation of --model {config.model} needs two; give another one"
            ) from error
