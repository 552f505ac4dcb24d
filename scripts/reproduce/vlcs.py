"""VLCS as DomainBed loads it: its sweep over four held-out environments, by its three selection methods."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path

from cim_plugin.data.images import SUFFIXES
from cim_plugin.data.releases import RELEASES
from cim_plugin.errors import InputError

from . import options
from .showing import show
from .sweep import ALGORITHMS, RULES, has_domainbed, sweep

RELEASE = RELEASES["VLCS"]

#: what DomainBed's published tables were made with; its defaults have changed since
PUBLISHED_SETUP = {"resnet50_augmix": False, "freeze_bn": True}

QUICK = {"resnet18": True, "resnet50_augmix": False, "batch_size": 4}
QUICK_IMAGES = 4  #: of every class of every environment


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds VLCS")
    options.add_algorithms(parser, ALGORITHMS)
    options.add_sweep(parser)
    parser.add_argument(
        "--published-setup",
        action="store_true",
        help=f"the hyperparameters of DomainBed's published tables: {PUBLISHED_SETUP}",
    )


def run(args: argparse.Namespace, name: str, words: list[str]) -> int:
    """Sweep and print.

    Raises:
        InputError: DomainBed, the data or the pretrained weights are not there, a flag is unknown, or a job failed.
    """
    if words:
        raise InputError(f"unrecognized arguments: {' '.join(words)}; see --help")
    if not has_domainbed():
        raise InputError(
            "DomainBed is not found; 'cim-plugin get-domainbed' fetches it, or set DOMAINBED_HOME to a checkout"
        )
    found = options.check_data("VLCS", args.data)
    hparams = {**(PUBLISHED_SETUP if args.published_setup else {}), **(QUICK if args.quick else {})}
    _fetch_weights(hparams)
    folder = options.folder(args, name)
    data = _few_images(args.data, folder / "data") if args.quick else args.data.absolute()
    options.announce(args.quick, found)
    sweep("VLCS", len(RELEASE.needs), data, folder, args, functools.partial(show, folder, RULES, "VLCS"), hparams)
    print(
        f"\nDomainBed's hyperparameters, but for {hparams}."
        if hparams
        else "\nDomainBed's present hyperparameters; its published rows are of --published-setup."
    )
    return 0


def _fetch_weights(hparams: dict) -> None:
    """Once, before the jobs: DomainBed loads torchvision's weights even where it goes on with timm's.

    Raises:
        InputError: they are not there and cannot be downloaded.
    """
    import torch

    from cim_plugin.hosts.train_script import last_line
    from cim_plugin.models.encoders import make_encoder

    names = [
        "resnet18" if hparams.get("resnet18") else "resnet50",
        *(["timm/resnet50.ram_in1k"] if hparams.get("resnet50_augmix", True) else []),
    ]
    for name in names:
        try:
            make_encoder(name, {"pretrained": True}, None)
        except InputError as error:
            raise InputError(
                f"DomainBed trains VLCS from the pretrained weights of {name}, which could not be downloaded "
                f"({last_line(error.__cause__ or error)}); "
                f"put the file into {torch.hub.get_dir()}/checkpoints, or for timm's into the Hugging Face cache, on a "
                f"machine with network"
            ) from error


def _few_images(root: Path, few: Path) -> Path:
    """A data folder with links to the first images of every class, so that an evaluation takes seconds."""
    for folder in sorted(path for path in RELEASE.path(root).glob("*/*") if path.is_dir()):
        target = RELEASE.path(few) / folder.parent.name / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for image in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:QUICK_IMAGES]:
            (target / image.name).unlink(missing_ok=True)  # of an earlier --data
            os.symlink(image.absolute(), target / image.name)
    return few
