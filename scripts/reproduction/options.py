"""The flags that the experiments share."""

from __future__ import annotations

import argparse
from pathlib import Path

SEEDS = (0, 1, 2, 3, 4)


class Parser(argparse.ArgumentParser):
    """Says a wrong argument in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


def make_parser(name: str, what: str) -> Parser:
    """The parser of an experiment with the flags of all."""
    parser = Parser(prog=f"scripts/reproduce/{name}", description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, default=Path("reproduction"), help="its folder of this experiment keeps the runs; the same command goes on")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few images, kept apart: shows that everything runs, not how good it is")
    return parser


def add_algorithms(parser: argparse.ArgumentParser, algorithms: tuple[str, ...]) -> None:
    parser.add_argument("--algorithms", nargs="+", choices=algorithms, default=list(algorithms), metavar="NAME", help=f"of {', '.join(algorithms)}")


def add_seeds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), metavar="SEED", help="of the runs to train; the table has all that are there")


def add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n_hparams", type=int, default=20, help="hyperparameter draws of DomainBed's sweep")
    parser.add_argument("--n_trials", type=int, default=3, help="trials of DomainBed's sweep")
    parser.add_argument("--steps", type=int, help="of every run of it; the data set's own number, 5001, if not given")


def folder(args: argparse.Namespace, name: str) -> Path:
    """Where an experiment keeps its runs: absolute, quick ones apart."""
    return (args.output_dir / "quick" / name if args.quick else args.output_dir / name).absolute()
