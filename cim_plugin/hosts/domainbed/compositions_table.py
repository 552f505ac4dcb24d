"""``python -m cim_plugin.domainbed compositions``: try ``CIM+<base>`` for every algorithm that the host lists.

A few steps on random images of 28x28 in three environments, and what must hold: the base's weights start as they do
without psi, images pass psi once, the base's own optimisers move psi with L_con beside their losses, nothing turns NaN.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from typing import Any, Iterator, NamedTuple

import torch
from torch import Tensor, nn

from ... import catalog
from ...algorithms.contrastive import TripletContrast
from ...algorithms.morphing import InputMorphing
from ...catalog import COMPOSITION
from ...errors import InputError
from ..train_script import last_line

SHAPE, CLASSES, ENVIRONMENTS, BATCH, UPDATES = (3, 28, 28), 2, 3, 4, 4


class Row(NamedTuple):
    """What came of one composition."""

    base: str
    outcome: str  #: "works", "refused", or "not tried": the base itself does not run here
    note: str


def rows() -> Iterator[Row]:
    """One per algorithm of the host, in its order."""
    for base in importlib.import_module("domainbed.algorithms").ALGORITHMS:
        if base not in catalog.ALGORITHMS:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                warnings.catch_warnings(),
            ):  # the host's, and MS-SSIM's scales
                warnings.simplefilter("ignore")
                yield _row(base)


def markdown(found: list[Row]) -> str:
    """The table of docs/compositions.md."""
    lines = ["| `--algorithm` | outcome | note |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{COMPOSITION}{row.base}` | {row.outcome} | {row.note} |" for row in found])


def _row(base: str) -> Row:
    with _cuda_doing_nothing() as asked:
        try:
            alone = _run(base)
        except Exception as error:
            return Row(base, "not tried", f"{base} itself does not run here: {last_line(error)}")
        try:
            composed = _run(COMPOSITION + base)
        except InputError as error:
            return Row(base, "refused", str(error).removeprefix(f"{COMPOSITION}{base}: "))
    wrong = [] if base == "ERM" else _what_is_wrong(alone, composed)
    if wrong:
        return Row(base, "fails", "; ".join(wrong))
    notes = ["`CIM` itself" if base == "ERM" else f"{composed.steps} steps on psi in {UPDATES} updates"]
    if asked:
        notes.append(f"{base} needs a GPU; tried with .cuda() doing nothing")
    return Row(base, "works", "; ".join(notes))


class _Run(NamedTuple):
    algorithm: Any
    start: dict[str, Tensor]  #: the weights before the first update
    steps: int  #: steps of an optimiser with L_con
    logged: list[dict[str, float]]


def _run(name: str) -> _Run:
    """A few updates of an algorithm, its phases shortened so that each is reached."""
    algorithms, registry = (
        importlib.import_module(f"domainbed.{module}") for module in ("algorithms", "hparams_registry")
    )
    hparams = registry.default_hparams(name, "Debug28")
    hparams.update({key: 1 for key in hparams if key.endswith("iters") or key == "linear_steps"})
    torch.manual_seed(0)
    algorithm = algorithms.get_algorithm_class(name)(SHAPE, CLASSES, ENVIRONMENTS, {**hparams, "batch_size": BATCH})
    start = {key: value.clone() for key, value in algorithm.state_dict().items()}
    counted = _Counted(getattr(algorithm, "_contrast", None))
    algorithm._contrast = counted
    logged = [algorithm.update(_minibatches(number)) for number in range(UPDATES)]
    return _Run(algorithm, start, counted.calls, logged)


class _Counted:
    """L_con, of a composition only, that counts its calls."""

    def __init__(self, contrast: TripletContrast | None):
        self.contrast, self.reading, self.calls = contrast, getattr(contrast, "reading", None), 0

    def __call__(self, *batch):
        self.calls += 1
        return self.contrast(*batch)


def _minibatches(seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(BATCH) % CLASSES
    return [(torch.rand(BATCH, *SHAPE, generator=generator), labels) for _ in range(ENVIRONMENTS)]


def _what_is_wrong(alone: _Run, composed: _Run) -> list[str]:
    algorithm = composed.algorithm
    ended = algorithm.state_dict()
    shared = {key: value for key, value in composed.start.items() if ".psi." not in key}
    of_psi = [key for key in composed.start if ".psi." in key]
    n_images = sum(len(labels) for _, labels in _minibatches(0))
    checks = {
        "the base's weights start elsewhere": shared.keys() == alone.start.keys()
        and all(torch.equal(shared[key], alone.start[key]) for key in shared),
        "psi is not moved": bool(of_psi) and any(not torch.equal(composed.start[key], ended[key]) for key in of_psi),
        "L_con never joins": composed.steps > 0 and any("L_con" in logged for logged in composed.logged),
        "a weight is not finite": all(value.isfinite().all() for value in ended.values()),
        "images do not pass psi once": _passes(algorithm, torch.rand(n_images, *SHAPE)) == 1,
    }
    return [what for what, holds in checks.items() if not holds]


def _passes(algorithm: nn.Module, images: Tensor) -> int:
    """How often images pass a psi on their way to a prediction."""
    passed: list[None] = []
    psis = [module for module in algorithm.modules() if isinstance(module, InputMorphing)]
    hooks = [psi.register_forward_hook(lambda *_: passed.append(None)) for psi in psis]
    algorithm.eval()
    with torch.no_grad():
        algorithm.predict(images)
    for hook in hooks:
        hook.remove()
    return len(passed)


@contextlib.contextmanager
def _cuda_doing_nothing() -> Iterator[list[None]]:
    """For bases that put tensors on a GPU themselves: everything stays on the CPU, with a GPU or without. Gives a list
    that is no longer empty once they asked.
    """
    asked: list[None] = []
    inner = torch.Tensor.cuda, nn.Module.cuda
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_: asked.append(None) or self
    try:
        yield asked
    finally:
        torch.Tensor.cuda, nn.Module.cuda = inner


def main() -> None:
    """Print the table; exit status 1 where a composition fails that is not refused."""
    from ...progress import progress

    n_bases = len(
        [name for name in importlib.import_module("domainbed.algorithms").ALGORITHMS if name not in catalog.ALGORITHMS]
    )
    found = list(progress(rows(), total=n_bases, unit="algorithm"))
    counts = {
        outcome: sum(row.outcome == outcome for row in found) for outcome in dict.fromkeys(row.outcome for row in found)
    }
    print(markdown(found))
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if counts.get("fails"):
        raise SystemExit(1)
