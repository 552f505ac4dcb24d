"""Whether what a state.pth holds is a state of this run: checked as a whole before anything of it is used.

The state of a run is a record of :mod:`~.checks`. What torch's own parts keep is compared with what they keep before
the first step.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import torch

from ..algorithms import mask_statistics
from ..algorithms.classifier import LOG_NAMES
from ..errors import InputError
from . import pseudo
from .averages import Averages
from .checks import (
    Check,
    Wrong,
    anything,
    flag,
    like,
    need,
    none_or,
    numbers,
    of_type,
    one_of,
    pair,
    real,
    record,
    series,
    short,
    table,
    tensor,
    text,
    whole,
)
from .datasets import difference_of_data
from .log_files import is_log_file
from .training import Training


def check_state(training: Training, state: dict[str, Any], path: str) -> None:
    """Hold a state against the run that is to go on from it. Changes nothing.

    Raises:
        InputError: something in it is missing, of another kind, or out of range.
    """
    try:
        table(text, text)(state.get("data", {}), "'data'")
        _check_data(training, state)  # on which depends what is right below
        _run(training)(state, "")
        _check_together(training, state)
    except InputError:
        raise
    except (Wrong, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as wrong:
        raise InputError(
            f"--resume: {path} is not a state that this run can go on from: {wrong}; restore the file, or begin again "
            f"with another --log_dir"
        ) from wrong
    if state["batch"] and training.fabric.world_size > 1:
        raise InputError(
            f"--resume: the run in {training.config.log_dir} stopped within an epoch, which one process trains to "
            f"its end; go on with one"
        )
    if state.get("cross_fit"):
        pseudo.check_unchanged(training.config, training.data, state.get("data") or {})


def _check_data(training: Training, state: dict[str, Any]) -> None:
    if differs := difference_of_data(state.get("data"), training.fingerprint):
        raise InputError(
            f"--resume: {differs} of {training.config.dataset} in {training.config.root_dir} are not those that "
            f"the run in {training.config.log_dir} was trained with; restore them, or begin again with another "
            f"--log_dir"
        )


# --- the parts of a state ---------------------------------------------------------------------------------------------


def _run(training: Training) -> Check:
    data, config, splits = training.data, training.config, training.splits
    rule = one_of(training.rules, "a selection rule")
    rows = numbers(None, len(data.splits["train"].labels))
    n_groups = 0 if config.no_group_logging else data.grouper.n_groups
    return record(
        {
            "config": of_type(dict, "a dictionary"),
            "epoch": whole(0, config.n_epochs),
            "batch": whole(0, len(training.order)),
            "model": _model(training),
            "optimizer": _optimizer(training.optimizer),
            "scheduler": _scheduler(training.scheduler),
            "precision": like(training.fabric.strategy.precision.state_dict()),
            "chosen": table(rule, pair(whole(0, config.n_epochs - 1), real())),
            "outcomes": table(rule, record(dict.fromkeys(("train", *splits), _outcome(training)))),
            "seen": series(pair(rows, numbers(None, data.n_classes))),
            "averages": _averages(n_groups),
            "log_sizes": table(_log_file(data.splits), whole()),
            "clock": table(text, real(0, 1e12)),
        },
        {
            "cross_fit": flag,
            "cost": _cost,
            "lasting": table(text, text),
            "data": table(text, text),
            "predicted": record({key: numbers(len(data.splits[key].labels), data.n_classes) for key in splits}),
        },
    )


def _model(training: Training) -> Check:
    weights = {name for name, _ in training.classifier.named_parameters()}
    return record(
        {
            name: tensor(value.dtype, tuple(value.shape), finite=name in weights)
            for name, value in training.classifier.state_dict().items()
        }
    )


#: of optimizers and schedules: what versions of torch differ in, and what their load_state_dict fills in where missing
DRIFT = {"foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay", "verbose"}


def _alike(template: Mapping[str, Any], **others: Check) -> Check:
    """A dictionary of one of torch's objects, whose versions differ in some names and in private ones."""
    checks = {name: others.get(name) or like(value) for name, value in template.items()}
    needed = {name: check for name, check in checks.items() if name not in DRIFT and not name.startswith("_")}

    def check(given: Any, where: str) -> None:
        need(isinstance(given, Mapping), where, given, "a dictionary")
        known = {name: part for name, part in given.items() if name in checks}
        if unknown := [name for name in given if name not in checks and str(name) not in DRIFT | _private(given)]:
            raise Wrong(f"{where} has {short(unknown[0])}, which is not known")
        record(needed, {name: part for name, part in checks.items() if name not in needed})(known, where)

    return check


def _private(names: Iterable[Any]) -> set[str]:
    return {name for name in names if isinstance(name, str) and name.startswith("_")}


def _scheduler(scheduler) -> Check:
    return (
        of_type(type(None), "None, as there is no --scheduler,")
        if scheduler is None
        else _alike(scheduler.state_dict())
    )


