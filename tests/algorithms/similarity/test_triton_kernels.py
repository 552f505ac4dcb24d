"""The Triton kernels against plain autograd in double precision, interpreted on a CPU, and compiled for GPUs that need
not be there.

No test here runs a kernel on a GPU.
"""

from __future__ import annotations

import logging
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from images import adversarial_pairs, related, smooth_masks
from torch import Tensor

from cim_plugin.algorithms.similarity import fused as module
from cim_plugin.algorithms.similarity.ms_ssim import FLOORS, choose_scales, triplet

pytest.importorskip("triton")
from interpreted_triton import add_rows, chosen, gradient, largest_error, use, values_without_gradient, weighted  # noqa: E402

pytestmark = pytest.mark.slow

TARGETS = ["input", "morphed"]
#: N, C, H, W: one plane, one image, odd and unequal sides, one and two scales
SHAPES = [(1, 1, 11, 12), (2, 1, 23, 22), (2, 2, 13, 30), (1, 3, 21, 25)]


@pytest.fixture(scope="module")
def run():
    """A function that calls another one in a fresh process with the interpreter, with blocks of so many pixels."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        patch.setenv("TRITON_INTERPRET", "1")
        pool.submit(use, 4096).result()
        yield lambda function, *arguments, **keywords: pool.submit(function, *arguments, **keywords).result()


def _reference_gradient(
    psi: Tensor, x: Tensor | None, rows: tuple[Tensor, Tensor], scales: int, floor: str
) -> tuple[Tensor, Tensor]:
    psi = psi.detach().requires_grad_()
    values = torch.stack(triplet(psi, psi if x is None else x, *rows, scales, floor))
    return values.detach(), torch.autograd.grad(weighted(values), psi)[0]


def _case(
    crops, n: int, channels: int, height: int, width: int, targets: str
) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
    """Rows repeat, and the first anchor's negative is its own row."""
    x = crops(n, channels, height, width)
    return smooth_masks(x) * x, x if targets == "input" else None, (torch.randint(n, (n,)), torch.arange(n) // 2)


def _assert_equal(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(actual[1], expected[1], rtol=0, atol=tolerance * expected[1].abs().max().item() + 1e-15)


# --- interpreted -----------------------------------------------------------------------------------------------------


def test_values_and_gradients_equal_plain_autograd(crops, run):
    for shape in SHAPES:
        for number, targets in enumerate(TARGETS):
            floor = list(FLOORS)[(number + shape[0]) % 2]
            psi, x, rows = _case(crops, *shape, targets)
            arguments = (psi, x, rows, choose_scales(*shape[2:]), floor)
            _assert_equal(run(gradient, *arguments), _reference_gradient(*arguments))


def test_adversarial_images_equal_plain_autograd(run):
    """psi and x one batch, so that every image is compared with itself, with its opposite and with another kind."""
    psi, x = (images[:10, :1].double() for images in adversarial_pairs(10, 11))
    everything = torch.cat([psi, x])
    rows = torch.arange(20), torch.arange(20).roll(10)
    arguments = (everything, None, rows, 1, "exact")
    _assert_equal(run(gradient, *arguments), _reference_gradient(*arguments))


@pytest.mark.parametrize(
    "shape, tile, block",
    [((2, 1, 45, 12), 1, 4096), ((17, 1, 12, 11), 16 * 12 * 11, 4096), ((1, 2, 13, 17), module._TILE, 64)],
)
def test_tiles_and_blocks_do_not_matter(crops, shape, tile, block, run):
    """Strips of lines; planes in two launches; blocks of pixels that end within a line."""
    psi, _, rows = _case(crops, *shape, "morphed")
    run(use, block)
    actual = run(gradient, psi, None, rows, 1, "smooth", tile=tile)
    run(use, 4096)
    _assert_equal(actual, _reference_gradient(psi, None, rows, 1, "smooth"))


@pytest.mark.parametrize(
    "lay_out",
    [lambda a: a.to(memory_format=torch.channels_last), lambda a: a.transpose(2, 3).contiguous().transpose(2, 3)],
    ids=["channels_last", "transposed"],
)
def test_memory_layout_does_not_matter(crops, lay_out, run):
    psi, x, rows = _case(crops, 2, 2, 12, 13, "input")
    assert not lay_out(psi).is_contiguous()
    _assert_equal(
        run(gradient, lay_out(psi), lay_out(x), rows, 1, "smooth"), _reference_gradient(psi, x, rows, 1, "smooth")
    )


@pytest.mark.parametrize("targets", TARGETS)
def test_float32_error_is_at_most_twice_that_of_plain_autograd_and_results_repeat_to_the_bit(crops, targets, run):
    """Medians of absolute errors against double precision: a few flat images make most of a mean."""
    x = related(crops(10, 1, 12, 13))
    psi, rows = smooth_masks(x) * x, (torch.arange(10).roll(1), torch.arange(10).roll(7))
    x = x if targets == "input" else None
    single = psi.float(), None if x is None else x.float(), rows, 1, "exact"
    exact = _reference_gradient(psi, x, rows, 1, "exact")
    ours, theirs = run(gradient, *single), _reference_gradient(*single)
    assert ours[1].dtype == torch.float32
    own_errors, their_errors = (
        [(a.double() - b).abs().median() for a, b in zip(rounded, exact)] for rounded in (ours, theirs)
    )
    assert all(own <= 2 * their for own, their in zip(own_errors, their_errors))
    assert all(torch.equal(a, b) for a, b in zip(run(gradient, *single), ours))


def test_the_reference_may_have_other_rows_than_the_anchor(crops, run):
    """As where several processes share a batch."""
    x = crops(7, 1, 13, 12)
    arguments = (smooth_masks(x) * x)[:3], x, (torch.tensor([6, 0, 3]), torch.tensor([5, 5, 1])), 1, "exact"
    _assert_equal(run(gradient, *arguments), _reference_gradient(*arguments))


def test_without_a_gradient_no_slope_is_computed(crops, run):
    psi, x, rows = _case(crops, 3, 1, 13, 12, "input")
    values = run(values_without_gradient, psi, x, rows, 1)
    assert not values.requires_grad
    torch.testing.assert_close(values, torch.stack(triplet(psi, x, *rows, 1, "exact")), rtol=0, atol=1e-12)


def test_slopes_are_added_to_the_rows_that_are_named(run):
    """Some rows are named often, some never; the planes of the total are part of larger ones."""
    whole, rows = torch.rand(5, 9, 4), torch.tensor([[4, 0, 4], [4, 2, 0]])
    weights, slopes = torch.rand(2, 3, 1, 1), torch.rand(2, 3, 6, 4)
    expected = whole.clone()
    for pair, row in enumerate(rows.flatten().tolist()):
        expected[row, 2:8] += weights.flatten()[pair] * slopes.flatten(0, 1)[pair]
    total = run(add_rows, whole[:, 2:8], rows, weights, slopes)
    torch.testing.assert_close(total, expected[:, 2:8])


# --- compiled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", [90])
def test_kernels_compile_for_a_gpu_without_atomics_and_without_tf32(capability, tmp_path, monkeypatch):
    """Compiling needs no GPU; nothing is run."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    script = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from cim_plugin.algorithms.similarity import triton_kernels as t

images, indices = "*fp32", "*i64"
kernels = [
    (t._blur_columns, {"rows": indices, "planes": "i32", "height": "i32", "width": "i32"}, {}),
    (t._blur_rows_and_compare, {"lines": "i32", "width": "i32"}, {"coarsest": True, "sides": 2}),
    (t._spread_columns, {"lines": "i32", "columns": "i32"}, {}),
    (t._spread_rows_and_combine, {"rows": indices, "planes": "i32", "height": "i32", "width": "i32"}, {"sides": 2}),
    (t._gather, {"order": indices, "starts": indices, "stride": "i32", "count": "i32"}, {}),
]
for kernel, types, constants in kernels:
    constants = {**constants, "BLOCK": t._BLOCK}
    signature = {name: "constexpr" if name in constants else types.get(name, images) for name in kernel.arg_names}
    code = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", int(sys.argv[1]), 32)).asm
    assert code["cubin"] and ".target sm_" + sys.argv[1] in code["ptx"]
    assert "fma.rn.f32" in code["ptx"] and "atom" not in code["ptx"] and "tf32" not in code["ptx"]
print("compiled", len(kernels))
"""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    child = subprocess.run([sys.executable, "-c", script, str(capability)], capture_output=True, text=True, timeout=120)
    if "ptxas" in child.stderr and "not found" in child.stderr.lower():
        pytest.skip("this build of Triton has no assembler for NVIDIA GPUs")
    assert child.stdout == "compiled 5\n", child.stderr[-2000:]


# --- when it is used -------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """The choice for a GPU, asked anew."""
    module._on_gpu.cache_clear()
    yield lambda: module._on_gpu(torch.device("cpu"))
    module._on_gpu.cache_clear()


def test_kernels_that_equal_plain_autograd_are_used(run):
    assert run(largest_error) < 1e-5
    assert run(chosen) == "cim_plugin.algorithms.similarity.triton_kernels"


@pytest.mark.parametrize(
    "wrong, off",
    [(lambda sums: 0.8 * sums, "they are [0-9.e-]+ off"), (lambda sums: sums * torch.nan, "they are inf off")],
)
def test_kernels_that_are_wrong_are_found(wrong, off):
    def compare(*call):
        sums, slopes = module._compare_gathered(*call)
        return wrong(sums), slopes

    right = module._Arithmetic(module._compare_gathered, module._add_rows, module._TILE)
    assert module._trouble(right, torch.device("cpu")) == ""
    assert re.fullmatch(off, module._trouble(right._replace(compare=compare), torch.device("cpu")))


def test_kernels_that_do_not_run_are_not_used_and_one_line_says_so(gpu, caplog):
    with caplog.at_level(logging.WARNING):
        assert gpu() is None and gpu() is None
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("MS-SSIM runs by plain autograd on cpu, slower: its Triton kernels cannot be used (")


def test_without_triton_plain_autograd_is_used_and_one_line_says_so(gpu, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "cim_plugin.algorithms.similarity.triton_kernels", None)
    monkeypatch.delattr("cim_plugin.algorithms.similarity.triton_kernels", raising=False)
    with caplog.at_level(logging.WARNING):
        assert gpu() is None and gpu() is None
    (line,) = (record.getMessage() for record in caplog.records)
    assert (
        line.startswith(
            "MS-SSIM runs by plain autograd on cpu, slower: its Triton kernels cannot be used (ModuleNotFoundError: "
        )
        or "ImportError" in line
    )


def test_the_method_imports_and_computes_without_triton():
    script = """
import sys
sys.modules["triton"] = None
import torch
from cim_plugin.algorithms import bottleneck, classifier, contrastive, group_dro, morphing, triplets
from cim_plugin.algorithms.similarity import fused as fused_triplet
images = torch.rand(2, 1, 24, 24)
found = fused_triplet.fused_triplet(images, images, torch.tensor([1, 0]), torch.tensor([0, 1]), 2, "smooth")
print(len(found), "cim_plugin.algorithms.similarity.triton_kernels" in sys.modules)
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert child.stdout == "2 False\n", child.stderr[-2000:]
