"""What is kept of runs: results.json of each, or one file of all of them."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from cim_plugin.files import read_json, write_whole
from cim_plugin.runs import packed
from cim_plugin.runs.layout import RESULTS

#: beside the results of a run: the overlap of its mask, and the machine that made it
OVERLAP, MACHINE = "overlap.json", "machine.json"
FILE = f"subgroups{packed.SUFFIX}"

Results = dict[str, Any]


def of_folder(folder: str) -> Results | None:
    """results.json of a run that is finished, with ``overlap`` and ``machine`` where they are known; else None."""
    found = _read(folder, RESULTS)
    if found.get("status") != "finished":
        return None
    overlap = _read(folder, OVERLAP)
    return {**found, **({"overlap": overlap} if overlap else {}), **_read(folder, MACHINE)}


def _read(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    return read_json(path) if os.path.exists(path) else {}


def name_of(folder: str, output: str) -> str:
    """A run's folder, as packed runs have it."""
    return Path(folder).relative_to(output).as_posix()


def packed_in(output: str) -> dict[str, Results]:
    """The packed runs of a folder, by :func:`name_of`.

    Raises:
        InputError: the file is damaged.
    """
    file = os.path.join(output, FILE)
    return _packed(file, os.stat(file).st_mtime_ns) if os.path.exists(file) else {}


@functools.lru_cache(maxsize=1)
def _packed(file: str, changed: int) -> dict[str, Results]:
    return packed.read(file)


def pack(output: str) -> int:
    """Write all finished runs into the one file, beside those that are there already, without paths of this machine;
    their folders stay. The number of runs in it.
    """
    runs = dict(packed_in(output))
    for file in sorted(Path(output).glob(f"*/**/{RESULTS}")):
        found = of_folder(str(file.parent))
        if found is not None:
            runs[name_of(str(file.parent), output)] = portable(found, output)
    if runs:
        write_whole(os.path.join(output, FILE), packed.pack(runs))
    return len(runs)


def portable(value: Any, output: str) -> Any:
    """Paths in the output folder begin with OUT, of others the last name is left."""
    if isinstance(value, dict):
        return {key: portable(part, output) for key, part in value.items()}
    if isinstance(value, list):
        return [portable(part, output) for part in value]
    if not isinstance(value, str) or not os.path.isabs(value):
        return value
    path = Path(value)
    return f"OUT/{name_of(value, output)}" if path.is_relative_to(output) else path.name
