"""What a run leaves behind: models and predictions per selection rule, and results.json."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Mapping

from torch import Tensor

from ..runs.layout import RESULTS, model_file, place, prediction_file
from . import checkpoint
from .evaluation import Outcome, as_record
from .model import recipe_of_run
from .pseudo import shares_that_agree

if TYPE_CHECKING:
    from .state import Progress
    from .training import Training


def publish(training: Training, progress: Progress, predicted: dict[str, Tensor], spent: dict[str, Any]) -> None:
    """Write the files of every rule that has chosen the epoch that ended last, then results.json.

    Args:
        predicted: split -> predicted labels (N,) int64 in dataset order.
        spent: from :func:`~.costs.cost`, at the end of that epoch.
    """
    config, epoch = training.config, progress.epoch - 1
    wanted = {"last": config.save_last}
    places = [
        place(config.log_dir, rule)
        for rule, choice in progress.chosen.items()
        if choice.epoch == epoch and wanted.get(rule, config.save_best)
    ]
    if config.save_step is not None and (epoch + 1) % config.save_step == 0:
        places.append((config.log_dir, str(epoch)))
    model = {
        "algorithm": training.classifier.state_dict(),
        "recipe": recipe_of_run(config, training.session.facts, training.session.transform).as_dict(),
        "epoch": epoch,
        "best_val_metric": _val_metric(progress.outcomes, config.val_metric),
    }
    first = None
    for folder, word in places:
        path = os.path.join(folder, model_file(config.dataset, config.seed, word))
        if first is None:
            checkpoint.save(path, model)
            first = path
        else:
            checkpoint.link(first, path)
        if config.save_pred:
            for split, labels in predicted.items():
                checkpoint.save_predictions(
                    os.path.join(folder, prediction_file(config.dataset, config.seed, split, word)), labels
                )
    checkpoint.save_json(os.path.join(config.log_dir, RESULTS), {**summary(training, progress), **spent})


def _val_metric(outcomes: Mapping[str, Mapping[str, Outcome]], name: str) -> float | None:
    return outcomes["best"]["val"].metrics[name] if "best" in outcomes else None  # NaN so far


def summary(training: Training, progress: Progress) -> dict[str, Any]:
    """results.json but for the costs: the configuration, what each rule chose and how that does on every split."""
    config, data, classifier = training.config, training.data, training.classifier
    return {
        "status": "finished" if progress.epoch == config.n_epochs else "running",
        "epochs": progress.epoch,
        "dataset": config.dataset,
        "algorithm": config.algorithm,
        "seed": config.seed,
        "synthetic": data.synthetic,
        "selection": {
            name: {
                "epoch": choice.epoch,
                "score": choice.score,
                "rule": training.rules[name].meaning,
                "needs": training.rules[name].needs,
                "splits": {key: as_record(data, outcome) for key, outcome in progress.outcomes[name].items()},
            }
            for name, choice in progress.chosen.items()
        },
        "config": config.as_record(),
        "data": training.fingerprint,
        "n_parameters": sum(p.numel() for p in classifier.parameters()),
        "agreeing_pseudo_environments": None
        if progress.pseudo is None or config.pseudo_environments is not None
        else shares_that_agree(data.splits, progress.pseudo),
        "similarity": classifier.contrast and classifier.contrast.similarity.how,
        "seconds": {name: round(seconds, 3) for name, seconds in progress.clock.seconds.items()},
        "steps": progress.epoch * len(training.order),
    }
