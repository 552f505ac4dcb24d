"""PACS, every domain left out: an unmodified DomainBed's own sweep and ``collect_results``, with a MobileNetV2 on small
images, for a machine without a GPU.

A trial is swept after the other, so that whole ones are there first. Hyperparameters of all rows are the host's and
our defaults: docs/evidence_protocol.md.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Mapping

from PIL import Image
from torchvision.transforms import Resize

from cim_plugin.data.images import SUFFIXES
from cim_plugin.errors import InputError
from cim_plugin.files import parse_json, read_text, write_whole
from cim_plugin.flags import whole
from cim_plugin.hosts.domainbed.image_size import LARGEST, LEAST
from cim_plugin.hosts.launcher import AT_ONCE
from cim_plugin.progress import progress
from cim_plugin.runs import find, packed
from cim_plugin.runs.cluster import settings as cluster
from cim_plugin.runs.domainbed_selection import select
from cim_plugin.runs.record import Run

from ..benchmarks.machine import describe
from ..reproduce.options import check_data
from ..reproduce.sweep import has_domainbed, sweep
from .comparisons import FEWEST_SEEDS, OF_DOMAINS
from .differences import Values
from .tables import compared

NAME = "PACS"
DOMAINS = 4
ALGORITHMS = ("ERM", "GroupDRO", "CORAL", "VIB", "SCL_E2E", "CIM", "CIM_VIB", "CIM+CORAL")
#: whether pairs of domains were left out -> the host's selections whose tables are shown; a third goes by test images
SELECTIONS = {
    False: ("training-domain validation set",),
    True: ("training-domain validation set", "leave-one-domain-out cross-validation"),
}
NETWORK = {"model": "mobilenetv2_100", "model_kwargs": {"pad_type": "same"}, "freeze_bn": True}
RUNS, JOBS, IMAGES = f"domains{packed.SUFFIX}", "sweep", "data"  #: in the output folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_dir", type=Path, required=True, help="folder that holds PACS")
    parser.add_argument("--weights", type=Path, required=True, help="of timm's mobilenetv2_100, pad_type same")
    parser.add_argument("--output_dir", type=Path, required=True, help="keeps the runs; the same command goes on")
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), metavar="NAME", help="rows")
    parser.add_argument("--trials", type=whole(1, 1000), default=3, help="0, 1, ..., of the host")
    parser.add_argument("--steps", type=whole(1), default=300, help="of a run; the first and last are evaluated")
    parser.add_argument("--batch_size", type=whole(1), default=8, help="images of every training domain in a step")
    parser.add_argument("--image_size", type=whole(LEAST, LARGEST), default=64, help="side in pixels")
    parser.add_argument("--at_once", type=whole(1, 1000), default=1, help="runs at the same time, a thread each")
    parser.add_argument(
        "--leave_one_out", action="store_true", help="pairs of domains, too: 2.5 times the runs, one selection more"
    )
    cluster.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Sweep trial by trial and print the host's tables.

    Raises:
        InputError: DomainBed, the data or the weights are not there, the folder holds other runs, or a run failed.
    """
    if not has_domainbed():
        raise InputError("DomainBed is not found; 'cim-plugin get-domainbed' fetches it, or set DOMAINBED_HOME to one")
    if not args.weights.is_file():
        raise InputError(f"--weights {args.weights} is no file; name a state dict of timm's mobilenetv2_100")
    print(check_data(NAME, args.data_dir), file=sys.stderr)
    start, folder = time.monotonic(), args.output_dir.absolute()
    images = folder / f"{IMAGES}_{args.image_size}"
    shrink(args.data_dir / NAME, images / NAME, args.image_size)
    os.environ |= {AT_ONCE: str(args.at_once), "OMP_NUM_THREADS": "1"}
    for trials in range(1, args.trials + 1):
        asked = {**vars(args), "n_trials": trials, "n_hparams": 1, "quick": False, "keep_models": False}
        sweep(
            NAME,
            DOMAINS,
            images,
            folder / JOBS,
            argparse.Namespace(**asked),
            lambda failed: None,
            hyperparameters(args),
            pairs=args.leave_one_out,
        )
    runs = read(folder / JOBS, {str(images): "DATA", str(folder): "OUT", str(args.weights.absolute()): "FILE"})
    write_whole(folder / RUNS, packed.pack(runs))
    print(tables(folder / JOBS, SELECTIONS[args.leave_one_out]))
    print(f"\n{differences(averages(folder / JOBS))}")
    print(f"\n{len(runs)} runs in {folder / RUNS}; {(time.monotonic() - start) / 60:.0f} minutes now, {describe()}")
    return 0


