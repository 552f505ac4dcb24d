"""``cim-plugin retrain LOG_DIR``: fit the last layer of a finished run again on its frozen features."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from ..errors import InputError
from ..flags import number
from ..runs.folder_lock import FolderLock
from ..runs.layout import RESULTS
from ..runs.rules import RULES

#: by name; here as well, so that --help needs no torch
METHODS = ("dfr", "pseudo", "afr", "split", "maps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="LOG_DIR", help="folder of a finished 'cim-plugin train'")
    parser.add_argument(
        "--method",
        choices=METHODS,
        required=True,
        help="dfr: equally many validation images of every group, whose labels it needs; pseudo: of every pseudo-group "
        "of the run's --cross_fit; afr: weights that grow where "
        "the network doubts the label; split: a mask over the encoder's maps that keeps what tells the class and takes "
        "away what tells the pseudo-environment, and a head on what it keeps; maps: the same without a mask",
    )
    parser.add_argument(
        "--rule",
        choices=tuple(rule for rule in RULES if rule != "oracle"),
        default="last",
        help="the selection rule whose model is taken",
    )
    parser.add_argument(
        "--split_weight",
        type=number(0),
        default=1.0,
        metavar="W",
        help="of the loss by which split learns from what it takes away; 0: the class alone teaches the mask",
    )
    parser.add_argument("--root_dir", metavar="DIR", help="folder of the data sets where it is not the run's own")
    parser.add_argument("--log_dir", metavar="DIR", help="the new run's folder; LOG_DIR-METHOD by default")


def run(args: argparse.Namespace) -> int:
    """Fit, evaluate and write the new run. Exit status 0."""
    folder = args.log_dir or f"{args.run.rstrip(os.sep)}-{args.method}"
    if os.path.abspath(folder) == os.path.abspath(args.run):
        raise InputError(f"--log_dir {folder} is the run's own folder; choose another one")
    lock = FolderLock(folder)
    lock.acquire()
    try:
        if os.path.lexists(os.path.join(folder, RESULTS)):
            raise InputError(f"--log_dir {folder} holds a run already; choose another folder, or remove that one")
        _retrain(args, folder)
    finally:
        lock.release()
    return 0


def _retrain(args: argparse.Namespace, folder: str) -> None:
    from ..show.train import open_model
    from .features import computed, features_of
    from .heads import Head
    from .methods import METHODS as methods
    from .methods import Material
    from .record import evaluated, with_split, write

    start = time.perf_counter()
    opened = open_model(args.run, args.rule, args.root_dir)
    _check_finished(args.run, opened.results)
    before = opened.results["selection"][args.rule].get("splits")
    splits = [key for key in before if key != "train"] if isinstance(before, dict) else ["val"]
    for key in ("val", *splits):
        if key not in opened.data.splits:
            raise InputError(f"{args.run} was evaluated on a split {key!r} that the data no longer have")
    features = features_of(opened.file, opened.model, opened.data, opened.transform, splits)
    layer = opened.model.head
    own = Head(layer.weight.detach().double().cpu().numpy(), layer.bias.detach().double().cpu().numpy())
    method = methods[args.method]
    choice = method.fit(Material(opened, features["val"], own, args.split_weight))
    outcomes = {"before": evaluated(opened.data, features, own)}
    if choice.split is not None:
        opened = with_split(opened, choice.split)
        features = computed(opened.model, opened.data, opened.transform, splits)
    outcomes["after"] = evaluated(opened.data, features, choice.head)
    write(folder, opened, args.rule, args.method, choice, outcomes["after"], time.perf_counter() - start)
    _print(args, method, choice, outcomes, folder)


def _check_finished(path: str, results: dict[str, Any]) -> None:
    if results.get("status") != "finished":
        raise InputError(
            f"the run in {path} is not finished ({results.get('epochs')} epochs are done); go on with "
            f"'cim-plugin train ... --resume' first"
        )


def _print(args: argparse.Namespace, method: Any, choice: Any, outcomes: dict[str, Any], folder: str) -> None:
    print(f"{args.method}: {method.meaning}; it needs {method.needs}")
    chosen = "".join(f"{name} {value:g}: " for name, value in choice.chosen.items())
    print(f"{chosen}{100 * choice.score:.1f}% in the worst group of the half of val that did not choose the weights")
    print(f"\n{'split':10} {'average':>8} {'worst group':>12}   before: average, worst group")
    for key in outcomes["after"]:
        cells = []
        for which in ("after", "before"):
            _, outcome = outcomes[which][key]
            worst = outcome.worst_group_metric
            cells += [f"{100 * outcome.accuracy:.1f}", "-" if worst is None else f"{100 * worst:.1f}"]
        note = "   fitted to these images" if key == "val" else ""
        print(f"{key:10} {cells[0]:>8} {cells[1]:>12}   {cells[2]:>15}, {cells[3]:>11}{note}")
    print(f"everything is in {folder}")
