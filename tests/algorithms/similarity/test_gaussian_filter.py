"""The Gaussian window against a two-dimensional convolution, and its transpose as the adjoint, in both ways of
filtering.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cim_plugin.algorithms.similarity.gaussian_filter import gaussian_filter, gaussian_filter_transpose, gaussian_taps

SHAPES = [(1, 1, 11, 11), (2, 3, 12, 25), (1, 16, 42, 43), (2, 17, 74, 31), (1, 2, 75, 106)]
PRECISION = {torch.float64: 1e-13, torch.float32: 1e-6}


def _reference_filter(maps: Tensor) -> Tensor:
    window = torch.tensor(
        [[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)], dtype=torch.float64
    )
    window /= window.sum()
    planes = maps.double().flatten(0, 1)[:, None]
    return F.conv2d(planes, window[None, None]).view(*maps.shape[:2], maps.shape[2] - 10, maps.shape[3] - 10)


def _maps(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.rand(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


@pytest.fixture(params=["as chosen", "without oneDNN"])
def way(request, monkeypatch):
    """float64 takes the banded product in any case; float32 where there is no oneDNN."""
    if request.param == "without oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_filter_is_the_two_dimensional_window(shape, dtype, way):
    maps = _maps(shape, dtype)
    filtered = gaussian_filter(maps, gaussian_taps(maps))
    assert filtered.dtype == dtype
    torch.testing.assert_close(filtered.double(), _reference_filter(maps), rtol=0, atol=PRECISION[dtype])


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_transpose_is_the_gradient_of_the_filter(shape, dtype, way):
    maps = _maps(shape, torch.float64).requires_grad_()
    upstream = _maps((*shape[:2], shape[2] - 10, shape[3] - 10), dtype)
    (expected,) = torch.autograd.grad(_reference_filter(maps), maps, upstream.double())
    spread = gaussian_filter_transpose(upstream, gaussian_taps(upstream))
    assert spread.dtype == dtype
    torch.testing.assert_close(spread.double(), expected, rtol=0, atol=PRECISION[dtype])


@pytest.mark.parametrize(
    "dtype, onednn, expected",
    [(torch.float32, True, True), (torch.float32, False, False), (torch.float64, True, False)],
)
def test_depthwise_convolution_is_for_what_onednn_has(monkeypatch, dtype, onednn, expected):
    """Elsewhere it is a hundred times slower."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    with torch.profiler.profile() as profile:
        gaussian_filter(_maps((1, 1, 11, 11), dtype), torch.ones(11, dtype=dtype))
    assert any(event.name == "aten::conv2d" for event in profile.events()) == expected


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_the_planes_of_a_pixel_stay_neighbours(shape, way):
    """What comes after a filter is then as fast as the filter."""
    maps = _maps(shape, torch.float32)
    for filtered in (gaussian_filter(maps, gaussian_taps(maps)), gaussian_filter_transpose(maps, gaussian_taps(maps))):
        assert filtered.is_contiguous(memory_format=torch.channels_last)
