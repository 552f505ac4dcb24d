"""Where training runs: names of WILDS' files hold ":", e.g. waterbirds_split:val_seed:0_epoch:best_pred.csv."""

import os

from ..errors import InputError

SYSTEM = os.name
NO_WINDOWS = "'cim-plugin train' does not run on Windows: names of WILDS' files hold ':', which Windows does not allow"
INSTEAD = "run it on Linux, macOS or in WSL"


def is_windows() -> bool:
    return SYSTEM == "nt"


def check_system() -> None:
    """Refuse a system where training does not run.

    Raises:
        InputError: this is Windows.
    """
    if is_windows():
        raise InputError(f"{NO_WINDOWS}; {INSTEAD}")