def hyperparameters(args: argparse.Namespace) -> dict[str, Any]:
    """What every run is given."""
    asked = {name: getattr(args, name) for name in ("image_size", "batch_size")}
    return {**NETWORK, "pretrained_model_path": str(args.weights.absolute()), **asked}


def shrink(source: Path, target: Path, size: int) -> None:
    """A copy of a data set whose images are what :class:`~cim_plugin.hosts.domainbed.image_size.KeptImages` would make
    of them, so that decoding them, of every run a tenth, is done once.
    """
    resize = Resize((size, size))
    files = sorted(path for path in source.glob("*/*/*") if path.suffix.lower() in SUFFIXES)
    for path in progress(files, desc="shrinking", unit="image", leave=False):
        small = target / path.relative_to(source).with_suffix(".png")
        if not small.exists():
            content = io.BytesIO()
            resize(Image.open(path).convert("RGB")).save(content, "PNG")
            write_whole(small, content.getvalue())


def read(folder: Path, names: Mapping[str, str] = {}) -> dict[str, dict[str, Any]]:
    """Of every job that is done its folder's name -> the records that the host has written.

    Args:
        names: path of this machine -> what stands in its place.
    """
    found = {}
    for done in sorted(folder.glob("*/done")):
        path = done.with_name("results.jsonl")
        text = read_text(path)
        for place, name in names.items():
            text = text.replace(place, name)
        lines = text.splitlines()
        found[done.parent.name] = {"records": [parse_json(line, path, number) for number, line in enumerate(lines, 1)]}
    return found


def tables(folder: Path, selections: tuple[str, ...]) -> str:
    """What the host's ``collect_results`` prints of the data set by these selections.

    Raises:
        InputError: it fails.
    """
    words = [sys.executable, "-m", "cim_plugin.domainbed", "collect_results", "--input_dir", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"DomainBed's collect_results failed on {folder} ({last}); is another sweep writing there?")
    parts = re.split(r"^-+ ", done.stdout, flags=re.MULTILINE)
    wanted = [f"Dataset: {NAME}, model selection method: {selection}" for selection in selections]
    return "\n\n".join(part.strip() for part in parts if part.partition("\n")[0].strip() in wanted)


def averages(folder: Path) -> Values:
    """Row -> trial -> accuracy in % on the left-out domain, averaged over them, by training-domain validation: the
    numbers of the host's table before it averages over trials.
    """
    of_rows: dict[str, list[Run]] = {}
    for one in find.find([str(folder)]).runs:
        of_rows.setdefault(one.algorithm, []).append(one)
    chosen = {name: select(runs, "training_domain")[0] for name, runs in of_rows.items()}
    return {
        name: {trial.seed: 100 * trial.values["average"] for trial in trials if "average" in trial.values}
        for name, trials in chosen.items()
    }


def differences(values: Values) -> str:
    """The comparisons that were fixed beforehand."""
    lead = (
        f"Average over the domains in points, paired by trial, with Student's t intervals; the family of "
        f"{len(OF_DOMAINS)} is corrected by Holm at 5%. Fewer than {FEWEST_SEEDS} trials have no interval."
    )
    return f"{lead}\n\n{compared(values, OF_DOMAINS, unit='trials')}"
