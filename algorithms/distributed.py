"""One process's rows of a minibatch that several processes share."""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
from torch import Tensor


def _same(values: Tensor) -> Tensor:
    return values


class Shard(NamedTuple):
    """Where the local rows stand in the global batch. Every process holds the same number of rows, in the order of
    ranks.

    What couples samples (triplets, the supervised contrastive loss, group losses) and what is drawn per sample
    refers to the global batch, so that N processes compute what one process would. All processes must draw from
    the same random state; dropout inside an encoder then draws alike in all of them.
    """

    rank: int = 0
    n_processes: int = 1
    gather: Callable[[Tensor], Tensor] = _same  #: (n, ...) -> (n · n_processes, ...), with gradient to the local rows

    def local(self, values: Tensor) -> Tensor:
        """The local rows of a tensor over the global batch."""
        n = len(values) // self.n_processes
        return values[self.rank * n : (self.rank + 1) * n]

    def randn_like(self, values: Tensor) -> Tensor:
        """Standard normal noise of the shape of local ``values``, drawn for the global batch."""
        shape = (len(values) * self.n_processes, *values.shape[1:])
        return self.local(torch.randn(shape, dtype=values.dtype, device=values.device))


SINGLE_PROCESS = Shard()  #: a single process
