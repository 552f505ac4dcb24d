"""DomainBed's silent traps and long tracebacks as one line with exit status 2, for our algorithms only.

Everything here looks at the arguments of the host's train script; in any other program, and for any other algorithm, it
does nothing.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
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


def class_names(n_classes: int) -> list[str] | None:
    """The names of the classes, as the data set of the host's train script has them; None in any other program, and
    where there are none.
    """
    environments = getattr(getattr(SCRIPT.module, "dataset", None), "datasets", None) or [None]
    names = getattr(environments[0], "classes", None)
    if not isinstance(names, (list, tuple)) or len(names) != n_classes:
        return None
    return [" ".join(str(name).split()) for name in names]


def check_algorithm(name: Any) -> None:
    """Raise InputError for a name that the train script was given, that is none of the host's, and that is near ours:
    the host would load data first, and wait for ever where a batch is larger than an environment.
    """
    args, module = SCRIPT.any_arguments(), sys.modules.get("domainbed.algorithms")
    if args is None or module is None or name != args.algorithm or catalog.owner(name) == "CIM":
        return
    if name in module.ALGORITHMS or hasattr(module, name):
        return
    ours = {own.lower(): own for own in catalog.ALGORITHMS}
    word = name.lower().replace("-", "_")
    near = difflib.get_close_matches(word, ours, n=1) or [own for own in sorted(ours, key=len) if word.startswith(own)]
    hint = f"{catalog.COMPOSITION}{name[len(catalog.COMPOSITION) :]}" if word.startswith("cim+") else None
    if near or hint:
        raise InputError(
            f"--algorithm {name!r} is not an algorithm of DomainBed or of this plugin; did you mean "
            f"{hint or ours[near[-1]]!r}?"
        )


def check_arguments(algorithm: str, defaults: dict[str, tuple[Any, Any]]) -> None:
    """As :func:`~..train_script.check_given`, where the train script runs one of our algorithms."""
    if (args := SCRIPT.arguments()) is not None:
        check_given(args, _FLAGS, algorithm, defaults)


def hold_output_dir() -> None:
    """Where the train script starts one of our algorithms, hold its folder until it ends."""
    if (args := SCRIPT.arguments()) is not None:
        lock.hold(args.output_dir, "--output_dir")


#: flag of the train script -> what it takes. With other values it does nothing, or a part
_FLAGS = {
    "steps": A_STEP,
    "checkpoint_freq": A_STEP,
    "holdout_fraction": (lambda value: 0 <= value <= 1, "a fraction from 0 to 1; DomainBed's own is 0.2"),
    "uda_holdout_fraction": (lambda value: 0 <= value <= 1, "a fraction from 0 to 1; DomainBed's own is 0"),
    "seed": A_SEED,
}


def check_batch_size(n_images: int, weighted: bool, batch_size: Any) -> None:
    """Raise InputError where the host's loader could never fill a batch (sampling with weights always can)."""
    args = SCRIPT.arguments()
    if args is None:
        return
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r} is not a whole number of at least 1")
    if n_images == 0:
        raise InputError(_no_images(args))
    if not weighted and n_images < batch_size:
        raise InputError(
            f"an environment has {n_images} images to draw from, fewer than batch_size={batch_size}: "
            f"DomainBed would wait for ever; pass --hparams '{{\"batch_size\": {n_images}}}' or less, or "
            f"choose another {_splitting(args)}"
        )


def check_test_environments(n_training: int) -> None:
    """Raise InputError for a ``--test_envs`` that the host trains with and its tables cannot read.

    Args:
        n_training: the host's number of training environments: all of them less the length of ``--test_envs``.
    """
    args = SCRIPT.arguments()
    if args is None:
        return
    n_environments = n_training + len(args.test_envs)
    given = " ".join(map(str, args.test_envs))
    wrong = [e for e in args.test_envs if not 0 <= e < n_environments or args.test_envs.count(e) > 1]
    if wrong:
        raise InputError(
            f"--test_envs {given}: {wrong[0]} cannot be used; {args.dataset} has environments 0 to "
            f"{n_environments - 1}, name each at most once"
        )
    if n_training == 0:
        raise InputError(
            f"--test_envs {given} leaves no environment of {args.dataset} to train on; name fewer than {n_environments}"
        )


