"""``cim-plugin train``: train or evaluate on a dataset of the ``wilds`` package."""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

from ..data.releases import folder_of
from ..errors import InputError, NotFinite
from ..files import kind, read_json, reason, undone_where_refused
from ..flags import Parser
from ..progress import progress
from ..runs.configuration import MAY_DIFFER, Configuration
from ..runs.folder_lock import FolderLock
from ..runs.layout import MODELS, RESULTS, SELECTION, STATE, model_file, prediction_file
from . import config as flags
from .config import make_config
from .system import check_system

__all__ = ["add_arguments", "run"]

#: what --help says after the flags that people use
OTHERS = "All other flags, hyperparameters such as --cim_lambda and --cross_fit among them"

FILES = (".csv", ".txt", ".json", ".pth")  #: how the names of a run's files end

#: for each other; the first process may decode a whole dataset or train reference models before the others have
#: anything to do
WAIT = datetime.timedelta(days=1)


def add_arguments(parser: Parser) -> None:
    flags.add_arguments(parser)
    parser.usage = "%(prog)s -d DATASET --root_dir DIR --algorithm ALGORITHM [FLAG ...]"
    parser.begin_help_with(flags.MOST_USED, OTHERS)


def run(args: argparse.Namespace) -> int:
    """Train, resume or evaluate. Exit status 0, 1 where the loss is not finite, 128 + the signal's number where
    stopped.
    """
    check_system()
    _check_installed()
    config = make_config(args)
    fabric = make_fabric(config)
    fabric.launch()
    from .processes import on_rank_zero

    lock = FolderLock(config.log_dir)
    with undone_where_refused(config.log_dir, folder_of(config.dataset, config.root_dir)):
        on_rank_zero(fabric, lock.acquire)  # before a look is taken at what the folder holds
        try:
            return _train_or_evaluate(config, fabric)
        finally:
            lock.release()


def _train_or_evaluate(config: Configuration, fabric) -> int:
    trainer = prepare(config, fabric)
    if config.eval_only:
        evaluate_only(trainer)
        return 0
    return _train(trainer)


def _check_installed() -> None:
    try:
        import lightning_fabric  # noqa: F401
        import wilds  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"training needs the package {error.name!r}; 'pip install \"cim_plugin[wilds]\"' brings what is missing"
        ) from error


def make_fabric(config: Configuration):
    """Lightning's Fabric for the configured device, precision and processes.

    Raises:
        InputError: the device cannot do that.
    """
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    from .precision import MixedOfPixels

    on_gpu = torch.cuda.is_available()
    if config.precision == "16-mixed" and not on_gpu:
        raise InputError("--precision 16-mixed needs a GPU; use 32 or bf16-mixed on a CPU")
    devices = config.devices if config.device is None else config.device
    if "LOCAL_WORLD_SIZE" not in os.environ:
        if config.device is not None and not on_gpu:
            raise InputError(
                f"--device {shlex.join(map(str, config.device))}: torch sees no GPU here; leave it out, or install "
                f"torch for CUDA"
            )
        if config.num_nodes > 1 and "SLURM_NTASKS" not in os.environ:
            raise InputError(
                f"--num_nodes {config.num_nodes} needs torchrun on each machine, which tells them of each other; "
                f"start it so, or leave --num_nodes out"
            )
    else:  # torchrun has started the processes
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        started = int(os.environ["WORLD_SIZE"])
        if started != devices * config.num_nodes:
            raise InputError(
                f"--num_nodes {config.num_nodes} does not go with torchrun's {started} processes, {devices} on this "
                f"machine; give --num_nodes {started // devices}"
            )
        if config.device is not None:
            raise InputError(
                f"--device {shlex.join(map(str, config.device))} has no effect under torchrun; say by "
                f"CUDA_VISIBLE_DEVICES which GPUs it sees"
            )
    n_processes = (len(devices) if isinstance(devices, list) else devices) * config.num_nodes
    if config.batch_size % n_processes:
        raise InputError(
            f"--batch_size {config.batch_size} cannot be shared equally by {n_processes} processes; give a multiple "
            f"of {n_processes}"
        )
    accelerator = "cuda" if on_gpu else "cpu"
    try:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=config.num_nodes,
            plugins=None if config.precision == "32" else MixedOfPixels(config.precision, accelerator),
            strategy=DDPStrategy(timeout=WAIT) if n_processes > 1 else "auto",
        )
    except Exception as error:
        raise InputError(f"--devices {devices} cannot be used: {error}") from error


