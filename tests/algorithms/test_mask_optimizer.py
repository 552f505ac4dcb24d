"""The transformation network's own Adam beside the optimizer of all other weights."""

import copy
import io

import pytest
import torch
from torch import nn

from cim_plugin.algorithms.mask_optimizer import WITH_SGD, with_own_adam

RATE, DECAY = 0.1, 0.5


def make_model():
    """Float64: two weights of a "network" and two others."""
    torch.manual_seed(0)
    return nn.ModuleDict({"network": nn.Linear(3, 2), "others": nn.Linear(2, 1)}).double()


def sgd(model):
    return torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=DECAY)


def backward(model, number):
    torch.manual_seed(100 + number)
    model["others"](model["network"](torch.randn(5, 3).double()).tanh()).square().mean().backward()


def train(model, optimizer, numbers):
    for number in numbers:
        backward(model, number)
        optimizer.step()
        optimizer.zero_grad()


def weights(module):
    return [weight.detach().clone() for weight in module.parameters()]


def _reference_adam_step(weight, gradient, rate):
    """The first step of Adam (Kingma and Ba, 2015, algorithm 1): both moments, corrected, are those of the one
    gradient.
    """
    return weight - rate * gradient / (gradient.abs() + 1e-8)


@pytest.mark.parametrize("asked, rate", [(0.0, WITH_SGD), (0.02, 0.02)])
def test_the_network_takes_adams_step_without_decay_and_the_others_their_own(asked, rate):
    model = make_model()
    optimizer = with_own_adam(sgd(model), model["network"], asked)
    backward(model, 0)
    expected = [_reference_adam_step(w.detach(), w.grad, rate) for w in model["network"].parameters()]
    others = [w.detach() - RATE * (w.grad + DECAY * w.detach()) for w in model["others"].parameters()]
    optimizer.step()
    torch.testing.assert_close(weights(model), expected + others, rtol=1e-12, atol=1e-12)


def test_with_adaptive_optimizers_the_host_keeps_the_network_unless_a_rate_is_asked_for():
    model = make_model()
    for make in (torch.optim.Adam, torch.optim.AdamW):
        host = make(model.parameters(), 1e-2)
        assert with_own_adam(host, model["network"], 0.0) is host
        own = with_own_adam(host, model["network"], 1e-3)
        assert sorted(group["lr"] for group in own.param_groups) == [1e-3, 1e-2]
        held = [id(weight) for group in own.param_groups for weight in group["params"]]
        assert sorted(held) == sorted(id(weight) for weight in model.parameters())


def test_without_a_network_the_optimizer_is_the_hosts():
    host = sgd(make_model())
    assert with_own_adam(host, None, 0.1) is host


def test_the_state_goes_on_where_it_was_saved():
    model = make_model()
    optimizer = with_own_adam(sgd(model), model["network"], 0.01)
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(model)
    resumed = with_own_adam(sgd(other), other["network"], 0.01)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(model, optimizer, range(3, 6))
    train(other, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))


def test_a_schedule_of_the_host_leaves_the_network_alone():
    model = make_model()
    host = sgd(model)
    schedule = torch.optim.lr_scheduler.StepLR(host, 1, gamma=0.0)
    optimizer = with_own_adam(host, model["network"], 0.01)
    train(model, optimizer, [0])
    schedule.step()
    before = weights(model["network"]), weights(model["others"])
    train(model, optimizer, [1])
    assert all(not torch.equal(a, b) for a, b in zip(before[0], model["network"].parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before[1], model["others"].parameters()))


def test_a_loss_scale_unscales_and_skips_both():
    model, plain = make_model().float(), make_model().float()
    optimizer, scaler = (
        with_own_adam(sgd(model), model["network"], 0.01),
        torch.amp.GradScaler("cpu", init_scale=2.0**10),
    )
    inputs = torch.ones(4, 3)

    def loss(of):
        return of["others"](of["network"](inputs)).square().mean()

    scaler.scale(loss(model)).backward()
    scaler.step(optimizer)
    scaler.update()
    unscaled = with_own_adam(sgd(plain), plain["network"], 0.01)
    loss(plain).backward()
    unscaled.step()
    torch.testing.assert_close(weights(model), weights(plain))

    before = weights(model)
    optimizer.zero_grad()
    scaler.scale(loss(model) * torch.inf).backward()
    scaler.step(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
