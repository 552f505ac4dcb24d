"""Folders as SubpopBench's train script leaves them, with numbers of a test's choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARGS = {
    "train_attr": "yes",
    "steps": 3,
    "checkpoint_freq": 1,
    "image_arch": "resnet_sup_in1k",
    "hparams": None,
    "hparams_seed": 0,
    "seed": 0,
}


def split(groups: tuple[float, float, float, float], average: float) -> dict[str, Any]:
    """A split's metrics: accuracies of groups (label, attribute) 00, 01, 10, 11, each of as many images."""
    names = ("y=0,a=0", "y=0,a=1", "y=1,a=0", "y=1,a=1")
    recalls = [(groups[0] + groups[1]) / 2, (groups[2] + groups[3]) / 2]
    score = {"precision": 0.5, "f1-score": 0.5}
    return {
        "overall": {
            "accuracy": average,
            "macro_avg": score,
            "balanced_acc": sum(recalls) / 2,
            "AUROC": 0.5,
            "ECE": 0.1,
        },
        "per_class": {str(label): {"recall": recall, **score} for label, recall in enumerate(recalls)},
        "per_group": {name: {"accuracy": accuracy, "n_samples": 25} for name, accuracy in zip(names, groups)},
        "min_group": {"accuracy": min(groups)},
        "min_attr": {"AUROC": 0.5},
        "adjusted_accuracy": sum(groups) / 4,
    }


def write_run(folder: Path, evaluations: list[tuple[dict, dict]], *, done: bool = True, **args: Any) -> Path:
    """A run of (validation, test) splits, one an evaluation; its folder below ``folder``."""
    args = {"algorithm": "ERM", "dataset": "Waterbirds", **ARGS, **args}
    place = folder / f"{args['dataset']}_{args['algorithm']}_hparams{args['hparams_seed']}_seed{args['seed']}"
    place.mkdir(parents=True)
    for name in ("args.json", "out.txt", "err.txt"):
        (place / name).write_text("{}")
    lines = [
        {"step": step, "args": args, "hparams": {}, "step_time": 0.5, "mem_gb": 0.0, "va": validation, "te": test}
        for step, (validation, test) in enumerate(evaluations)
    ]
    (place / "results.json").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    if done:
        (place / "done").write_text("done")
    return place
