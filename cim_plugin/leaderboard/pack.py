"""One archive from finished runs of ``cim-plugin train``. The same runs give the same bytes; it appears whole or not at
all.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

from .. import __version__
from ..data.manifest import disk_errors
from ..errors import InputError
from ..files import write_whole
from .archive import Member
from .check import Found, Report, examine
from .labels import Finding
from .metrics import Metrics, aggregate, rows
from .rules import FREE, Board, file_name, numbers
from .runs import RESULTS, Run, check_runs, find_runs, read_run
from .truth import Truth, on_disk, published

TOLERANCE = 1e-6  #: of a metric that is computed again


def pack(folders: list[str], output: str, rule: str, root_dir: str | None) -> None:
    """Check the runs and write the archive.

    Raises:
        InputError: the runs do not make a submission; the line names the run and the reason. Nothing is written.
    """
    if not output.endswith((".tar.gz", ".tgz")):
        raise InputError(f"-o {output} must end in .tar.gz")
    unique = {folder.resolve(): folder for given in folders for folder in find_runs(given)}
    runs = sorted(map(read_run, unique.values()), key=lambda run: run.results["seed"])
    dataset, board = check_runs(runs, rule)
    truth = published(dataset) if root_dir is None else on_disk(dataset, root_dir)
    paths = {(split, run.replicate): run.prediction(rule, split) for split in board.splits for run in runs}
    report = _check_files(dataset, paths, truth)
    found = report.found[dataset]
    metrics = _metrics(runs, rule, board, found, truth)
    table = aggregate(dataset, metrics)
    files = {
        file_name(dataset, *key): "".join(f"{label}\n" for label in labels).encode()
        for key, labels in found.labels.items()
    }
    files["metrics.json"] = (
        json.dumps({"mean_and_std_over_seeds": table, "per_seed": metrics}, indent=2) + "\n"
    ).encode()
    files["README.md"] = _readme(runs, rule, board, table, truth).encode()
    write_whole(output, _archive({f"{dataset}/{name}": content for name, content in files.items()}))
    for note in [truth.note, *report.notes] if truth.note else report.notes:
        print(f"note: {note}")
    for split, metric, mean, deviation in rows(dataset, table):
        print(f"{dataset} {split:8} {metric:18} {mean} ± {deviation} over {len(runs)} seeds")
    print(f"{output}: {len(paths)} files of predictions, metrics.json and README.md")


# --- the predictions
# ----------------------------------------------------------------------------------------------------


def _check_files(dataset: str, paths: dict[tuple[str, str], Path], truth: Truth) -> Report:
    names = {f"{dataset}/{file_name(dataset, *key)}": path for key, path in paths.items()}
    for path in names.values():
        if not path.is_file():
            raise InputError(f"{path} is missing; was the run started with --save_pred false?")
    with disk_errors(Path(".")):
        report = examine(
            (Member(name, None, lambda path=path: iter([path.read_bytes()])) for name, path in names.items()),
            lambda _: truth,
        )
    if report.findings:
        first = report.findings[0]
        more = f"; and {len(report.findings) - 1} more findings" if len(report.findings) > 1 else ""
        raise InputError(f"{Finding(str(names[first.file]), first.line, first.words)}{more}")
    return report


def _metrics(runs: list[Run], rule: str, board: Board, found: Found, truth: Truth) -> Metrics:
    """Those of results.json; where the data are there, computed again and compared with them."""
    metrics: Metrics = {split: {} for split in board.splits}
    for run in runs:
        for split in board.splits:
            try:
                recorded = run.results["selection"][rule]["splits"][split]["metrics"]
                values = {name: float(value) for name, value in recorded.items()}
                [values[name] for name in board.metrics]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(
                    f"{run.folder / RESULTS} has no metrics of split {split} by rule {rule}; was --evaluate_all_splits "
                    f"false?"
                ) from error
            if truth.data is not None:
                computed = truth.metrics(split, found.labels[split, run.replicate])
                _compare(run.prediction(rule, split), values, computed)
                values = computed
            metrics[split][run.replicate] = values
    return metrics


def _compare(path: Path, recorded: dict[str, float], computed: dict[str, float]) -> None:
    for name, value in computed.items():
        if not abs(recorded.get(name, float("nan")) - value) <= TOLERANCE:
            raise InputError(
                f"{path} gives {name} {value:.6f}, results.json says {recorded.get(name)}; the predictions, "
                f"results.json or the data were changed"
            )


# --- the archive
# --------------------------------------------------------------------------------------------------------


def _readme(runs: list[Run], rule: str, board: Board, table: dict[str, dict[str, float]], truth: Truth) -> str:
    first = runs[0]
    dataset, selection = first.results["dataset"], first.results["selection"][rule]
    versions: dict[str, list[str]] = {}
    for run in runs:
        words = json.dumps(run.results.get("versions"), sort_keys=True)
        versions.setdefault(words, []).append(run.replicate)
    epochs = ", ".join(f"{run.replicate} {run.results['selection'][rule]['epoch']}" for run in runs)
    lines = [
        f"# {dataset}: {first.results['algorithm']}",
        "",
        f"Predictions for the WILDS leaderboard: {', '.join(board.splits)} for {numbers(board.replicates)}, one label "
        f"per line in the order of the data set.",
        f"Trained and packed by cim_plugin {__version__}, with the loaders and evaluators of the wilds package.",
        *([f"WARNING: {truth.note}"] if truth.note else []),
        "",
        f"Epoch by {selection['rule']} (rule `{rule}`; test data were not used). Epochs, counted from 0: {epochs}.",
        "",
        "| split | metric | mean over seeds | standard deviation (ddof 1) |",
        "|---|---|---|---|",
        *(f"| {split} | {metric} | {mean} | {deviation} |" for split, metric, mean, deviation in rows(dataset, table)),
        "",
        "## Configuration of all seeds",
        "",
        "```json",
        json.dumps({name: value for name, value in sorted(first.config.items()) if name not in FREE}, indent=2),
        "```",
        "",
        "## Versions",
        "",
        *(f"- {', '.join(replicates)}: `{words}`" for words, replicates in versions.items()),
        "",
    ]
    return "\n".join(lines)


def _archive(files: dict[str, bytes]) -> bytes:
    """A .tar.gz without times, owners or any other trace of when and where it was made."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=9) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in sorted(files.items()):
                member = tarfile.TarInfo(name)  # mode 0644, time, user and group 0, no names
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
