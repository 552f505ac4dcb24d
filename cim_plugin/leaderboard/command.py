"""``cim-plugin leaderboard``: run, pack and check a submission to the WILDS leaderboard
(https://wilds.stanford.edu/submit).
"""

from __future__ import annotations

import argparse
import functools

from ..data.command import run

__all__ = ["add_arguments", "run"]

UNSEEN = (
    "which data chose the epoch, whether the seeds share one configuration, whether other data were used, and the "
    "order of the lines"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    from .run import add_arguments as add_run_arguments

    add_run_arguments(
        _add(
            actions,
            "run",
            _run,
            "train the seeds that the leaderboard wants, one after the other; repeat the command to go on after a stop",
        )
    )
    pack = _add(
        actions,
        "pack",
        _pack,
        "one archive of finished runs' predictions, with metrics and a README; the same runs give the same bytes",
    )
    pack.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="log_dir of a run, or a folder of them such as --output_dir of 'leaderboard run'",
    )
    pack.add_argument("-o", "--output", required=True, metavar="FILE.tar.gz", help="the archive to write")
    pack.add_argument(
        "--rule", default="best", help="selection rule whose epoch is submitted; best: the data set's validation metric"
    )
    pack.add_argument(
        "--root_dir", help="folder of all data sets: recompute the metrics and compare them with the runs' own"
    )
    check = _add(
        actions,
        "check",
        _check,
        "check any submission; exit status 0 if no rule is broken, 1 if one is, 2 if it cannot be read",
    )
    check.add_argument(
        "submission",
        metavar="FOLDER_OR_ARCHIVE",
        help="folder, tar, tar.gz or zip archive; it is read, never unpacked to the disk",
    )
    check.add_argument(
        "--root_dir",
        help="folder of all data sets: check against the data there, not the published counts, and print the metrics",
    )


def _add(actions, name: str, act, what: str) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name, help=what, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    action.set_defaults(act=act)
    return action


def _run(args: argparse.Namespace) -> int:
    from .run import run_seeds

    return run_seeds(args)


def _pack(args: argparse.Namespace) -> int:
    from .pack import pack

    pack(args.runs, args.output, args.rule, args.root_dir)
    return 0


def _check(args: argparse.Namespace) -> int:
    from .archive import members
    from .check import examine
    from .truth import on_disk, published

    truth_of = functools.cache(published if args.root_dir is None else lambda dataset: on_disk(dataset, args.root_dir))
    report = examine(members(args.submission), truth_of)
    for finding in report.findings:
        print(finding)
    for note in report.notes:
        print(f"note: {note}")
    for dataset, found in report.found.items():
        _print_metrics(dataset, found, truth_of, measured=args.root_dir is not None)
    print(f"cannot be seen in the files: {UNSEEN}")
    files = sum(len(found.files) for found in report.found.values())
    print(
        f"{args.submission}: {files} files of predictions of {', '.join(report.found) or 'no data set'}; "
        f"{len(report.findings) or 'no'} findings"
    )
    return 1 if report.findings else 0


def _print_metrics(dataset: str, found, truth_of, measured: bool) -> None:
    from .metrics import aggregate, rows
    from .rules import BOARDS

    board = BOARDS[dataset]
    if board.n_classes is None:
        return
    truth = truth_of(dataset)
    if truth.note:
        print(f"note: {truth.note}")
    if not measured:
        print(
            f"not checked without --root_dir: the metrics of {dataset}; lengths and labels are checked against the "
            f"published counts"
        )
    elif len(found.labels) == len(board.splits) * len(board.replicates):
        metrics = {
            split: {replicate: truth.metrics(split, found.labels[split, replicate]) for replicate in board.replicates}
            for split in board.splits
        }
        for split, metric, mean, deviation in rows(dataset, aggregate(dataset, metrics)):
            print(f"{dataset} {split:8} {metric:18} {mean} ± {deviation} over {len(board.replicates)} seeds")
    else:
        print(f"no metrics of {dataset}: not every file is right")
