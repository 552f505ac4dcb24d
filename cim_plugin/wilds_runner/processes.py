"""What one process does for all of them."""

from __future__ import annotations

from typing import Any, Callable

from ..errors import InputError, NotFinite


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
