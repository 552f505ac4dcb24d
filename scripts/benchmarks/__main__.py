"""``scripts/bench``: one table of benchmarks. Each prints the machine, what it compares, and medians of paired runs."""

from __future__ import annotations

import argparse
import importlib
import sys

#: benchmark, which is also a module here with add_arguments(parser) and run(args) -> exit status; what it measures
BENCHMARKS = {
    "startup": "what the autoload file adds to every start of Python",
    "similarity": "MS-SSIM of a batch and its gradient, against pytorch_msssim and other libraries",
    "step": "a training step of CIM and CIM_VIB against ERM's, in time and memory",
    "scaling": "time per image against batch size, image side and classes",
    "loader": "images per second of cim-plugin train's loader, decoding and cached",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the plugin on this machine.")
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, what in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=what, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        if sys.argv[1:2] == [name]:
            importlib.import_module(name).add_arguments(benchmark)
    args = parser.parse_args()
    return importlib.import_module(args.benchmark).run(args)


if __name__ == "__main__":
    sys.exit(main())
