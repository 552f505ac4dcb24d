"""Whether the speed-ups cost accuracy: the same trainings of CIM with and without them, seed by seed, by ``cim-plugin
train``.

"fast" is what is shipped: the fused triplet, channels_last, a fused optimizer. "plain" is plain autograd's triplet,
contiguous weights and torch's default optimizer. Both start from the same weights and see the same batches, so that
without a mistake only rounding, and what training makes of it, sets them apart. How much that is, "nudged" shows: plain
arithmetic from weights that are the next larger numbers of float32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any, Iterator
from unittest import mock

import torch
from scipy import stats

from cim_plugin import cli
from cim_plugin.algorithms.similarity import fused, ms_ssim
from cim_plugin.data import demo
from cim_plugin.data.releases import RELEASES
from cim_plugin.files import write_whole
from cim_plugin.flags import whole
from cim_plugin.progress import progress
from cim_plugin.wilds_runner import optimization, session

from ..demo_wilds import SETTINGS
from . import measuring

#: task -> share of the training images of a class that lie on the class' photograph; half do in validation and test
TASKS = {f"{demo.TIED[0]:.0%} tied, as scripts/demo": demo.TIED[0], "75% tied": 0.75}
RULES = ("average", "last")  #: the epoch that is best in validation average, and the last one
WHAT = {"average": lambda split: split["accuracy"], "worst_group": lambda split: split["metrics"]["acc_wg"]}


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """``cim-plugin train`` without its speed-ups."""
    build = session.build_model

    def build_contiguous(*arguments):
        return build(*arguments).to(memory_format=torch.contiguous_format)

    with (
        mock.patch.object(fused, "fused_triplet", ms_ssim.triplet),
        mock.patch.object(session, "build_model", build_contiguous),
        mock.patch.object(optimization, "_fused", lambda config, device: {}),
    ):
        yield


@contextlib.contextmanager
def nudged() -> Iterator[None]:
    """:func:`plain`, from the next larger weights."""
    with plain():
        build = session.build_model

        def build_nudged(*arguments):
            classifier = build(*arguments)
            with torch.no_grad():
                for weight in classifier.parameters():
                    weight.copy_(weight.nextafter(torch.full_like(weight, math.inf)))
            return classifier

        with mock.patch.object(session, "build_model", build_nudged):
            yield


VERSIONS = {"plain": plain, "fast": contextlib.nullcontext, "nudged": nudged}
COMPARED = ("fast", "nudged")  #: with plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=whole(1, 1000), default=5, help="trainings per task and version, with seeds 0, 1, ..."
    )
    parser.add_argument("--epochs", type=whole(1), default=20, help="epochs per training")
    parser.add_argument("--quick", action="store_true", help="under a minute: 1 seed, 2 epochs")
    parser.add_argument("--json", action="store_true", help="one JSON object per row, with the machine in each")


def run(args: argparse.Namespace) -> int:
    """A row per task, rule and seed, and one for their mean; the exit status of a training that fails. One thread; a
    GPU where there is one.
    """
    torch.set_num_threads(1)
    seeds, epochs = (1, 2) if args.quick else (args.seeds, args.epochs)
    title = (
        f"CIM on the offline Waterbirds stand-in, small_cnn, {epochs} epochs: test accuracy in % with plain and with "
        f"fast arithmetic"
    )
    title += "; nudged: what rounding alone does; the mean difference with its 95% interval (t, paired by seed)"
    heads = "".join(
        f"  {head + ': plain':>18} {'fast':>6} {'fast - plain':>13} {'nudged - plain':>14}"
        for head in ("average", "worst group")
    )
    table = measuring.Table(args.json, title, f"{'':26} {'rule':8} {'seed':>4}{heads}", _text)
    bar = progress(total=len(TASKS) * seeds * len(VERSIONS), unit="training")
    with (
        bar,
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, XDG_CACHE_HOME=os.path.join(folder, "cache")),
    ):
        for number, (task, tied) in enumerate(TASKS.items()):
            root = Path(folder, str(number))
            write_release(root, tied)
            rows: dict[str, list[dict[str, Any]]] = {rule: [] for rule in RULES}
            for seed in range(seeds):
                tested = {}
                for version, arithmetic in VERSIONS.items():
                    with arithmetic():
                        status = train(root, root / f"{version}-{seed}", seed, epochs)
                    if status:
                        return status
                    tested[version] = json.loads((root / f"{version}-{seed}" / "results.json").read_text())["selection"]
                    bar.update()
                for rule in RULES:
                    rows[rule].append(
                        seed_row(
                            task,
                            rule,
                            seed,
                            {version: selection[rule]["splits"]["test"] for version, selection in tested.items()},
                        )
                    )
                    table.add(rows[rule][-1])
            for rule in RULES:
                table.add(mean_row(rows[rule]))
    return 0


def write_release(root: Path, tied: float) -> None:
    """The stand-in of ``cim-plugin data demo``, tied in another share of the training images."""
    with mock.patch.object(demo, "TIED", (tied, *demo.TIED[1:])):
        files = demo.make_files("waterbirds", seed=0)
    for path, content in files.items():
        write_whole(RELEASES["waterbirds"].path(root) / path, content)


def train(root: Path, log_dir: Path, seed: int, epochs: int) -> int:
    """``cim-plugin train`` with the settings of scripts/demo in this process; its exit status."""
    words = [
        "train",
        *SETTINGS,
        "--algorithm",
        "CIM",
        "--root_dir",
        str(root),
        "--log_dir",
        str(log_dir),
        "--seed",
        str(seed),
        "--n_epochs",
        str(epochs),
    ]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # log.txt has it all
        return cli.main([*words, "--progress_bar", "false"])


def seed_row(task: str, rule: str, seed: int, tested: dict[str, dict]) -> dict[str, Any]:
    """Accuracies in % of every version, from what results.json says about the test split, and their differences to
    plain.
    """
    accuracies = {version: {what: 100 * of(split) for what, of in WHAT.items()} for version, split in tested.items()}
    differences = {
        f"{version} - plain": {what: accuracies[version][what] - accuracies["plain"][what] for what in WHAT}
        for version in COMPARED
    }
    return {"name": task, "rule": rule, "seed": seed, **accuracies, **differences, "half_interval": None}


def mean_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The means over seeds, and half of the 95% intervals of the mean differences where there are several seeds."""
    differences = [f"{version} - plain" for version in COMPARED]
    means = {
        key: {what: statistics.mean(row[key][what] for row in rows) for what in WHAT}
        for key in (*VERSIONS, *differences)
    }
    half = (
        {key: {what: _half_interval([row[key][what] for row in rows]) for what in WHAT} for key in differences}
        if len(rows) > 1
        else None
    )
    return {**rows[0], "seed": None, **means, "half_interval": half}


def _half_interval(values: list[float]) -> float:
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def _text(row: dict[str, Any]) -> str:
    def difference(version: str, what: str) -> str:
        half = f" ± {row['half_interval'][f'{version} - plain'][what]:.1f}" if row["half_interval"] else ""
        return f"{row[f'{version} - plain'][what]:+.1f}{half}"

    cells = "".join(
        f"  {row['plain'][what]:18.1f} {row['fast'][what]:6.1f} {difference('fast', what):>13} "
        f"{difference('nudged', what):>14}"
        for what in WHAT
    )
    return f"{row['name']:26} {row['rule']:8} {'mean' if row['seed'] is None else row['seed']:>4}{cells}"
