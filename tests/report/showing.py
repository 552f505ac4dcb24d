"""``cim-plugin show`` in the process of a test, and the small run that it shows."""

from __future__ import annotations

import json
from pathlib import Path

from cim_plugin import cli

MODEL = "waterbirds_seed:0_epoch:best_model.pth"

FLAGS = (
    "--model small_cnn --transform image_base --target_resolution 28 --optimizer Adam --lr 1e-3 --weight_decay 0 "
    "--batch_size 16 --frac 0.1 "
    "--loader_kwargs num_workers=0 --cache false --progress_bar false --n_epochs 1 --evaluate_all_splits false"
).split()


def train(root: Path, folder: Path, algorithm: str) -> Path:
    assert (
        cli.main(
            [
                "train",
                "-d",
                "waterbirds",
                "--algorithm",
                algorithm,
                "--root_dir",
                str(root),
                "--log_dir",
                str(folder),
                *FLAGS,
            ]
        )
        == 0
    )
    return folder


def show(*words) -> int:
    return cli.main(["show", *map(str, words)])


def numbers(capsys, *words) -> dict:
    capsys.readouterr()
    assert show(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *words) -> str:
    """The one line on standard error."""
    capsys.readouterr()
    assert show(*words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("cim-plugin show: error: ")
    return said.err


def change(file: Path, how) -> None:
    value = json.loads(file.read_text())
    how(value)
    file.write_text(json.dumps(value))
