"""The Gaussian bottleneck against torch.distributions, a Kolmogorov-Smirnov test of its samples, and finite
differences.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call

from cim_plugin.algorithms.bottleneck import GaussianBottleneck, gaussian_kl


def _reference_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return kl_divergence(Normal(mean, (log_variance / 2).exp()), standard).sum(1)


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0, 10.0])
@pytest.mark.parametrize("n, dimension", [(1, 1), (5, 1), (1, 7), (16, 64)])
def test_kl_equals_torch_distributions(n, dimension, spread):
    mean, log_variance = spread * torch.randn(2, n, dimension, dtype=torch.float64)
    torch.testing.assert_close(
        gaussian_kl(mean, log_variance), _reference_kl(mean, log_variance), rtol=1e-12, atol=1e-12
    )


def test_kl_of_the_prior_is_zero_and_is_given_in_nats():
    kl = gaussian_kl(
        torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, math.log(4)]])
    )
    assert kl.tolist() == pytest.approx([0, 4.5, 1.5 - math.log(2)])


def test_samples_follow_the_distribution_that_the_kl_is_of():
    bottleneck = GaussianBottleneck(6, 3).double()
    torch.nn.init.normal_(bottleneck.log_variance.bias)
    features = torch.randn(1, 6, dtype=torch.float64)
    mean = features @ bottleneck.mean.weight.T + bottleneck.mean.bias
    log_variance = features @ bottleneck.log_variance.weight.T + bottleneck.log_variance.bias
    z, kl = bottleneck(features.expand(5000, -1))
    for samples, loc, scale in zip(z.T, mean[0], (log_variance[0] / 2).exp()):
        assert kstest(((samples - loc) / scale).detach().numpy(), "norm").pvalue > 1e-3
    assert z.T.corrcoef().fill_diagonal_(0).abs().max() < 0.06  # four standard errors
    torch.testing.assert_close(kl, _reference_kl(mean, log_variance).expand(5000), rtol=1e-12, atol=0)


def test_at_the_start_the_code_is_nearly_its_mean():
    bottleneck = GaussianBottleneck(8, 16)
    features = 0.1 * torch.randn(500, 8)
    noise = bottleneck(features)[0] - bottleneck.mean(features)
    assert noise.std().item() == pytest.approx(math.exp(-2.5), rel=0.05)


def test_gradcheck_of_code_and_kl_with_respect_to_features_and_parameters():
    bottleneck = GaussianBottleneck(4, 3).double()
    torch.nn.init.normal_(bottleneck.log_variance.bias)
    names, parameters = zip(*bottleneck.named_parameters())

    def code_and_kl(features, *parameters):
        torch.manual_seed(1)  # the same noise at every call
        return functional_call(bottleneck, dict(zip(names, parameters)), (features,))

    assert torch.autograd.gradcheck(
        code_and_kl, (torch.randn(5, 4, dtype=torch.float64, requires_grad=True), *parameters)
    )


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e4, 1e8, -1e8])
def test_extreme_features_stay_finite(scale, autocast):
    """exp(log variance) would overflow: it is clamped."""
    bottleneck = GaussianBottleneck(4, 8)
    features = (scale * torch.rand(3, 4)).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        z, kl = bottleneck(features)
    (z.sum() + kl.sum()).backward()
    assert z.isfinite().all() and kl.isfinite().all() and (kl >= 0).all()
    assert (
        all(parameter.grad.isfinite().all() for parameter in bottleneck.parameters()) and features.grad.isfinite().all()
    )


@pytest.mark.parametrize("features_dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("model_dtype", [torch.float32, torch.float64])
def test_code_and_kl_have_the_models_precision_also_under_autocast(features_dtype, model_dtype):
    bottleneck = GaussianBottleneck(4, 8).to(model_dtype)
    features = torch.randn(3, 4).to(features_dtype)
    given = []
    for autocast in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            given.append(bottleneck(features))
    for plain, under_autocast in zip(*given):
        assert under_autocast.dtype == model_dtype
        assert torch.equal(plain, under_autocast)
