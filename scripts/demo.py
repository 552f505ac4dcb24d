"""``scripts/demo``: trains on offline data, through the wilds package and, where one is found, through DomainBed."""

from __future__ import annotations

import sys

from cim_plugin.errors import exit_status

from . import demo_domainbed, demo_wilds
from .reproduce.sweep import has_domainbed


def main() -> int:
    """Options go to the first part."""
    if status := demo_wilds.main():
        return status
    if has_domainbed():
        print()
        return demo_domainbed.run()
    print(
        "DomainBed is not here; '.venv/bin/cim-plugin get-domainbed' fetches it, and the demo then trains through it "
        "too."
    )
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("scripts/demo", main, "stopped; finished runs are kept, the same command goes on"))
