"""Whether what a state.pth holds is a state of this run: checked as a whole before anything of it is used.

A check is a function of a value and of where it stands that raises :class:`Wrong`; the state of a run is a record of
them. What torch's own parts keep is compared with what they keep before the first step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

import torch
from torch import Tensor

from ..algorithms.classifier import LOG_NAMES
from ..errors import InputError
from . import cross_fit
from .datasets import difference_of_data
from .logs import Averages, is_log_file

if TYPE_CHECKING:
    from .trainer import Trainer

Check = Callable[[Any, str], None]


class Wrong(Exception):
    """A value that does not belong where it stands; says both."""


def check_state(trainer: Trainer, state: dict[str, Any], path: str) -> None:
    """Hold a state against the run that is to go on from it. Changes nothing.

    Raises:
        InputError: something in it is missing, of another kind, or out of range.
    """
    try:
        table(text, text)(state.get("data", {}), "'data'")
        _check_data(trainer, state)  # on which depends what is right below
        _run(trainer)(state, "")
        _check_together(trainer, state)
    except InputError:
        raise
    except (Wrong, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as wrong:
        raise InputError(
            f"--resume: {path} is not a state that this run can go on from: {wrong}; restore the file, or begin again "
            f"with another --log_dir"
        ) from wrong
    if state["batch"] and trainer.fabric.world_size > 1:
        raise InputError(
            f"--resume: the run in {trainer.config.log_dir} stopped within an epoch, which one process trains to "
            f"its end; go on with one"
        )
    if state.get("cross_fit"):
        cross_fit.check_unchanged(trainer.config.log_dir, trainer.data, state.get("data") or {})


def _check_data(trainer: Trainer, state: dict[str, Any]) -> None:
    if differs := difference_of_data(state.get("data"), trainer.fingerprint):
        raise InputError(
            f"--resume: {differs} of {trainer.config.dataset} in {trainer.config.root_dir} are not those that "
            f"the run in {trainer.config.log_dir} was trained with; restore them, or begin again with another "
            f"--log_dir"
        )


# --- checks -----------------------------------------------------------------------------------------------------------


def _need(holds: bool, where: str, value: Any, wanted: str) -> None:
    if not holds:
        raise Wrong(f"{where or 'it'} is {_short(value)} where {wanted} belongs")


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    text = repr(value) if isinstance(value, (bool, int, float, str, type(None))) else f"a {type(value).__name__}"
    return text if len(text) < 60 else f"{text[:60]}..."


def whole(low: int = 0, high: float = math.inf) -> Check:
    return lambda value, where: _need(
        isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
        where,
        value,
        f"a whole number from {low}" + (f" to {high}" if high < math.inf else " on"),
    )


def real(low: float = -math.inf, high: float = math.inf) -> Check:
    """A number in [low, high]; infinite and NaN are numbers only where there is no bound."""

    def check(value: Any, where: str) -> None:
        free = low == -math.inf and high == math.inf
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and (free or low <= value <= high)
        _need(fits, where, value, "a number" if free else f"a number from {low:g} to {high:g}")

    return check


def of_type(kind: type, wanted: str) -> Check:
    return lambda value, where: _need(isinstance(value, kind), where, value, wanted)


text, flag, anything = of_type(str, "text"), of_type(bool, "True or False"), of_type(object, "anything")


def none_or(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def one_of(values: Iterable[Any], wanted: str) -> Check:
    return lambda value, where: _need(value in tuple(values), where, value, wanted)


def numbers(length: int | None, high: int) -> Check:
    """A tensor of whole numbers in [0, high)."""

    def check(value: Any, where: str) -> None:
        shape = "(n,)" if length is None else f"({length},)"
        fits = isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == 1
        fits = fits and (length is None or len(value) == length)
        fits = fits and (not len(value) or 0 <= int(value.min()) <= int(value.max()) < high)
        _need(fits, where, value, f"a tensor {shape} of whole numbers below {high}")

    return check


def tensor(dtype: torch.dtype | None, *shapes: tuple[int, ...], finite: bool = False) -> Check:
    def check(value: Any, where: str) -> None:
        wanted = f"a tensor {' or '.join(map(str, shapes))} of {dtype or 'real numbers'}"
        fits = isinstance(value, Tensor) and value.layout == torch.strided and tuple(value.shape) in shapes
        fits = fits and (value.dtype == dtype if dtype else value.is_floating_point())
        _need(fits, where, value, wanted)
        if finite and not value.isfinite().all():
            raise Wrong(f"{where} has values that are not finite")

    return check


def series(check: Check, length: int | None = None) -> Check:
    """A list or tuple."""

    def check_all(value: Any, where: str) -> None:
        wanted = "a list" if length is None else f"a list of {length}"
        fits = isinstance(value, (list, tuple)) and (length is None or len(value) == length)
        _need(fits, where, value, wanted)
        for number, part in enumerate(value):
            check(part, f"{where}[{number}]")

    return check_all


def pair(first: Check, second: Check) -> Check:
    def check(value: Any, where: str) -> None:
        series(anything, 2)(value, where)
        first(value[0], f"{where}[0]")
        second(value[1], f"{where}[1]")

    return check


def table(key: Check, value: Check) -> Check:
    def check(given: Any, where: str) -> None:
        _need(isinstance(given, Mapping), where, given, "a dictionary")
        for name, part in given.items():
            key(name, f"a key of {where}")
            value(part, f"{where}[{_short(name)}]")

    return check


def record(needed: Mapping[Any, Check], optional: Mapping[Any, Check] = {}) -> Check:
    def check(given: Any, where: str) -> None:
        _need(isinstance(given, Mapping), where, given, "a dictionary")
        known = {**needed, **optional}
        if missing := [name for name in needed if name not in given]:
            raise Wrong(f"{where or 'it'} has no {missing[0]!r}")
        if unknown := [name for name in given if name not in known]:
            raise Wrong(f"{where or 'it'} has {_short(unknown[0])}, which is not known")
        for name, part in given.items():
            known[name](part, f"{where}[{name!r}]" if where else repr(name))

    return check


def like(template: Any) -> Check:
    """What has the structure of the template; numbers stand for numbers, None for any plain value."""
    if isinstance(template, Tensor):
        return tensor(template.dtype, tuple(template.shape))
    if isinstance(template, Mapping):
        return record({name: like(part) for name, part in template.items()})
    if isinstance(template, (list, tuple)):
        return lambda value, where: _check_parts(template, value, where)
    if isinstance(template, bool):
        return flag
    if isinstance(template, (int, float)):
        return real()
    if isinstance(template, str):
        return text
    return lambda value, where: _need(isinstance(value, (int, float, str, type(None))), where, value, "a plain value")


def _check_parts(template, value: Any, where: str) -> None:
    series(anything, len(template))(value, where)
    for number, (part, of_template) in enumerate(zip(value, template)):
        like(of_template)(part, f"{where}[{number}]")


# --- the parts of a state ---------------------------------------------------------------------------------------------


def _run(trainer: Trainer) -> Check:
    data, config, splits = trainer.data, trainer.config, trainer.splits
    rule = one_of(trainer.rules, "a selection rule")
    rows = numbers(None, len(data.splits["train"].labels))
    return record(
        {
            "config": of_type(dict, "a dictionary"),
            "epoch": whole(0, config.n_epochs),
            "batch": whole(0, len(trainer.order)),
            "model": _model(trainer),
            "optimizer": _optimizer(trainer.optimizer),
            "scheduler": _scheduler(trainer.scheduler),
            "precision": like(trainer.fabric.strategy.precision.state_dict()),
            "chosen": table(rule, pair(whole(0, config.n_epochs - 1), real())),
            "outcomes": table(rule, record(dict.fromkeys(("train", *splits), _outcome(trainer)))),
            "seen": series(pair(rows, numbers(None, data.n_classes))),
            "averages": _averages(trainer.averages),
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


def _model(trainer: Trainer) -> Check:
    weights = {name for name, _ in trainer.classifier.named_parameters()}
    return record(
        {
            name: tensor(value.dtype, tuple(value.shape), finite=name in weights)
            for name, value in trainer.classifier.state_dict().items()
        }
    )


#: of optimizers and schedules: what versions of torch differ in, and what their load_state_dict fills in where missing
DRIFT = {"foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay", "verbose"}


def _alike(template: Mapping[str, Any], **others: Check) -> Check:
    """A dictionary of one of torch's objects, whose versions differ in some names and in private ones."""
    checks = {name: others.get(name) or like(value) for name, value in template.items()}
    needed = {name: check for name, check in checks.items() if name not in DRIFT and not name.startswith("_")}

    def check(given: Any, where: str) -> None:
        _need(isinstance(given, Mapping), where, given, "a dictionary")
        known = {name: part for name, part in given.items() if name in checks}
        if unknown := [name for name in given if name not in checks and str(name) not in DRIFT | _private(given)]:
            raise Wrong(f"{where} has {_short(unknown[0])}, which is not known")
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
    return lambda value, where: _need(value == expected, where, value, f"the list of the {len(expected)} weights")


