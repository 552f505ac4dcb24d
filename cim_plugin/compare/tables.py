"""From runs to tables: what is averaged with what, and what a reader has to be told about it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Iterator, Sequence

from .. import catalog
from ..runs import train
from ..runs.record import Run, Selected
from .averages import Cell, paired
from .families import Family, differences, distinct, families_of
from .hosts import HOSTS, Host

BASELINE = "ERM"
SYNTHETIC = "SYNTHETIC data, made for trying things out: these numbers say nothing about a real data set."
ADJUSTED = (
    "The adjusted average is weighted by the groups' shares of the training split (adj_acc_avg of the wilds package); "
    "Waterbirds is usually published by it."
)


@dataclass(eq=False)
class Row:
    """A family under one selection rule."""

    rule: str
    family: Family
    selected: list[Selected]
    cells: dict[str, Cell]
    gains: dict[str, Cell] = field(default_factory=dict)  #: quantity -> paired difference to ERM
    marks: list[str] = field(default_factory=list)

    @property
    def finished(self) -> list[Run]:
        return self.family.finished


@dataclass(eq=False)
class Table:
    """All that was measured on one data set under one host."""

    dataset: str
    host: str
    synthetic: bool
    columns: list[str]  #: accuracies, fractions in [0, 1]
    gain_columns: list[str]
    memory_columns: list[str]
    parts_are: str  #: "group" or "held-out environment"
    rows: list[Row]
    in_full: list[str]  #: the settings of rows whose names leave something out
    warnings: list[str]  #: what holds for every row and must not be missed
    notes: list[str]  #: how to read it

    @property
    def title(self) -> str:
        return f"{self.dataset}, {HOSTS[self.host].name}" + (" - SYNTHETIC data" if self.synthetic else "")


def build(runs: list[Run], rules: Sequence[str] | None = None, gains: tuple[str, ...] = ()) -> list[Table]:
    """One table per data set, host and kind of data.

    Args:
        rules: those to show; None, or none of a host's own, shows that host's usual ones.
        gains: columns whose difference to ERM is shown; () shows that of the host's usual ones.
    """
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.dataset, run.synthetic, run.host].append(run)
    return [_table(*key, groups[key], rules, gains) for key in sorted(groups)]


def _table(
    dataset: str, synthetic: bool, host_name: str, runs: list[Run], rules: Sequence[str] | None, gains: tuple[str, ...]
) -> Table:
    host = HOSTS[host_name]._replace(gains=gains) if gains else HOSTS[host_name]
    asked = [rule for rule in rules or () if rule in host.module.RULES]
    shown = asked or list(host.module.DEFAULT_RULES)
    finished = [run for run in runs if run.unfinished is None]
    columns = host.columns(finished or runs)
    notes = [f"{host.name} has no rule {' or '.join(rules)}: its usual ones are shown."] if rules and not asked else []
    notes += [*host.notes, *(f"selected by {rule}: {host.module.RULES[rule]}." for rule in shown)]
    notes += [ADJUSTED] if train.ADJUSTED in columns else []
    families = families_of(runs, host.splits_by_flags)
    rows = []
    for rule in shown:
        of_rule = [_row(rule, family, host, columns) for family in families]
        if not any(row.selected for row in of_rule) and rule in _WHY_NOTHING and finished:
            notes.append(f"{rule} has nothing to choose from: {_WHY_NOTHING[rule]}.")
            continue
        _compare(of_rule, host)
        rows += of_rule
    notes += [
        _about_gains(rows, host),
        "ms/step, GiB: mean over runs of the time of a training step and of the peak memory.",
    ]
    if host.splits_by_flags and (differing := differences(distinct(run.flags for run in runs))):
        notes.append(f"Mixed configurations are kept apart, in a row each: the runs differ in {', '.join(differing)}.")
    notes += _shared_flags(families, rows) if host.splits_by_flags else []
    notes += _uneven_draws(families) if host.draws else []
    warnings = [*([SYNTHETIC] if synthetic else []), *_common_marks(rows)]
    memory = sorted({kind for run in finished for kind in run.memory})
    shown_gains = [name for name in host.gains if any(name in row.gains for row in rows)]
    in_full = [f"{family.name}: {family.label}" for family in families if family.name != family.label]
    return Table(
        dataset,
        host_name,
        synthetic,
        columns,
        shown_gains,
        memory,
        host.parts_are,
        rows,
        in_full,
        warnings,
        notes,
    )


#: rules that need a sweep
_WHY_NOTHING = {
    "leave_one_out": "beside runs with one held-out environment it needs those with two, of the same hyperparameter "
    "draws"
}


def _about_gains(rows: list[Row], host: Host) -> str:
    if any(row.gains for row in rows):
        where = (
            " at the same flags; a row that differs from its ERM in device or versions"
            if host.splits_by_flags
            else "; a row that differs from its ERM in configuration"
        )
        return (
            f"Δ{BASELINE}: mean difference to {BASELINE} in points, ± its standard error, paired by "
            f"{host.seeds_are}{where} says so."
        )
    if not host.splits_by_flags and any(row.selected and row.family.algorithm == BASELINE for row in rows):
        return (
            f"No difference to {BASELINE} is shown: it is that of the average, which takes a finished run of both for "
            f"every environment that can be held out."
        )
    also = " and configuration" if host.splits_by_flags else ""
    return (
        f"No difference to {BASELINE} is shown: there is no finished run of it beside another algorithm's of the same "
        f"{host.seeds_are}{also}."
    )


def _row(rule: str, family: Family, host: Host, columns: list[str]) -> Row:
    selected, marks = host.module.select(family.finished, rule) if family.finished else ([], [])
    row = Row(rule, family, selected, host.cells(selected, columns))
    row.marks += ["selected on TEST data: not a result that may be reported"] if rule == "oracle" else []
    row.marks += [*marks, *_marks(family, host)]
    return row


def _marks(family: Family, host: Host) -> Iterator[str]:
    stopped = [f"{run.folder} ({run.unfinished})" for run in family.runs if run.unfinished is not None]
    if stopped:
        yield f"{len(stopped)} incomplete left out: {_some(stopped)}"
    if differing := _mixed([family], host):
        yield f"mixed configurations: runs differ in {_named(differing)}"
    yield from dict.fromkeys(remark for run in family.finished for remark in run.remarks)


def _mixed(families: list[Family], host: Host) -> dict[str, list[str]]:
    """In what finished runs of one row or of one difference are not alike, with the values."""
    differing = differences(of_run for family in families for of_run in family.circumstances)
    if host.splits_by_flags:
        return differing
    return differing | differences(of_run for family in families for of_run in family.configurations)


def _named(differing: dict[str, list[str]]) -> str:
    return ", ".join(f"{name} ({_some([value[:20] for value in values])})" for name, values in differing.items())


def _some(words: list[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if words[3:] else "")


def _compare(rows: list[Row], host: Host) -> None:
    """Differences to the baseline of the same flags, and what a row lacks that others have."""
    seeds = {one.seed for row in rows for one in row.selected}
    bases = baselines(rows)
    for row in rows:
        baseline = bases.get(row.family.flags)
        if baseline is not None and baseline is not row:
            cells = {name: paired(row.selected, baseline.selected, name) for name in host.gains}
            row.gains = {name: cell for name, cell in cells.items() if cell is not None}
            if row.gains and (across := _across(row, baseline, host)):
                row.marks.append(f"its difference to {BASELINE} is across configurations: {_named(across)}")
        absent = seeds - {one.seed for one in row.selected}
        if absent:
            row.marks.append(f"no result of {host.seeds_are} {_some([str(seed) for seed in sorted(absent)])}")
        pairs = {cell.n for cell in row.gains.values()}
        if pairs and max(pairs) < len(row.selected):
            row.marks.append(
                f"its difference to {BASELINE} is over {max(pairs)} of {len(row.selected)} {host.seeds_are}s"
            )
        if len(row.selected) == 1 and host.draws:
            row.marks.append(f"one {host.seeds_are}: its error of 0.0 means nothing")


def baselines(rows: list[Row]) -> dict[str, Row]:
    """Flags of a family -> the row that rows of these flags are compared with."""
    return {
        row.family.flags: row
        for row in rows
        if row.family.algorithm == BASELINE and not (row.family.settings.keys() & catalog.all_hyperparameters())
    }


def _across(row: Row, baseline: Row, host: Host) -> dict[str, list[str]]:
    """In what a row and its baseline are not alike, but for what the row says of its own runs and for hyperparameters
    of this plugin.
    """
    within = _mixed([row.family], host)
    both = _mixed([row.family, baseline.family], host)
    return {
        name: values
        for name, values in both.items()
        if not set(values) <= set(within.get(name, ()))
        and name.removeprefix("hparams.") not in catalog.all_hyperparameters()
    }


def _shared_flags(families: list[Family], rows: list[Row]) -> list[str]:
    """Which rows are compared with which ERM, where there is more than one to choose from."""
    bases = {flags: row.family for flags, row in baselines(rows).items()}
    of_flags: dict[str, list[str]] = defaultdict(list)
    for family in families:
        if family is not bases.get(family.flags):
            of_flags[family.flags].append(family.name)
    if len(of_flags.keys() | bases.keys()) < 2:
        return []
    alone = [name for flags, names in of_flags.items() if flags not in bases for name in names]
    said = [
        f"{base.name} has the flags of, and is compared with: {'; '.join(of_flags[flags])}."
        for flags, base in bases.items()
        if flags in of_flags
    ]
    return [*said, *([f"Compared with no {BASELINE}, as none has their flags: {'; '.join(alone)}."] if alone else [])]


def _uneven_draws(families: list[Family]) -> list[str]:
    """Fewer draws of hyperparameters are a handicap."""
    counts = {
        family.name: len({run.measured.draw for run in family.runs if run.unfinished is None}) for family in families
    }
    if len(set(counts.values())) < 2:
        return []
    return [
        "Uneven search: hyperparameter draws per algorithm are "
        + ", ".join(f"{label} {count}" for label, count in counts.items())
        + "."
    ]


def _common_marks(rows: list[Row]) -> list[str]:
    """Marks that all rows share; they are taken off the rows."""
    common = [mark for mark in rows[0].marks if all(mark in row.marks for row in rows)] if len(rows) > 1 else []
    for row in rows:
        row.marks = [mark for mark in dict.fromkeys(row.marks) if mark not in common]
    return common
