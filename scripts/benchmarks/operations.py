"""The profile of a CIM step: the operations that take most of it."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault(
    "KINETO_LOG_LEVEL", "6"
)  # to be set before torch is imported; else every start of the profiler is a line on stderr

from torch.profiler import ProfilerActivity, profile

from .step import Case, make_step

STEPS = 3  #: that are profiled


def profiled(case: Case, device: str, top: int = 12) -> list[dict[str, Any]]:
    """A row for each of the ``top`` largest operations: its own time as a share of all, without what it calls, and its
    calls per step.
    """
    step = make_step(case, "CIM", device)
    step()  # fills the caches
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        for _ in range(STEPS):
            step()
    kind = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    spent = {operation.key: getattr(operation, kind) for operation in profiler.key_averages()}
    calls = {operation.key: operation.count for operation in profiler.key_averages()}
    return [
        {"name": name, "share": spent[name] / sum(spent.values()), "calls": round(calls[name] / STEPS)}
        for name in sorted(spent, key=spent.__getitem__, reverse=True)[:top]
    ]
