"""What ``cim-plugin doctor`` says of a command line, in the process of a test."""

from __future__ import annotations

import shlex
from typing import Iterable

from cim_plugin.doctor import traps
from cim_plugin.doctor.findings import Finding, Surroundings


def look(text: str) -> list[tuple[str, str]]:
    """Level and words of what is said of a command line; words of its fix, too."""
    return _words(traps.command(Surroundings(None, None, shlex.split(text))))


def look_only(text: str) -> list[tuple[str, str]]:
    """What is said of it before it is started."""
    understood = traps.understand(shlex.split(text))
    return _words(traps.LOOKS[understood.kind](understood))


def _words(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, f"{finding.what} {finding.fix or ''}") for finding in findings]
