"""The folder of a retrained run: that of a run like any other, whose configuration names the method."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any, Mapping

import numpy as np
import torch
from torch import Tensor

from ..runs.layout import RESULTS, model_file, place, prediction_file
from ..runs.rules import RULES
from ..show.train import OpenedModel
from ..wilds_runner import checkpoint, pseudo
from ..wilds_runner.costs import peak_memory, versions
from ..wilds_runner.datasets import Dataset
from ..wilds_runner.evaluation import Outcome, as_record, evaluate
from ..wilds_runner.log_files import LogFiles
from .heads import Choice, Head
from .methods import METHODS
from .split import Fitted

Predicted = Mapping[str, "tuple[Tensor, Outcome]"]  #: split -> labels (N,) int64 and what the evaluator says of them


def evaluated(data: Dataset, features: Mapping[str, np.ndarray], head: Head) -> dict[str, tuple[Tensor, Outcome]]:
    """What a head predicts for every split: split -> labels and outcome."""
    predicted = {key: torch.from_numpy(head.logits(values).argmax(1)) for key, values in features.items()}
    return {key: (labels, evaluate(data, data.splits[key], labels)) for key, labels in predicted.items()}


def with_split(opened: OpenedModel, fitted: Fitted) -> OpenedModel:
    """The model with a mask over its encoder's maps; its head is still of another size."""
    opened.model.encoder[-1] = fitted.encoder
    return opened._replace(recipe=replace(opened.recipe, split=fitted.shape))


def write(
    folder: str, opened: OpenedModel, rule: str, method: str, choice: Choice, outcomes: Predicted, seconds: float
) -> None:
    """Model, predictions and logs, and results.json after them: a folder without it holds no run."""
    config = opened.config
    model = _with_head(opened, choice.head)
    first = None
    for name in _rules(opened):
        where, word = place(folder, name)
        path = os.path.join(where, model_file(config.dataset, config.seed, word))
        if first is None:
            checkpoint.save(path, model)
            first = path
        elif path != first:
            checkpoint.link(first, path)
        for key, (labels, _) in outcomes.items():
            checkpoint.save_predictions(
                os.path.join(where, prediction_file(config.dataset, config.seed, key, word)), labels
            )
    logs = LogFiles(folder, {})
    logs.write(f"Head of {opened.folder} ({rule}) fitted again by {METHODS[method].meaning}\n")
    for key, (_, outcome) in outcomes.items():
        logs.row(f"{key}_eval.csv", {"epoch": opened.choice["epoch"], **outcome.metrics}, opened.choice["epoch"])
        logs.write(f"Epoch eval, {opened.data.splits[key].name}:\n{outcome.text}\n")
    environments = pseudo.file_in(opened.folder)
    if environments is not None:
        shutil.copyfile(environments, os.path.join(folder, os.path.basename(environments)))
    record = _record(opened, rule, method, choice, outcomes, seconds)
    checkpoint.save_json(os.path.join(folder, RESULTS), record)


def _named(method: str, choice: Choice) -> str:
    """What compare calls it: runs of different weights are different rows."""
    weight = choice.chosen.get("split_weight", 1.0)
    return method if weight == 1 else f"{method}, split_weight={weight:g}"


def _rules(opened: OpenedModel) -> list[str]:
    """All that the run had but the one by test data: with one head, each chooses it."""
    return [name for name in opened.results["selection"] if name in RULES and name != "oracle"]


def _with_head(opened: OpenedModel, head: Head) -> dict[str, Any]:
    weights = dict(opened.model.cpu().state_dict())
    for name, values in (("head.weight", head.weight), ("head.bias", head.bias)):
        weights[name] = torch.from_numpy(values).to(weights[name].dtype)
    recipe = opened.recipe.as_dict()
    return {"algorithm": weights, "recipe": recipe, "epoch": opened.choice["epoch"], "best_val_metric": None}


def _record(
    opened: OpenedModel, rule: str, method: str, choice: Choice, outcomes: Predicted, seconds: float
) -> dict[str, Any]:
    before, how = opened.results, METHODS[method]
    splits = {key: as_record(opened.data, outcome) for key, (_, outcome) in outcomes.items()}
    chosen = {
        "epoch": opened.choice["epoch"],
        "score": choice.score,
        "rule": f"the one head that {method} gives, on the model that {rule} chose",
        "needs": f"{how.needs}; and for the model, {RULES[rule].needs}",
        "splits": splits,
    }
    return {
        **before,
        "selection": {name: chosen for name in _rules(opened)},
        "config": {**before["config"], "retrain": _named(method, choice)},
        "retrain": {
            "of": os.path.abspath(opened.folder),
            "rule": rule,
            "method": how.meaning,
            "needs": how.needs,
            "fitted_to": "val",
            **choice.chosen,
            "worst_group_of_the_other_half": choice.score,
        },
        "seconds": {"retrain": round(seconds, 3)},
        "peak_memory_bytes": peak_memory(),
        "versions": versions(),
    }
