"""The Gaussian bottleneck of the deep variational information bottleneck (Alemi et al., 2017, arXiv:1612.00410)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributed import SINGLE_PROCESS, Shard

#: At the start the code is nearly its mean: sigma = exp(-5/2) = 0.08. Alemi et al. start at softplus(-5) = 0.007.
INITIAL_LOG_VARIANCE = -5.0


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)) per sample, in nats: (N, D), (N, D) -> (N,).

    >>> gaussian_kl(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.zeros(2, 2))
    tensor([0., 1.])
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


class GaussianBottleneck(nn.Module):
    """q(z|x): features -> mean and log-variance of a diagonal Gaussian.

    Args:
        n_features: length of the encoder's features.
        dimension: length of z.
    """

    def __init__(self, n_features: int, dimension: int):
        super().__init__()
        self.mean = nn.Linear(n_features, dimension)
        self.log_variance = nn.Linear(n_features, dimension)
        nn.init.constant_(self.log_variance.bias, INITIAL_LOG_VARIANCE)

    def forward(self, features: Tensor, shard: Shard = SINGLE_PROCESS) -> tuple[Tensor, Tensor]:
        """Features (N, n_features) -> a reparameterised sample z (N, dimension) and the KL to N(0, I) (N,).

        Both in at least float32, also under autocast: exp overflows half precision.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.mean.weight.dtype)
            mean = self.mean(features)
            log_variance = self.log_variance(features).clamp(max=20)  # exp stays finite
            z = mean + shard.randn_like(mean) * (0.5 * log_variance).exp()
            return z, gaussian_kl(mean, log_variance)
