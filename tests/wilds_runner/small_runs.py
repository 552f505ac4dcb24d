"""Small runs of ``cim-plugin train``: a release of digits on photographs, the words of a command, and children that can
be killed.

A child is forked from a server that has only imported the packages, so that it is as good as a fresh process and starts
at once.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Callable

import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook

from cim_plugin import cli
from cim_plugin.algorithms.contrastive import TripletContrast
from cim_plugin.data.celeba import ATTRIBUTES
from cim_plugin.data.digits_on_photos import digits_on_photos

COLUMNS = ["img_id", "img_filename", "y", "split", "place", "place_filename"]
SIZES = {"train": 60, "val": 41, "test": 39}  #: images per split; the evaluated ones do not divide by two
FLAGS = (
    "--model small_cnn --transform image_base --target_resolution 28 --optimizer Adam --lr 1e-3 --weight_decay 0 "
    "--batch_size 20 "
    "--loader_kwargs num_workers=0 --cache false --progress_bar false --n_epochs 2 --log_every 1"
).split()
ALGORITHMS = ["ERM", "groupDRO", "VIB", "SCL_E2E", "CnC", "CIM", "CIM_VIB"]
RULES = ["best", "worst_group", "average", "worst_class", "last", "oracle"]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "cim_plugin.wilds_runner.preparing",
        "lightning_fabric",
        "tqdm",
        "wilds.common.data_loaders",
        "wilds.common.metrics.all_metrics",
    ]
)


def write_release(root: Path, first_line: str = "SYNTHETIC: digits on photographs") -> Path:
    """A Waterbirds release under ``root`` that the real WaterbirdsDataset reads; its folder."""
    folder = root / "waterbirds_v1.0"
    folder.mkdir(parents=True)
    (folder / "RELEASE_v1.0.txt").write_text(first_line + "\n")
    rows = []
    for split, ((images, labels, places), size) in enumerate(
        zip(digits_on_photos((0.75, 0.5, 0.5), seed=0), SIZES.values())
    ):
        for image, label, place in zip(images[:size], labels.tolist(), places.tolist()):
            name = f"{len(rows):03}.png"
            Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / name)
            rows.append(dict(zip(COLUMNS, (len(rows) + 1, name, label, split, place, "none"))))
    write_metadata(folder, rows)
    return folder


def write_celeba(root: Path, width: int = 178, height: int = 218) -> Path:
    """A CelebA release under ``root`` that the real CelebADataset reads, of the same images: blond is the label, male
    the photograph. The files have the size of CelebA's own, unless another one is asked for.
    """
    folder = root / "celebA_v1.0"
    (folder / "img_align_celeba").mkdir(parents=True)
    (folder / "RELEASE_v1.0.txt").write_text("SYNTHETIC: digits on photographs\n")
    attributes, partition = [], []
    for split, ((images, labels, places), size) in enumerate(
        zip(digits_on_photos((0.75, 0.5, 0.5), seed=0), SIZES.values())
    ):
        for image, label, place in zip(images[:size], labels.tolist(), places.tolist()):
            name = f"{len(partition) + 1:06}.jpg"
            small = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
            small.resize((width, height)).save(folder / "img_align_celeba" / name)
            attributes.append(
                {"image_id": name, **dict.fromkeys(ATTRIBUTES, -1), "Blond_Hair": 2 * label - 1, "Male": 2 * place - 1}
            )
            partition.append({"image_id": name, "partition": split})
    _write_csv(folder / "list_attr_celeba.csv", attributes)
    _write_csv(folder / "list_eval_partition.csv", partition)
    return folder


def read_metadata(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metadata.csv", newline="") as file:
        return list(csv.DictReader(file))


def write_metadata(folder: Path, rows: list[dict]) -> None:
    _write_csv(folder / "metadata.csv", rows)


def _write_csv(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def words(root: Path, log_dir: Path, *more: str, algorithm: str = "ERM", dataset: str = "waterbirds") -> list[str]:
    """The words after 'cim-plugin'; of a flag that stands twice the later one counts."""
    return [
        "train",
        "-d",
        dataset,
        "--algorithm",
        algorithm,
        "--root_dir",
        str(root),
        "--log_dir",
        str(log_dir),
        *FLAGS,
        *more,
    ]


def train(root: Path, log_dir: Path, *more: str, **choice: str) -> int:
    """``cim-plugin train`` in this process; its exit status."""
    return cli.main(words(root, log_dir, *more, **choice))


def assert_refused(outcome, *parts: str, status: int = 2):
    code, lines = outcome
    assert code == status and len(lines) == 1, (code, lines)
    assert lines[0].startswith(("cim-plugin train: error: ", "cim-plugin: error: unrecognized arguments: "))
    for part in parts:
        assert part in lines[0], lines[0]


def prepared(root: Path, log_dir: Path, *more: str, **choice: str):
    """The :class:`Loop` of ``train`` before its first step; its ``run()`` trains."""
    from cim_plugin.wilds_runner.config import add_arguments, make_config
    from cim_plugin.wilds_runner.fabric import make_fabric
    from cim_plugin.wilds_runner.preparing import prepare

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    config = make_config(parser.parse_args(words(root, log_dir, *more, **choice)[1:]))
    fabric = make_fabric(config)
    fabric.launch()
    return prepare(config, fabric)


def rows_of_epochs(loop) -> list[list[int]]:
    """The rows of all batches of a run, in order."""
    epochs = map(loop.training.order.epoch, range(loop.training.config.n_epochs))
    return [[row for row, _ in batch] for epoch in epochs for batch in epoch]


def contrasts(loop) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(labels, environments) that L_con gets of every batch, in a list that grows as the run goes on."""
    seen, classifier = [], loop.training.classifier

    class Noting(TripletContrast):
        def __call__(self, morphed, labels, environments, *others):
            seen.append((labels, environments))
            return super().__call__(morphed, labels, environments, *others)

    classifier.contrast = Noting(**vars(classifier.contrast))
    return seen


