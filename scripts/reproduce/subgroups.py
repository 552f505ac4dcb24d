"""Waterbirds and CelebA: 'cim-plugin train' with WILDS' defaults for the data set, five seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

from cim_plugin.data.releases import RELEASES, is_synthetic
from cim_plugin.runs.cluster.launcher import runner
from cim_plugin.runs.train import PSEUDO
from cim_plugin.wilds_runner.preparing import prepare

from . import options
from .showing import show
from .trainings import configurations, train

ALGORITHMS = ("ERM", "groupDRO", "VIB", "SCL_E2E", "CIM", "CIM_VIB")
RULES = ("worst_group", "average", "worst_class", "last", "oracle")
PUBLISHED = {"waterbirds": "Waterbirds", "celebA": "CelebA"}

#: the standard regularisation of group DRO's authors (Sagawa et al., 2020), of whom the poster cites ERM's 60.0 and
#: 41.1
PUBLISHED_SETUP = {
    "waterbirds": "--lr 1e-3 --weight_decay 1e-4",
    "celebA": "--lr 1e-4 --weight_decay 1e-4 --batch_size 128 --n_epochs 50",
}
SETUPS = {
    False: "Trained with WILDS' defaults for the data set, but for flags that were given. The published rows of ERM "
    "are of other ones: --published-setup, with another --output_dir.",
    True: "Trained as the published rows of ERM were, by what group DRO's authors call the standard regularisation. "
    "The poster does not say how its own rows were trained.",
}

QUICK = (
    "--model small_cnn --transform image_base --target_resolution 28 --optimizer AdamW --lr 1e-3 --weight_decay 1e-4 "
    "--batch_size 32"
)
QUICK += " --n_epochs 1 --loader_kwargs num_workers=0 --cache false"
QUICK_IMAGES = 500  #: of the training split


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--data", type=Path, default=Path("data"), help=f"folder that holds {RELEASES[name].folder}")
    options.add_algorithms(parser, ALGORITHMS)
    options.add_seeds(parser)
    parser.add_argument(
        "--published-setup", action="store_true", help=f"as the cited rows of ERM were trained: {PUBLISHED_SETUP[name]}"
    )


def run(args: argparse.Namespace, name: str, words: list[str]) -> int:
    """Train and print.

    Raises:
        InputError: the data set is not there or incomplete, or a flag is wrong.
    """
    folder = options.folder(args, name)
    seeds = [0] if args.quick else args.seeds
    given = [
        *(PUBLISHED_SETUP[name].split() if args.published_setup else []),
        *(quick_flags(name, args.data) if args.quick else []),
        *words,
    ]
    configs = configurations(name, args.data.absolute(), folder, args.algorithms, seeds, given)
    options.announce(args.quick, options.check_data(name, args.data))
    status = train(configs, prepare, runner(args, folder))
    show(
        folder,
        (*RULES, "worst_pseudo_group") if any(getattr(configs[0], flag) for flag in PSEUDO) else RULES,
        PUBLISHED[name],
        failed=bool(status),
    )
    print(f"\n{SETUPS[args.published_setup]}")
    return status


def quick_flags(name: str, root: Path) -> list[str]:
    """Of the real release a few images, of a synthetic one all."""
    release = RELEASES[name]
    fraction = 1 if is_synthetic(release.path(root)) else QUICK_IMAGES / release.counts["train"]
    return [*QUICK.split(), "--frac", f"{fraction:g}"]
