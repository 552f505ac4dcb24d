"""A run at its beginning, or where it stood."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable

import torch
from tqdm import tqdm

from ..progress import progress as progress_bar
from ..runs.configuration import Configuration
from ..runs.layout import STATE
from . import datasets, results, tracking
from .costs import cost
from .folder import check_writable, state_to_go_on_from
from .image_cache import open_cache
from .log_files import LogFiles, is_log_file
from .logs import RunLog
from .loop import Loop
from .processes import on_rank_zero
from .session import OpenData, open_session
from .state import Progress, restore
from .state_check import check_state
from .tracking import Tracker
from .training import Training, make_training


def prepare(
    config: Configuration, fabric, open_data: OpenData | None = None, cache: Callable[..., Any] | None = None
) -> Loop:
    """The loop of a run at its beginning, or where the run of ``log_dir`` stood with ``resume``.

    Args:
        open_data: by default the data sets of the ``wilds`` package and own data.
        cache: as :func:`~.image_cache.open_cache`, which is the default.

    Raises:
        InputError: something of the configuration, the data or the folder cannot be used.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    state = state_to_go_on_from(config)
    on_rank_zero(fabric, lambda: check_writable(config.log_dir))
    open_data = open_data or datasets.open_dataset
    if config.download and fabric.world_size > 1:
        on_rank_zero(fabric, lambda: bool(open_data(config)))  # the others look for it when it is there
    fresh = state is None and not config.eval_only
    session = open_session(config, fresh, open_data)
    shown = _is_shown(config) and fabric.global_rank == 0
    images = (cache or open_cache)(config, session.data, session.transform, fabric, shown)
    training = make_training(session, fabric, images)
    if state is not None:
        check_state(training, state, os.path.join(config.log_dir, STATE))  # before anything is changed
    log = _open_log(training, state, shown)
    progress = Progress()
    if fresh:
        log.describe()
    elif state is not None:
        _go_on(training, progress, log, state)
    return Loop(training, progress, log)


def _is_shown(config: Configuration) -> bool:
    """Whether there is a progress bar."""
    return config.progress_bar if config.progress_bar is not None else sys.stderr.isatty()


def _open_log(training: Training, state: dict[str, Any] | None, shown: bool) -> RunLog:
    config, first = training.config, training.fabric.global_rank == 0
    keep = state["log_sizes"] if state is not None else {}
    if config.eval_only:
        keep = {
            name: os.path.getsize(os.path.join(config.log_dir, name))
            for name in os.listdir(config.log_dir)
            if is_log_file(name, training.data.splits)
        }
    echo = (lambda text: tqdm.write(text, end="")) if first and not config.eval_only else None
    steps = config.n_epochs * len(training.order)
    bar = progress_bar(total=steps, unit="step", show=shown and not config.eval_only)
    files = LogFiles(config.log_dir if first else None, keep, echo, _tracker(config) if first else None)
    return RunLog(training, files, bar)


def _tracker(config: Configuration) -> Tracker | None:
    if config.track is None or config.eval_only:
        return None
    return tracking.start(config.track, config.log_dir, config.as_record())


def _go_on(training: Training, progress: Progress, log: RunLog, state: dict[str, Any]) -> None:
    """From a state; files that were due when it was saved are written now."""
    restore(training, progress, log, state)
    log.bar.update(progress.epoch * len(training.order) + progress.batch)
    if "predicted" in state:
        spent = progress.cost_before or cost(training.fabric, {})
        on_rank_zero(training.fabric, lambda: results.publish(training, progress, state["predicted"], spent))
    log.write(f"Resuming from epoch {progress.epoch}, batch {progress.batch}\n")
