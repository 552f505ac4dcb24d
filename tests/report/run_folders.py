"""Folders as 'cim-plugin train' and DomainBed leave them, with numbers of a test's choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GROUPS = (
    "y:landbird_background:land",
    "y:landbird_background:water",
    "y:waterbird_background:land",
    "y:waterbird_background:water",
)
CONFIG = {
    "frac": 1.0,
    "lr": 0.001,
    "n_epochs": 3,
    "val_metric": "acc_wg",
    "train_loader": "standard",
    "uniform_over_groups": False,
    "distinct_groups": None,
    "log_every": 50,
}
GROUP_DRO = {"uniform_over_groups": True, "distinct_groups": True}


def split_record(groups: tuple[float, ...], average: float | None = None) -> dict[str, Any]:
    """A split's outcome in results.json: accuracies in [0, 1] of four equally large groups."""
    return {
        "metrics": {"acc_wg": min(groups), "adj_acc_avg": max(groups)},
        "accuracy": sum(groups) / len(groups) if average is None else average,
        "groups": {name: {"accuracy": accuracy, "count": 25} for name, accuracy in zip(GROUPS, groups)},
    }


def wilds_record(
    algorithm: str = "ERM",
    seed: int = 0,
    groups=(0.9, 0.5, 0.4, 0.8),
    *,
    average_rule=None,
    config=None,
    hyperparameters=None,
    **more,
) -> dict[str, Any]:
    """results.json of a finished run.

    Args:
        groups: test accuracies at the epoch of every rule.
        average_rule: those at the epoch of the rule "average", where they differ.
    """
    chosen = {rule: (1, groups) for rule in ("best", "worst_group", "average", "worst_class", "last", "oracle")}
    if average_rule is not None:
        chosen["average"] = (2, average_rule)
    return {
        "status": "finished",
        "epochs": 3,
        "dataset": "waterbirds",
        "algorithm": algorithm,
        "seed": seed,
        "synthetic": False,
        "selection": {
            rule: {
                "epoch": epoch,
                "score": 0.5,
                "rule": "a rule",
                "needs": "nothing",
                "splits": {"test": split_record(values)},
            }
            for rule, (epoch, values) in chosen.items()
        },
        "config": {
            **CONFIG,
            **(GROUP_DRO if algorithm == "groupDRO" else {}),
            "seed": seed,
            "hyperparameters": hyperparameters or {},
            **(config or {}),
        },
        "seconds": {"train": 6.0, "evaluation": 1.0},
        "steps": 60,
        "peak_memory_bytes": {"resident": 2**30},
        "device": "a device",
        "versions": {"python": "3.11", "torch": "2.5"},
        **more,
    }


def write_wilds(folder: Path, *words, **settings) -> Path:
    """A run of 'cim-plugin train'; arguments are those of :func:`wilds_record`."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(wilds_record(*words, **settings)))
    (folder / "val_eval.csv").write_text("epoch,acc_wg,adj_acc_avg\n0,0.2,0.6\n1,0.5,0.7\n2,0.4,0.8\n")
    return folder


def domainbed_records(
    test_envs,
    accuracies,
    *,
    algorithm="ERM",
    dataset="Debug28",
    trial_seed=0,
    hparams_seed=0,
    steps=(0, 10),
    hparams=None,
    **more,
) -> list[dict[str, Any]]:
    """Lines of results.jsonl.

    Args:
        accuracies: per step, (in, out) per environment.
    """
    args = {
        "algorithm": algorithm,
        "dataset": dataset,
        "trial_seed": trial_seed,
        "hparams_seed": hparams_seed,
        "test_envs": list(test_envs),
        "holdout_fraction": 0.2,
    }
    args |= {
        "steps": 11,
        "task": "domain_generalization",
        "hparams": hparams,
        "checkpoint_freq": None,
        "uda_holdout_fraction": 0,
    }
    records = []
    for step, of_step in zip(steps, accuracies):
        record = {"step": step, "args": {**args, **more}, "hparams": {}, "step_time": 0.1, "mem_gb": 0.5, "loss": 0.3}
        for number, (inside, outside) in enumerate(of_step):
            record |= {f"env{number}_in_acc": inside, f"env{number}_out_acc": outside}
        records.append(record)
    return records


def write_domainbed(folder: Path, records: list[dict[str, Any]], done: bool = True) -> Path:
    """An output folder of DomainBed."""
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(record, sort_keys=True) + "\n" for record in records))
    if done:
        (folder / "done").write_text("done")
    return folder


def write_sweep(
    folder: Path,
    rng,
    algorithms=("ERM", "CIM"),
    *,
    dataset="Debug28",
    n_environments=3,
    n_trials=2,
    n_draws=2,
    n_steps=3,
    digits=2,
) -> Path:
    """A whole sweep with random accuracies, rounded so that there are ties."""
    pairs = [(i,) for i in range(n_environments)] + [
        (i, j) for i in range(n_environments) for j in range(i + 1, n_environments)
    ]
    for algorithm in algorithms:
        for trial in range(n_trials):
            for draw in range(n_draws):
                for held_out in pairs:
                    accuracies = rng.uniform(0.3, 0.9, (n_steps, n_environments, 2)).round(digits).tolist()
                    steps = range(0, 10 * n_steps, 10)
                    records = domainbed_records(
                        held_out,
                        accuracies,
                        algorithm=algorithm,
                        dataset=dataset,
                        trial_seed=trial,
                        hparams_seed=draw,
                        steps=steps,
                    )
                    write_domainbed(folder / f"{algorithm}-{trial}-{draw}-{'-'.join(map(str, held_out))}", records)
    return folder