def after_steps(call: Callable[[int, torch.optim.Optimizer], object]):
    """A context in which ``call`` gets the number, from 1, and the optimizer of every step of this process; those of
    one weight, on which arguments are tried, do not count.
    """
    numbers = itertools.count(1)

    def counted(optimizer, *_) -> None:
        if len(optimizer.param_groups[0]["params"]) > 1:
            call(next(numbers), optimizer)

    return register_optimizer_step_post_hook(counted)


def ctrl_c_in(log_dir: Path, epoch: int | None):
    """A context in which Ctrl-C comes in the first step of an epoch of the run in a folder; None: of a reference
    model.
    """
    words, sent = "" if epoch is None else f"\nEpoch [{epoch}]:\n\nTrain:", []

    def send(*_) -> None:
        if not sent and words in (log_dir / "log.txt").read_text():
            sent.append(os.kill(os.getpid(), signal.SIGINT))

    return after_steps(send)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def results(log_dir: Path) -> dict:
    return json.loads((log_dir / "results.json").read_text())


def rule_folder(log_dir: Path, rule: str) -> Path:
    return log_dir if rule in ("best", "last") else log_dir / "selection" / rule


def prediction_path(log_dir: Path, rule: str, split: str) -> Path:
    return (
        rule_folder(log_dir, rule)
        / f"waterbirds_split:{split}_seed:0_epoch:{'last' if rule == 'last' else 'best'}_pred.csv"
    )


def model_path(log_dir: Path, rule: str) -> Path:
    return rule_folder(log_dir, rule) / f"waterbirds_seed:0_epoch:{'last' if rule == 'last' else 'best'}_model.pth"


def read_model(log_dir: Path, rule: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(model_path(log_dir, rule), weights_only=True)["algorithm"]


def relative_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def start(argv: list[str], before: Callable[[], None] | None = None, output: Path | None = None, **environment: str):
    """Run 'cim-plugin' with ``argv`` in a child, after ``before()``, with its output in a file; the process, whose exit
    code is the status.
    """
    process = context.Process(target=_child, args=(argv, before, output, environment))
    process.start()
    return process


def finish(process, timeout: float = 120) -> int:
    """Wait for a child; its exit code, minus a signal's number where one ended it."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("the child did not end")
    return process.exitcode


def _child(argv, before, output, environment) -> None:
    os.environ.update(environment)
    target = os.open(output or os.devnull, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(target, stream)
    sys.argv = ["cim-plugin", *argv]
    torch.set_num_threads(1)
    if before is not None:
        before()
    status = cli.main(argv)
    sys.stdout.flush()
    sys.exit(status)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
