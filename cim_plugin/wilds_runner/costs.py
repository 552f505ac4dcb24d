"""What a run costs and what it runs on: seconds, memory, device and versions."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from typing import Any, Mapping

import torch

from .. import __version__

PACKAGES = ("torch", "torchvision", "timm", "wilds", "lightning-fabric", "numpy")


class Clock:
    """Seconds spent per activity, over all the sessions of a run."""

    def __init__(self) -> None:
        self._ended: dict[str, float] = {}
        self._running: dict[str, float] = {}  #: activity -> its start

    @property
    def seconds(self) -> dict[str, float]:
        """Up to now: a state is saved amid an epoch, too."""
        now = time.perf_counter()
        running = {name: self._ended.get(name, 0.0) + now - start for name, start in self._running.items()}
        return {**self._ended, **running}

    def go_on_from(self, seconds: dict[str, float]) -> None:
        """Count on from :attr:`seconds` of an earlier session."""
        self._ended.update(seconds)

    @contextlib.contextmanager
    def measure(self, name: str):
        self._running[name] = time.perf_counter()
        try:
            yield
        finally:
            self._ended = self.seconds
            del self._running[name]


def cost(fabric, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What the run needs and runs on: the most memory of all sessions, and processes, device and versions of this
    one.

    Args:
        earlier: what this was at the end of the session before; {} in the first one.
    """
    before = earlier.get("peak_memory_bytes", {})
    now = peak_memory()
    return {
        "peak_memory_bytes": {kind: max(before.get(kind, 0), now.get(kind, 0)) for kind in {**before, **now}},
        "n_processes": fabric.world_size,
        "device": torch.cuda.get_device_name()
        if fabric.device.type == "cuda"
        else platform.processor() or platform.machine(),
        "versions": versions(),
    }


def peak_memory() -> dict[str, int]:
    """The most memory that this process has held, in bytes: resident, and on the GPU where there is one."""
    import resource  # Windows, where a finished run may be looked at, has none

    unit = 1 if platform.system() == "Darwin" else 1024
    memory = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        memory["gpu"] = torch.cuda.max_memory_allocated()
    return memory


@functools.cache
def versions() -> dict[str, str | None]:
    """Versions of what a result depends on, and the commit of this plugin where it runs from a checkout."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "cim_plugin": __version__,
        "cim_plugin_commit": _commit(),
    }
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _commit() -> str | None:
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not os.path.exists(os.path.join(here, ".git")):
        return None
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True
        )
        return done.stdout.strip() or None
    return None