def _without_nones(given: Any) -> Any:
    return {name: part for name, part in given.items() if part is not None} if isinstance(given, Mapping) else given


def _kept_per_weight(optimizer: torch.optim.Optimizer) -> list[str]:
    """What an optimizer keeps of a weight, after a step on one of ours."""
    group = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    weight = torch.zeros(1, requires_grad=True, device=optimizer.param_groups[0]["params"][0].device)
    weight.grad = torch.zeros_like(weight)
    trial = type(optimizer)([weight], lr=1e-3)
    trial.param_groups[0].update(group)
    trial.step()
    return list(_without_nones(trial.state[weight]))


def _outcome(trainer: Trainer) -> Check:
    share = real(0, 1)
    n_groups = trainer.data.grouper.n_groups
    fields = record(
        {
            "metrics": table(text, real()),
            "text": text,
            "accuracy": share,
            "class_accuracy": series(none_or(share), trainer.data.n_classes),
            "group_accuracy": series(none_or(share), n_groups),
            "group_count": series(whole(), n_groups),
        },
        {"worst_pseudo_group_accuracy": none_or(share)},
    )

    def check(given: Any, where: str) -> None:
        fields(given, where)
        metric = trainer.config.val_metric
        if metric not in given["metrics"]:
            raise Wrong(f"{where}['metrics'] has no {metric!r}")
        if all(value is None for value in given["class_accuracy"]):
            raise Wrong(f"{where}['class_accuracy'] has no value")

    return check


