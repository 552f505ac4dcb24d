"""The transformation network and psi(x) = m∘x, against arithmetic by hand, torchvision's normalisation and finite
differences.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torchvision.transforms.functional import normalize

from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.algorithms.contrastive import TripletContrast
from cim_plugin.algorithms.morphing import InputMorphing, PixelSpace, TransformationNetwork
from cim_plugin.algorithms.similarity.fused import MSSSIM

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZES = [(28, 28), (33, 47), (224, 224)]


# --- pixel space -----------------------------------------------------------------------------------------------------


def test_imagenet_pixel_space_undoes_torchvisions_normalisation(crops):
    pixels = crops(4, 3, 33, 47).float()
    space = PixelSpace.imagenet()
    torch.testing.assert_close(space.to_pixels(normalize(pixels, MEAN, STD)), pixels, rtol=0, atol=1e-6)
    torch.testing.assert_close(space.from_pixels(pixels), normalize(pixels, MEAN, STD), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mean, std", [([0.1307], [0.3081]), ([0.2, 0.7], [0.01, 3.0]), (MEAN, STD)])
def test_the_round_trip_gives_the_images_back(mean, std):
    space = PixelSpace(mean, std).double()
    images = torch.randn(3, len(mean), 9, 7, dtype=torch.float64)
    assert space.channels == len(mean)
    torch.testing.assert_close(space.from_pixels(space.to_pixels(images)), images, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_raw_images_are_pixels_already(channels):
    images = torch.rand(2, channels, 9, 7)
    space = PixelSpace.raw(channels)
    assert space.channels == channels
    assert torch.equal(space.to_pixels(images), images)
    assert torch.equal(space.from_pixels(images), images)


def test_the_normalisation_is_no_part_of_a_checkpoint():
    assert not PixelSpace.imagenet().state_dict()


# --- masks and psi ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("height, width", SIZES)
def test_psi_is_the_mask_times_the_pixels(crops, height, width, channels, per_channel):
    """For an encoder that takes normalised images, psi is normalised again."""
    mean, std = [0.5, 0.1, 0.3][:channels], [0.2, 0.5, 0.3][:channels]
    network = TransformationNetwork(channels, channels) if per_channel else None
    morphing = InputMorphing(PixelSpace(mean, std), network)
    x = crops(2, channels, height, width).float()
    images = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(channels)], 1)
    pixels, mask, psi, morphed = morphing(images)
    assert mask.shape == (2, channels if per_channel else 1, height, width)
    assert ((mask > 0) & (mask < 1)).all()
    torch.testing.assert_close(pixels, x, rtol=0, atol=1e-6)
    for c in range(channels):
        by_hand = mask[:, c if per_channel else 0] * x[:, c]
        torch.testing.assert_close(psi[:, c], by_hand, rtol=0, atol=1e-6)
        torch.testing.assert_close(morphed[:, c], (by_hand - mean[c]) / std[c], rtol=0, atol=1e-5)


def test_the_hosts_normalisation_does_not_change_mask_and_psi(crops):
    x = crops(3, 3, 40, 40)
    raw, normalised = InputMorphing(PixelSpace.raw(3)).double(), InputMorphing(PixelSpace.imagenet()).double()
    normalised.load_state_dict(raw.state_dict())
    expected, actual = raw(x), normalised(normalize(x, MEAN, STD))
    torch.testing.assert_close(actual.mask, expected.mask, rtol=0, atol=1e-6)  # mean and std are float32 at first
    torch.testing.assert_close(actual.psi, expected.psi, rtol=0, atol=1e-6)
    torch.testing.assert_close(actual.images, normalize(expected.psi, MEAN, STD), rtol=0, atol=1e-6)


def test_the_mask_depends_on_the_image_and_on_nothing_else_in_the_batch(crops):
    morphing = InputMorphing(PixelSpace.raw(3)).double()
    x = crops(4, 3, 33, 47)
    together = morphing(x).mask
    assert (together[0] - together[1]).abs().max() > 1e-3
    torch.testing.assert_close(torch.cat([morphing(image[None]).mask for image in x]), together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [28, 96])
@pytest.mark.parametrize("stride", [2, 4])
def test_before_training_m_is_near_its_start_and_varies_by_more_than_a_grey_level(crops, side, stride):
    images = crops(8, 3, side, side).float()
    for seed in range(10):
        torch.manual_seed(seed)
        mask = TransformationNetwork(3, stride=stride)(images)
        assert abs(mask.mean() - TransformationNetwork.start) < 0.1
        assert mask.flatten(1).std(1).mean() > 1 / 255


def _reference_first_layer(convolution, pixels):
    """He's draw convolved with pixels that are centred first; borders are black on both sides."""
    weight = convolution.weight * 0.25
    return torch.nn.functional.conv2d(
        torch.nn.functional.pad((pixels - 0.5) / 0.25, (1, 1, 1, 1), value=-2.0), weight, stride=2
    )


def test_the_first_layer_starts_as_one_of_centred_pixels(crops):
    convolution = TransformationNetwork(3).double().features[0]
    pixels = crops(2, 3, 28, 28)
    expected = _reference_first_layer(convolution, pixels)
    torch.testing.assert_close(convolution(pixels), expected, rtol=0, atol=1e-6)


