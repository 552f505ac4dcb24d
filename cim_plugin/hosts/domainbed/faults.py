"""DomainBed's silent traps and long tracebacks as one line with exit status 2, for our algorithms only.

Everything here looks at the arguments of the host's train script; in any other program, and for any other algorithm, it
does nothing.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import traceback
from types import ModuleType
from typing import Any, Callable

from ... import catalog
from ...errors import InputError, NotFinite
from . import hyperparameters

SCRIPT = "domainbed.scripts.train"

_script: ModuleType | None = (
    None  #: the host's train script, where it is the program: runpy replaces __main__ when it ends
)


def watch() -> None:
    """Where the host's train script is starting, print known faults as one line."""
    global _script
    main = sys.modules["__main__"]
    if _is_train_script(main) and main is not _script:
        _script = main
        sys.excepthook = _one_line(sys.excepthook)


def _is_train_script(main: ModuleType) -> bool:
    """Whether it runs as a module, or by its path."""
    if getattr(getattr(main, "__spec__", None), "name", None) == SCRIPT:
        return True
    file, package = getattr(main, "__file__", None), getattr(sys.modules.get("domainbed"), "__file__", None)
    if not file or not package:
        return False
    return os.path.realpath(file) == os.path.join(os.path.dirname(os.path.realpath(package)), "scripts", "train.py")


def check_algorithm(name: Any) -> None:
    """Raise InputError for a name that the train script was given, that is none of the host's, and that is near ours:
    the host would load data first, and wait for ever where a batch is larger than an environment.
    """
    args, module = getattr(_script, "args", None), sys.modules.get("domainbed.algorithms")
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
    """Raise InputError for what the train script was given and cannot use, before it loads any data.

    Args:
        algorithm: whose hyperparameters of ours are added.
        defaults: name -> (default, random draw) of all hyperparameters.
    """
    args = _arguments()
    if args is None:
        return
    for flag, (fits, expected) in _FLAGS.items():
        value = getattr(args, flag, None)
        if value is not None and not fits(value):
            raise InputError(f"--{flag} {value} is not {expected}")
    if args.hparams:
        values = {name: default for name, (default, _) in defaults.items()} | _given(args.hparams)
        hyperparameters.checked(algorithm, args.algorithm, values, {name: pair[0] for name, pair in defaults.items()})


#: flag of the train script -> (whether a value can be used, what is expected). With others it does nothing, or a part
_FLAGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "steps": (lambda value: value >= 1, "a number of steps of at least 1; leave it out for the data set's own"),
    "checkpoint_freq": (
        lambda value: value >= 1,
        "a number of steps of at least 1; leave it out for the data set's own",
    ),
    "holdout_fraction": (lambda value: 0 <= value <= 1, "a fraction from 0 to 1; DomainBed's own is 0.2"),
    "uda_holdout_fraction": (lambda value: 0 <= value <= 1, "a fraction from 0 to 1; DomainBed's own is 0"),
    "seed": (lambda value: 0 <= value < 2**32, "a seed from 0 to 4294967295"),
}


def _given(text: str) -> dict[str, Any]:
    """``--hparams``, read."""
    like = "write it like '{\"cim_lambda\": 0.5}'"
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--hparams {catalog.shown(text)} is not JSON ({error}); {like}") from error
    except (RecursionError, ValueError) as error:  # nested without end, or an int of thousands of digits
        raise InputError(f"--hparams {catalog.shown(text)} cannot be read ({type(error).__name__}); {like}") from error
    if not isinstance(given, dict):
        raise InputError(f"--hparams {catalog.shown(text)} is not a JSON object; {like}")
    return given


def check_batch_size(n_images: int, weighted: bool, batch_size: Any) -> None:
    """Raise InputError where the host's loader could never fill a batch (sampling with weights always can)."""
    args = _arguments()
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
    args = _arguments()
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


FETCHING = ("urllib", "http", "requests", "huggingface_hub")  #: how the names of libraries that fetch files begin


