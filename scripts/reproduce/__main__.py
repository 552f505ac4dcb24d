"""``scripts/reproduce/*``: the experiments of the poster. Each trains what is not trained yet, and prints its table
beside the published one.
"""

from __future__ import annotations

import importlib
import sys

from cim_plugin.errors import InputError, exit_status

from .options import make_parser

#: experiment -> (its module of this package, with add_arguments(parser, name) and run(args, name, words), what it does)
EXPERIMENTS = {
    "vlcs": ("vlcs", "VLCS through DomainBed's sweep: four held-out environments, three selection methods"),
    "waterbirds": ("subgroups", "worst-group accuracy on Waterbirds; other flags go to 'cim-plugin train'"),
    "celebA": ("subgroups", "worst-group accuracy on CelebA; other flags go to 'cim-plugin train'"),
    "background_challenge": (
        "background_challenge",
        "ImageNet-9 with its own and other backgrounds; other flags go to 'cim-plugin train'",
    ),
    "colored_mnist": (
        "colored_mnist",
        "digits on class-tied colours, tested on others, and DomainBed's ColoredMNIST; other flags go to 'cim-plugin "
        "train'",
    ),
}


def main() -> int:
    """Run one experiment. Exit status: 0; 1 where a run failed; and those of ``exit_status``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    program = f"scripts/reproduce/{name}" if name in EXPERIMENTS else "scripts/reproduce"
    return exit_status(program, lambda: run(name), "stopped; the same command goes on")


def run(name: str) -> int:
    """Run the experiment of this name with the rest of the command line."""
    if name not in EXPERIMENTS:
        raise InputError(f"{name!r} is not an experiment; choose from {', '.join(EXPERIMENTS)}")
    module, what = EXPERIMENTS[name]
    experiment = importlib.import_module(f"{__package__}.{module}")
    parser = make_parser(name, what)
    experiment.add_arguments(parser, name)
    args, words = parser.parse_known_args(sys.argv[2:])
    return experiment.run(args, name, words)


if __name__ == "__main__":
    sys.exit(main())
