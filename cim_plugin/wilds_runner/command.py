"""``cim-plugin train``: train or evaluate on a dataset of the ``wilds`` package."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from typing import TYPE_CHECKING

from ..data.releases import folder_of
from ..errors import InputError, NotFinite
from ..files import undone_where_refused
from ..flags import Parser
from ..runs.configuration import Configuration
from ..runs.folder_lock import FolderLock
from . import config as flags
from .config import make_config
from .system import check_system

if TYPE_CHECKING:
    from .loop import Loop
    from .state import Progress

__all__ = ["add_arguments", "run"]

#: what --help says after the flags that people use
OTHERS = "All other flags, hyperparameters such as --cim_lambda and --cross_fit among them"


def add_arguments(parser: Parser) -> None:
    flags.add_arguments(parser)
    parser.usage = "%(prog)s -d DATASET --root_dir DIR --algorithm ALGORITHM [FLAG ...]"
    parser.begin_help_with(flags.MOST_USED, OTHERS)


def run(args: argparse.Namespace) -> int:
    """Train, resume or evaluate. Exit status 0, 1 where the loss is not finite or another process of the run was
    killed, 128 + the signal's number where stopped.
    """
    check_system()
    check_installed()
    config = make_config(args)
    from .fabric import make_fabric
    from .processes import has_lost_another, on_rank_zero

    fabric = make_fabric(config)
    fabric.launch()

    lock = FolderLock(config.log_dir)
    with undone_where_refused(config.log_dir, folder_of(config.dataset, config.root_dir)):
        on_rank_zero(fabric, lock.acquire)  # before a look is taken at what the folder holds
        try:
            return _train_or_evaluate(config, fabric)
        except RuntimeError as error:
            if not has_lost_another(fabric, error):
                raise
            print(
                f"cim-plugin train: error: another process of this run has ended, as where memory is short; go on "
                f"with: {_resume_command()}",
                file=sys.stderr,
            )
            return 1
        finally:
            lock.release()


def _train_or_evaluate(config: Configuration, fabric) -> int:
    from .eval_only import evaluate_only
    from .preparing import prepare

    loop = prepare(config, fabric)
    if config.eval_only:
        evaluate_only(loop.training, loop.log)
        return 0
    return _train(loop)


def check_installed() -> None:
    try:
        import lightning_fabric  # noqa: F401
        import wilds  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"training needs the package {error.name!r}; 'pip install \"cim_plugin[wilds]\"' brings what is missing"
        ) from error


def _train(loop: Loop) -> int:
    import torch

    from .loop import Stopped

    received: list[int] = []

    def ask(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)
        loop.stop_asked = True

    before = {}
    if loop.training.fabric.world_size == 1:  # several processes go on from the last whole epoch
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        loop.run()
    except Stopped as stop:
        loop.log.bar.close()
        print(f"cim-plugin train: {stop}; go on with: {_resume_command()}", file=sys.stderr)
        return 128 + received[0]
    except (NotFinite, torch.cuda.OutOfMemoryError) as error:
        loop.log.bar.close()
        print(f"cim-plugin train: error: {in_words(error)}", file=sys.stderr)
        return 1
    finally:
        loop.log.bar.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if loop.training.fabric.global_rank == 0:
        print_summary(loop.progress)
        print(f"everything is in {loop.training.config.log_dir}")
    return 0


def in_words(error: Exception) -> str:
    """What ended a run, and what to do."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"the GPU's memory is full ({str(error).splitlines()[0]}); give a smaller --batch_size, with another folder"
        )
    return str(error)


def _resume_command() -> str:
    words = (
        sys.argv[2:] if sys.argv[1:2] == ["train"] else sys.argv[1:]
    )  # python -m cim_plugin.wilds_runner has no such word
    kept = [
        word
        for before, word in zip(["", *words], words)
        if word != "--resume" and not (before == "--resume" and not word.startswith("-"))
    ]
    return shlex.join(["cim-plugin", "train", *kept, "--resume"])


def print_summary(progress: Progress) -> None:
    """What every rule chose, one line each."""
    width = max(12, *map(len, progress.chosen))
    print(f"\n{'rule':{width}} {'epoch':>5} {'val avg':>8} {'val worst':>9} {'test avg':>8} {'test worst':>10}")
    for rule, choice in progress.chosen.items():
        cells = []
        for key in ("val", "test"):
            outcome = progress.outcomes[rule].get(key)
            worst = outcome.worst_group_metric if outcome is not None else None
            cells += [
                f"{100 * outcome.accuracy:.1f}" if outcome is not None else "-",
                f"{100 * worst:.1f}" if worst is not None else "-",
            ]
        print(
            f"{rule:{width}} {choice.epoch:5} {cells[0]:>8} {cells[1]:>9} {cells[2]:>8} {cells[3]:>10}"
            + ("   selected on TEST data" if rule == "oracle" else "")
        )
