"""CIM beside what it has to be compared with, on the offline Waterbirds stand-in: ``python -m scripts.baselines``.

Every row is trained by ``cim-plugin train`` with the settings of scripts/demo, and ``cim-plugin compare`` makes the
table. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from cim_plugin.errors import exit_status
from cim_plugin.flags import Parser, whole

from .demo_wilds import PLUGIN, train_on_demo

PSEUDO = ["--cross_fit", "auto"]
#: the study's variant of CIM
COLOURS = [
    *("--algorithm", "CIM", "--cim_similarity", "colours", "--cim_targets", "morphed"),
    *("--cim_pairs", "cross_environment", "--cim_mask_stride", "2", *PSEUDO),
]

#: row -> flags of cim-plugin train
ROWS = {
    "ERM": ["--algorithm", "ERM"],
    "groupDRO": ["--algorithm", "groupDRO"],
    "JTT": ["--algorithm", "JTT"],
    "ERM-balanced": ["--algorithm", "ERM", *PSEUDO],
    "groupDRO-pseudo": ["--algorithm", "groupDRO", "--groups", "pseudo", *PSEUDO],
    "CnC": ["--algorithm", "CnC", *PSEUDO],
    "CIM": ["--algorithm", "CIM"],
    "CIM-contrastive": ["--algorithm", "CIM", "--cim_gradient", "contrastive"],
    "colours": COLOURS,
    "colours-0.01": [*COLOURS, "--cim_lambda", "0.01"],
    "colours-0": [*COLOURS, "--cim_lambda", "0"],
}
RULES = ("average", "worst_class", "worst_pseudo_group", "last", "worst_group")


def main() -> int:
    """Make the data, train what is not finished, and print the table. Exit status 1 where a run failed."""
    parser = Parser(
        prog="python -m scripts.baselines", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--epochs", type=whole(1), default=20, help="epochs per run")
    parser.add_argument("--seeds", type=whole(1, 1000), default=5, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument("--output_dir", default="baselines_output", help="where data and runs are kept")
    args = parser.parse_args()
    data, runs = (os.path.join(args.output_dir, name) for name in ("data", "runs"))
    folders = {
        os.path.join(runs, f"{row}-{args.epochs}-{seed}"): [*ROWS[row], "--seed", str(seed)]
        for seed in range(args.seeds)
        for row in args.rows
    }
    status = train_on_demo(data, folders, args.epochs)
    return status or subprocess.call([*PLUGIN, "compare", *folders, "--rules", ",".join(RULES)])


if __name__ == "__main__":
    sys.exit(exit_status("scripts.baselines", main, "stopped; finished runs are kept, the same command goes on"))