def _no_images(args: argparse.Namespace) -> str:
    return (
        f"an environment of {args.dataset} has no images in one of its splits; add images, or choose another "
        f"{_splitting(args)}"
    )


def _splitting(args: argparse.Namespace) -> str:
    """The flags that say how an environment's images are split, and what they are now."""
    flags = ["holdout_fraction"] + ["uda_holdout_fraction"] * bool(getattr(args, "uda_holdout_fraction", 0))
    return " or ".join(f"--{flag} than {getattr(args, flag):g}" for flag in flags)


def _is_of_output(error: BaseException, args: argparse.Namespace) -> bool:
    if not isinstance(error, OSError) or not isinstance(error.filename, str) or raised_in(error, "domainbed.datasets"):
        return False
    file, folder = os.path.abspath(error.filename), os.path.abspath(args.output_dir)
    return os.path.commonpath([file, folder]) in (file, folder)


def _is_of_data(error: BaseException, args: argparse.Namespace) -> bool:
    """Whether a file that is not there is one of the data set, as far as can be seen."""
    if not isinstance(error, FileNotFoundError):
        return False
    if not error.filename or raised_in(error, "domainbed.datasets"):
        return True
    if args.data_dir is None or not isinstance(error.filename, str):
        return False
    folder = os.path.abspath(args.data_dir)
    return os.path.commonpath([os.path.abspath(error.filename), folder]) == folder


def _missing(error: FileNotFoundError) -> str:
    """In a few words: a library's message goes on with advice for its own users."""
    return f"{error.filename} does not exist" if error.filename else last_line(error).partition(". ")[0]


def _get(args: argparse.Namespace) -> str:
    """The end of a line about a data set that is not there."""
    from ...data.releases import RELEASES, how_to_get

    name = {"WILDSCamelyon": "camelyon17", "WILDSFMoW": "fmow"}.get(args.dataset, args.dataset)
    return f"; {how_to_get(name, args.data_dir or 'data')}" if name in RELEASES else ""


#: the first match is said
_FAULTS = [
    Fault(
        _is_of_output,
        lambda e, a: (
            f"--output_dir {a.output_dir} cannot be written ({e.filename}: {e.strerror}); choose another folder"
        ),
    ),
    Fault(
        lambda e, a: isinstance(e, NotImplementedError) and not hasattr(sys.modules["domainbed.datasets"], a.dataset),
        lambda e, a: (
            f"--dataset {a.dataset!r} is not a data set of DomainBed; it has "
            f"{', '.join(sys.modules['domainbed.datasets'].DATASETS)}"
        ),
    ),
    Fault(
        lambda e, a: (
            a.data_dir is None and isinstance(e, (TypeError, ValueError)) and raised_in(e, "domainbed.datasets")
        ),
        lambda e, a: f"--dataset {a.dataset} needs --data_dir, the folder that holds it",
    ),
    Fault(
        lambda e, a: isinstance(e, ValueError) and str(e).startswith("Not enough unlabeled samples"),
        lambda e, a: (
            f"--task domain_adaptation has no unlabeled images with --uda_holdout_fraction {a.uda_holdout_fraction:g}; "
            f"pass a larger one, such as 0.2"
        ),
    ),
    Fault(
        lambda e, a: isinstance(e, ValueError) and str(e).endswith("got num_samples=0"),
        lambda e, a: _no_images(a),
    ),
    UNREADABLE_IMAGE,
    Fault(
        _is_of_data,
        lambda e, a: f"{_missing(e)}; --data_dir {a.data_dir} must hold {a.dataset} in DomainBed's layout{_get(a)}",
    ),
    Fault(
        lambda e, a: is_failed_download(e) or str(e).startswith("Error downloading"),
        lambda e, a: (
            f"{a.dataset} is not in --data_dir {a.data_dir} and cannot be downloaded ({last_line(e)}); fetch it on a "
            f"machine with network{_get(a)}"
        ),
    ),
    Fault(
        lambda e, a: "device-side assert" in str(e),
        lambda e, a: (
            f"the GPU has refused a value ({last_line(e)}); as far as can be told a label of {a.dataset} is not below "
            f"the number of its classes: correct the labels, or num_classes"
        ),
    ),
    REFUSED,
]

SCRIPT = TrainScript("domainbed.scripts.train", ("scripts", "train.py"), _FAULTS)