def test_the_weights_can_be_drawn_again():
    network = TransformationNetwork(3)
    torch.manual_seed(0)
    network.reset_parameters()
    other = TransformationNetwork(3)
    torch.manual_seed(0)
    other.reset_parameters()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in other.state_dict().items())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_psi_keeps_the_precision_of_the_images(dtype, autocast):
    morphing = InputMorphing(PixelSpace.imagenet()).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        morphed = morphing(torch.rand(2, 3, 28, 28, dtype=dtype))
    assert {part.dtype for part in morphed} == {dtype}


@pytest.mark.parametrize("mask_channels", [1, 2])
def test_gradcheck_of_the_mask_with_respect_to_pixels_and_parameters(mask_channels):
    network = TransformationNetwork(2, mask_channels).double()
    names, parameters = zip(*network.named_parameters())

    def mask(pixels, *parameters):
        return functional_call(network, dict(zip(names, parameters)), (pixels,))

    pixels = torch.rand(2, 2, 13, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mask, (pixels, *parameters), fast_mode=True)


def test_every_parameter_of_the_network_gets_a_gradient_through_psi():
    morphing = InputMorphing(PixelSpace.imagenet(), TransformationNetwork(3, 3))
    morphing(torch.randn(4, 3, 28, 28)).images.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in morphing.parameters())


# --- a network of one's own ------------------------------------------------------------------------------------------


class _Brightness(nn.Module):
    """m = sigmoid(a · mean of the channels + b): the plainest network that there is."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-0.5))

    def forward(self, pixels):
        return torch.sigmoid(self.a * pixels.mean(1, keepdim=True) + self.b)


def test_a_network_of_ones_own_makes_the_mask(crops):
    x = crops(4, 3, 28, 28)
    morphing = InputMorphing(PixelSpace.imagenet(), _Brightness()).double()
    pixels, mask, psi, images = morphing(normalize(x, MEAN, STD))
    expected = 1 / (1 + torch.exp(0.5 - 2 * (x[:, :1] + x[:, 1:2] + x[:, 2:]) / 3))
    torch.testing.assert_close(mask, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(psi, expected * x, rtol=0, atol=1e-6)
    torch.testing.assert_close(images, normalize(expected * x, MEAN, STD), rtol=0, atol=1e-5)


def test_a_network_of_ones_own_is_trained_by_the_whole_classifier(crops):
    contrast = TripletContrast(MSSSIM((28, 28)))
    encoder, head = nn.Sequential(nn.AvgPool2d(7), nn.Flatten()), nn.Linear(48, 2)
    morphing = InputMorphing(PixelSpace.raw(3), _Brightness())
    model = RobustClassifier(encoder, head, {"supervised": 1.0, "contrastive": 1.0}, morphing, contrast)
    losses = model.loss_terms(crops(4, 3, 28, 28).float(), torch.tensor([0, 0, 1, 1])).losses
    for term in ("supervised", "contrastive"):
        gradients = torch.autograd.grad(losses[term].sum(), list(morphing.parameters()), retain_graph=True)
        assert all(gradient.abs() > 0 for gradient in gradients)


@pytest.mark.parametrize("network", [None, TransformationNetwork(3, 3), _Brightness()], ids=["ours", "given", "own"])
def test_the_networks_weights_are_named_alike_whatever_it_is(network):
    """Checkpoints are read by these names."""
    morphing = InputMorphing(PixelSpace.imagenet(), network)
    model = RobustClassifier(nn.Flatten(), nn.Linear(3, 2), {"supervised": 1.0}, morphing)
    names = {name for name in model.state_dict() if name.startswith("morphing.")}
    assert names == {f"morphing.network.{name}" for name in morphing.network.state_dict()} and names


@pytest.mark.parametrize("mask_channels", [1, 3])
def test_an_unmasked_batch_is_that_of_a_mask_of_ones(crops, mask_channels):
    morphed = InputMorphing(PixelSpace.raw(3), TransformationNetwork(3, mask_channels)).double()(crops(2, 3, 28, 28))
    unmasked = morphed.unmasked()
    assert torch.equal(unmasked.mask, torch.ones(2, mask_channels, 28, 28, dtype=torch.float64))
    assert unmasked.pixels is morphed.pixels and torch.equal(unmasked.psi, morphed.pixels)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PixelSpace([0.5, 0.5], [0.5]), "mean has 2 channels and std has 1; give one of each per channel"),
        (lambda: PixelSpace([0.5, 0.5], [0.5, 0.0]), "std must be positive in every channel, (0.5, 0.0) was given"),
        (lambda: PixelSpace([0.5], [-1.0]), "std must be positive in every channel, (-1.0,) was given"),
        (lambda: TransformationNetwork(0), "images have 1 to 3 channels, 0 were given"),
        (lambda: InputMorphing(PixelSpace.raw(4)), "images have 1 to 3 channels, 4 were given"),
        (lambda: TransformationNetwork(3, 2), "a mask has 1 channel or one per image channel (3), 2 were asked for"),
        (lambda: TransformationNetwork(2, 3), "a mask has 1 channel or one per image channel (2), 3 were asked for"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_numbers(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
