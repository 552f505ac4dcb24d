"""The gradient of a first convolution in phases, against torch's own; when it is taken, and when not."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_plugin.algorithms import first_convolution as module
from cim_plugin.algorithms.first_convolution import input_gradient, phased


def _reference_input_gradient(gradient, weight, padding, shape):
    return torch.nn.grad.conv2d_input(shape, weight, gradient, stride=2, padding=padding)


@pytest.mark.parametrize("size, padding", [((7, 7), (3, 3)), ((3, 3), (1, 1)), ((4, 4), (1, 1)), ((3, 7), (1, 3))])
@pytest.mark.parametrize("shape", [(2, 3, 20, 14), (1, 1, 8, 8), (3, 4, 12, 32)])
def test_the_gradient_is_torchs(size, padding, shape):
    weight = torch.randn(5, shape[1], *size, dtype=torch.float64)
    gradient = torch.randn(shape[0], 5, shape[2] // 2, shape[3] // 2, dtype=torch.float64)
    expected = _reference_input_gradient(gradient, weight, padding, shape)
    torch.testing.assert_close(input_gradient(gradient, weight, padding), expected, rtol=1e-12, atol=1e-12)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    second = nn.Conv2d(6, 4, 3, stride=2, padding=1)
    return nn.Sequential(nn.Conv2d(3, 6, 7, stride=2, padding=3), nn.ReLU(), second)


class Gradients(NamedTuple):
    found: list[Tensor]  #: the output; the gradients to the images and the weights
    in_phases: list[tuple]  #: the shapes of the weights whose gradient to the input was taken in phases


def gradients(encoder, images, on: bool) -> Gradients:
    images = images.clone().requires_grad_()
    encoder.zero_grad()
    with phased(images, encoder) if on else torch.enable_grad():
        output = encoder(images)
    in_phases = phases_of(output)
    output.square().sum().backward()
    found = [output.detach(), images.grad, *(weight.grad.clone() for weight in encoder.parameters())]
    return Gradients(found, in_phases)


def phases_of(output) -> list[tuple]:
    node, shapes = output.grad_fn, []
    while node is not None:
        if node.name() == "_ConvolutionBackward":
            shapes.append(tuple(node.saved_tensors[1].shape))
        node = node.next_functions[0][0] if node.next_functions else None
    return shapes


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_the_same_to_the_bit_and_gradients_up_to_rounding(encoder, layout):
    encoder, images = encoder.to(memory_format=layout), torch.rand(2, 3, 24, 32).to(memory_format=layout)
    (ours, in_phases), (theirs, none) = gradients(encoder, images, True), gradients(encoder, images, False)
    assert in_phases == [(6, 3, 7, 7)] and none == [] and torch.equal(ours[0], theirs[0])
    for own, their in zip(ours[1:], theirs[1:]):
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-4 * their.abs().max().item())


def test_a_gradient_of_the_gradient_is_torchs(encoder):
    """As invariant risk minimisation takes it."""
    encoder = encoder.double()

    def second(on: bool):
        images = torch.rand(
            1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        ).requires_grad_()
        convolve = module._Convolution.apply if on else lambda *call: F.conv2d(*call)
        output = convolve(images, encoder[0].weight, encoder[0].bias, [2, 2], [3, 3])
        (first,) = torch.autograd.grad(output.square().sum(), images, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [images, encoder[0].weight])

    for own, their in zip(second(True), second(False)):
        torch.testing.assert_close(own, their, rtol=1e-9, atol=1e-9)


REFUSED = {
    "an odd side": (nn.Conv2d(3, 6, 7, stride=2, padding=3), torch.rand(1, 3, 23, 24)),
    "stride 1": (nn.Conv2d(3, 6, 3, padding=1), torch.rand(1, 3, 24, 24)),
    "groups": (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), torch.rand(1, 4, 24, 24)),
    "dilation": (nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2), torch.rand(1, 3, 24, 24)),
    "padding in words": (nn.Conv2d(3, 6, 3, padding="same"), torch.rand(1, 3, 24, 24)),
    "many channels": (nn.Conv2d(8, 6, 3, stride=2, padding=1), torch.rand(1, 8, 24, 24)),
    "patches": (nn.Conv2d(3, 6, 2, stride=2), torch.rand(1, 3, 24, 24)),
    "float64": (nn.Conv2d(3, 6, 3, stride=2, padding=1).double(), torch.rand(1, 3, 24, 24).double()),
}


@pytest.mark.parametrize("convolution, images", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_torchs(convolution, images):
    ours, in_phases = gradients(convolution, images, True)
    theirs, _ = gradients(copy.deepcopy(convolution), images, False)
    assert in_phases == [] and all(torch.equal(own, their) for own, their in zip(ours, theirs))


def test_a_torch_that_shuffles_pixels_otherwise_is_found_and_has_its_own_gradient(encoder, monkeypatch):
    images, shuffle = torch.rand(1, 3, 24, 24), F.pixel_shuffle
    expected = gradients(encoder, images, False).found
    monkeypatch.setattr(F, "pixel_shuffle", lambda *call: shuffle(*call).flip(3))
    module._is_right.cache_clear()
    ours, in_phases = gradients(encoder, images, True)
    module._is_right.cache_clear()
    assert in_phases == [] and all(torch.equal(own, their) for own, their in zip(ours, expected))


def test_without_a_gradient_compiled_or_in_autocast_nothing_is_changed(encoder):
    images = torch.rand(1, 3, 24, 24)
    with phased(images, encoder):
        assert phases_of(encoder(images)) == []
    with torch.autocast("cpu", torch.bfloat16):
        assert gradients(encoder, images, True).in_phases == []
    encoder.compile(backend="eager")
    assert gradients(encoder, images, True).in_phases == []
