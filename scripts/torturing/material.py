"""What the cases start from, made once: a small release, and runs on it that finished and that were stopped."""

from __future__ import annotations

import csv
import functools
import os
import random
import signal
from pathlib import Path

from .judging import succeeded
from .running import Room, domainbed

COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
SIZES = (24, 12, 12)  #: images of train, val and test, all groups equally often
TRAIN = (
    "--model small_cnn --transform image_base --target_resolution 16 --optimizer Adam --lr 1e-3 --weight_decay 0 "
    "--batch_size 8 --loader_kwargs num_workers=0 --cache false --progress_bar false --n_epochs 2 --log_every 50"
).split()
DOMAINBED = (
    "train --data_dir . --dataset Debug28 --steps 3 --checkpoint_freq 1 --algorithm CIM --test_envs 0 "
    '--hparams {"batch_size":4}'
).split()

#: kind of run -> its flags beside TRAIN; {environments} is a file that write_environments makes
RUNS = {
    "CIM_VIB": ("--algorithm", "CIM_VIB"),
    "groupDRO": ("--algorithm", "groupDRO", "--cache", "true"),
    "cross_fit": ("--algorithm", "CIM", "--cross_fit", "3", "--cross_fit_tiles", "2"),
    "auto": ("--algorithm", "CnC", "--cross_fit", "auto"),
    "pseudo": (
        *("--algorithm", "CIM+groupDRO", "--cim_gradient", "contrastive"),
        *("--pseudo_environments", "{environments}", "--groups", "pseudo"),
    ),
    "JTT": ("--algorithm", "JTT", "--jtt_steps", "3"),
}


class Material:
    """Folders under ``top``; runs are made when they are first asked for."""

    def __init__(self, top: Path):
        self.top = top
        self.root = top / "data"
        write_release(self.root)
        self.environments = write_environments(top / "environments.csv")

    @property
    def image(self) -> Path:
        """One of the release."""
        return self.root / "waterbirds_v1.0" / "000.png"

    def words(self, kind: str, log_dir: Path | str, *more: object) -> list[str]:
        """Of a training, for :meth:`Room.run`."""
        fixed = ["train", "-d", "waterbirds", "--root_dir", str(self.root), "--log_dir", str(log_dir)]
        own = [word.format(environments=self.environments) for word in RUNS[kind]]
        return [*fixed, *TRAIN, *own, *map(str, more)]

    @functools.cache
    def finished(self, kind: str) -> Path:
        """The log_dir of a run that ended."""
        return self._run(kind, f"finished-{kind}", 0)

    @functools.cache
    def stopped(self, kind: str) -> Path:
        """The log_dir of a run that was stopped in its second epoch."""
        return self._run(kind, f"stopped-{kind}", 143, functools.partial(signal_at_step, 5, signal.SIGTERM))

    def _run(self, kind: str, name: str, status: int, before=None) -> Path:
        room = Room(self.top / name)
        log_dir = room.folder / "run"
        outcome = room.run(*self.words(kind, log_dir), before=before, limit=600)
        if outcome.status != status:
            raise RuntimeError(f"the undisturbed run {name} ended with status {outcome.status}: {outcome.errors}")
        return log_dir

    @functools.cache
    def domainbed(self) -> Path | None:
        """The output_dir of a run of ours in DomainBed; None where there is no host."""
        room = Room(self.top / "domainbed")
        outcome = room.run(*DOMAINBED, "--output_dir", "run", program=domainbed)
        if "DomainBed is not found" in outcome.errors:
            return None
        if faults := succeeded(outcome):
            raise RuntimeError(f"the undisturbed run in DomainBed: {faults[0]}")
        return room.folder / "run"


def signal_at_step(number: int, which: signal.Signals) -> None:
    """Let this process get a signal before the n-th step of a training."""
    from cim_plugin.wilds_runner.loop import Loop

    step, seen = Loop._step, []

    def counted(*arguments, **keywords):
        seen.append(0)
        if len(seen) == number:
            os.kill(os.getpid(), which)
        return step(*arguments, **keywords)

    Loop._step = counted


def write_release(root: Path) -> Path:
    """A Waterbirds release of 48 images of 16x16 pixels whose colours tell label and place."""
    from PIL import Image

    folder, draw, rows = root / "waterbirds_v1.0", random.Random(0), []
    folder.mkdir(parents=True)
    (folder / "RELEASE_v1.0.txt").write_text("SYNTHETIC: noise\n")
    for split, size in enumerate(SIZES):
        for number in range(size):
            label, place = number % 2, number // 2 % 2
            image, name = Image.new("RGB", (16, 16)), f"{len(rows):03}.png"
            image.putdata([(draw.randrange(256), 150 * label + draw.randrange(100), 150 * place) for _ in range(256)])
            image.save(folder / name)
            rows.append((len(rows) + 1, name, label, split, place, "none"))
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


def write_environments(path: Path) -> Path:
    """Environments of the release's training and validation images: two, of every class equally often."""
    lines = [f"{split},{row},{row // 2 % 2}" for split, size in zip(("train", "val"), SIZES) for row in range(size)]
    path.write_text("\n".join(["split,row,environment", *lines, ""]))
    return path