def _averages(averages: Averages) -> Check:
    n_groups = averages.n_groups
    names = {*Averages.FIXED, *LOG_NAMES.values(), "no_triplet", "mask_mean"}
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
    return lambda value, where: _need(
        is_log_file(value, splits), where, value, "the name of one of the run's log files"
    )


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


def _check_together(trainer: Trainer, state: dict[str, Any]) -> None:
    """What two of its parts say of each other."""
    config, epoch, batch = trainer.config, state["epoch"], state["batch"]
    n_batches = len(trainer.order)
    if batch and (epoch == config.n_epochs or not trainer._ends_step(batch, n_batches)):
        raise Wrong(f"'batch' is {batch}, at which epoch {epoch} cannot have stopped")
    if len(state["seen"]) != batch:
        raise Wrong(f"'seen' has {len(state['seen'])} batches where {batch} belong")
    for number, (rows, predictions) in enumerate(state["seen"]):
        if len(rows) != len(predictions):
            raise Wrong(f"'seen'[{number}] has {len(rows)} rows and {len(predictions)} predictions")
    if batch and not config.cross_fit and trainer.fabric.world_size == 1:
        drawn = [[row for row, _ in of_batch] for of_batch in trainer.order.epoch(epoch)[:batch]]
        if drawn != [rows.tolist() for rows, _ in state["seen"]]:
            raise Wrong(f"'seen' has other rows than epoch {epoch} draws")
    if state["chosen"].keys() != state["outcomes"].keys():
        raise Wrong("'chosen' and 'outcomes' have different selection rules")
    if late := [rule for rule, (chosen, _) in state["chosen"].items() if chosen >= epoch]:
        raise Wrong(f"'chosen' has an epoch of {late[0]!r} that has not ended")
    if state.get("cross_fit") and not config.cross_fit:
        raise Wrong("'cross_fit' is True in a run without --cross_fit")
    if config.cross_fit and epoch and not state.get("cross_fit"):
        raise Wrong("'cross_fit' is not True after an epoch with --cross_fit")
