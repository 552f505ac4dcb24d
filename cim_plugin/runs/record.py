"""A run as reports see it, whichever host made it, and the reading of fields that files of unknown origin may lack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..files import Unreadable


class Selected(NamedTuple):
    """What one selection rule makes of one seed. Accuracies are fractions in [0, 1]."""

    seed: int
    values: dict[str, float]  #: quantity -> value, the quantities of the table's columns
    parts: dict[str, float]  #: accuracy per group or held-out environment
    picks: tuple[tuple[Run, float], ...]  #: what was chosen: runs, each with the epoch or step


class Curve(NamedTuple):
    """What selection looks at while a run goes on."""

    x: list[float]  #: epochs or steps
    y: list[float]  #: accuracy on validation data, a fraction in [0, 1]


@dataclass(frozen=True, eq=False)
class Run:
    """One training run."""

    folder: str
    host: str  #: "wilds" or "domainbed"
    dataset: str
    algorithm: str
    seed: int  #: in DomainBed the trial seed
    settings: dict[str, Any]  #: hyperparameters of this plugin that differ from their defaults
    flags: dict[str, Any]  #: everything else that changes what is computed
    circumstances: dict[str, str]  #: versions and device
    synthetic: bool
    measured: Any  #: what the host's module selects from
    unfinished: str | None = None  #: how far a run came that has not finished
    remarks: tuple[str, ...] = ()  #: what a reader of a table should know of it
    step_seconds: float | None = None
    memory: dict[str, float] = field(default_factory=dict)  #: "GPU" or "host" -> most bytes held
    is_packed: bool = False  #: in one file with others; ``folder`` is then a name only


WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def get(record: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """A field of a JSON object; ``a.b`` is field b of field a. Numbers are finite.

    Raises:
        Unreadable: it is missing or of another type.
    """
    value: Any = record
    for key in name.split(".") if "." in name else (name,):
        if not isinstance(value, dict) or key not in value:
            raise Unreadable(f"{where}: field {name!r} is missing")
        value = value[key]
    if not _is(value, kind):
        check(value, kind, f"{where}: field {name!r}")  # the words are made where they are needed, not for every field
    return float(value) if kind is float else value


def check(value: Any, kind: type, what: str) -> Any:
    """``value`` if it is of this type, a float made of a whole number where one is asked for.

    Raises:
        Unreadable: it is not.
    """
    if not _is(value, kind):
        shown = str(value) if not isinstance(value, (dict, list)) else type(value).__name__
        raise Unreadable(f"{what} is {shown[:40]!r}, not {WORDS[kind]}")
    return float(value) if kind is float else value


def _is(value: Any, kind: type) -> bool:
    accepted = (int, float) if kind is float else kind
    right = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    if right and kind in (int, float):
        right = abs(value) < 2**63  # false for NaN, too
    return right


def get_fraction(record: dict[str, Any], name: str, where: str) -> float:
    """An accuracy that is a field of a JSON object.

    Raises:
        Unreadable: it is missing or not a number in [0, 1].
    """
    value = record.get(name)
    if type(value) is float and 0 <= value <= 1:  # nearly all of a million; the words are made for the others
        return value
    return fraction(get(record, name, float, where), f"{where}: field {name!r}")


def fraction(value: Any, what: str) -> float:
    """An accuracy.

    Raises:
        Unreadable: it is not a number in [0, 1].
    """
    value = check(value, float, what)
    if not 0 <= value <= 1:
        raise Unreadable(f"{what} is {value:g}, not an accuracy between 0 and 1")
    return value


def own_settings(algorithm: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those hyperparameters of this plugin that differ from their defaults."""
    from .. import catalog, retired

    owner = catalog.owner(algorithm)
    if owner is None:
        return {}
    defaults = {name: harmless for name, (harmless, _) in retired.RETIRED.items()}
    defaults |= {name: entry.default for name, entry in catalog.hyperparameters(owner).items()}
    return {name: value for name, value in values.items() if name in defaults and value != defaults[name]}
