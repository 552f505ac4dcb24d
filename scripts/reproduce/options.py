"""The flags that the experiments share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from cim_plugin.data.check import USABLE, examine
from cim_plugin.data.releases import RELEASES
from cim_plugin.errors import InputError
from cim_plugin.flags import SEED, Parser, whole
from cim_plugin.runs.cluster import settings as cluster

SEEDS = (0, 1, 2, 3, 4)


def make_parser(name: str, what: str) -> Parser:
    """The parser of an experiment with the flags of all."""
    parser = Parser(
        prog=f"scripts/reproduce/{name}",
        description=what,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("reproduction"),
        help="its folder of this experiment keeps the runs; the same command goes on",
    )
    cluster.add_arguments(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few steps on a few images, kept apart: shows that everything runs, not how good it is",
    )
    return parser


def add_algorithms(parser: argparse.ArgumentParser, algorithms: tuple[str, ...]) -> None:
    parser.add_argument(
        "--algorithms",
        nargs="+",
        choices=algorithms,
        default=list(algorithms),
        metavar="NAME",
        help=f"of {', '.join(algorithms)}",
    )


def add_seeds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=whole(0, SEED),
        default=list(SEEDS),
        metavar="SEED",
        help="of the runs to train; the table has all that are there",
    )


def add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--n_hparams", type=whole(1, 100_000), default=20, help="hyperparameter draws of DomainBed's sweep"
    )
    parser.add_argument("--n_trials", type=whole(0, 100_000), default=3, help="trials of DomainBed's sweep")
    parser.add_argument(
        "--keep_models",
        action="store_true",
        help="keep the model of every job of it; otherwise they are deleted when their job is done, as no table needs "
        "them",
    )
    parser.add_argument(
        "--steps", type=whole(1), help="of every run of it; the data set's own number, 5001, if not given"
    )


def folder(args: argparse.Namespace, name: str) -> Path:
    """Where an experiment keeps its runs: absolute, quick ones apart."""
    return (args.output_dir / "quick" / name if args.quick else args.output_dir / name).absolute()


def check_data(name: str, root: Path) -> str:
    """What is there of a data set, in words, also where it is unlike the published release.

    Raises:
        InputError: it is not there or incomplete.
    """
    finding = examine(RELEASES[name], root)
    if finding.state not in USABLE:
        raise InputError(f"{name} is {finding.state}: {finding.words}")
    return f"{name}: {finding.words}"


def announce(quick: bool, *lines: str) -> None:
    """What the user should know before hours of training."""
    if not quick and not torch.cuda.is_available():
        lines += ("warning: torch sees no GPU: this trains on the CPU, for weeks; --quick shows that everything runs",)
    for line in lines:
        print(line, file=sys.stderr)
