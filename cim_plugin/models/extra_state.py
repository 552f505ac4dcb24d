"""Plain values among the tensors of a state dict, where torch has room for what a module saves beside its weights.

They are kept as a tensor, so that who copies or compares a state dict name by name needs to know nothing of them.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import Unreadable, parse_json

KEY = "_extra_state"  #: torch's name for it
LARGEST = 100_000_000  #: bytes


def as_tensor(values: dict[str, Any]) -> Tensor:
    """A JSON object -> its text, (n,) uint8."""
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)


def from_tensor(tensor: Any, where: str) -> dict[str, Any]:
    """What :func:`as_tensor` was given, out of a file of unknown origin.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.uint8 or tensor.numel() > LARGEST:
        raise InputError(f"{where}: its {KEY} is not the text of a JSON object")
    try:
        return parse_json(bytes(tensor.flatten().tolist()).decode(), where)
    except (UnicodeDecodeError, Unreadable) as error:
        raise InputError(f"{where}: its {KEY} is not the text of a JSON object ({error})") from error
