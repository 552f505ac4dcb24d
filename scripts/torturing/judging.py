"""What a command may do with what it is given: the right thing, or one line that names the fault."""

from __future__ import annotations

import re
from typing import Iterable

from .running import Outcome

REFUSED = (1, 2)


def refused(outcome: Outcome, *names: str, statuses: Iterable[int] = REFUSED) -> list[str]:
    """Faults of a command that was to say in one line what is wrong.

    Args:
        names: of which the line holds one; none where any will do.
    """
    if outcome.status == 0:
        return [f"accepted, status 0: {_last(outcome.output)}"]
    return ended(outcome, *names, statuses=statuses)


def ended(outcome: Outcome, *names: str, statuses: Iterable[int] = REFUSED) -> list[str]:
    """Faults of a command that was to end with status 0, or to say in one line what is wrong."""
    if outcome.status is None:
        return [f"HUNG: {_last(outcome.errors) or _last(outcome.output) or 'nothing said'}"]
    if "Traceback (most recent call last)" in outcome.errors:
        return [f"TRACEBACK, status {outcome.status}: {_exception(outcome.errors)}"]
    if outcome.status == 0:
        return []
    if outcome.status not in statuses:
        return [f"status {outcome.status}: {_last(outcome.errors)}"]
    lines = said(outcome)
    if len(lines) != 1:
        return [f"{len(lines)} lines on stderr, status {outcome.status}: {_last(outcome.errors)}"]
    if names and not any(name in lines[0] for name in names):
        return [f"the line names none of {', '.join(names)}: {_short(lines[0])}"]
    return []


def said(outcome: Outcome) -> list[str]:
    """The lines on stderr that are neither progress nor a warning."""
    lines = outcome.errors.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and not _progress(line) and "warning: " not in line]


def succeeded(outcome: Outcome) -> list[str]:
    """Faults of a command that was to end with status 0."""
    return ended(outcome) or ([] if outcome.status == 0 else [f"status {outcome.status}: {_last(outcome.errors)}"])


def _progress(line: str) -> bool:
    return "it/s" in line or "s/it" in line or "image/s" in line or "file/s" in line or "%|" in line or "0image" in line


def _exception(errors: str) -> str:
    """The line after the last traceback's calls."""
    after = re.split(r"Traceback \(most recent call last\):", errors)[-1].splitlines()[1:]
    return _short(next((line for line in after if line[:1].strip()), _last(errors)))


def _last(text: str) -> str:
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return _short(lines[-1]) if lines else ""


def _short(line: str) -> str:
    line = ascii(line)[1:-1] if not line.isprintable() else line
    return line if len(line) < 240 else line[:237] + "..."