def prepare(
    config: Configuration, fabric, open_data: Callable[..., Any] | None = None, cache: Callable[..., Any] | None = None
):
    """A trainer at the beginning, or where the run of ``log_dir`` stood with ``resume``.

    Args:
        open_data: configuration -> :class:`~.datasets.Dataset`; by default that of the ``wilds`` package.
        cache: as :func:`~.image_cache.open_cache`, which is the default.
    """
    import torch
    from tqdm import tqdm

    from ..models.transforms import make_transform
    from .datasets import open_dataset
    from .image_cache import open_cache
    from .loading import seed_of, seeded
    from .logs import LogFiles, is_log_file
    from .processes import on_rank_zero
    from .state_check import check_state
    from .trainer import Trainer

    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    first = fabric.global_rank == 0
    folder = config.log_dir
    state = state_to_go_on_from(config)
    on_rank_zero(fabric, lambda: _check_writable(folder))
    open_data = open_data or open_dataset
    if config.download and fabric.world_size > 1:
        on_rank_zero(fabric, lambda: bool(open_data(config)))  # the others look for it when it is there
    with seeded(seed_of(config.seed, "splits")):
        data = open_data(config)
    transform = make_transform(config, data.wilds.original_resolution)
    show = config.progress_bar if config.progress_bar is not None else sys.stderr.isatty()
    fresh = state is None and not config.eval_only
    trainer = Trainer(
        config, data, transform, fabric, (cache or open_cache)(config, data, transform, fabric, show and first), fresh
    )
    if state is not None:
        check_state(trainer, state, os.path.join(folder, STATE))  # before anything is changed
    keep = state["log_sizes"] if state is not None else {}
    if config.eval_only:
        keep = {
            name: os.path.getsize(os.path.join(folder, name))
            for name in os.listdir(folder)
            if is_log_file(name, data.splits)
        }
    echo = (lambda text: tqdm.write(text, end="")) if first and not config.eval_only else None
    steps = config.n_epochs * len(trainer.order)
    bar = progress(total=steps, unit="step", show=show and first and not config.eval_only)
    trainer.start(LogFiles(folder if first else None, keep, echo, make_events(config) if first else None), bar)
    if fresh:
        describe(trainer)
    elif state is not None:
        trainer.load(state)
        trainer.logs.write(f"Resuming from epoch {trainer.epoch}, batch {trainer.batch}\n")
    return trainer


def state_to_go_on_from(config: Configuration) -> dict[str, Any] | None:
    """The state that the run of log_dir has left, with --resume.

    Raises:
        InputError: it is of another configuration, or a run would be overwritten.
    """
    from . import checkpoint

    folder = config.log_dir
    state = checkpoint.load_state(folder, config, MAY_DIFFER) if config.resume else None
    names = os.listdir(folder) if os.path.isdir(folder) else []
    holds_run = any(name in (STATE, RESULTS) or name.endswith(MODELS) for name in names)  # run_expt's, too
    if state is None and not config.eval_only and holds_run:
        way = (
            "without state.pth, so that nothing can go on from it; choose"
            if config.resume
            else "already; go on with --resume, or choose"
        )
        raise InputError(f"--log_dir {folder} holds a run {way} another folder")
    return state


