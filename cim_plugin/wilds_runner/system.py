"""Where training runs: names of WILDS' files hold ":", e.g. waterbirds_split:val_seed:0_epoch:best_pred.csv."""

import os

from ..errors import InputError

#: what is so, and the fix
NO_WINDOWS = (
    "'cim-plugin train' does not run on Windows: names of WILDS' files hold ':', which Windows does not allow",
    "run it on Linux, macOS or in WSL",
)


def check_system() -> None:
    """Raises:
    InputError: training does not run on this system.
    """
    if os.name == "nt":
        raise InputError("; ".join(NO_WINDOWS))
