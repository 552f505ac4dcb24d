"""Hyperparameters that are no more: how they are answered, and what they mean in a run of then."""

from __future__ import annotations

import argparse
import contextlib
from contextvars import ContextVar
from typing import Any, Iterator, Mapping

#: what version 0.1 had -> (the value at which it did nothing, what to do instead). Runs of then are compared and shown.
RETIRED: dict[str, tuple[Any, str]] = {
    "cim_composites": (False, "our study found little or no gain in it; leave it out"),
    "cim_sparsity": (0.0, "our study found little or no gain in it; leave it out"),
    "cim_mask": ("shared", "leave it out, or give InputMorphing a network of your own"),
    "cim_floor": ("smooth", "leave it out, or give MSSSIM a floor"),
    "cim_similarity=pytorch_msssim": (None, "take ms_ssim, which gives the library's numbers at any size"),
}

_allowed: ContextVar[bool] = ContextVar("retired_allowed", default=False)


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """For what builds the model of an old run: :data:`RETIRED` hyperparameters mean in here what they meant then."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def is_allowed() -> bool:
    return _allowed.get()


def words(values: Mapping[str, Any]) -> str | None:
    """The first of these hyperparameters that is :data:`RETIRED` and did something, in words; None without one."""
    for name, value in values.items():
        for key in (name, f"{name}={value}"):
            if key in RETIRED and value != RETIRED[key][0]:
                return f"{name}={value!r} is no more, since version 0.2: {RETIRED[key][1]}"
    return None


class RetiredFlag(argparse.Action):
    """A flag that is answered by one line."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.error(f"{option_string} is no more, since version 0.2: {RETIRED[self.dest][1]}")


#: argparse's keywords of the flags of :data:`RETIRED`, by name
FLAGS: dict[str, dict[str, Any]] = {
    name: {"action": RetiredFlag, "nargs": "?", "help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    for name in RETIRED
    if name.isidentifier()
}
