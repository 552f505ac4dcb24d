"""Runs of the table of subgroups with numbers that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.evidence.plan import Plan, Run
from scripts.evidence.rows import ROWS
from scripts.evidence.settings import SEARCH_SEED, Settings

SECONDS = {"train": 90.0, "evaluation": 10.0}


def plan_of(folder: Path, *rows: str, **changes) -> Plan:
    return Plan(Settings("", ""), str(folder), rows or tuple(ROWS), **{"seeds": 5, "rates": (1e-4,), **changes})


def finish(
    plan: Plan, run: Run, worst: float, average: float = 0.9, by_groups: float = 0.5, score: float = 0.5
) -> Path:
    """The folder of a run with these test accuracies."""

    def chosen(worst: float) -> dict[str, Any]:
        splits = {"test": {"accuracy": average, "metrics": {"acc_wg": worst}}}
        return {"score": score, "splits": {} if run.seed == SEARCH_SEED else splits}

    selection = {"worst_pseudo_group": chosen(worst), "worst_group": chosen(by_groups)}
    folder = Path(plan.place(run))
    folder.mkdir(parents=True)
    config = {"log_dir": str(folder), "root_dir": "/somewhere/else/data", "seed": run.seed}
    results = {"status": "finished", "selection": selection, "config": config, "seconds": SECONDS}
    (folder / "results.json").write_text(json.dumps(results))
    return folder
