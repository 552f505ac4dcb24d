"""What a run says of itself while it goes on: the head of log.txt, the lines of {split}_algo.csv and {split}_eval.csv,
warnings, and its progress bar.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..algorithms.classifier import LOG_NAMES, LossTerms
from ..algorithms.mask_statistics import constant_in_words
from ..announcer import Announcer
from .averages import Averages
from .datasets import Split
from .evaluation import Outcome
from .log_files import LogFiles
from .training import Training


class RunLog:
    """The log of a run.

    Args:
        training: that it tells of.
        files: where it writes.
        bar: of :func:`~..progress.progress`, over all batches of the run.
    """

    def __init__(self, training: Training, files: LogFiles, bar: Any):
        n_groups = 0 if training.config.no_group_logging else training.data.grouper.n_groups
        self.training, self.files, self.bar = training, files, bar
        self.averages = Averages(n_groups, training.fabric.device)  #: since the last line of train_algo.csv
        self.announcer = Announcer()

    def write(self, text: str) -> None:
        """Append to log.txt."""
        self.files.write(text)

    def add_batch(self, terms: LossTerms, objective: Tensor, correct: Tensor, groups: Tensor) -> None:
        """Count a training batch in; it is not waited for."""
        extra = {LOG_NAMES[name]: values for name, values in terms.losses.items() if name != "supervised"}
        if terms.statistics is not None:
            extra |= terms.statistics.per_image()
        self.averages.add(
            groups,
            self.training.group_weights(),
            loss=terms.losses["supervised"],
            acc=correct,
            objective=objective.expand(len(groups)),
            **extra,
        )
        self.bar.update()

    def train_line(self, epoch: int, batch: int) -> None:
        """Write what was counted since the last time, after so many batches of an epoch."""
        config, n_batches = self.training.config, len(self.training.order)
        if self.training.fabric.world_size > 1:
            self.averages.add_up(self.training.fabric)
        line = self.averages.line()
        for words in self.announcer.changes(_warnings(line)):
            self.write(f"warning: {words} (epoch {epoch}, batch {batch - 1})\n")
        steps = math.ceil(batch / config.gradient_accumulation_steps)
        self.files.row("train_algo.csv", {"epoch": epoch, "batch": steps, **line}, epoch * n_batches + batch)
        self.bar.set_postfix_str(
            f"epoch {epoch}, loss {line['loss_avg']:.3f}, acc {line['acc_avg']:.3f}", refresh=False
        )
        self.averages.reset()

    def outcome(self, key: str, outcome: Outcome, epoch: int) -> None:
        """The line of {split}_eval.csv."""
        self.files.row(f"{key}_eval.csv", {"epoch": epoch, **outcome.metrics}, epoch)
        if key in ("train", "val"):
            self.write(f"Epoch eval, {self.training.data.splits[key].name}:\n{outcome.text}\n")

    def evaluation(self, key: str, predictions: Tensor, losses: Tensor, epoch: int, weighed: Tensor | None) -> None:
        """The line of {split}_algo.csv. Evaluation draws no triplets and no noise: its objective is the supervised
        loss, as the algorithm weighs groups.

        Args:
            predictions: (N,) int64.
            losses: (N,) cross-entropies.
            weighed: (N,) int64, the groups that group DRO weighs; None where they are not known: all weigh alike.
        """
        training, split = self.training, self.training.data.splits[key]
        device = training.fabric.device
        objective = losses.mean()
        if weighed is not None:
            objective = training.classifier.total({"supervised": losses.to(device)}, weighed.to(device)).cpu()
        averages = Averages(self.averages.n_groups, "cpu")
        averages.add(
            split.groups,
            training.group_weights(),
            loss=losses,
            acc=predictions == split.labels,
            objective=objective.expand(len(losses)),
        )
        n_batches = math.ceil(len(losses) / training.config.batch_size)
        self.files.row(f"{key}_algo.csv", {"epoch": epoch, "batch": n_batches, **averages.line()}, epoch)

    def describe(self) -> None:
        """The configuration, the groups of every split and the scales of MS-SSIM, as the head of log.txt."""
        for line in _head(self.training):
            self.write(f"{line}\n")


def _warnings(line: dict[str, float]) -> dict[str, str | None]:
    """Name of a state that a user should know of -> what is the matter, None where nothing is."""
    if "mask_mean" not in line:
        return {}
    no_triplet = "no image has a positive and a negative, L_con is 0; a larger --batch_size has more"
    return {
        "no_triplet": no_triplet if line["no_triplet"] == 1 else None,
        "mask_mean": constant_in_words(line["mask_mean"], line["mask_std"]),
    }


def _head(training: Training) -> list[str]:
    data, contrast = training.data, training.classifier.contrast
    lines = [f"{name.replace('_', ' ').capitalize()}: {value}" for name, value in training.config.as_record().items()]
    if data.synthetic:
        lines += ["", "This is SYNTHETIC data made by 'cim-plugin data demo', not the real dataset."]
    if data.subset:
        lines += ["", "This is a SUBSET taken by 'cim-plugin data get --subset', not the whole dataset."]
    if contrast is not None:
        lines += [f"L_con compares by: {contrast.similarity.how}"]
    lines += [""]
    for key, split in data.splits.items():
        lines += [f"{split.name} data...", *_groups(training, key, split)]
    return lines


def _groups(training: Training, key: str, split: Split) -> list[str]:
    if training.config.no_group_logging:
        return [f"    n = {len(split.labels)}"]
    grouper, lines = training.data.grouper, []
    counts = split.groups.bincount(minlength=grouper.n_groups).tolist() if len(split.groups) else []
    for group, count in enumerate(counts):
        lines.append(f"    {grouper.group_str(group)}: n = {count:.0f}")
        if count == 0 and key == "train":
            lines.append(
                "        warning: the training split has no such image; its accuracy is measured, not trained for"
            )
    return lines
