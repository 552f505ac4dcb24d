"""Every rule of a submission that its files can show."""

from __future__ import annotations

import posixpath
from array import array
from typing import Callable, Iterable, Iterator, NamedTuple

from .archive import Member
from .labels import Finding, read_labels
from .rules import BOARDS, NAMING, Named, file_name, numbers, parse_name, wrong_in_name
from .truth import Truth

Key = tuple[str, str]  #: split, replicate


class Found(NamedTuple):
    """What a submission holds for one data set."""

    files: dict[Key, str]
    labels: dict[Key, array]  #: of the files that are right
    crlf: list[str]  #: files whose lines end as on Windows


class Report(NamedTuple):
    findings: list[Finding]  #: what breaks a rule
    notes: list[str]  #: what does not, but should be known
    found: dict[str, Found]  #: data set -> what it holds


def examine(members: Iterable[Member], truth_of: Callable[[str], Truth]) -> Report:
    """Check every file, then what is missing.

    Args:
        members: the files of a submission, each read before the next one is asked for.
        truth_of: data set -> what its predictions are measured by; asked for boards of images of one label only.
    """
    report = Report([], [], {})
    for member in members:
        words = member.problem or _examine(member, report, truth_of)
        if words is not None:
            report.findings.append(Finding(member.name, None, words))
    for dataset, found in report.found.items():
        _add_missing(report, dataset, found)
        report.notes.extend(f"{dataset}: {note}" for note in _notes(dataset, found))
    if not report.found:
        report.findings.append(Finding(".", None, f"no file is named {NAMING}"))
    return report


def _examine(member: Member, report: Report, truth_of: Callable[[str], Truth]) -> str | None:
    """Read a file and add what is found in it; what is wrong with the file as a whole."""
    if not member.name.lower().endswith((".csv", ".pth")):
        return None  # a README and the like
    name = parse_name(member.name)
    if name is None:
        return f"the name is not {NAMING}"
    words = wrong_in_name(name)
    if words is not None:
        return words
    found = report.found.setdefault(name.dataset, Found({}, {}, []))
    return _place(member.name, name, found) or _wrong_epoch(name) or _read(member, name, found, report, truth_of)


def _wrong_epoch(name: Named) -> str | None:
    return (
        None
        if name.epoch == "best"
        else f"epoch is {name.epoch!r}; the leaderboard takes the epoch that validation data chose, named 'best'"
    )


def _place(path: str, name: Named, found: Found) -> str | None:
    """Note that the file is there; what is wrong with its place."""
    key = (name.split, name.replicate)
    if key in found.files:
        return f"split {name.split} of {name.replicate} is there twice, also as {found.files[key]}"
    first = next(iter(found.files.values()), path)
    found.files[key] = path
    if _folder_of(path) != _folder_of(first):
        return f"lies in another folder than {first}; WILDS' evaluate.py reads one folder per data set"
    return None


def _folder_of(path: str) -> str:
    return posixpath.dirname(posixpath.normpath(path))


def _read(member: Member, name: Named, found: Found, report: Report, truth_of: Callable[[str], Truth]) -> str | None:
    if BOARDS[name.dataset].n_classes is None:
        return None if any(member.chunks()) else "is empty"
    truth = truth_of(name.dataset)
    labels, findings, crlf = read_labels(
        member.name, member.chunks(), truth.n_classes, truth.lengths[name.split], name.split
    )
    report.findings.extend(findings)
    if not findings:
        found.labels[name.split, name.replicate] = labels
    if crlf:
        found.crlf.append(member.name)
    return None


def _add_missing(report: Report, dataset: str, found: Found) -> None:
    board = BOARDS[dataset]
    folder = _folder_of(next(iter(found.files.values())))
    for split in board.splits:
        for replicate in board.replicates:
            if (split, replicate) not in found.files:
                path = posixpath.join(folder, file_name(dataset, split, replicate))
                report.findings.append(
                    Finding(
                        path,
                        None,
                        f"is missing; {dataset} needs {', '.join(board.splits)} for {numbers(board.replicates)}",
                    )
                )


def _notes(dataset: str, found: Found) -> Iterator[str]:
    if posixpath.basename(_folder_of(next(iter(found.files.values())))) != dataset:
        yield (
            f"the files do not lie in a folder {dataset}/; WILDS' evaluate.py finds them only with --dataset {dataset}"
        )
    if found.crlf:
        yield (
            f"lines end as on Windows (CR LF) in {len(found.crlf)} files, the first is {found.crlf[0]}; WILDS' "
            f"evaluate.py reads them alike"
        )
    if BOARDS[dataset].n_classes is None:
        yield "only names and number of files are checked: its predictions are no labels of images"
    first: dict[tuple[str, bytes], str] = {}
    for (split, replicate), labels in found.labels.items():
        other = first.setdefault((split, labels.tobytes()), replicate)
        if other != replicate:
            yield f"{other} and {replicate} have the same predictions for split {split}; are they two trainings?"