def is_failed_download(error: BaseException | None) -> bool:
    """Whether a fault comes from a library that fetches files, or from the network below it: other connections break,
    too, such as a pipe or a worker's.
    """
    while error is not None:
        raised = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
        if type(error).__module__.startswith(FETCHING) or (
            isinstance(error, ConnectionError) and any(name.startswith(FETCHING) for name in raised)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def last_line(error: BaseException) -> str:
    """The last line of a message: a data loader's worker puts its whole traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


def _arguments() -> argparse.Namespace | None:
    """The arguments of the train script, when it runs one of our algorithms."""
    args = getattr(_script, "args", None)
    return args if args is not None and catalog.is_ours(args.algorithm) else None


def _no_images(args: argparse.Namespace) -> str:
    return (
        f"an environment of {args.dataset} has no images in one of its splits; add images, or choose another "
        f"{_splitting(args)}"
    )


def _splitting(args: argparse.Namespace) -> str:
    """The flags that say how an environment's images are split, and what they are now."""
    flags = ["holdout_fraction"] + ["uda_holdout_fraction"] * bool(getattr(args, "uda_holdout_fraction", 0))
    return " or ".join(f"--{flag} than {getattr(args, flag):g}" for flag in flags)


def raised_in(error: BaseException, module: str) -> bool:
    """Whether a fault passed through a function of this module."""
    return any(frame.f_globals.get("__name__") == module for frame, _ in traceback.walk_tb(error.__traceback__))


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


#: (what it is, what to say), both given the error and the script's arguments; the first match is said
_FAULTS: list[tuple[Callable[[Any, argparse.Namespace], bool], Callable[[Any, argparse.Namespace], str]]] = [
    (
        _is_of_output,
        lambda e, a: (
            f"--output_dir {a.output_dir} cannot be written ({e.filename}: {e.strerror}); choose another folder"
        ),
    ),
    (
        lambda e, a: isinstance(e, NotImplementedError) and not hasattr(sys.modules["domainbed.datasets"], a.dataset),
        lambda e, a: (
            f"--dataset {a.dataset!r} is not a data set of DomainBed; it has "
            f"{', '.join(sys.modules['domainbed.datasets'].DATASETS)}"
        ),
    ),
    (
        lambda e, a: (
            a.data_dir is None and isinstance(e, (TypeError, ValueError)) and raised_in(e, "domainbed.datasets")
        ),
        lambda e, a: f"--dataset {a.dataset} needs --data_dir, the folder that holds it",
    ),
    (
        lambda e, a: isinstance(e, ValueError) and str(e).startswith("Not enough unlabeled samples"),
        lambda e, a: (
            f"--task domain_adaptation has no unlabeled images with --uda_holdout_fraction {a.uda_holdout_fraction:g}; "
            f"pass a larger one, such as 0.2"
        ),
    ),
    (
        lambda e, a: isinstance(e, ValueError) and str(e).endswith("got num_samples=0"),
        lambda e, a: _no_images(a),
    ),
    (
        lambda e, a: type(e).__name__ == "UnidentifiedImageError",
        lambda e, a: (
            f"an image cannot be read: {last_line(e).removeprefix('PIL.UnidentifiedImageError: ')}; replace or remove "
            f"the file"
        ),
    ),
    (
        _is_of_data,
        lambda e, a: f"{_missing(e)}; --data_dir {a.data_dir} must hold {a.dataset} in DomainBed's layout{_get(a)}",
    ),
    (
        lambda e, a: is_failed_download(e) or str(e).startswith("Error downloading"),
        lambda e, a: (
            f"{a.dataset} is not in --data_dir {a.data_dir} and cannot be downloaded ({last_line(e)}); fetch it on a "
            f"machine with network{_get(a)}"
        ),
    ),
    (
        lambda e, a: "device-side assert" in str(e),
        lambda e, a: (
            f"the GPU has refused a value ({last_line(e)}); as far as can be told a label of {a.dataset} is not below "
            f"the number of its classes: correct the labels, or num_classes"
        ),
    ),
    (
        lambda e, a: isinstance(e, OSError) and e.strerror is not None,
        lambda e, a: f"{e.filename}: {e.strerror}" if e.filename else e.strerror,
    ),
]


def _one_line(inner: Callable[..., Any]) -> Callable[..., Any]:
    """An excepthook that says known faults in one line and leaves all others to ``inner``, the one before it."""

    def hook(kind, error, trace):
        line = _said(error)
        if line is None:
            inner(kind, error, trace)
            return
        for stream in {
            sys.__stderr__,
            getattr(sys.stderr, "file", sys.__stderr__),
        }:  # the host's Tee writes errors to the standard output
            print(f"error: {line}", file=stream, flush=True)
        raise SystemExit(1 if isinstance(error, NotFinite) else 2)

    return hook


def _said(error: BaseException) -> str | None:
    """What is known of a fault; those of ours speak for themselves."""
    if isinstance(error, (InputError, NotFinite)):
        return str(error)
    args = _arguments()
    return next((say(error, args) for known, say in _FAULTS if known(error, args)), None) if args else None
