"""Arguments, job folders and results of DomainBed's sweep, without any training: accuracies are made up of the job's
numbers.

The file FAIL in the output folder lets the jobs of that algorithm fail once, leaving a folder without "done".
"""

import argparse
import hashlib
import itertools
import json
import shutil
from pathlib import Path

ENVIRONMENTS = {"VLCS": 4, "PACS": 4, "ColoredMNIST": 3}

parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["launch", "delete_incomplete"])
for name in ("--data_dir", "--output_dir", "--command_launcher"):
    parser.add_argument(name, required=True)
for name in ("--datasets", "--algorithms"):
    parser.add_argument(name, nargs="+", required=True)
for name in ("--n_hparams", "--n_trials", "--steps"):
    parser.add_argument(name, type=int)
parser.add_argument("--hparams")
for name in ("--single_test_envs", "--skip_confirmation"):
    parser.add_argument(name, action="store_true")
args = parser.parse_args()
assert args.skip_confirmation and args.command_launcher == "cim_local"

failing, failed = Path(args.output_dir, "FAIL"), False
for dataset, algorithm in itertools.product(args.datasets, args.algorithms):
    n = ENVIRONMENTS[dataset]
    assert Path(args.data_dir, {"ColoredMNIST": "MNIST/raw"}.get(dataset, dataset)).is_dir()
    held_out = [[first] for first in range(n)] + (
        [] if args.single_test_envs else [list(pair) for pair in itertools.combinations(range(n), 2)]
    )
    for test_envs, draw, trial in itertools.product(held_out, range(args.n_hparams), range(args.n_trials)):
        job = {
            "dataset": dataset,
            "algorithm": algorithm,
            "test_envs": test_envs,
            "hparams_seed": draw,
            "trial_seed": trial,
            "steps": args.steps,
        }
        job |= {
            "data_dir": args.data_dir,
            "hparams": args.hparams,
            "checkpoint_freq": 300,
            "holdout_fraction": 0.2,
            "uda_holdout_fraction": 0,
            "task": "domain_generalization",
        }
        folder = Path(args.output_dir, hashlib.md5(json.dumps(job, sort_keys=True).encode()).hexdigest())
        if args.command == "delete_incomplete":
            if folder.exists() and not (folder / "done").exists():
                shutil.rmtree(folder)
        elif not folder.exists():
            folder.mkdir()
            accuracies = {f"env{number}_{part}_acc": 0.5 + number / 10 for number in range(n) for part in ("in", "out")}
            (folder / "results.jsonl").write_text(
                json.dumps(
                    {
                        "step": (args.steps or 5001) - 1,
                        "step_time": 0.1,
                        "mem_gb": 0.0,
                        "args": job,
                        "hparams": {},
                        **accuracies,
                    }
                )
                + "\n"
            )
            (folder / "model.pkl").write_text("large")
            if failing.exists() and failing.read_text() == algorithm:
                failed = True
            else:
                (folder / "done").write_text("done")
if failed:
    failing.unlink()
    raise SystemExit(1)
