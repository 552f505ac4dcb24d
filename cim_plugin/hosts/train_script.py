"""A host's train script as seen from outside: its arguments, and its known faults as one line with exit status 2.

Everything here concerns our algorithms only; in any other program, and for any other algorithm, it does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from types import ModuleType
from typing import Any, Callable, NamedTuple

from .. import catalog
from ..errors import InputError, NotFinite
from ..hyperparameter import shown
from . import hyperparameters


class Fault(NamedTuple):
    """What a host says in a traceback; both functions take the error and the script's arguments."""

    is_it: Callable[[Any, argparse.Namespace], bool]
    say: Callable[[Any, argparse.Namespace], str]


class TrainScript:
    """The train script of a host.

    Args:
        name: of its module.
        file: its place in the host's package, in words.
        faults: known ones; the first that matches is said.
    """

    def __init__(self, name: str, file: tuple[str, ...], faults: list[Fault]):
        self.name, self.file, self.faults = name, file, faults
        self.module: ModuleType | None = None  #: where it is the program: runpy replaces __main__ when it ends

    def watch(self) -> None:
        """Where the script is starting, print known faults as one line."""
        main = sys.modules["__main__"]
        if self._is(main) and main is not self.module:
            self.module = main
            sys.excepthook = self._one_line(sys.excepthook)

    def _is(self, main: ModuleType) -> bool:
        """Whether it runs as a module, or by its path."""
        if getattr(getattr(main, "__spec__", None), "name", None) == self.name:
            return True
        file, package = getattr(main, "__file__", None), sys.modules.get(self.name.partition(".")[0])
        if not file or package is None:
            return False
        return os.path.realpath(file) in [
            os.path.join(os.path.realpath(folder), *self.file) for folder in package.__path__
        ]

    def any_arguments(self) -> argparse.Namespace | None:
        """The arguments of the script, once it has parsed them."""
        return getattr(self.module, "args", None)

    def arguments(self) -> argparse.Namespace | None:
        """The same, when it runs one of our algorithms."""
        args = self.any_arguments()
        return args if args is not None and catalog.is_ours(args.algorithm) else None

    def said(self, error: BaseException) -> str | None:
        """What is known of a fault; those of ours speak for themselves."""
        if isinstance(error, (InputError, NotFinite)):
            return str(error)
        args = self.arguments()
        return (
            next((fault.say(error, args) for fault in self.faults if fault.is_it(error, args)), None) if args else None
        )

    def _one_line(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """An excepthook that says known faults in one line and leaves all others to ``inner``, the one before it."""

        def hook(kind, error, trace):
            line = self.said(error)
            if line is None:
                inner(kind, error, trace)
                return
            for stream in {
                sys.__stderr__,
                getattr(sys.stderr, "file", sys.__stderr__),
            }:  # the host's Tee writes errors to the standard output
                print(f"error: {line}", file=stream, flush=True)
            raise SystemExit(1 if isinstance(error, NotFinite) else 2)

        return hook


#: whether a value can be used, and what is expected
Expected = tuple[Callable[[Any], bool], str]
A_STEP: Expected = (lambda value: value >= 1, "a number of steps of at least 1; leave it out for the data set's own")
A_SEED: Expected = (lambda value: 0 <= value < 2**32, "a seed from 0 to 4294967295")


def check_flags(args: argparse.Namespace, flags: dict[str, Expected]) -> None:
    """Raise InputError for the first flag whose value cannot be used."""
    for flag, (fits, expected) in flags.items():
        value = getattr(args, flag, None)
        if value is not None and not fits(value):
            raise InputError(f"--{flag} {value} is not {expected}")


def check_given(
    args: argparse.Namespace, flags: dict[str, Expected], algorithm: str, defaults: dict[str, tuple[Any, Any]]
) -> None:
    """Raise InputError for what the train script was given and cannot use, before it loads any data.

    Args:
        algorithm: whose hyperparameters of ours are added.
        defaults: name -> (default, random draw) of all hyperparameters.
    """
    check_flags(args, flags)
    if args.hparams:
        values = {name: default for name, (default, _) in defaults.items()} | given_hyperparameters(args.hparams)
        hyperparameters.checked(algorithm, args.algorithm, values, {name: pair[0] for name, pair in defaults.items()})


def given_hyperparameters(text: str) -> dict[str, Any]:
    """``--hparams``, read."""
    like = "write it like '{\"cim_lambda\": 0.5}'"
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--hparams {shown(text)} is not JSON ({error}); {like}") from error
    except (RecursionError, ValueError) as error:  # nested without end, or an int of thousands of digits
        raise InputError(f"--hparams {shown(text)} cannot be read ({type(error).__name__}); {like}") from error
    if not isinstance(given, dict):
        raise InputError(f"--hparams {shown(text)} is not a JSON object; {like}")
    return given


FETCHING = ("urllib", "http", "requests", "huggingface_hub")  #: how the names of libraries that fetch files begin


def is_failed_download(error: BaseException | None) -> bool:
    """Whether a fault comes from a library that fetches files, or from the network below it: other connections break,
    too, such as a pipe or a worker's.
    """
    while error is not None:
        raised = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
        if type(error).__module__.startswith(FETCHING) or (
            isinstance(error, ConnectionError) and any(name.startswith(FETCHING) for name in raised)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def last_line(error: BaseException) -> str:
    """The last line of a message: a data loader's worker puts its whole traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


def raised_in(error: BaseException, module: str) -> bool:
    """Whether a fault passed through a function of this module."""
    return any(frame.f_globals.get("__name__") == module for frame, _ in traceback.walk_tb(error.__traceback__))


def is_unreadable_image(error: BaseException, args: argparse.Namespace) -> bool:
    """Whether PIL could not decode an image."""
    return type(error).__name__ == "UnidentifiedImageError"


UNREADABLE_IMAGE = Fault(
    is_unreadable_image,
    lambda e, a: (
        f"an image cannot be read: {last_line(e).removeprefix('PIL.UnidentifiedImageError: ')}; replace or remove "
        f"the file"
    ),
)
#: whatever the system refuses: the last of a host's faults
REFUSED = Fault(
    lambda e, a: isinstance(e, OSError) and e.strerror is not None,
    lambda e, a: f"{e.filename}: {e.strerror}" if e.filename else e.strerror,
)
