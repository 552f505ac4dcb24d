"""DomainBed's silent traps and long tracebacks as one line with exit status 2, for our algorithms only.

The host asks for an algorithm's hyperparameters before it touches anything else; from then on we know whose run it is.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Callable

from .. import catalog
from ..errors import InputError

_current: str | None = None  #: the algorithm whose hyperparameters were asked for last


def watch(algorithm: str) -> None:
    """Remember whose run this is; in a host script of ours, print known faults as one line."""
    global _current
    _current = algorithm
    main = sys.modules["__main__"]
    script = getattr(getattr(main, "__spec__", None), "name", None) or ""
    if algorithm in catalog.ALGORITHMS and script.startswith("domainbed.scripts.train") and not isinstance(sys.excepthook, _OneLine):
        sys.excepthook = _OneLine(sys.excepthook, main)


def check_batch_size(n_images: int, weighted: bool, batch_size: int) -> None:
    """Raise InputError where the host's loader could never fill a batch (sampling with weights always can)."""
    if _current in catalog.ALGORITHMS and not weighted and n_images < batch_size:
        raise InputError(
            f"an environment has {n_images} images to draw from, fewer than batch_size={batch_size}: "
            f"DomainBed would wait for ever; pass --hparams '{{\"batch_size\": {n_images}}}' or less"
        )


def is_failed_download(error: BaseException) -> bool:
    """Whether a fault is that of a file that could not be fetched, by any of the libraries that fetch weights or data."""
    while error is not None:
        kind = type(error)
        if kind.__name__ in {"URLError", "HTTPError", "LocalEntryNotFoundError", "ConnectError", "ConnectionError", "OfflineModeIsEnabled"}:
            return True
        error = error.__cause__ or error.__context__
    return False


def last_line(error: BaseException) -> str:
    """The last line of a message: a data loader's worker puts its whole traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


#: (what it is, what to say), both given the error and the script's arguments; the first match is said
_FAULTS: list[tuple[Callable[[BaseException, Any], bool], Callable[[BaseException, Any], str]]] = [
    (lambda e, a: isinstance(e, InputError), lambda e, a: str(e)),
    (
        lambda e, a: isinstance(e, json.JSONDecodeError),
        lambda e, a: f"--hparams {a.hparams!r} is not JSON ({e}); write it like '{{\"cim_lambda\": 0.5}}'",
    ),
    (
        lambda e, a: isinstance(e, NotImplementedError) and not hasattr(sys.modules["domainbed.datasets"], a.dataset),
        lambda e, a: f"--dataset {a.dataset!r} is not a data set of DomainBed; it has {', '.join(sys.modules['domainbed.datasets'].DATASETS)}",
    ),
    (
        lambda e, a: a.data_dir is None and isinstance(e, (TypeError, ValueError)),
        lambda e, a: f"--dataset {a.dataset} needs --data_dir, the folder that holds it",
    ),
    (
        lambda e, a: type(e).__name__ == "UnidentifiedImageError",
        lambda e, a: f"an image cannot be read: {last_line(e).removeprefix('PIL.UnidentifiedImageError: ')}; replace or remove the file",
    ),
    (
        lambda e, a: isinstance(e, FileNotFoundError),
        lambda e, a: f"{e.filename or last_line(e)} does not exist; --data_dir {a.data_dir} must hold {a.dataset} in DomainBed's layout",
    ),
    (
        lambda e, a: is_failed_download(e) or last_line(e).startswith("Error downloading"),
        lambda e, a: f"{a.dataset} is not in --data_dir {a.data_dir} and cannot be downloaded ({last_line(e)})",
    ),
    (lambda e, a: isinstance(e, OSError) and e.strerror is not None, lambda e, a: f"{e.filename or 'the disk'}: {e.strerror}"),
]


class _OneLine:
    """An excepthook that says known faults in one line and leaves all others to the one before it."""

    def __init__(self, inner, script):
        self.inner = inner
        self.script = script  # the module of the host's script: runpy has put another one back when a fault arrives

    def __call__(self, kind, error, traceback):
        arguments = getattr(self.script, "args", None)
        line = next((say(error, arguments) for known, say in _FAULTS if known(error, arguments)), None) if arguments else None
        if line is None:
            self.inner(kind, error, traceback)
            return
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2)
