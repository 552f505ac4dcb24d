"""``cim-plugin data``: make, convert and check data sets. Rows of metadata are counted from 0, as the loaders count."""

from __future__ import annotations

import argparse
import importlib
import posixpath
import sys
from pathlib import Path

from ..errors import InputError
from ..flags import whole

#: action -> (the module with its plan, data set, what --from is)
CONVERSIONS = {
    "waterbirds": (
        "waterbirds",
        "waterbirds",
        "waterbird_complete95_forest2water2.tar.gz, or the folder that it unpacks to",
    ),
    "celebA": (
        "celeba",
        "celebA",
        "folder with img_align_celeba, and list_attr_celeba and list_eval_partition as the authors' .txt or Kaggle's "
        ".csv",
    ),
    "vlcs": (
        "vlcs",
        "VLCS",
        "VLCS.tar.gz, or a folder of environments whose classes are named bird, car, ... or, below full, train, test, "
        "..., 0, 1, ...",
    ),
}

#: package -> the extra that brings it
EXTRAS = {"huggingface_hub": "data", "pyarrow": "data", "pooch": "data", "requests": "data", "kagglehub": "kaggle"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    demo = _add(
        actions,
        "demo",
        _demo,
        "make synthetic releases in the formats of Waterbirds and CelebA, from what scikit-learn carries",
    )
    demo.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, help="everything random follows from it")
    _add_get(actions)
    listing = actions.add_parser(
        "list", help="print where data sets can be had", description="Print where data sets can be had."
    )
    listing.set_defaults(act=_list)
    _add_folder(actions)
    for action, (_, name, source) in CONVERSIONS.items():
        conversion = _add(
            actions,
            action,
            _convert,
            f"convert a public archive of {name}; repeat the command to go on after a stop, or to verify",
        )
        conversion.add_argument("--from", dest="source", metavar="ARCHIVE_OR_FOLDER", required=True, help=source)
    check = _add(
        actions,
        "check",
        _check,
        "say what is there, what is missing, and what the loaders say; exit status 0 if all of it can be used",
    )
    check.add_argument(
        "--dataset",
        nargs="+",
        metavar="NAME",
        help="all of these must be usable; without it, all that is there (and something must be)",
    )
    check.add_argument("--images", action="store_true", help="decode every image, too")


def _add_get(actions) -> None:
    from .sources import PLACES, SOURCES

    get = _add(
        actions,
        "get",
        _get,
        "download a data set and lay it out for its host; repeat the command to go on after a stop, or to verify",
    )
    get.add_argument("name", metavar="NAME", help=", ".join(name for name, entry in SOURCES.items() if entry.mirrors))
    get.add_argument("--source", choices=PLACES, help="where to get it where several have it; 'data list' says")
    get.add_argument(
        "--subset", type=_whole, metavar="N", help="keep N images, of every group the same share, for a first try"
    )


def _add_folder(actions) -> None:
    folder = _add(
        actions,
        "folder",
        _folder,
        "make a release of your own images, for 'cim-plugin train -d DATA/NAME' and for DomainBed",
    )
    folder.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER_OR_CSV",
        required=True,
        help="folders environment/class/image.jpg, or a table with the columns path (relative to it), label, split "
        "(train, val, test; made where it is missing), and one for every kind of group",
    )
    folder.add_argument("--name", help="of the data set; by default that of the folder or the table")


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return number


def _add(actions, name: str, act, what: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name, help=what, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--root", "--root_dir", dest="root", default="data", help="folder of all data sets")
    parser.set_defaults(act=act)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do one action; its exit status.

    Raises:
        InputError: something that the user gave is wrong, or a package is not installed.
    """
    try:
        return args.act(args)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0], "wilds")
        raise InputError(f"package {error.name!r} is not installed; pip install 'cim_plugin[{extra}]'") from error


def _demo(args: argparse.Namespace) -> int:
    from .demo import write_demo

    for folder in write_demo(args.root, args.seed):
        print(f"synthetic release in {folder}")
    return 0


def _get(args: argparse.Namespace) -> int:
    from .get import announce, farewell, get

    print(announce(args.name, args.source), flush=True)
    folder = get(args.name, Path(args.root), args.source, args.subset)
    print(farewell(args.name, Path(args.root), folder))
    return 0


def _folder(args: argparse.Namespace) -> int:
    from .folder import make

    for line in make(args.source, Path(args.root), args.name):
        print(line)
    return 0


def _list(args: argparse.Namespace) -> int:
    from .sources import listing

    print(listing(), end="")
    return 0


def _convert(args: argparse.Namespace) -> int:
    from .conversion import building, convert, is_finished
    from .releases import RELEASES
    from .source import open_source

    module, name, _ = CONVERSIONS[args.action]
    folder = RELEASES[name].path(args.root)
    if is_finished(folder):
        print(f"{folder} is complete, and its files are as its manifest says")
        return 0
    source = open_source(args.source)
    _refuse_synthetic(source)
    plan = importlib.import_module(f".{module}", __package__).plan(source)
    _warn(plan.release.differences(plan.counts), f"{name} has other counts than the published release")
    _warn(
        _left_out(source, plan),
        f"some images of {source.path} are left out, because no row lists them or they repeat another",
    )
    with building(folder):
        convert(source, plan, Path(args.root))
    print(f"{name} is in {folder}: " + ", ".join(f"{part} {count:,}" for part, count in plan.counts.items()))
    return 0


def _refuse_synthetic(source) -> None:
    from .releases import SYNTHETIC

    for name in source.names:
        if posixpath.basename(name).startswith("RELEASE_v") and source.read(name).startswith(SYNTHETIC.encode()):
            raise InputError(
                f"{source.path} holds the synthetic release of 'cim-plugin data demo', not a public archive"
            )


def _left_out(source, plan) -> str:
    from .images import SUFFIXES

    names = [name for name in source.names if name.lower().endswith(SUFFIXES) and name not in plan.images]
    return f"{len(names):,}, the first is {names[0]!r}" if names else ""


def _warn(figures: str, what: str) -> None:
    if figures:
        print(f"cim-plugin data: warning: {what}: {figures}", file=sys.stderr)


def _check(args: argparse.Namespace) -> int:
    from .check import ABSENT, USABLE, examine
    from .manifest import disk_errors
    from .releases import RELEASES, how_to_get

    for name in args.dataset or ():
        how_to_get(name)
    findings = []
    for name in args.dataset or RELEASES:
        with disk_errors(Path(args.root)):
            finding = examine(RELEASES[name], args.root, args.images)
        findings.append(finding)
        print(f"{finding.name:10}  {finding.state:10}  {finding.words}", flush=True)
    asked = findings if args.dataset else [finding for finding in findings if finding.state != ABSENT]
    return 0 if asked and all(finding.state in USABLE for finding in asked) else 1
