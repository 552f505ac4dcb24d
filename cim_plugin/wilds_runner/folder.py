"""What --log_dir holds before a run writes there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import kind, reason
from ..runs.configuration import MAY_DIFFER, Configuration
from ..runs.layout import MODELS, RESULTS, SELECTION, STATE
from . import checkpoint

FILES = (".csv", ".txt", ".json", ".pth")  #: how the names of a run's files end


def state_to_go_on_from(config: Configuration) -> dict[str, Any] | None:
    """The state that the run of log_dir has left, with --resume.

    Raises:
        InputError: it is of another configuration, or a run would be overwritten.
    """
    folder = config.log_dir
    state = checkpoint.load_state(folder, config, MAY_DIFFER) if config.resume else None
    names = os.listdir(folder) if os.path.isdir(folder) else []
    holds_run = any(name in (STATE, RESULTS) or name.endswith(MODELS) for name in names)  # run_expt's, too
    if state is None and not config.eval_only and holds_run:
        way = (
            "without state.pth, so that nothing can go on from it; choose"
            if config.resume
            else "already; go on with --resume, or choose"
        )
        raise InputError(f"--log_dir {folder} holds a run {way} another folder")
    return state


def check_writable(folder: str) -> None:
    """Before hours of work: files can be made there, and what has the name of a run's file is one."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        entries = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"--log_dir {folder} cannot be written ({reason(error)}); choose another folder") from error
    for entry in entries:
        right = entry.is_dir() if entry.name == SELECTION else entry.is_file() or not entry.name.endswith(FILES)
        if not right:
            raise InputError(f"--log_dir {folder} holds {entry.name}, which is {kind(entry)}; choose another folder")
    selection = Path(folder, SELECTION)
    for place in (selection, *(selection.iterdir() if selection.is_dir() else ())):
        if place.is_symlink():  # models would be written to where it leads
            raise InputError(f"--log_dir {folder}: {place} is a link; choose another folder")
