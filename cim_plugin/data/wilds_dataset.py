"""Opening a data set of the ``wilds`` package where pandas is newer than it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator

import pandas


def open_wilds(name: str, root: str | os.PathLike, **options: Any) -> Any:
    """``wilds.get_dataset``, nothing downloaded unless the options say so. Its errors are left as they are."""
    import wilds

    with _writable_columns():
        return wilds.get_dataset(dataset=name, root_dir=str(root), **{"download": False, **options})


@contextlib.contextmanager
def _writable_columns() -> Iterator[None]:
    """wilds 2.0.0 writes into `Series.values`, which pandas 3 hands out read-only (RxRx1 cannot be opened then): in here they are copies."""
    values = pandas.Series.values
    pandas.Series.values = property(lambda series: values.fget(series).copy())
    try:
        yield
    finally:
        pandas.Series.values = values
