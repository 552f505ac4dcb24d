"""DomainBed's networks for images, by the names that their weights have in its files: so that its models need no
DomainBed.

Written after what its ``networks.py`` and ``lib/wide_resnet.py`` compute. They are for evaluation: what DomainBed does
in training only, such as frozen batch statistics, is not here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError


def make_featurizer(channels: int, image_size: tuple[int, int], options: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """The featurizer that DomainBed chooses for images of this size, with random weights, and its number of features.

    Args:
        channels: of the images.
        image_size: height and width.
        options: of its hyperparameters ``resnet18``, ``resnet50_augmix`` and ``vit``.

    Raises:
        InputError: DomainBed has no such network, or it is code of torch.hub.
    """
    if image_size == (28, 28):
        return SmallConvolutional(channels), 128
    if image_size == (32, 32):
        return WideResNet(channels), 128
    if image_size != (224, 224):
        raise InputError(
            f"DomainBed has no network for images of {image_size[0]}x{image_size[1]}; it has them for 28x28, 32x32 and "
            f"224x224"
        )
    if options.get("vit"):
        raise InputError(
            "the network of this model is DINOv2 of torch.hub, which would fetch and execute code; such a model is not "
            "loaded"
        )
    return _resnet(channels, bool(options.get("resnet18")), bool(options.get("resnet50_augmix")))


def named(network: nn.Module) -> nn.Module:
    """A network that the plugin has put into DomainBed by its name, as the featurizer computes in evaluation."""
    return nn.Sequential(OrderedDict(network=network.to(memory_format=torch.channels_last)))


def make_head(n_inputs: int, n_classes: int, nonlinear: bool) -> nn.Module:
    """DomainBed's classifier: one linear layer, or three with rectifiers between them."""
    if not nonlinear:
        return nn.Linear(n_inputs, n_classes)
    sizes = (n_inputs, n_inputs // 2, n_inputs // 4)
    hidden = [layer for pair in zip(sizes, sizes[1:]) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], n_classes))


class SmallConvolutional(nn.Sequential):
    """``MNIST_CNN``: four convolutions with group normalisation after the rectifier, for images of 28 x 28."""

    def __init__(self, channels: int):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        sizes = ((channels, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 1))
        for number, (n_inputs, n_outputs, stride) in enumerate(sizes):
            layers[f"conv{number + 1}"] = nn.Conv2d(n_inputs, n_outputs, 3, stride, padding=1)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"bn{number}"] = nn.GroupNorm(8, n_outputs)
        super().__init__(layers | OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))


class _WideBlock(nn.Module):
    """Two convolutions, each after normalisation and rectifier, beside a shortcut."""

    def __init__(self, n_inputs: int, n_outputs: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(n_inputs), nn.Conv2d(n_inputs, n_outputs, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(n_outputs), nn.Conv2d(n_outputs, n_outputs, 3, stride, padding=1)
        same = stride == 1 and n_inputs == n_outputs
        self.shortcut = nn.Sequential(*([] if same else [nn.Conv2d(n_inputs, n_outputs, 1, stride)]))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.bn1(x)))
        return self.conv2(F.relu(self.bn2(hidden))) + self.shortcut(x)


class WideResNet(nn.Module):
    """``Wide_ResNet`` of depth 16 and width 2, for images of 32 x 32."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        for name, n_inputs, n_outputs, stride in (("layer1", 16, 32, 1), ("layer2", 32, 64, 2), ("layer3", 64, 128, 2)):
            blocks = (_WideBlock(n_inputs, n_outputs, stride), _WideBlock(n_outputs, n_outputs, 1))
            setattr(self, name, nn.Sequential(*blocks))
        self.bn1 = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return F.avg_pool2d(F.relu(self.bn1(hidden)), 8)[:, :, 0, 0]


def _resnet(channels: int, is_18: bool, is_augmix: bool) -> tuple[nn.Module, int]:
    """A ResNet without its last layer: torchvision's, or with ``resnet50_augmix`` timm's."""
    if is_augmix:
        try:
            import timm
        except ImportError as error:
            raise InputError("the network of this model is timm's resnet50; pip install timm") from error
        network = timm.create_model("resnet50", pretrained=False)
    else:
        import torchvision

        network = torchvision.models.get_model("resnet18" if is_18 else "resnet50", weights=None)
    n_features = network.fc.in_features
    network.fc = nn.Identity()
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(OrderedDict(network=network)), n_features
