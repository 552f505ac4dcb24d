"""One run of ours at a time in an output folder of DomainBed's train script."""

from __future__ import annotations

import atexit

from ...runs.folder_lock import FolderLock
from . import faults

_held: FolderLock | None = None  #: for as long as this process lives


def hold_output_dir() -> None:
    """Where the host's train script starts one of our algorithms, hold its folder until it ends.

    Raises:
        Locked: another run is writing it.
    """
    global _held
    args = faults._arguments()
    if args is None or _held is not None:
        return
    lock = FolderLock(args.output_dir, "--output_dir")
    lock.acquire()
    _held = lock
    atexit.register(lock.release)
