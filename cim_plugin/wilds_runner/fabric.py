"""Lightning's Fabric for a run's device, precision and processes."""

from __future__ import annotations

import datetime
import os
import shlex

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from ..errors import InputError
from ..runs.configuration import Configuration
from .precision import MixedOfPixels

#: for each other; the first process may decode a whole dataset or train reference models before the others have
#: anything to do
WAIT = datetime.timedelta(days=1)


def make_fabric(config: Configuration) -> Fabric:
    """Lightning's Fabric for the configured device, precision and processes.

    Raises:
        InputError: the device cannot do that.
    """
    on_gpu = torch.cuda.is_available()
    if config.precision == "16-mixed" and not on_gpu:
        raise InputError("--precision 16-mixed needs a GPU; use 32 or bf16-mixed on a CPU")
    devices = _of_torchrun(config) if "LOCAL_WORLD_SIZE" in os.environ else _asked_for(config, on_gpu)
    n_processes = (len(devices) if isinstance(devices, list) else devices) * config.num_nodes
    if config.batch_size % n_processes:
        raise InputError(
            f"--batch_size {config.batch_size} cannot be shared equally by {n_processes} processes; give a multiple "
            f"of {n_processes}"
        )
    accelerator = "cuda" if on_gpu else "cpu"
    plugins = None
    if config.precision != "32":
        plugins = MixedOfPixels(config.precision, accelerator)  # type: ignore[arg-type]
    try:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=config.num_nodes,
            plugins=plugins,
            strategy=DDPStrategy(timeout=WAIT) if n_processes > 1 else "auto",
        )
    except Exception as error:
        raise InputError(f"--devices {devices} cannot be used: {error}") from error


def _asked_for(config: Configuration, on_gpu: bool) -> int | list[int]:
    """How many processes, or which GPUs."""
    if config.device is not None and not on_gpu:
        raise InputError(
            f"--device {shlex.join(map(str, config.device))}: torch sees no GPU here; leave it out, or install torch "
            f"for CUDA"
        )
    if config.num_nodes > 1 and "SLURM_NTASKS" not in os.environ:
        raise InputError(
            f"--num_nodes {config.num_nodes} needs torchrun on each machine, which tells them of each other; start it "
            f"so, or leave --num_nodes out"
        )
    return config.devices if config.device is None else config.device


def _of_torchrun(config: Configuration) -> int:
    """How many processes it has started on this machine."""
    devices, started = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
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
    return devices
