"""The tables in a page of the docs are what commands print, and are written by them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Callable

END = "<!-- end of the tables -->"
#: a line with a command that prints tables, what it printed before, and the end of that
TABLES = re.compile(rf"^(`scripts/study --tables ?([^`\n]*)`:\n).*?^{re.escape(END)}$", re.MULTILINE | re.DOTALL)


def refresh(page: Path, tables: Callable[[list[str]], str]) -> None:
    """Write the tables of a page anew.

    Args:
        tables: words after ``scripts/study --tables`` -> what that prints.
    """
    page.write_text(with_tables(page.read_text(), tables))


def with_tables(text: str, tables: Callable[[list[str]], str]) -> str:
    """The page with its tables anew; the rest stays as it is."""
    return TABLES.sub(lambda found: f"{found[1]}\n{tables(shlex.split(found[2]))}\n\n{END}", text)
