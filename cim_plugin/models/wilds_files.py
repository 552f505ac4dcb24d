"""Models of a WILDS checkout's ``run_expt.py``: which file an epoch is in, and what a model is rebuilt from."""

from __future__ import annotations

import os
import re
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..runs.layout import MODELS
from . import extra_state
from .recipe import Recipe, from_dict

_PREFIX = re.compile(r"model\.(module\.)?classifier\.")  #: of the weights' names; with "module" those of several GPUs


def is_one(saved: dict[str, Any]) -> bool:
    """Whether this is what the host saves of one of our algorithms."""
    weights = saved.get("algorithm")
    return isinstance(weights, dict) and extra_state.KEY in weights


def recipe_and_weights(saved: dict[str, Any], file: str) -> tuple[Recipe, dict[str, Tensor]]:
    """Of a dictionary that ``file`` held.

    Raises:
        InputError: it is damaged.
    """
    weights = {name: value for name, value in saved["algorithm"].items() if isinstance(name, str)}
    recipe = from_dict(extra_state.from_tensor(weights.pop(extra_state.KEY), file).get("recipe"), file)
    return recipe, {_PREFIX.sub("", name, 1): value for name, value in weights.items() if _PREFIX.match(name)}


def model_of_epoch(folder: str, epoch: str) -> str:
    """The file of an epoch: "best", "last" or its number.

    Raises:
        InputError: there is none, or there are several seeds'.
    """
    found = sorted(name for name in os.listdir(folder) if name.endswith(MODELS))
    chosen = [name for name in found if name.endswith(f"epoch:{epoch}{MODELS}")]
    if len(chosen) != 1:
        what = "no model" if not chosen else "models of several seeds"
        raise InputError(f"{folder} holds {what} of epoch {epoch!r}; name a file: {', '.join(found)}")
    return os.path.join(folder, chosen[0])
