"""SubpopBench's silent traps and long tracebacks as one line with exit status 2, for our algorithms only."""

from __future__ import annotations

import argparse
from typing import Any

from ... import catalog
from ...errors import InputError
from .. import lock
from ..train_script import (
    A_SEED,
    A_STEP,
    REFUSED,
    UNREADABLE_IMAGE,
    Fault,
    TrainScript,
    check_given,
    is_failed_download,
    last_line,
    raised_in,
)

COMMIT = "4d3dbbe21029666ef19d040e110ec22908640c5b"  #: the commit that this plugin is tested with
#: what the host imports beside what we need -> versions that have what it takes of them
NEEDS = {"transformers": "<4.47", "scikit-learn": "<1.5", "netcal": "", "tensorboard_logger": "", "pandas": ""}
DATASETS = "subpopbench.dataset.datasets"
#: the host's names of data sets -> what its script of downloads calls them
CALLED = {
    "CMNIST": "cmnist",
    "Waterbirds": "waterbirds",
    "CelebA": "celeba",
    "MetaShift": "metashift",
    "ImagenetBG": "imagenetbg",
    "NICOpp": "nico++",
    "Living17": "breeds",
    "Entity13": "breeds",
    "Entity30": "breeds",
    "Nonliving26": "breeds",
}


def check_dataset(algorithm: str, dataset: str, hparams: dict[str, tuple[Any, Any]]) -> None:
    """Raise InputError for a data set of text or tables: the host would load it first.

    Args:
        hparams: the host's (default, random) pairs, by which it can be told.
    """
    what = "tables" if "mlp_width" in hparams else "text" if hparams["optimizer"][0] == "adamw" else None
    if what:
        raise InputError(
            f"{algorithm} works on images, --dataset {dataset} holds {what}; choose one such as Waterbirds"
        )


def check_images(algorithm: str, data_type: str) -> None:
    """The same for a data set that is made already."""
    if data_type != "images":
        raise InputError(f"{algorithm} works on images, and this data set is of data_type {data_type!r}")


def check_stage1(algorithm: str) -> None:
    """Raise InputError where a two-stage algorithm of the host would take the encoder of ours and leave psi out."""
    args = SCRIPT.any_arguments()
    if args is None or not ("CRT" in algorithm or "DFR" in algorithm):
        return
    first = catalog.ALGORITHMS.get(args.stage1_algo)
    if first and "morphing" in first[0]:
        raise InputError(
            f"--stage1_algo {args.stage1_algo}: {algorithm} takes its encoder and not its transformation network, "
            f"without which the encoder has never seen an image; use ERM"
        )


def check_arguments(algorithm: str, defaults: dict[str, tuple[Any, Any]]) -> None:
    """As :func:`~..train_script.check_given`, where the train script runs one of our algorithms."""
    if (args := SCRIPT.arguments()) is not None:
        check_given(args, {"steps": A_STEP, "checkpoint_freq": A_STEP, "seed": A_SEED}, algorithm, defaults)


def hold_output_dir() -> None:
    """Where the train script starts one of our algorithms, hold its folder until it ends."""
    if (args := SCRIPT.arguments()) is not None:
        lock.hold(args.output_dir, "the run's folder")


def check_batch_size(n_images: int, weighted: bool, batch_size: Any) -> None:
    """Raise InputError where the host's loader could never fill a batch (sampling with weights always can)."""
    if SCRIPT.arguments() is not None and not weighted and n_images < batch_size:
        raise InputError(
            f"the training split has {n_images} images, fewer than batch_size={batch_size}: SubpopBench would wait for "
            f"ever; pass --hparams '{{\"batch_size\": {n_images}}}' or less"
        )


def _get(args: argparse.Namespace) -> str:
    """How to make what a data set lacks, in words."""
    name = CALLED.get(args.dataset)
    how = f"python -m subpopbench.scripts.download {name} --data_path {args.data_dir} --download" if name else None
    return how or "SubpopBench's MedicalData.md says how to get it"


_FAULTS = [
    Fault(
        lambda e, a: isinstance(e, ImportError) and "transformers" in str(e),
        lambda e, a: (
            f"SubpopBench and this transformers do not go together ({last_line(e)}); pip install "
            f"'transformers{NEEDS['transformers']}'"
        ),
    ),
    Fault(
        lambda e, a: isinstance(e, TypeError) and raised_in(e, "subpopbench.utils.eval_helper") and "eps" in str(e),
        lambda e, a: (
            f"SubpopBench's evaluation needs an older scikit-learn ({last_line(e)}); pip install "
            f"'scikit-learn{NEEDS['scikit-learn']}'"
        ),
    ),
    UNREADABLE_IMAGE,
    Fault(
        lambda e, a: isinstance(e, FileNotFoundError) and (not e.filename or raised_in(e, DATASETS)),
        lambda e, a: f"{last_line(e)}; --data_dir {a.data_dir} must hold {a.dataset} and its metadata: {_get(a)}",
    ),
    Fault(
        lambda e, a: isinstance(e, RuntimeError) and str(e).startswith("Dataset not found"),
        lambda e, a: f"MNIST is not in {a.data_dir}/cmnist; {_get(a)}",
    ),
    Fault(
        lambda e, a: is_failed_download(e),
        lambda e, a: (
            f"the pretrained weights could not be downloaded ({last_line(e)}); fetch them on a machine with "
            f'network, or pass --hparams \'{{"model": ..., "pretrained_model_path": ...}}\''
        ),
    ),
    REFUSED,
]

SCRIPT = TrainScript("subpopbench.train", ("train.py",), _FAULTS)
