"""``python -m scripts.evidence subgroups|domains|forms``: trains what is not done, or prints tables.

Started again, it goes on with what is missing. Docs: docs/evidence_protocol.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cim_plugin.errors import InputError, exit_status
from cim_plugin.flags import Parser, whole

from ..experiments.docs_page import refresh
from . import domains, figures_only, forms, kept
from .plan import Plan
from .rows import ROWS, with_bases
from .settings import RATES, Settings
from .tables import TABLES, found

COMMAND = "python -m scripts.evidence subgroups"
KEPT = "docs/evidence"  #: where runs are taken from that are to be shown, unless another folder is named


def main() -> int:
    """What the command line asks for; exit status 1 where a run failed."""
    args = make_parser().parse_args()
    return {"subgroups": run, "domains": domains.run, "forms": forms.run}[args.table](args)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m scripts.evidence", description=__doc__)
    tables = parser.add_subparsers(dest="table", required=True, metavar="TABLE")
    for name, add, what in (
        ("subgroups", add_subgroups, "Waterbirds' layout"),
        ("domains", domains.add_arguments, "PACS, by DomainBed's sweep"),
        ("forms", forms.add_arguments, "forms of a mask over maps, on validation images or the test"),
    ):
        add(tables.add_parser(name, help=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter))
    return parser


def add_subgroups(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root_dir", help="holds waterbirds_v1.0, any release of that layout")
    parser.add_argument("--weights", metavar="FILE", help="of mobilenetv2_100, trained on ImageNet")
    parser.add_argument(
        "--output_dir",
        help=f"where everything is kept; {KEPT} has the runs that the docs show, for --tables and others",
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=whole(1, 100), default=5, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument(
        "--search",
        type=whole(0, len(RATES)),
        default=len(RATES),
        help=f"how many of the rates {', '.join(f'{rate:g}' for rate in RATES)} are tried for every row; 0: the first",
    )
    parser.add_argument("--at_once", type=whole(1, 1024), default=os.cpu_count(), help="runs at the same time")
    parser.add_argument("--n_epochs", type=whole(1), default=Settings.n_epochs, help="of every run")
    parser.add_argument("--side", type=whole(32, 1024), default=Settings.side, help="of images, in pixels")
    parser.add_argument("--cross_fit", default=Settings.cross_fit, help="of the reference models, auto or steps")
    parser.add_argument(
        "--references",
        default="",
        metavar="NAME",
        help="take the pseudo-environments of this folder in --output_dir, such as 80px_3epochs, and find none anew",
    )
    done = parser.add_argument_group("of what is done; these train nothing")
    done.add_argument(
        "--tables", nargs="*", choices=TABLES, metavar="NAME", help=f"print them: {', '.join(TABLES)}; alone: all"
    )
    done.add_argument(
        "--page", nargs="+", type=Path, help=f"pages of the docs, whose tables after a line `{COMMAND} ...`: follow"
    )
    done.add_argument("--figure", type=Path, help="a file for a picture of all runs and of the differences")
    done.add_argument(
        "--masks", type=Path, help="a file for a picture of masks on validation images; needs data, weights and models"
    )
    done.add_argument("--pack", action="store_true", help=f"write all runs into {kept.FILE} of the output folder")


def run(args: argparse.Namespace) -> int:
    """Train, or show what is done.

    Raises:
        InputError: there are no data, no weights, or nothing to show.
    """
    shows = args.tables is not None or args.page or args.figure or args.masks or args.pack
    args.output_dir = args.output_dir or (KEPT if shows else None)
    if not shows:
        from .training import train

        plan, masks = make_plan(args)
        return train(plan, args.at_once, masks)
    if args.pack:
        print(f"{kept.pack(os.path.abspath(args.output_dir))} runs are in {Path(args.output_dir) / kept.FILE}")
    for page in args.page or ():
        refresh(page, lambda words: tables(_of_page(words, args.output_dir)), COMMAND)
    if args.figure:
        from .figure import draw

        draw(found(done_plan(args)), args.figure)
    if args.masks:
        from .figure import draw_masks_of

        plan, _ = make_plan(args)
        draw_masks_of(plan, args.masks)
    if args.tables is not None:
        print(tables(args))
    return 0


def _of_page(words: list[str], output_dir: str) -> argparse.Namespace:
    return make_parser().parse_args(["subgroups", *words, "--output_dir", output_dir])


def tables(args: argparse.Namespace) -> str:
    """Those that are asked for, of what is done."""
    plan = done_plan(args)
    results = found(plan)
    return "\n\n".join(TABLES[name](plan, results) for name in args.tables or TABLES)


def done_plan(args: argparse.Namespace) -> Plan:
    """What is wanted of runs that are done: where they came from does not matter."""
    settings = Settings("", "", args.n_epochs, args.side, args.cross_fit, args.references)
    rows = [name for name in ROWS if name in args.rows]
    return Plan(settings, os.path.abspath(args.output_dir), rows, args.seeds, _rates(args))


def make_plan(args: argparse.Namespace) -> tuple[Plan, bool]:
    """What is wanted, without the rows that need masks where there are none; and whether there are masks.

    Raises:
        InputError: there are no data, or no weights.
    """
    needed = {
        "root_dir": "the folder that holds waterbirds_v1.0",
        "weights": "a state dict of its model",
        "output_dir": "a folder for everything that is made",
    }
    for name, what in needed.items():
        if getattr(args, name) is None:
            raise InputError(f"--{name} is missing, {what}; only --tables, --page, --figure and --pack need none")
    if not os.path.isfile(args.weights):
        raise InputError(f"--weights {args.weights} does not exist; name a state dict of mobilenetv2_100")
    root = os.path.abspath(args.root_dir)
    weights = os.path.abspath(args.weights)
    settings = Settings(root, weights, args.n_epochs, args.side, args.cross_fit, args.references)
    rows, why = with_bases(args.rows), figures_only.missing(root)
    if why is not None:
        without = [name for name in rows if ROWS[name].figures_only]
        rows = [name for name in rows if name not in without]
        print(f"left out, as {why}: {', '.join([*without, 'the overlap of m'])}", file=sys.stderr)
    plan = Plan(settings, os.path.abspath(args.output_dir), rows, args.seeds, _rates(args))
    _check_references(plan)
    return plan, why is None


def _check_references(plan: Plan) -> None:
    missing = [run for run in plan.references() if plan.settings.references and not plan.is_there(run)]
    if missing:
        place = os.path.relpath(plan.place(missing[0]), plan.folder)
        raise InputError(
            f"--references {plan.settings.references}: --output_dir has no finished {place}; train that table first"
        )


def _rates(args: argparse.Namespace) -> tuple[float, ...]:
    return RATES[: max(1, args.search)]


if __name__ == "__main__":
    sys.exit(exit_status("scripts.evidence", main, "stopped; finished runs are kept, the same command goes on"))
