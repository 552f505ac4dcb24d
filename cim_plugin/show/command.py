"""``cim-plugin show RUN``: what the transformation network of a run has learnt, in a picture and in numbers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import kind, write_whole
from ..flags import whole
from ..runs.rules import RULES

if TYPE_CHECKING:
    from .examples import Example
    from .opened_run import OpenedRun

SUFFIXES = (".png", ".svg", ".html")
PICTURE = "m.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="folder of 'cim-plugin train', or a folder or file of DomainBed with model.pkl"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"the picture: {', '.join(SUFFIXES)}, by its suffix; {PICTURE} where nothing else is asked for",
    )
    parser.add_argument(
        "--split",
        default="val",
        help="whose images; DomainBed: train and val are the two parts of the training environments, test the others",
    )
    parser.add_argument(
        "--images",
        type=whole(0),
        nargs="+",
        metavar="NUMBER",
        help="images of the split to show, counted from 0; sampled by default",
    )
    parser.add_argument(
        "--per_group",
        type=whole(1),
        default=2,
        help="images to sample of every group, or of every environment of DomainBed",
    )
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=0, help="of the sampling, and of drawing positives and negatives"
    )
    parser.add_argument(
        "--rule",
        choices=tuple(RULES),
        default="best",
        help="the selection rule whose model is shown; DomainBed keeps only its last",
    )
    parser.add_argument(
        "--root_dir",
        "--data_dir",
        dest="data",
        metavar="FOLDER",
        help="folder of the data sets, where it is not the one that the run had",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the numbers as one JSON object; a picture is then made only with --output",
    )


def run(args: argparse.Namespace) -> int:
    """Make the picture and print the summary; exit status 0.

    Raises:
        InputError: the run cannot be shown, or the picture not be written.
    """
    output = args.output or (None if args.json else PICTURE)
    if output is not None:
        _check_output(output)
    try:
        from .examples import choose_rows, examples
        from .opening import open_run
        from .summary import summarize

        learnt = open_run(args.run, args.split, args.rule, args.data)
        rows = choose_rows(learnt, args.images, args.per_group, args.seed)
        shown = list(examples(learnt, rows, args.seed))
        summary = summarize(learnt, args.seed, sys.stderr.isatty())
    except ModuleNotFoundError as error:
        raise InputError(
            f"show needs the package {error.name!r}; \"pip install 'cim_plugin[wilds,report]'\" brings what is missing"
        ) from error
    if output is not None:
        _write(output, learnt, shown, summary)
    if args.json:
        print(
            json.dumps(
                {
                    **learnt.facts(),
                    "m": summary,
                    "shown": [_record(learnt, example) for example in shown],
                    "picture": args.output,
                },
                indent=2,
            )
        )
    else:
        _print(learnt, shown, summary, output)
    return 0


def _check_output(output: str) -> None:
    """Before anything is computed."""
    path = Path(output)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--output {output} must end in {', '.join(SUFFIXES)}, which says what it becomes")
    if (path.exists() and not path.is_file()) or not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InputError(
            f"--output {output} cannot be written: "
            f"{f'it is {kind(path)}' if path.exists() else f'{path.parent} is no folder that can be written'}"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            "pictures need matplotlib; \"pip install 'cim_plugin[report]'\" brings it, and --json does without"
        ) from error


def _write(output: str, learnt: OpenedRun, shown: list[Example], summary: dict[str, Any]) -> None:
    if output.lower().endswith(".html"):
        from .page import page as draw
    else:
        from .picture import picture as draw
    write_whole(output, draw(learnt, shown, summary, Path(output).suffix.lower()[1:]))


def _print(learnt: OpenedRun, shown: list[Example], summary: dict[str, Any], output: str | None) -> None:
    from .summary import lines, table

    print(learnt.title)
    if learnt.data is not None:
        print(f"images are read from {learnt.data}")
    for line in lines(summary, learnt.unit, shown):
        print(line)
    rows = table(summary, learnt.unit)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  "
            + "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths))
            )
        )
    if output is not None:
        print(f"{len(shown)} images are in {output}")


def _record(learnt: OpenedRun, example: Example) -> dict[str, Any]:
    def of(side) -> dict[str, Any] | None:
        return None if side is None else {"image": side.row, "similarity": side.similarity}

    return {
        "image": example.row,
        learnt.unit: learnt.group_names[example.group],
        "label": learnt.class_names[example.label],
        "before": {"class": learnt.class_names[example.before.label], "probability": example.before.probability},
        "after": {"class": learnt.class_names[example.after.label], "probability": example.after.probability},
        "m": {"mean": float(example.mask.mean()), "min": float(example.mask.min()), "max": float(example.mask.max())},
        "positive": of(example.positive),
        "negative": of(example.negative),
    }
