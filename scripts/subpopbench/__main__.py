"""``python -m scripts.subpopbench``: five algorithms, three seeds, attributes unknown and known; then one table.

Started again, it goes on with what is missing. SUBPOPBENCH_HOME names the checkout of SubpopBench.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Iterator

from cim_plugin import cli
from cim_plugin.errors import InputError, exit_status
from cim_plugin.runs import jobs

from .train import NAME, train

STAGE_1 = "ERM"  #: trained first: DFR starts from its seed 0
ALGORITHMS = (STAGE_1, "CIM", "JTT", "GroupDRO", "DFR")
FOLDERS = {"no": "unknown", "yes": "known"}  #: --train_attr -> --output_folder_name, to which the host adds the former
HEAVY = ("torch", "torchvision", "timm", "transformers", "netcal.metrics", "pandas")  #: imported once for all runs
#: for images this small; from random weights
HPARAMS = {"model": "small_cnn", "batch_size": 32, "lr": 0.05}
KNOWN = {"CIM": {"cim_pairs": "cross_environment"}}  #: what else an algorithm makes of known attributes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.subpopbench", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with metadata.csv in Waterbirds' layout")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--at_once", type=int, default=1, help="runs at the same time")
    args = parser.parse_args()
    if not os.path.isfile(os.path.join(os.environ.get("SUBPOPBENCH_HOME", ""), "subpopbench", "train.py")):
        raise InputError("SUBPOPBENCH_HOME names no checkout of SubpopBench; set it to one")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    prepare(args.data.absolute(), args.output_dir.absolute() / "data")
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = []
    for stage in (ALGORITHMS[:-1], ALGORITHMS[-1:]):
        wanted = [job for job in _jobs(stage, args) if job is not None]
        failed += jobs.failed(jobs.run(wanted, [{}] * args.at_once))
    folders = [str(folder) for folder in args.output_dir.glob("*_attr*")]
    return cli.main(["compare", *sorted(folders)]) or (1 if failed else 0)


def prepare(source: Path, folder: Path) -> None:
    """The host's Waterbirds: its two places, the images as a link, and what its script of downloads makes of
    metadata.csv.
    """
    images = folder / "waterbirds" / "waterbird_complete95_forest2water2"
    images.parent.mkdir(parents=True, exist_ok=True)
    if not images.exists():
        images.symlink_to(source, target_is_directory=True)
    names = {"img_id": "id", "img_filename": "filename", "split": "split", "y": "y", "place": "a"}
    with open(source / "metadata.csv") as read, open(images.parent / "metadata_waterbirds.csv", "w") as written:
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(names.values())
        writer.writerows([row[name] for name in names] for row in csv.DictReader(read))


def _jobs(algorithms: tuple[str, ...], args: argparse.Namespace) -> Iterator[jobs.Job | None]:
    """Those that have not ended; what differs with the attributes comes first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    for attributes, name in FOLDERS.items():
        for algorithm in algorithms:
            for seed in args.seeds:
                more = KNOWN.get(algorithm, {}) if attributes == "yes" else {}
                words = {
                    "algorithm": algorithm,
                    "dataset": NAME,
                    "train_attr": attributes,
                    "data_dir": args.output_dir.absolute() / "data",
                    "output_dir": args.output_dir.absolute(),
                    "output_folder_name": name,
                    "stage1_folder": f"{FOLDERS['no']}_attrNo",
                    "seed": seed,
                    "steps": args.steps,
                    "checkpoint_freq": max(1, args.steps // 4),
                    "hparams": json.dumps({**HPARAMS, **more}),
                }
                folder = f"{name}_attr{attributes.title()}/{NAME}_{algorithm}_hparams0_seed{seed}"
                if (args.output_dir / folder / "done").exists():
                    yield None
                    continue
                flags = [word for flag, value in words.items() for word in (f"--{flag}", str(value))]
                yield jobs.Job(folder, jobs.function(context, train, flags))


if __name__ == "__main__":
    sys.exit(exit_status("scripts.subpopbench", main))
