"""Everything that is to be known of a machine with a GPU that nobody has prepared, in ten minutes at most.

Rows go to ``gpu.json``, tables to ``gpu.md``. What does not fit into the time is left out,
in a row that says so. ``--device cpu`` tries the command's logic; its kernels run where Triton interprets them
(``TRITON_INTERPRET=1``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import torch

from cim_plugin.errors import InputError
from cim_plugin.files import write_whole
from cim_plugin.flags import number

from . import gpu_kernels, gpu_page, loader, machine, measuring, operations, similarity, step

Row = dict[str, Any]


class Variant(NamedTuple):
    """How a step is trained."""

    name: str
    how: step.How


VARIANTS = (
    Variant("float32, channels_last", step.How()),
    Variant("bf16, channels_last", step.How(autocast=True)),
    Variant("float32, contiguous", step.How(torch.contiguous_format)),
    Variant("bf16, contiguous", step.How(torch.contiguous_format, autocast=True)),
    Variant("float32, channels_last, --compile", step.How(compiled=True)),
    Variant("bf16, channels_last, --compile", step.How(autocast=True, compiled=True)),
)


class Sizes(NamedTuple):
    """How much is measured."""

    kernels: tuple[tuple[int, int, int, int], ...]
    triplet: tuple[similarity.Case, ...]
    models: tuple[str, ...]
    images: int  #: of a step
    side: int
    pairs: int
    files: int  #: of the loader
    variants: tuple[Variant, ...] = VARIANTS  #: of a step


LARGE = Sizes(
    gpu_kernels.SHAPES,
    tuple(
        similarity.Case(images, side, targets)
        for images, side in ((64, 224), (64, 96), (128, 28))
        for targets in ("input", "morphed")
    ),
    ("resnet18", "resnet50"),
    64,
    224,
    20,
    1024,
)
QUICK = Sizes(
    gpu_kernels.SHAPES[:2],
    (similarity.Case(2, 28, "input"), similarity.Case(2, 28, "morphed")),
    ("small_cnn",),
    2,
    28,
    2,
    8,
)


TARGETS = {"resnet18": 1.20, "resnet50": 1.10}  #: of a step, as a ratio to ERM's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a minute: tiny sizes, which show that everything runs")
    parser.add_argument("--minutes", type=number(0, strict=True), default=10.0, help="at most")
    parser.add_argument("--output_dir", type=Path, default=Path("bench_gpu"), help="gets gpu.json and gpu.md")
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of the page")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu tries the command's logic only")


def run(args: argparse.Namespace) -> int:
    """Measure, section by section.

    Raises:
        InputError: there is no GPU.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "torch finds no GPU here, so there is nothing to measure; --device cpu --quick tries the logic"
        )
    rows = []
    for row in measured(SECTIONS, QUICK if args.quick else LARGE, args.device, 60 * args.minutes):
        rows.append(row)
        if args.json:
            print(json.dumps(row), flush=True)
    page = gpu_page.page(rows)
    write_whole(args.output_dir / "gpu.json", f"{json.dumps(rows, indent=1)}\n".encode())
    write_whole(args.output_dir / "gpu.md", page.encode())
    if not args.json:
        print(page)
    return 0


def measured(sections: dict[str, Callable], sizes: Sizes, device: str, seconds: float) -> Iterator[Row]:
    """The rows of sections, as far as the time goes."""
    with _alarm(seconds):
        end = time.monotonic() + seconds
        for section, measure in sections.items():
            for row in _within(end, measure(sizes, device)):
                yield {"section": section, **row, "machine": _machine(device)}


def _machine(device: str) -> str:
    if device == "cpu":
        return machine.describe()
    properties = torch.cuda.get_device_properties(0)
    return (
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}; {machine.describe()}"
    )


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """What is being measured when the time is over ends with a TimeoutError."""

    def ring(number, frame):
        raise TimeoutError("the time was over")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _within(end: float, measured: Iterator[tuple[str, Callable[[], Row]]]) -> Iterator[Row]:
    """Rows while there is time. What fails, as where memory is short, is a row that says so, and stops nothing."""
    for name, measure in measured:
        if time.monotonic() >= end:
            yield {"name": name, "note": "left out: the time was over"}
            continue
        try:
            yield {**measure(), "name": name}
        except Exception as error:  # of a driver, a compiler or a library: what it is stands in the row
            yield {"name": name, "note": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


# --- the sections: (sizes, device) -> (name of a row, what measures it) -----------------------------------------------


def kernels(sizes: Sizes, device: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    yield "self-check", lambda: {"note": gpu_kernels.self_check(device)}
    for case in gpu_kernels.cases(sizes.kernels):
        yield case.name, lambda case=case: gpu_kernels.errors(case, device)


def triplet(sizes: Sizes, device: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    for case in sizes.triplet:
        for method in ("fused", "plain autograd", "fused_ssim"):
            name = f"{method}, {case.images} x 3 x {case.side} x {case.side}, targets={case.targets}"
            yield name, lambda method=method, case=case: _against_library(method, case, sizes.pairs, device)


def _against_library(method: str, case: similarity.Case, pairs: int, device: str) -> Row:
    if reason := similarity.obstacle(method, case, device):
        return {"note": f"left out: {reason}"}
    names = (similarity.BASE, method)
    times = measuring.in_turn({name: similarity.step(name, case, device) for name in names}, pairs)
    peaks = {name: similarity.added_bytes(name, case, device) for name in names}
    base, own = times[similarity.BASE], times[method]
    shape = (case.images, 3, case.side, case.side)
    memory = peaks[method] / max(1, peaks[similarity.BASE])
    target = 8.0 if method == "fused" and case == LARGE.triplet[0] else None
    row = measuring.row(method, shape, base, own, own, memory, note=similarity.NOTES.get(method, ""))
    return {**row, "target": target}


def steps(sizes: Sizes, device: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    for variant in sizes.variants:
        for model in sizes.models:
            case = step.Case(model, sizes.images, sizes.side)
            name = f"{model}, {variant.name}"
            yield name, lambda case=case, variant=variant: _against_erm(case, variant, sizes.pairs, device)


def _against_erm(case: step.Case, variant: Variant, pairs: int, device: str) -> Row:
    if variant.how.compiled and device == "cpu":
        return {"note": "left out: compiling takes minutes on a CPU"}
    peaks = {name: step.added_bytes(case, name, device, variant.how) for name in ("ERM", "CIM")}
    runs = {name: step.make_step(case, name, device, variant.how) for name in peaks}
    times = measuring.in_turn(runs, pairs)
    shape = (case.batch_size, 3, case.side, case.side)
    row = measuring.row("CIM", shape, times["CIM"], times["ERM"], times["CIM"], peaks["CIM"] / max(1, peaks["ERM"]))
    return {**row, "target": TARGETS.get(case.model), "peak_gib": peaks["CIM"] / 2**30}


def profile(sizes: Sizes, device: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    case = step.Case(sizes.models[0], sizes.images, sizes.side)
    yield f"{case.model}, CIM", lambda: {"operations": operations.profiled(case, device)}


def images(sizes: Sizes, device: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    yield f"{sizes.files} files of 320 x 320", lambda: {"rates": loader.rates(sizes.files, device)}


SECTIONS = {"kernels": kernels, "triplet": triplet, "step": steps, "profile": profile, "loader": images}
