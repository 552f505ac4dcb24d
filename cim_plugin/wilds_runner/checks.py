"""Checks of values out of a file: functions of a value and of where it stands that raise :class:`Wrong`."""

from __future__ import annotations

import math
from typing import Any, Callable, Iterable, Mapping

import torch
from torch import Tensor

Check = Callable[[Any, str], None]


class Wrong(Exception):
    """A value that does not belong where it stands; says both."""


def need(holds: bool, where: str, value: Any, wanted: str) -> None:
    if not holds:
        raise Wrong(f"{where or 'it'} is {short(value)} where {wanted} belongs")


def short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    text = repr(value) if isinstance(value, (bool, int, float, str, type(None))) else f"a {type(value).__name__}"
    return text if len(text) < 60 else f"{text[:60]}..."


def whole(low: int = 0, high: float = math.inf) -> Check:
    return lambda value, where: need(
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
        need(fits, where, value, "a number" if free else f"a number from {low:g} to {high:g}")

    return check


def of_type(kind: type, wanted: str) -> Check:
    return lambda value, where: need(isinstance(value, kind), where, value, wanted)


text, flag, anything = of_type(str, "text"), of_type(bool, "True or False"), of_type(object, "anything")


def none_or(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def one_of(values: Iterable[Any], wanted: str) -> Check:
    return lambda value, where: need(value in tuple(values), where, value, wanted)


def numbers(length: int | None, high: int) -> Check:
    """A tensor of whole numbers in [0, high)."""

    def check(value: Any, where: str) -> None:
        shape = "(n,)" if length is None else f"({length},)"
        fits = isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == 1
        fits = fits and (length is None or len(value) == length)
        fits = fits and (not len(value) or 0 <= int(value.min()) <= int(value.max()) < high)
        need(fits, where, value, f"a tensor {shape} of whole numbers below {high}")

    return check


def tensor(dtype: torch.dtype | None, *shapes: tuple[int, ...], finite: bool = False) -> Check:
    def check(value: Any, where: str) -> None:
        wanted = f"a tensor {' or '.join(map(str, shapes))} of {dtype or 'real numbers'}"
        fits = isinstance(value, Tensor) and value.layout == torch.strided and tuple(value.shape) in shapes
        fits = fits and (value.dtype == dtype if dtype else value.is_floating_point())
        need(fits, where, value, wanted)
        if finite and not value.isfinite().all():
            raise Wrong(f"{where} has values that are not finite")

    return check


def series(check: Check, length: int | None = None) -> Check:
    """A list or tuple."""

    def check_all(value: Any, where: str) -> None:
        wanted = "a list" if length is None else f"a list of {length}"
        fits = isinstance(value, (list, tuple)) and (length is None or len(value) == length)
        need(fits, where, value, wanted)
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
        need(isinstance(given, Mapping), where, given, "a dictionary")
        for name, part in given.items():
            key(name, f"a key of {where}")
            value(part, f"{where}[{short(name)}]")

    return check


def record(needed: Mapping[Any, Check], optional: Mapping[Any, Check] = {}) -> Check:
    def check(given: Any, where: str) -> None:
        need(isinstance(given, Mapping), where, given, "a dictionary")
        known = {**needed, **optional}
        if missing := [name for name in needed if name not in given]:
            raise Wrong(f"{where or 'it'} has no {missing[0]!r}")
        if unknown := [name for name in given if name not in known]:
            raise Wrong(f"{where or 'it'} has {short(unknown[0])}, which is not known")
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
    return lambda value, where: need(isinstance(value, (int, float, str, type(None))), where, value, "a plain value")


def _check_parts(template, value: Any, where: str) -> None:
    series(anything, len(template))(value, where)
    for number, (part, of_template) in enumerate(zip(value, template)):
        like(of_template)(part, f"{where}[{number}]")
