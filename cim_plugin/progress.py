"""How far a long work is: a bar on a terminal, and in a log that is a file a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any, Iterable, Iterator

EVERY = 60.0  #: seconds between two lines
STEP, SOON = 0.1, 10.0  #: or so much of the whole, after so many seconds


def progress(items: Iterable | None = None, *, total: int | None = None, show: bool = True, **settings: Any):
    """tqdm's bar where standard error is a terminal and tqdm is installed, else :class:`Lines`, which takes its place.

    Args:
        items: iterated over; None for a bar that is updated.
        total: of steps; by default the length of ``items``.
        show: False shows nothing.
        settings: tqdm's desc, unit, leave and others.
    """
    if show and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            show = False
        else:
            return tqdm(items, total=total, dynamic_ncols=True, **settings)
    return Lines(items, total, not show, settings.get("desc", ""), settings.get("unit", "it"))


class Lines:
    """What tqdm's bar can do, in lines of standard error. A work that is done before the first is due writes none."""

    def __init__(self, items: Iterable | None, total: int | None, disable: bool, desc: str, unit: str):
        self.items = items
        self.total = total if total is not None or not hasattr(items, "__len__") else len(items)
        self.disable, self.desc, self.unit, self.postfix = disable, desc, unit.strip(), ""
        self.n = 0
        self._start = self._said_at = time.monotonic()
        self._said = 0

    def __iter__(self) -> Iterator:
        for item in self.items:
            yield item
            self.update()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        self.n += n
        self.refresh()

    def set_description(self, text: str, refresh: bool = True) -> None:
        self.desc = text

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.postfix = text

    def refresh(self) -> None:
        """Say how far it is where a line is due."""
        if self.disable or self.n == self._said:
            return
        now = time.monotonic()
        waited = now - self._said_at
        far = self.total is not None and self.n - self._said >= STEP * self.total
        if waited >= EVERY or (far and waited >= SOON):
            self._said, self._said_at = self.n, now
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def close(self) -> None:
        self.disable = True

    def _line(self, seconds: float) -> str:
        of = f" of {self.total:,}" if self.total else ""
        words = [f"{self.n:,}{of} {_plural(self.unit)}", f"{seconds:.0f} s"]
        return (f"{self.desc}: " if self.desc else "") + ", ".join([*words, *filter(None, [self.postfix])])


def _plural(unit: str) -> str:
    return unit if unit.endswith("s") else f"{unit}es" if unit.endswith("tch") else f"{unit}s"
