"""One command at a time writes a folder; a second one says so in one line and writes nothing. Standard library only.

The lock is a file of the folder, made so that only one command can make it, because network file systems do not all
know other locks. It names its holder: on this machine a process that has ended holds nothing, whatever ended it. Of a
process elsewhere nothing can be asked, so every holder renews the file's time now and then, and one that has been
silent for long is taken for dead.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import tempfile
import threading
import time
from typing import Any, Iterator

from ..errors import InputError
from . import processes

FILE = ".cim_plugin.lock"
BEAT = 20.0  #: seconds between two signs of life
SILENT = 300.0  #: seconds without one after which the holder on another machine counts as dead


class Locked(InputError):
    """Another command holds the folder."""


class FolderLock:
    """A folder that this process alone writes, between :meth:`acquire` and :meth:`release` or in a ``with`` block.

    Args:
        folder: made where it is missing, and removed again where nothing was written into it.
        flag: how the user named it.
    """

    def __init__(self, folder: str, flag: str = "--log_dir"):
        self.folder, self.flag = folder, flag
        self.path = os.path.join(folder, FILE)
        self._own: str | None = None  #: what the file says while we hold it
        self._made: list[str] = []  #: folders that were missing, the innermost first
        self._end = threading.Event()

    def acquire(self) -> None:
        """Hold the folder.

        Raises:
            Locked: a living command holds it.
            InputError: the folder cannot be written.
        """
        own = json.dumps(_this_process())
        try:
            self._made = _missing(self.folder)
            os.makedirs(self.folder, exist_ok=True)
            with _alone(self.folder):
                while not self._create(own):
                    self._remove_if_stale()
        except OSError as error:
            self._remove_folders()
            raise InputError(
                f"{self.flag} {self.folder} cannot be written ({error.strerror or error}); choose another folder"
            ) from error
        self._own = own
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Let go; does nothing where this process does not hold it, as after a fork."""
        self._end.set()
        if self._own is None or json.loads(self._own)["pid"] != os.getpid():
            return
        with contextlib.suppress(FileNotFoundError):
            if _read(self.path) == self._own:  # nobody has taken us for dead
                os.remove(self.path)
        self._own = None
        self._remove_folders()

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def _create(self, own: str) -> bool:
        """Make the file with its content at once: a lock without a holder, left by a kill, would hold for long."""
        part = tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.folder, prefix=f"{FILE}.", suffix=".part")
        try:
            with part:
                os.chmod(part.name, 0o644)
                part.write(own)
                part.flush()
                try:
                    os.link(part.name, self.path)
                except (FileExistsError, FileNotFoundError):
                    raise
                except OSError:  # no links on this file system
                    with open(self.path, "x", encoding="utf-8") as file:
                        file.write(own)
        except (FileExistsError, FileNotFoundError):  # held, or another machine's command has removed our part
            return False
        for left in glob.glob(f"{glob.escape(self.path)}.*.part"):  # by kills
            with contextlib.suppress(FileNotFoundError):
                os.remove(left)
        return True

    def _remove_if_stale(self) -> None:
        try:
            text, silent = _read(self.path), self._seconds_since_beat()
        except FileNotFoundError:  # let go at this moment
            return
        holder = _parsed(text)
        if not _is_dead(holder, silent):
            raise Locked(
                f"{self.flag} {self.folder} is being written by another command ({_in_words(holder)}); let it end, or "
                f"choose another folder"
            )
        aside = f"{self.path}.{os.getpid()}"
        os.replace(self.path, aside)
        if _read(aside) != text:  # another command on another machine was quicker, and holds it now
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        os.remove(aside)

    def _seconds_since_beat(self) -> float:
        """By the clock of the file system, which is one for all machines."""
        with tempfile.TemporaryFile(dir=self.folder) as now:
            return os.fstat(now.fileno()).st_mtime - os.stat(self.path).st_mtime

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(OSError):  # of a file server that is away for a while
                os.utime(self.path)

    def _remove_folders(self) -> None:
        for folder in self._made:
            try:
                os.rmdir(folder)
            except OSError:  # something is in it
                return


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """One process of this machine at a time, where the file system lets a folder be locked: two that find the same
    stale file are not to remove each other's new one.
    """
    number = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    try:
        if number is not None:
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        if number is not None:
            os.close(number)


def _missing(folder: str) -> list[str]:
    """The folder and those above it that do not exist, the innermost first."""
    missing, folder = [], os.path.abspath(folder)
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _this_process() -> dict[str, Any]:
    return {**processes.identity(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(10_000)


def _parsed(text: str) -> dict[str, Any]:
    """Who holds a lock; {} where the file does not say, as while it is being written."""
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and isinstance(holder.get("pid"), int) and holder["pid"] > 0 else {}


def _is_dead(holder: dict[str, Any], silent: float) -> bool:
    if not processes.is_here(holder):
        return silent > SILENT
    return not processes.is_alive(holder)


def _in_words(holder: dict[str, Any]) -> str:
    machine = holder.get("machine")
    if not isinstance(machine, list) or not machine:
        return f"{FILE} in it does not say which; where none is running, remove that file"
    words = f"process {holder['pid']} since {holder.get('since')}"
    if processes.is_here(holder):
        return words
    return f"{words} on {machine[0]}; where it is dead, it counts as dead {SILENT / 60:g} minutes after its last sign"
