"""DomainBed's train, and cim-plugin show of what it leaves, with a MobileNetV2 in place of the host's ResNets: for two
cores. ``python -m scripts.small_featurizer WEIGHTS train|show ...``.

The host trains at 224 pixels by a ResNet-18 or -50 only. WEIGHTS is a state dict of timm's ``mobilenetv2_100`` with
``pad_type="same"``, or ``none`` for random ones. docs/mask.md has what it was used for.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn


def featurizer(weights: str) -> type[nn.Module]:
    """A class in the form of the host's ``networks.ResNet``."""

    class MobileNetV2(nn.Module):
        n_outputs = 1280

        def __init__(self, input_shape: tuple[int, int, int], hparams: dict[str, Any]):
            import timm

            super().__init__()
            self.network = timm.create_model("mobilenetv2_100", pad_type="same")
            if weights != "none":
                self.network.load_state_dict(torch.load(weights, weights_only=True))
            self.network.reset_classifier(0)

        def train(self, mode: bool = True) -> nn.Module:
            """Statistics of batch normalisation stay, as in the host's ResNets."""
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            return self

        def forward(self, images: Tensor) -> Tensor:
            """Images (N, 3, H, W) -> features (N, 1280)."""
            return self.network(images)

    return MobileNetV2


def main() -> int:
    weights, command, *rest = sys.argv[1:] if len(sys.argv) > 2 else ["--help", "--help"]
    if command not in ("train", "show"):
        print(__doc__.split("``")[1], file=sys.stderr)
        return 2
    from cim_plugin import autoload, cli
    from cim_plugin import domainbed as host

    autoload.install()
    from domainbed import datasets, networks

    networks.ResNet = featurizer(weights)
    datasets.MultipleDomainDataset.N_WORKERS = 0  # of each of eleven loaders; the host's is 8
    if command == "show":
        return cli.main(["show", *rest])
    sys.argv[1:] = ["train", *rest]
    host.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