def _check_writable(folder: str) -> None:
    """Before hours of work: files can be made there, and what has the name of a run's file is one."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        entries = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"--log_dir {folder} cannot be written ({reason(error)}); choose another folder") from error
    for entry in entries:
        right = entry.is_dir() if entry.name == SELECTION else entry.is_file() or not entry.name.endswith(FILES)
        if not right:
            raise InputError(f"--log_dir {folder} holds {entry.name}, which is {kind(entry)}; choose another folder")
    selection = Path(folder, SELECTION)
    for place in (selection, *(selection.iterdir() if selection.is_dir() else ())):
        if place.is_symlink():  # models would be written to where it leads
            raise InputError(f"--log_dir {folder}: {place} is a link; choose another folder")


def make_events(config: Configuration):
    """A TensorBoard writer where it is asked for, else None."""
    if not config.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs the package 'tensorboard'; 'pip install tensorboard'") from error
    return SummaryWriter(config.log_dir)


def describe(trainer) -> None:
    """The configuration, the groups of every split and the scales of MS-SSIM, as the head of log.txt."""
    for name, value in trainer.config.as_record().items():
        trainer.logs.write(f"{name.replace('_', ' ').capitalize()}: {value}\n")
    if trainer.data.synthetic:
        trainer.logs.write("\nThis is SYNTHETIC data made by 'cim-plugin data demo', not the real dataset.\n")
    if trainer.data.subset:
        trainer.logs.write("\nThis is a SUBSET taken by 'cim-plugin data get --subset', not the whole dataset.\n")
    contrast = trainer.classifier.contrast
    if contrast is not None:
        trainer.logs.write(f"L_con compares by: {contrast.similarity.how}\n")
    trainer.logs.write("\n")
    for split in trainer.data.splits.values():
        trainer.logs.write(f"{split.name} data...\n")
        counts = split.groups.bincount(minlength=trainer.data.grouper.n_groups).tolist() if len(split.groups) else []
        if trainer.config.no_group_logging:
            trainer.logs.write(f"    n = {len(split.labels)}\n")
            continue
        for group, count in enumerate(counts):
            trainer.logs.write(f"    {trainer.data.grouper.group_str(group)}: n = {count:.0f}\n")
            if count == 0 and split is trainer.data.splits["train"]:
                trainer.logs.write(
                    "        warning: the training split has no such image; its accuracy is measured, not trained for\n"
                )


def _train(trainer) -> int:
    import torch

    from .trainer import Stopped

    received: list[int] = []

    def ask(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)
        trainer.stop_asked = True

    before = {}
    if trainer.fabric.world_size == 1:  # several processes go on from the last whole epoch
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        trainer.train()
    except Stopped as stop:
        trainer.bar.close()
        print(f"cim-plugin train: {stop}; go on with: {_resume_command()}", file=sys.stderr)
        return 128 + received[0]
    except (NotFinite, torch.cuda.OutOfMemoryError) as error:
        trainer.bar.close()
        print(f"cim-plugin train: error: {in_words(error)}", file=sys.stderr)
        return 1
    finally:
        trainer.bar.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if trainer.fabric.global_rank == 0:
        print_summary(trainer)
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


def print_summary(trainer) -> None:
    """What every rule chose, one line each."""
    width = max(12, *map(len, trainer.chosen))
    print(f"\n{'rule':{width}} {'epoch':>5} {'val avg':>8} {'val worst':>9} {'test avg':>8} {'test worst':>10}")
    for rule, choice in trainer.chosen.items():
        cells = []
        for key in ("val", "test"):
            outcome = trainer.outcomes[rule].get(key)
            worst = outcome.worst_group_metric if outcome is not None else None
            cells += [
                f"{100 * outcome.accuracy:.1f}" if outcome is not None else "-",
                f"{100 * worst:.1f}" if worst is not None else "-",
            ]
        print(
            f"{rule:{width}} {choice.epoch:5} {cells[0]:>8} {cells[1]:>9} {cells[2]:>8} {cells[3]:>10}"
            + ("   selected on TEST data" if rule == "oracle" else "")
        )
    print(f"everything is in {trainer.config.log_dir}")


def evaluate_only(trainer) -> None:
    """Evaluate a saved model on every split but the training one and write its predictions, as run_expt does.

    Raises:
        InputError: there is no such model, or it is of another configuration.
    """
    from ..models.encoders import read_checkpoint
    from . import checkpoint

    config, folder = trainer.config, trainer.config.log_dir
    word = "best" if config.eval_epoch is None else str(config.eval_epoch)
    path = os.path.join(folder, model_file(config.dataset, config.seed, word))
    saved = read_checkpoint(path, "--eval_only")
    _check_same_run(config, trainer.fingerprint, os.path.join(folder, RESULTS))
    try:
        trainer.classifier.load_state_dict(saved["algorithm"])
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"--eval_only: {path} is not a model of {config.algorithm} with --model {config.model}"
        ) from error
    trainer.epoch = saved["epoch"]
    for key in trainer.splits:
        predicted, _, outcome = trainer.evaluate_split(key)
        trainer.logs.row(f"{key}_eval.csv", {"epoch": trainer.epoch, **outcome.metrics}, trainer.epoch)
        print(f"Eval split {key} at epoch {trainer.epoch}:\n{outcome.text}")
        if config.save_pred and trainer.fabric.global_rank == 0:
            for name in {str(trainer.epoch), word}:
                checkpoint.save_predictions(
                    os.path.join(folder, prediction_file(config.dataset, config.seed, key, name)), predicted
                )


#: of the configuration
NETWORK_AND_SPLITS = (
    "algorithm",
    "model_kwargs",
    "transform",
    "target_resolution",
    "resize_scale",
    "hyperparameters",
    "version",
    "split_scheme",
    "dataset_kwargs",
    "frac",
)


def _check_same_run(config: Configuration, data: dict[str, str], path: str) -> None:
    """What no weight's shape tells: with other images or another stride of m the weights fit, and say something else;
    predictions of other splits would replace the run's, and figures by other labels would stand beside them.
    """
    from . import checkpoint
    from .datasets import difference_of_data

    if not os.path.exists(path):
        return
    try:
        saved = read_json(path)
        before, data_before = dict(saved["config"]), dict(saved.get("data") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"--eval_only: {path} is damaged ({error!r}), so it cannot be seen whether this is the network that was "
            f"trained; move it away"
        ) from error
    if differs := checkpoint.difference(before, config, NETWORK_AND_SPLITS):
        raise InputError(f"--eval_only: {path} has {differs}; repeat its flags")
    if differs := difference_of_data(data_before, data):
        raise InputError(
            f"--eval_only: {differs} of {config.dataset} in {config.root_dir} are not those that the run was "
            f"trained with, as {path} has them; restore them, or evaluate a copy of the model in a folder of its own"
        )
