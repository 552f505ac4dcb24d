"""What ``cim-plugin doctor`` says of a command line, in the process of a test."""

from __future__ import annotations

import shlex

from cim_plugin.doctor import traps
from cim_plugin.doctor.findings import Surroundings


def look(text: str) -> list[tuple[str, str]]:
    """Level and words of what is said of a command line; words of its fix, too."""
    return [
        (finding.level, f"{finding.what} {finding.fix or ''}")
        for finding in traps.command(Surroundings(None, None, shlex.split(text)))
    ]
