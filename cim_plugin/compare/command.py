"""``cim-plugin compare``: runs side by side, one table per data set."""

from __future__ import annotations

import argparse
import gc
import os

from ..errors import InputError
from ..files import kind, write_whole
from ..runs import find
from . import formats
from .hosts import HOSTS, known_rules
from .sheets import make_report
from .tables import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.HelpFormatter  # defaults depend on other flags and are said in words
    usual = "; ".join(f"{', '.join(host.module.DEFAULT_RULES)} for {host.name}" for host in HOSTS.values())
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="folders with runs of 'cim-plugin train', DomainBed or SubpopBench, at any depth, links are not followed; "
        "or files of packed runs (*.jsonl.xz)",
    )
    parser.add_argument(
        "--rules",
        type=_rules,
        metavar="RULE,RULE",
        help=f"selection rules to show, of {', '.join(known_rules())} (default: {usual})",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="add the tables of the CIM poster, apart from what was measured (default: off)",
    )
    parser.add_argument(
        "--format", choices=list(formats.FORMATS), help="of the report (default: from the suffix of -o, else text)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the report there (default: to the terminal)")
    parser.add_argument(
        "--plots",
        metavar="FOLDER",
        help="also write plots there, as PNG and SVG (default: none; a web page has them inside)",
    )


def _rules(text: str) -> list[str]:
    rules = [rule.strip() for rule in text.split(",")]
    unknown = [rule for rule in rules if rule not in known_rules()]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is not a selection rule; choose from {', '.join(known_rules())}"
        )
    return list(dict.fromkeys(rules))


def run(args: argparse.Namespace) -> int:
    """Read, compare, write. Exit status 0.

    Raises:
        InputError: there is nothing to read, or a target cannot be written.
    """
    form = args.format or _format_of(args.output)
    _check_targets(args.output, args.plots)
    found = find.find(args.folders)
    gc.freeze()  # what was read stays to the end, and need not be gone through whenever a plot leaves something behind
    report = make_report(found, build(found.runs, args.rules), args.published)
    text = formats.FORMATS[form][1](report)
    if args.output is None:
        print(text, end="")
    else:
        write_whole(args.output, text.encode("utf-8", "backslashreplace"))
        print(f"{len(found.runs)} runs are in {args.output}")
    if args.plots is not None:
        from .plots import draw

        for suffix in ("png", "svg"):
            for plot in draw(report.tables, suffix):
                write_whole(os.path.join(args.plots, f"{plot.name}.{suffix}"), plot.content)
    return 0


def _format_of(output: str | None) -> str:
    if output is None:
        return "text"
    suffix = os.path.splitext(output)[1].lower()
    for name, (suffixes, _) in formats.FORMATS.items():
        if suffix in suffixes:
            return name
    known = ", ".join(suffix for suffixes, _ in formats.FORMATS.values() for suffix in suffixes)
    raise InputError(f"-o {output}: its suffix does not tell the format ({known}); pass --format")


def _check_targets(output: str | None, plots: str | None) -> None:
    """Before anything is read: a report of a thousand runs should not end in a spelling mistake."""
    if output is not None:
        if os.path.exists(output) and not os.path.isfile(output):
            fix = "name a file in it" if os.path.isdir(output) else "choose another name"
            raise InputError(f"-o {output} is {kind(output)}; {fix}")
        if os.path.basename(output) in find.MARKERS:
            raise InputError(f"-o {output} is the name of a run's own results; choose another name")
        if not os.path.isdir(os.path.dirname(output) or "."):
            raise InputError(f"-o {output}: there is no folder {os.path.dirname(output)}; make it first")
    if plots is not None and os.path.lexists(plots) and not os.path.isdir(plots):
        raise InputError(f"--plots {plots} is a file; name a folder")
