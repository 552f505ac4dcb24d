"""The tables in a page of the docs are what commands print, and are written by them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Callable

END = "<!-- end of the tables -->"
STUDY = "scripts/study --tables"


def refresh(page: Path, tables: Callable[[list[str]], str], command: str = STUDY) -> None:
    """Write the tables of a page anew.

    Args:
        tables: words after the command -> what that prints.
        command: that prints tables.
    """
    page.write_text(with_tables(page.read_text(), tables, command))


def with_tables(text: str, tables: Callable[[list[str]], str], command: str = STUDY) -> str:
    """The page with its tables anew; the rest stays as it is."""
    return _block(command).sub(lambda found: f"{found[1]}\n{tables(shlex.split(found[2]))}\n\n{END}", text)


def _block(command: str) -> re.Pattern[str]:
    """A line with the command, what it printed before, and the end of that."""
    return re.compile(rf"^(`{re.escape(command)} ?([^`\n]*)`:\n).*?^{re.escape(END)}$", re.MULTILINE | re.DOTALL)
