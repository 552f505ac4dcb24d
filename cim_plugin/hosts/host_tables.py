"""Entries in the tables that the scripts of DomainBed and of hosts made after it read: algorithms, draws, launchers."""

from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np

from .. import catalog
from . import launcher


def add_algorithms(module, base: type) -> None:
    """Add our classes to the host's namespace and to the end of its list.

    Args:
        module: the host's ``algorithms``, run for the first time or again.
        base: ours behind the host's interface, to be combined with its ``Algorithm``.

    Raises:
        RuntimeError: the host has an algorithm of such a name.
    """
    for name, (_, what) in catalog.ALGORITHMS.items():
        present = getattr(module, name, None)
        if present is not None and not issubclass(present, base):
            raise RuntimeError(f"the host already has an algorithm named {name}")
        own = {"__doc__": what, "__module__": module.__name__, "host": module, "name": name}
        setattr(module, name, type(name, (base, module.Algorithm), own))
        if name not in module.ALGORITHMS:
            module.ALGORITHMS.append(name)


def drawn(module, algorithm: str, random_seed: int) -> dict[str, tuple[Any, Any]]:
    """The (default, random) pairs of an algorithm's hyperparameters, each drawn from a stream that the host's
    ``hparams_registry`` seeds by its name, as the host's are.
    """
    return {
        name: (entry.default, entry.draw(np.random.RandomState(module.misc.seed_hash(random_seed, name))))
        for name, entry in catalog.hyperparameters(algorithm).items()
    }


def check_batch_sizes(module, check: Callable[[int, bool, int], None]) -> None:
    """Make the host's infinite loader call ``check`` (images, whether they are for training, batch size) first: it
    would wait for ever for a batch that is larger than its data.
    """
    inner = module.InfiniteDataLoader.__init__
    if hasattr(inner, "__wrapped__"):
        return

    @functools.wraps(inner)
    def __init__(self, dataset, weights, batch_size, num_workers):
        check(len(dataset), weights is not None, batch_size)
        inner(self, dataset, weights, batch_size, num_workers)

    module.InfiniteDataLoader.__init__ = __init__


def add_launchers(module) -> None:
    """Add ``cim_local`` and ``cim_submitit``."""
    module.REGISTRY |= {"cim_local": launcher.cim_local, "cim_submitit": launcher.cim_submitit}
