"""What one process does for all of them, and what all of them have."""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor

from ..errors import InputError, NotFinite

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  #: what gloo says of a process


def on_rank_zero(fabric, compute: Callable[[], Any]) -> Any:
    """What the first process computes, in all of them; they wait for it, and fail together."""
    found = None
    if fabric.global_rank == 0:
        try:
            found = compute()
        except (InputError, NotFinite) as error:
            found = error
        except Exception as error:
            fabric.broadcast(RuntimeError(f"the first process failed: {error!r}"))
            raise
    found = fabric.broadcast(found)
    if isinstance(found, Exception):
        raise found
    return found


def has_lost_another(fabric, error: RuntimeError) -> bool:
    """Whether an error says that another process of the run is there no more."""
    if fabric.world_size == 1:
        return False
    words = str(error)  # gloo raises nothing more telling
    is_gloos = "gloo" in words and any(lost in words for lost in LOST)
    return is_gloos or isinstance(error, torch.distributed.DistError)


def gather(fabric, values: Tensor) -> Tensor:
    """The values (n, ...) of all processes, one after the other; gradients flow back."""
    if fabric.world_size == 1:
        return values
    return fabric.all_gather(values, sync_grads=values.requires_grad).flatten(0, 1)


def gather_lists(fabric, *lists: list[Tensor]) -> list[Tensor]:
    """Every list of (n,) tensors as one tensor on the CPU, over all processes in the order of ranks."""
    own = [torch.cat(values).cpu() if values else torch.empty(0, dtype=torch.int64) for values in lists]
    if fabric.world_size == 1:
        return own
    everyone: list = [None] * fabric.world_size
    torch.distributed.all_gather_object(everyone, own)
    return [torch.cat([part[i] for part in everyone]) for i in range(len(lists))]
