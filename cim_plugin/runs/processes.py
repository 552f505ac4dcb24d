"""Which process a number means: on this machine, since its start. Standard library only."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any


def identity(pid: int) -> dict[str, Any]:
    """What tells a process from a later one with its number: ``machine``, ``pid``, ``started``."""
    return {"machine": machine(), "pid": pid, "started": _start_of(pid)}


def machine() -> list[str]:
    """Where a process number means something: the host, since it was started, and the container."""
    words = [socket.gethostname()]
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        words.append(file.read().strip())
    with contextlib.suppress(OSError):
        words.append(os.readlink("/proc/self/ns/pid"))
    return words


def is_here(process: dict[str, Any]) -> bool:
    """Whether its number means something on this machine."""
    return process.get("machine") == machine()


def is_alive(process: dict[str, Any]) -> bool:
    """Whether a process of this machine has not ended."""
    try:
        os.kill(process["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    state, started = _state_and_start(process["pid"])
    return state != "Z" and started == process.get("started")


def _start_of(pid: int) -> str | None:
    """When it was started, None where that cannot be told; numbers are used again."""
    return _state_and_start(pid)[1]


def _state_and_start(pid: int) -> tuple[str | None, str | None]:
    """Its state, Z of one that has ended and that nobody has asked about yet, and its start."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            words = file.read().rpartition(")")[2].split()
        return words[0], words[19]
    except (OSError, IndexError):
        return None, None
