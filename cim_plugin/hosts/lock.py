"""One run of ours at a time in an output folder of a host's train script."""

from __future__ import annotations

import atexit

from ..runs.folder_lock import FolderLock

_held: FolderLock | None = None  #: for as long as this process lives


def hold(folder: str, flag: str) -> None:
    """Hold the folder that a train script writes until this process ends; a second call does nothing.

    Args:
        flag: what names the folder on the script's command line.

    Raises:
        Locked: another run is writing it.
    """
    global _held
    if _held is None:
        lock = FolderLock(folder, flag)
        lock.acquire()
        _held = lock
        atexit.register(lock.release)
