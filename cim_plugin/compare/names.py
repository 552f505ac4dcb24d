"""Names of a table's rows: the algorithm, and as little of the settings as tells its rows apart."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, Collection, Mapping, NamedTuple, Sequence

LONGEST = 40  #: characters of a name
CONTROL = " (control)"
MORE = ", …"  #: own settings are left out


class Settings(NamedTuple):
    """What a row is made with."""

    algorithm: str
    values: Mapping[str, Any]  #: what sets it apart from other rows of the table
    own: Collection[str]  #: of the values the algorithm's own ones, which are said as far as there is room
    off: Collection[str]  #: of the values those that make it a control


def show(value: Any) -> str:
    """A setting in a name."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else json.dumps(value)


def in_full(row: Settings) -> str:
    """The algorithm and all settings."""
    return _name(row, row.values)


def names(rows: Sequence[Settings]) -> list[str]:
    """A name of at most :data:`LONGEST` characters for every row, each another one; a number where the settings that
    tell the rows of an algorithm apart are longer.
    """
    of_algorithm: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        of_algorithm[row.algorithm].append(place)
    found = [""] * len(rows)
    for places in of_algorithm.values():
        telling = _telling([rows[place].values for place in places])
        short = [_filled(rows[place], telling) for place in places]
        for number, (place, name) in enumerate(zip(places, short), 1):
            is_fine = len(name) <= LONGEST and short.count(name) == 1
            found[place] = name if is_fine else _numbered(rows[place], telling, f" #{number}" if places[1:] else "")
    return found


def _filled(row: Settings, telling: Collection[str]) -> str:
    """A name with what it needs, and with as many of the row's own settings as there is room for."""
    said = {name for name in row.values if name in telling or name in row.off}
    for name in row.own:
        if len(_name(row, said | {name})) <= LONGEST - len(MORE):
            said.add(name)
    everything = said.union(row.own)
    return _name(row, everything) if len(_name(row, everything)) <= LONGEST else _name(row, said, MORE)


def _name(row: Settings, said: Collection[str], more: str = "") -> str:
    words = [row.algorithm, *(f"{name}={show(value)}" for name, value in row.values.items() if name in said)]
    return ", ".join(words) + more + (CONTROL if row.off else "")


def _numbered(row: Settings, telling: Sequence[str], number: str) -> str:
    """A name that ends in a number, with what there is room for before it."""
    end = number + (CONTROL if row.off else "")
    name = row.algorithm
    if len(name + end) > LONGEST:
        return f"{name[: LONGEST - len(end) - 1]}…{end}"
    for setting in (*row.off, *telling):
        words = f", {setting}={show(row.values[setting])}" if setting in row.values else ""
        if words not in name and len(name + words + MORE + end) <= LONGEST:
            name += words
    return name + (MORE if len(name + MORE + end) <= LONGEST else "") + end


def _telling(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Few names whose values, or lack of one, tell all rows apart: again and again the one that splits them most, of
    equal ones that of the shortest words.
    """
    candidates = list(dict.fromkeys(name for row in rows for name in row))
    told: list[str] = []
    while (n := _n_told(rows, told)) < len(rows):
        best = max(candidates, key=lambda name: (_n_told(rows, [*told, name]), -_length(rows, name)), default=None)
        if best is None or _n_told(rows, [*told, best]) == n:
            break
        told.append(best)
        candidates.remove(best)
    return told


def _n_told(rows: Sequence[Mapping[str, Any]], told: Sequence[str]) -> int:
    return len({tuple(show(row[name]) if name in row else None for name in told) for row in rows})


def _length(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    return max(len(f"{name}={show(row[name])}") for row in rows if name in row)
