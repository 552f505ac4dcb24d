"""Train on the offline Waterbirds stand-in with ``cim-plugin train`` and print one table by selection rule."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from cim_plugin.errors import exit_status
from cim_plugin.files import read_json, read_text
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress

#: row of the table -> flags of cim-plugin train
ROWS = {
    "ERM": ["--algorithm", "ERM"],
    "groupDRO (sees groups)": ["--algorithm", "groupDRO"],
    "VIB": ["--algorithm", "VIB"],
    "CIM": ["--algorithm", "CIM"],
    "CIM, λ=0 (control)": ["--algorithm", "CIM", "--cim_lambda", "0"],
    "CIM_VIB": ["--algorithm", "CIM_VIB"],
}
RULES = ("worst_group", "average", "worst_class")
SETTINGS = ["-d", "waterbirds", "--model", "small_cnn", "--transform", "image_base", "--target_resolution", "28"]
SETTINGS += [
    "--optimizer",
    "AdamW",
    "--lr",
    "1e-3",
    "--weight_decay",
    "1e-4",
    "--batch_size",
    "32",
    "--loader_kwargs",
    "num_workers=0",
]
EVALUATED = "train_eval.csv"  #: gets a line per epoch


def main() -> int:
    return exit_status("scripts/demo", run, "stopped; finished runs are kept, the same command goes on")


def run() -> int:
    """Make the data, train what is not finished, and print the table. Exit status 1 where a run failed."""
    parser = Parser(prog="scripts/demo", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=whole(1), default=20, help="epochs per run")
    parser.add_argument("--seeds", type=whole(1, 1000), default=2, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument(
        "--output_dir", default="demo_output", help="where data and runs are kept; a finished run is not done again"
    )
    args = parser.parse_args()
    data = os.path.join(args.output_dir, "data")
    status = subprocess.call([*PLUGIN, "data", "demo", "--root", data])
    if status:  # it has said why
        return status
    folders = {
        (row, seed): os.path.join(
            args.output_dir, "wilds", f"{row.partition(' (')[0].replace(', ', '-')}-{args.epochs}-{seed}"
        )
        for seed in range(args.seeds)
        for row in ROWS
    }
    commands = {
        folders[row, seed]: [
            *PLUGIN,
            "train",
            *SETTINGS,
            *flags,
            "--root_dir",
            data,
            "--n_epochs",
            str(args.epochs),
            "--seed",
            str(seed),
            "--log_dir",
            folders[row, seed],
            "--resume",
        ]
        for seed in range(args.seeds)
        for row, flags in ROWS.items()
    }
    failed = run_all(commands, args.epochs)
    if failed:
        print(f"demo: error: a run failed; {failed}/err.txt says why", file=sys.stderr)
        return 1
    print_table(folders, args)
    return 0


PLUGIN = [sys.executable, "-m", "cim_plugin.cli"]


def run_all(commands: dict[str, list[str]], epochs: int) -> str | None:
    """Run the commands, one per core at a time, with a bar that counts epochs; the folder of the first that fails, or
    None.
    """
    waiting, running = [folder for folder in commands if not finished(folder)], {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        with progress(total=len(commands) * epochs, unit="epoch", smoothing=0.1) as bar:
            while waiting or running:
                while waiting and len(running) < (os.cpu_count() or 1):
                    folder = waiting.pop(0)
                    os.makedirs(folder, exist_ok=True)
                    with open(os.path.join(folder, "err.txt"), "w") as errors:
                        running[folder] = subprocess.Popen(
                            commands[folder], stdout=subprocess.DEVNULL, stderr=errors, env=environment
                        )
                time.sleep(0.3)
                for folder, process in list(running.items()):
                    if process.poll() is not None:
                        del running[folder]
                        if process.returncode:
                            return folder
                bar.set_description(", ".join(map(os.path.basename, running)))
                bar.update(sum(min(epochs, epochs_done(folder)) for folder in commands) - bar.n)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return None


def results(folder: str) -> dict:
    path = os.path.join(folder, "results.json")
    if not os.path.exists(path):
        return {}
    return read_json(path)


def finished(folder: str) -> bool:
    return results(folder).get("status") == "finished"


def epochs_done(folder: str) -> int:
    path = os.path.join(folder, EVALUATED)
    if not os.path.exists(path):
        return 0
    return max(0, read_text(path).count("\n") - 1)


def print_table(folders: dict, args: argparse.Namespace) -> None:
    """Test accuracy, average and worst group, at the epoch that every rule selects on validation data."""
    runs = {key: results(folder) for key, folder in folders.items()}
    print(
        f"\nSYNTHETIC Waterbirds stand-in (digits on photographs), {args.epochs} epochs, {args.seeds} seeds. Test "
        f"accuracy in %, mean ± std"
    )
    print(f"{'':24}" + "".join(f"  selected by {rule:17}" for rule in RULES) + "   train")
    print(f"{'':24}" + "".join(f"  {'average':>13} {'worst group':>15}" for _ in RULES) + "   s/run")
    for row in ROWS:
        cells = ""
        for rule in RULES:
            tests = [runs[row, seed]["selection"][rule]["splits"]["test"] for seed in range(args.seeds)]
            cells += (
                f"  {spread([t['accuracy'] for t in tests]):>13} {spread([t['metrics']['acc_wg'] for t in tests]):>15}"
            )
        seconds = statistics.mean(runs[row, seed]["seconds"]["train"] for seed in range(args.seeds))
        print(f"{row:24}{cells} {seconds:7.1f}")
    print("worst_group needs group labels of validation data; average and worst_class need none.")
    print("A small task with few seeds: it shows that everything runs, not which method is better.")


def spread(values: list[float]) -> str:
    percent = [100 * value for value in values]
    return f"{statistics.mean(percent):.1f}" + (f" ± {statistics.stdev(percent):.1f}" if len(percent) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
