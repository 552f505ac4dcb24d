"""``scripts/torture``: prints a tally per section, and every failure with the command that repeats it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

from cim_plugin.errors import InputError, exit_status

from .material import Material
from .running import PACKAGES
from .sections import SECTIONS, Result, cases_of, run_all


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Try to lose, overwrite, execute and hang.")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        metavar="SECTION",
        help="; ".join(f"{name}: {what}" for name, (_, what) in SECTIONS.items()),
    )
    parser.add_argument("--case", type=int, metavar="N", help="only this case of the section, as a failure names it")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="print the cases and run none")
    args = parser.parse_args()
    if args.case is not None and len(args.only or ()) != 1:
        parser.error("--case needs --only with one section")
    os.environ["OMP_NUM_THREADS"] = "1"
    return exit_status("scripts/torture", lambda: torture(args))


def torture(args: argparse.Namespace) -> int:
    """Exit status 0, or 1 where a case failed.

    Raises:
        InputError: there is no case of this number.
    """
    _prepare()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        material = Material(Path(folder) / "material")
        for section in args.only or SECTIONS:
            results += run_section(section, material, Path(folder), args)
    failed = sum(bool(result.faults) for result in results)
    if not args.list:
        print(f"{'all':10} {len(results):5} cases {len(results) - failed:5} passed {failed:5} failed")
    return int(failed > 0)


def _prepare() -> None:
    """Import what every command needs, and start no thread: a fork of a process with threads may wait for ever."""
    for name in PACKAGES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def run_section(section: str, material: Material, folder: Path, args: argparse.Namespace) -> list[Result]:
    """Run its cases and print the failures as they come, then the tally."""
    begin = time.monotonic()
    numbered = list(enumerate(cases_of(section, material), 1))
    if args.case is not None:
        numbered = [(number, case) for number, case in numbered if number == args.case]
        if not numbered:
            raise InputError(f"--case {args.case}: {section} has no such case; --list shows them")
    if args.list:
        print("\n".join(f"{section} {number}: {case.name}" for number, case in numbered))
        return []
    results = []
    for result in run_all(section, numbered, folder, args.jobs):
        results.append(result)
        for fault in result.faults:
            print(
                f"FAILED {result.name}: {fault}  [scripts/torture --only {section} --case {result.number}]", flush=True
            )
    failed = sum(bool(result.faults) for result in results)
    counts = f"{len(results):5} cases {len(results) - failed:5} passed {failed:5} failed"
    print(f"{section:10} {counts}  {time.monotonic() - begin:5.0f} s", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
