"""A host's own hyperparameters as people give them: of the kind and in the range that the host takes for granted."""

from __future__ import annotations

import difflib
import importlib
import math
from typing import Any, Mapping

from .. import catalog
from ..errors import InputError
from ..hyperparameter import is_number, plain, shown

#: the hosts' hyperparameters whose range is known: (least, largest)
RANGES = {
    "lr": (0, math.inf),
    "weight_decay": (0, math.inf),
    "resnet_dropout": (0, 1),
    "vit_dropout": (0, 1),
    "last_layer_dropout": (0, 1),
    "batch_size": (1, math.inf),
}
WHOLE = ("batch_size",)  #: whatever else is a whole number by default may be a fraction in its sweeps


def checked(algorithm: str, base: str, hparams: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """All hyperparameters of one of our algorithms, numbers as Python's own.

    Args:
        algorithm: whose hyperparameters of ours are added, a key of ``catalog.ALGORITHMS``.
        base: the name that is said of the host's.
        hparams: what is to be used.
        defaults: of every hyperparameter that the host and we know; their kinds are what is expected.

    Raises:
        InputError: a value cannot be used, or a key is near to one that exists and is none.
    """
    own = catalog.hyperparameters(algorithm)
    values = catalog.check(algorithm, hparams)
    for name in values.keys() - own.keys():
        if name in defaults or name in RANGES:
            values[name] = _host_value(name, plain(values[name]), defaults.get(name, 0.0))
        elif near := difflib.get_close_matches(name, defaults, n=1, cutoff=0.8):
            raise InputError(
                f"{base} has no hyperparameter {name!r} (given {shown(values[name])}); did you mean {near[0]!r}?"
            )
    return values


def kinds(registry: str, algorithm: str, dataset: str) -> dict[str, Any]:
    """The default of every hyperparameter that an algorithm has in a host on a data set.

    Args:
        registry: the name of the host's module of hyperparameters.
    """
    pairs = importlib.import_module(registry)._hparams(algorithm, dataset, 0)
    return {name: pair[0] for name, pair in pairs.items()}


def _host_value(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        fits, expected = isinstance(value, (bool, int)) and value in (0, 1), "true or false"
    elif isinstance(default, (int, float)) or type(default).__module__ == "numpy":
        fits, expected = _in_range(name, value)
    else:
        fits, expected = isinstance(value, type(default)), f"of the kind of {default!r}"
    if not fits:
        raise InputError(f"{name}={shown(value)} is not {expected} (default {default!r})")
    return value


def _in_range(name: str, value: Any) -> tuple[bool, str]:
    least, largest = RANGES.get(name, (-math.inf, math.inf))
    fits = is_number(value) and least <= value <= largest and (isinstance(value, int) or name not in WHOLE)
    expected = "a whole number" if name in WHOLE else "a finite number"
    if largest < math.inf:
        return fits, f"{expected} from {least} to {largest}"
    return fits, f"{expected} of at least {least}" if least > -math.inf else expected
