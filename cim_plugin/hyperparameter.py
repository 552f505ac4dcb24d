"""One value that a user may set: its default, its draw in sweeps and its check; and values as users give them."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Callable, Iterable

from .errors import InputError
from .flags import COUNT, any_number, whole

if TYPE_CHECKING:
    import numpy as np

LARGEST = 65536  #: of whole numbers, which are sizes of layers: much larger ones fit no memory


@dataclass(frozen=True)
class Hyperparameter:
    """One value that a user may set."""

    default: Any
    draw: Callable[[np.random.RandomState], Any]  #: native Python values only: hosts write them as JSON
    domain: str  #: what the docs say of the draw
    accepts: Callable[[Any], bool]
    values: str  #: the accepted values, in words
    help: str
    before: Any = None  #: what it was in runs made before there was this one; None: the default

    def check(self, name: str, value: Any) -> Any:
        """The value as one of Python's own, a float where the default is one; InputError unless it can be used."""
        given, value = value, plain(value)
        if not self.accepts(value):
            raise InputError(f"{name}={shown(given)} is not {self.values} (default {self.default!r})")
        if isinstance(value, int) and value > LARGEST and not isinstance(self.default, float):
            raise InputError(f"{name}={shown(given)} is too large; give at most {LARGEST} (default {self.default!r})")
        return float(value) if isinstance(self.default, float) else value

    def with_default(self, value: Any) -> Hyperparameter:
        """The same, with another default; for what sweeps leave at it."""
        return replace(self, default=value, draw=lambda r: value)

    @property
    def flag(self) -> dict[str, Any]:
        """argparse's keywords of a flag for it, but for the default: what an unset flag means is the parser's
        business.
        """
        types = {int: whole(-COUNT, LARGEST_WHOLE), float: any_number}
        keywords = BOOL_FLAG if isinstance(self.default, bool) else {"type": types.get(type(self.default), str)}
        return {**keywords, "help": f"{self.help}: {self.values} (default: {self.default})".replace("%", "%%")}


def parse_bool(text: str) -> bool:
    """true or false, in any case."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


LARGEST_WHOLE = 1 << 16  #: of a command line: a code of the bottleneck that fits any memory
BOOL_FLAG = {"type": parse_bool, "const": True, "nargs": "?"}  #: argparse's own type=bool makes true of every word


def plain(value: Any) -> Any:
    """Scalars of numpy and torch, decimals and fractions as Python's own numbers; anything else as it is."""
    if isinstance(value, (Decimal, Fraction)):
        return float(value)
    if not isinstance(value, (int, float, str)) or type(value).__module__ == "numpy":
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
            return value.item()
    return value


def shown(value: Any) -> str:
    """A value in a message of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float, small enough for a float, and no truth value."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an int with hundreds of digits
        return False


def weight(default: float, low: float, high: float, help: str) -> Hyperparameter:
    return Hyperparameter(
        default,
        lambda r: float(10 ** r.uniform(low, high)),
        f"10^U({low:g}, {high:g})",
        lambda value: is_number(value) and value >= 0,
        "a finite number of at least 0",
        help,
    )


def choice(options: Iterable[str], help: str) -> Hyperparameter:
    """A choice that sweeps leave at the first option: it names a variant, and a sweep tunes one variant."""
    options = tuple(options)
    default, words = options[0], " or ".join(repr(option) for option in options)
    return Hyperparameter(
        default, lambda r: default, "fixed", lambda value: isinstance(value, str) and value in options, words, help
    )
