"""Command lines: a parser that says what is wrong in one line, and the numbers that flags take."""

from __future__ import annotations

import argparse
import ast
import math
import re
import sys
from typing import Any, Callable

COUNT = 2**31 - 1  #: the largest number of anything
SEED = 2**63 - 1
LONGEST = 100  #: digits of a number; int itself refuses some thousands


class Parser(argparse.ArgumentParser):
    """Says a wrong argument in one line; --help shows the usage."""

    first: str | None = None  #: title of the group of flags that --help shows; None: all of them

    def begin_help_with(self, group: str, others: str) -> None:
        """Let --help show one group of flags and a line on the others, and --help-all all of them, that group first."""
        self._action_groups.sort(key=lambda of: of.title != group)
        self.first, self.epilog = group, f"{others}: {self.prog} --help-all"
        self.add_argument(
            "--help-all", action=HelpAll, nargs=0, default=argparse.SUPPRESS, help="show all flags and exit"
        )

    def format_help(self):
        if self.first is None:
            return super().format_help()
        formatter = self.formatter_class(prog=self.prog)
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group in self._action_groups:
            if group.title in (self.first, self._optionals.title):
                formatter.start_section(group.title)
                formatter.add_arguments(group._group_actions)
                formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {shortened(' '.join(message.splitlines()))}; see '{self.prog} --help'\n")

    def exit(self, status=0, message=None):
        sys.stdout.flush()  # a full disk is said where the others are said
        super().exit(status, message)


class HelpAll(argparse.Action):
    """Shows what :meth:`Parser.begin_help_with` leaves out of --help."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.first = parser.epilog = None
        parser.print_help()
        parser.exit()


def shortened(text: str, most: int = 1000) -> str:
    """A text of which no more is shown than somebody reads."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


class KeyValues(argparse.Action):
    """``key=value ...`` as a dictionary; values are Python literals, true, false, or strings."""

    def __call__(self, parser, namespace, values, option_string=None):
        pairs = {}
        for word in values:
            key, separator, text = word.partition("=")
            if not (key and separator):
                parser.error(f"{option_string} takes key=value, {shortened(word, 80)!r} was given")
            pairs[key] = _literal(text)
            if not _usable(pairs[key]):
                parser.error(f"{option_string} {shortened(word, 80)}: numbers are finite, and whole ones below 2**63")
        setattr(namespace, self.dest, pairs)


def _usable(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_usable, value))
    return not isinstance(value, (int, float)) or abs(value) < (2**63 if isinstance(value, int) else math.inf)


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        text = text.capitalize()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two where brackets nest deep
        return text


def whole(low: int, high: int = COUNT) -> Callable[[str], int]:
    """A whole number from ``low`` to ``high``, in digits 0 to 9."""

    def number(text: str) -> int:
        if not re.fullmatch("[+-]?[0-9]+", text):
            raise argparse.ArgumentTypeError(f"{shortened(text, 40)} is not a whole number")
        value = int(text) if len(text) <= LONGEST else high + 1
        if not low <= value <= high:
            bound = f"least {low}" if value < low else f"most {high}"
            raise argparse.ArgumentTypeError(f"{shortened(text, 40)} is not a whole number of at {bound}")
        return value

    return number


def number(low: float, strict: bool = False, high: float = math.inf) -> Callable[[str], float]:
    """A finite number of at least, or with ``strict`` above, ``low``, and of at most ``high``."""
    words = f"{'above' if strict else 'of at least'} {low:g}" + ("" if high == math.inf else f" and up to {high:g}")

    def number(text: str) -> float:
        try:
            value = any_number(text)
        except argparse.ArgumentTypeError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high) or (strict and value == low):
            raise argparse.ArgumentTypeError(f"{shortened(text, 40)} is not a finite number {words}")
        return value

    return number


def any_number(text: str) -> float:
    """Whatever float makes of a text in the digits 0 to 9, infinite ones and NaN too."""
    try:
        if not text.isascii() or "_" in text:
            raise ValueError(text)
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text, 40)!r} is not a number") from None


def is_whole(value: Any, low: int, high: int = COUNT) -> bool:
    """Whether a value that Python has read is a whole number from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_finite(value: Any) -> bool:
    """Whether a value that Python has read is a finite number, as a float too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e308
