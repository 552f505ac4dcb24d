"""``scripts/demo``: trains on offline data, through the wilds package and, where one is found, through DomainBed; ends
with a table, what it says, and a page of pictures.
"""

from __future__ import annotations

import argparse
import sys

from cim_plugin.errors import exit_status
from cim_plugin.flags import Parser, whole

from . import demo_domainbed, demo_wilds
from .reproduce.sweep import has_domainbed


def main() -> int:
    """Train what is not finished. Exit status 1 where a run failed."""
    args = arguments()
    through_domainbed = has_domainbed()
    status = demo_wilds.train(args) or (through_domainbed and demo_domainbed.train(args.output_dir))
    if status:  # it has said why
        return status
    if through_domainbed:
        demo_domainbed.print_table(args.output_dir)
    else:
        print(
            "\nDomainBed is not here: '.venv/bin/cim-plugin get-domainbed' brings it, and the demo trains through it."
        )
    return demo_wilds.show(args)


def arguments() -> argparse.Namespace:
    what = "Train on offline data; a table, what it says, and a page of pictures."
    parser = Parser(prog="scripts/demo", description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=whole(1), default=10, help="epochs per run")
    parser.add_argument("--seeds", type=whole(1, 1000), default=2, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument(
        "--output_dir", default="demo_output", help="where data and runs are kept; a finished run is not done again"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(exit_status("scripts/demo", main, "stopped; finished runs are kept, the same command goes on"))
