"""``scripts/bench``: one table of benchmarks. Each prints the machine, what it compares, and medians of paired runs."""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from cim_plugin.errors import exit_status
from cim_plugin.flags import Parser

#: benchmark -> (module of benchmarks/ with add_arguments(parser) and run(args) -> exit status, what it measures)
BENCHMARKS = {
    "startup": ("startup", "what the autoload file adds to every start of Python"),
    "similarity": ("similarity", "MS-SSIM of a batch and its gradient, against pytorch_msssim"),
    "step": ("step", "a training step of CIM and CIM_VIB against ERM's, in time and memory"),
    "scaling": ("scaling", "time per image against batch size, image side and classes"),
    "loader": ("loader", "images per second of cim-plugin train's loader, decoding and cached"),
    "parts": ("parts", "what CIM adds to ERM's step, part by part, and what channels_last saves"),
    "mask": ("mask", "what L_con alone makes of m, by the network's first weights, its start and its rate"),
    "gpu": ("gpu", "all of it on a machine with a GPU, in ten minutes: gpu.json, and tables in gpu.md"),
}


def main() -> int:
    name = sys.argv[1] if sys.argv[1:] and sys.argv[1] in BENCHMARKS else ""
    return exit_status(f"scripts/bench {name}".rstrip(), run)


def run() -> int:
    parser = Parser(prog="scripts/bench", description="Measure the plugin on this machine.")
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, (_, what) in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(
            name, help=what, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        if sys.argv[1:2] == [name]:
            _module(name).add_arguments(benchmark)
    args = parser.parse_args()
    return _module(args.benchmark).run(args)


def _module(benchmark: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.benchmarks.{BENCHMARKS[benchmark][0]}")


if __name__ == "__main__":
    sys.exit(main())
