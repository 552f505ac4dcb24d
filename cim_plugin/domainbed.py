"""``python -m cim_plugin.domainbed train|sweep|...``: DomainBed's scripts with our algorithms, whatever the autoload
state.

``compositions`` is ours: it tries ``CIM+<base>`` for every algorithm that the host lists.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys

from . import autoload

SCRIPTS = ("train", "sweep", "collect_results", "list_top_hparams")
COMPOSITIONS = "compositions"  #: the one that is ours


def main() -> None:
    """Run a script of the host under its own name, with our hooks installed."""
    if len(sys.argv) < 2 or sys.argv[1] not in (*SCRIPTS, COMPOSITIONS):
        asked_for_help = sys.argv[1:2] in (["-h"], ["--help"])
        print(
            f"usage: python -m cim_plugin.domainbed {{{','.join(SCRIPTS)}}} ... | {COMPOSITIONS}   (each takes --help; "
            f"that of train is broken in DomainBed itself)",
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        raise SystemExit(0 if asked_for_help else 2)
    if sys.argv[1] == COMPOSITIONS and len(sys.argv) > 2:
        asked_for_help = sys.argv[2:] in (["-h"], ["--help"])
        print(
            "usage: python -m cim_plugin.domainbed compositions   (try CIM+<base> for every algorithm of DomainBed; "
            "prints a table)",
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        raise SystemExit(0 if asked_for_help else 2)
    autoload.install()
    spec = importlib.util.find_spec("domainbed")
    if spec is None or spec.origin is None:  # nothing, or a folder that only has the name
        print(
            "error: DomainBed is not found; 'cim-plugin get-domainbed' fetches it, or set DOMAINBED_HOME to a checkout",
            file=sys.stderr,
        )
        raise SystemExit(2)
    if sys.argv[1] == COMPOSITIONS:
        from .hosts.domainbed import compositions_table

        compositions_table.main()
        return
    script = f"domainbed.scripts.{sys.argv.pop(1)}"
    runpy.run_module(script, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
