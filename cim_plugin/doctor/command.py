"""The table of checks, and how what they say is printed. Nothing heavy is imported before a check needs it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Iterator

from . import packages, places, traps, weights
from .findings import ERROR, NOTE, OK, STATUS, WARNING, Check, Finding, Surroundings

#: name -> what looks. The order is that of what builds on what; each is independent of the others.
CHECKS: dict[str, Check] = {
    "python": packages.python,
    "plugin": packages.plugin,
    "packages": packages.packages,
    "torch": packages.torch_and_torchvision,
    "autoload": places.autoload_state,
    "DomainBed": places.domainbed,
    "SubpopBench": places.subpopbench,
    "WILDS": places.wilds,
    "weights": weights.weights,
    "data": places.data,
    "cache": places.image_cache,
    "disk": places.disk,
    "command": traps.command,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root_dir", help="folder of all data sets; 'data' where it exists")
    parser.add_argument("--data_dir", help="folder of DomainBed's data sets, where it is another one")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object: status, command, and findings with check, level, what and fix",
    )
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="a command line of 'cim-plugin train' or of DomainBed's train or sweep; it is started up to its first "
        "step, without network, and nothing is written",
    )


def run(args: argparse.Namespace) -> int:
    """Do all checks and print a line per finding. Exit status 0 where all is well, 1 with warnings, 2 where something
    will not run.
    """
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    surroundings = Surroundings(args.root_dir, args.data_dir, words)
    said: list[tuple[str, Finding]] = []
    for name, finding in findings(CHECKS, surroundings):
        said.append((name, finding))
        if not args.json:
            print(line(name, finding), flush=True)
    status = max(STATUS[finding.level] for _, finding in said)
    if args.json:
        print(
            json.dumps(
                {
                    "status": status,
                    "command": words,
                    "findings": [{"check": name, **finding._asdict()} for name, finding in said],
                },
                indent=2,
            )
        )
    else:
        print(_verdict(said, bool(words)))
    return status


def findings(checks: dict[str, Check], surroundings: Surroundings) -> Iterator[tuple[str, Finding]]:
    """What each check says, as far as it comes: a fault in one takes no other down."""
    for name, check in checks.items():
        try:
            for finding in check(surroundings):
                yield name, finding._replace(what=_one_line(finding.what), fix=finding.fix and _one_line(finding.fix))
        except Exception as error:
            failed = Finding(
                WARNING,
                _one_line(f"this check itself failed: {type(error).__name__}: {error}"),
                f"the others stand; please report it with Python {sys.version.split()[0]}",
            )
            yield name, failed


def line(name: str, finding: Finding) -> str:
    return f"{finding.level:8} {name:11} {finding.what}" + (f"  -> {finding.fix}" if finding.fix else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _verdict(said: list[tuple[str, Finding]], of_command: bool) -> str:
    count = {level: sum(finding.level == level for _, finding in said) for level in (ERROR, WARNING, NOTE, OK)}
    if not count[ERROR] and not count[WARNING]:
        return "all is well" + ("" if of_command else f"; {count[NOTE]} notes are for those who need what they name")
    words = [
        f"{number} {level}{'s' * (number > 1)}"
        for level, number in count.items()
        if number and level in (ERROR, WARNING)
    ]
    return f"{' and '.join(words)}: " + (
        "something will not run" if count[ERROR] else "it runs, read the warnings first"
    )