def _optimizer(optimizer) -> Check:
    parts = getattr(optimizer, "parts", None)  # Fabric's wrapper has what the optimizer has
    if parts is not None:
        return record({name: _optimizer(part) for name, part in parts.items()})
    inner = getattr(optimizer, "optimizer", optimizer)
    weights = [weight for group in inner.param_groups for weight in group["params"]]
    kept = _kept_per_weight(inner)
    groups = [
        _alike(group, params=_same(group["params"]), lr=real(0, 1e30)) for group in inner.state_dict()["param_groups"]
    ]

    def state(given: Any, where: str) -> None:
        table(whole(0, len(weights) - 1), anything)(given, where)
        for number, of_weight in given.items():
            shapes = {tuple(weights[number].shape), ()}
            record({name: tensor(None, *shapes) for name in kept})(_without_nones(of_weight), f"{where}[{number}]")

    def check_groups(given: Any, where: str) -> None:
        series(anything, len(groups))(given, where)
        for number, (group, check) in enumerate(zip(given, groups)):
            check(group, f"{where}[{number}]")

    return record({"state": state, "param_groups": check_groups})


def _same(expected: list[int]) -> Check:
    return lambda value, where: need(value == expected, where, value, f"the list of the {len(expected)} weights")


def _without_nones(given: Any) -> Any:
    return {name: part for name, part in given.items() if part is not None} if isinstance(given, Mapping) else given


def _kept_per_weight(optimizer: torch.optim.Optimizer) -> list[str]:
    """What an optimizer keeps of a weight, after a step on one of ours."""
    group = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    weight = torch.zeros(1, requires_grad=True, device=optimizer.param_groups[0]["params"][0].device)
    weight.grad = torch.zeros_like(weight)
    make: Any = type(optimizer)
    trial = make([weight], lr=1e-3)
    trial.param_groups[0].update(group)
    trial.step()
    return list(_without_nones(trial.state[weight]))


def _outcome(training: Training) -> Check:
    share = real(0, 1)
    n_groups = training.data.grouper.n_groups
    fields = record(
        {
            "metrics": table(text, real()),
            "text": text,
            "accuracy": share,
            "class_accuracy": series(none_or(share), training.data.n_classes),
            "group_accuracy": series(none_or(share), n_groups),
            "group_count": series(whole(), n_groups),
        },
        {"worst_pseudo_group_accuracy": none_or(share)},
    )

    def check(given: Any, where: str) -> None:
        fields(given, where)
        metric = training.config.val_metric
        if metric not in given["metrics"]:
            raise Wrong(f"{where}['metrics'] has no {metric!r}")
        if all(value is None for value in given["class_accuracy"]):
            raise Wrong(f"{where}['class_accuracy'] has no value")

    return check


def _averages(n_groups: int) -> Check:
    names = {*Averages.FIXED, *LOG_NAMES.values(), *mask_statistics.NAMES}
    by_group = {f"{name}_group" for name in ("loss", "acc", "count", "weight")} if n_groups else set()
    shape = {name: ((n_groups,) if name in by_group else ()) for name in names | by_group}
    sums = record({}, {name: tensor(torch.float64, of_name) for name, of_name in shape.items()})

    def check(given: Any, where: str) -> None:
        record({"count": whole(), "sums": sums})(given, where)
        needed = [*Averages.FIXED, *(["loss_group", "acc_group", "count_group"] if n_groups else [])]
        if given["count"] and (missing := [name for name in needed if name not in given["sums"]]):
            raise Wrong(f"{where}['sums'] has no {missing[0]!r}")

    return check


def _log_file(splits: Iterable[str]) -> Check:
    return lambda value, where: need(is_log_file(value, splits), where, value, "the name of one of the run's log files")


def _cost(given: Any, where: str) -> None:
    record(
        {},
        {
            "peak_memory_bytes": table(text, whole()),
            "n_processes": whole(1),
            "device": none_or(text),
            "versions": table(text, none_or(text)),
        },
    )(given, where)


def _check_together(training: Training, state: dict[str, Any]) -> None:
    """What two of its parts say of each other."""
    config, epoch, batch = training.config, state["epoch"], state["batch"]
    n_batches = len(training.order)
    if batch and (epoch == config.n_epochs or not training.ends_step(batch, n_batches)):
        raise Wrong(f"'batch' is {batch}, at which epoch {epoch} cannot have stopped")
    if len(state["seen"]) != batch:
        raise Wrong(f"'seen' has {len(state['seen'])} batches where {batch} belong")
    for number, (rows, predictions) in enumerate(state["seen"]):
        if len(rows) != len(predictions):
            raise Wrong(f"'seen'[{number}] has {len(rows)} rows and {len(predictions)} predictions")
    if batch and not config.has_first_phase and training.fabric.world_size == 1:
        drawn = [[row for row, _ in of_batch] for of_batch in training.order.epoch(epoch)[:batch]]
        if drawn != [rows.tolist() for rows, _ in state["seen"]]:
            raise Wrong(f"'seen' has other rows than epoch {epoch} draws")
    if state["chosen"].keys() != state["outcomes"].keys():
        raise Wrong("'chosen' and 'outcomes' have different selection rules")
    if late := [rule for rule, (chosen, _) in state["chosen"].items() if chosen >= epoch]:
        raise Wrong(f"'chosen' has an epoch of {late[0]!r} that has not ended")
    if state.get("cross_fit") and not config.has_first_phase:
        raise Wrong("'cross_fit' is True in a run without --cross_fit")
    if config.has_first_phase and epoch and not state.get("cross_fit"):
        raise Wrong("'cross_fit' is not True after an epoch with pseudo-environments")
