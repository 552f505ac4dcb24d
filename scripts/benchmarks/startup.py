"""The cost of the autoload on ``python -c pass``: with, without, with, without ..., and the median of the paired
differences.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import NamedTuple

from . import machine, measuring

CHECKOUT = Path(__file__).parents[2]
TARGET_MS = 2.0  #: at most, as the median of the paired differences in wall time


class Start(NamedTuple):
    """A way to start Python."""

    python: Path
    autoload: str  #: CIM_PLUGIN_AUTOLOAD

    def measure(self) -> tuple[float, float]:
        """Milliseconds of one ``python -c pass``: wall, and CPU of user and system together."""
        begin = time.perf_counter()
        child = os.posix_spawn(
            self.python, [str(self.python), "-c", "pass"], os.environ | {"CIM_PLUGIN_AUTOLOAD": self.autoload}
        )
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - begin
        if status:
            raise RuntimeError(f"{self.python} -c pass ended with status {status}")
        return 1000 * wall, 1000 * (usage.ru_utime + usage.ru_stime)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pairs", type=measuring.number_of_pairs, default=200, help="paired runs per comparison, at least 2"
    )


def run(args: argparse.Namespace) -> int:
    """Print one row per comparison; the target is printed beside it, not enforced."""
    print(
        f"{machine.describe()}\nmilliseconds that the autoload adds to 'python -c pass': median [quartiles] of "
        f"{args.pairs} paired runs"
    )
    print(f"{'':44} {'wall':>22} {'CPU':>22}   medians with, without (wall)")
    with tempfile.TemporaryDirectory() as folder:
        for what, with_it, without_it in comparisons(Path(folder)):
            pairs = compare(with_it, without_it, args.pairs)
            wall, cpu = ([a[kind] - b[kind] for a, b in pairs] for kind in (0, 1))
            medians = [statistics.median(start[0] for start in starts) for starts in zip(*pairs)]
            print(f"{what:44} {summary(wall):>22} {summary(cpu):>22}   {medians[0]:.1f}, {medians[1]:.1f}", flush=True)
    print(f"target: at most +{TARGET_MS:.1f} wall")
    return 0


def comparisons(folder: Path) -> list[tuple[str, Start, Start]]:
    """What is compared: (what it is, with the autoload, without it)."""
    here, plugin, bare = (
        Path(sys.executable),
        make_environment(folder / "plugin", True),
        make_environment(folder / "bare", False),
    )
    return [
        ("this environment: switched on - switched off", Start(here, "1"), Start(here, "0")),
        ("empty environment: plugin - switched off", Start(plugin, "1"), Start(plugin, "0")),
        ("empty environment: plugin - no plugin", Start(plugin, "1"), Start(bare, "1")),
    ]


def make_environment(folder: Path, has_plugin: bool) -> Path:
    """The interpreter of a new environment with nothing in it, or with the plugin as a regular installation puts it
    there.
    """
    venv.create(folder, symlinks=True)
    if has_plugin:
        (site_packages,) = folder.glob("lib/python*/site-packages")
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / "cim_plugin", site_packages / "cim_plugin", ignore=ignore)
        shutil.copytree(CHECKOUT / "site_packages", site_packages, ignore=ignore, dirs_exist_ok=True)
        compileall.compile_dir(site_packages, quiet=2)  # as pip does
    return folder / "bin" / "python"


def compare(with_it: Start, without_it: Start, pairs: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Pairs of measurements, one start right after the other; the first pair only fills the caches."""
    return [(with_it.measure(), without_it.measure()) for _ in range(pairs + 1)][1:]


def summary(differences: list[float]) -> str:
    low, middle, high = statistics.quantiles(differences, n=4, method="inclusive")
    return f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]"
