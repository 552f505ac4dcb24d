"""Shards put together by hand give what one process gives: losses, weights, noise and gradients."""

from __future__ import annotations

from typing import Callable

import pytest
import torch
from torch import Tensor

from cim_plugin.algorithms.bottleneck import GaussianBottleneck
from cim_plugin.algorithms.contrastive import TripletContrast, supervised_contrastive_loss
from cim_plugin.algorithms.distributed import SINGLE_PROCESS, Shard
from cim_plugin.algorithms.group_dro import GroupWeights
from cim_plugin.algorithms.morphing import Morphed
from cim_plugin.catalog import SIMILARITIES
from cim_plugin.models.from_catalog import similarity_class

N_PROCESSES = [2, 3]
LABELS = torch.tensor([0, 1, 1, 0, 2, 1, 0, 2, 2, 0, 1, 0])
ENVIRONMENTS = torch.tensor([0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1])


def simulated(compute: Callable[..., Tensor], n_processes: int, *tensors: Tensor) -> list:
    """What every process computes of its rows of ``tensors``, one after the other, from the same random state.

    A gather is the concatenation of all processes' tensors: what it is given must be known of all of them, so each
    process's
    tensors are asked for in a first pass without the others, in which a gather repeats its own rows.
    """
    parts = [[tensor.chunk(n_processes)[rank] for tensor in tensors] for rank in range(n_processes)]

    def run(rank: int, gather) -> Tensor:
        torch.manual_seed(3)
        return compute(*parts[rank], shard=Shard(rank, n_processes, gather))

    asked: list[list[Tensor]] = [[] for _ in range(n_processes)]
    for rank in range(n_processes):
        run(rank, lambda values: asked[rank].append(values) or values.repeat(n_processes, *[1] * (values.dim() - 1)))
    results = []
    for rank in range(n_processes):
        calls = iter(zip(*asked))
        results.append(run(rank, lambda values: torch.cat(next(calls))))
    return results


def whole(compute: Callable[..., Tensor], *tensors: Tensor):
    torch.manual_seed(3)
    return compute(*tensors, shard=SINGLE_PROCESS)


@pytest.mark.parametrize("n_processes", N_PROCESSES)
def test_local_rows_of_all_ranks_are_the_batch_in_order(n_processes):
    batch = torch.arange(24).reshape(12, 2)
    parts = [Shard(rank, n_processes).local(batch) for rank in range(n_processes)]
    assert torch.equal(torch.cat(parts), batch)
    assert {len(part) for part in parts} == {12 // n_processes}


def test_a_single_process_has_the_whole_batch():
    batch = torch.rand(5, 2)
    assert torch.equal(SINGLE_PROCESS.local(batch), batch) and torch.equal(SINGLE_PROCESS.gather(batch), batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_processes", N_PROCESSES)
def test_noise_is_drawn_for_the_whole_batch(n_processes, dtype):
    torch.manual_seed(3)
    expected = torch.randn(12, 4, dtype=dtype)
    for rank, rows in enumerate(expected.chunk(n_processes)):
        torch.manual_seed(3)
        assert torch.equal(Shard(rank, n_processes).randn_like(torch.empty(len(rows), 4, dtype=dtype)), rows)


@pytest.mark.parametrize("pairs", ["random", "cross_environment"])
@pytest.mark.parametrize("targets", ["input", "morphed"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("n_processes", N_PROCESSES)
def test_triplets_come_from_the_whole_batch(n_processes, similarity, targets, pairs, crops):
    images = crops(12, 3, 28, 28)
    mask = torch.linspace(0.2, 1, 28, dtype=torch.float64).expand(12, 1, 28, 28).clone().requires_grad_()
    contrast = TripletContrast(similarity_class(similarity)((28, 28)), pairs, targets)

    def compute(images, mask, labels, environments, shard):
        psi = mask * images
        return contrast(Morphed(images, mask, psi, psi), labels, environments, shard)

    loss, valid = whole(compute, images, mask, LABELS, ENVIRONMENTS)
    parts = simulated(compute, n_processes, images, mask, LABELS, ENVIRONMENTS)
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), loss, rtol=0, atol=1e-12)
    assert torch.equal(torch.cat([part[1] for part in parts]), valid) and valid.any()
    gradient = torch.autograd.grad(loss.sum(), mask)[0]
    summed = torch.autograd.grad(sum(part[0].sum() for part in parts), mask)[0]
    torch.testing.assert_close(summed, gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pairs", ["random", "cross_environment"])
@pytest.mark.parametrize("n_processes", N_PROCESSES)
def test_anchors_of_the_supervised_contrastive_loss_see_the_whole_batch(n_processes, pairs):
    features = torch.randn(12, 6, dtype=torch.float64, requires_grad=True)

    def compute(features, labels, environments, shard):
        return supervised_contrastive_loss(features, labels, 0.1, environments, pairs, shard)

    expected = whole(compute, features, LABELS, ENVIRONMENTS)
    actual = torch.cat(simulated(compute, n_processes, features, LABELS, ENVIRONMENTS))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss.sum(), features)[0] for loss in (actual, expected)), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("n_processes", N_PROCESSES)
def test_the_bottleneck_draws_what_one_process_would(n_processes):
    bottleneck = GaussianBottleneck(6, 4).double()
    features = torch.randn(12, 6, dtype=torch.float64)
    z, kl = whole(bottleneck, features)
    parts = simulated(bottleneck, n_processes, features)
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), z, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), kl, rtol=0, atol=1e-12)
    assert not torch.equal(parts[0][0], parts[1][0])


@pytest.mark.parametrize("n_processes", N_PROCESSES)
def test_group_weights_move_by_the_whole_batch(n_processes):
    losses, groups, present = torch.rand(12, dtype=torch.float64), LABELS, torch.tensor([True, True, True, False])
    states = []

    def compute(losses, groups, shard):
        weights = GroupWeights(present, 0.7).double()
        weighted = weights(losses, groups, shard)
        states.append(weights.weights)
        return weighted

    expected = whole(compute, losses, groups)
    actual = torch.cat(simulated(compute, n_processes, losses, groups))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    for weights in states[-n_processes:]:
        torch.testing.assert_close(weights, states[0], rtol=0, atol=1e-12)
