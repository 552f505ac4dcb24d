"""Schedules against formulas by hand and torch's own; arguments that do not fit are refused in words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cim_plugin.errors import InputError
from cim_plugin.wilds_runner.optimization import make_optimizer, make_scheduler

N_STEPS, LR = 20, 0.5


def _reference_linear(step: int, warmup: int) -> float:
    return step / warmup if step < warmup else max(0.0, (N_STEPS - step) / (N_STEPS - warmup))


def _reference_cosine(step: int, warmup: int) -> float:
    return step / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (N_STEPS - warmup))) / 2


def scheduled(configure, *words: str, n_steps: int = N_STEPS):
    config = configure("--optimizer", "SGD", "--lr", str(LR), *words)
    optimizer = make_optimizer(config, [nn.Parameter(torch.zeros(1))])
    return optimizer, make_scheduler(config, optimizer, n_steps)


def rates(optimizer, scheduler, n: int, *metric: float) -> list[float]:
    values = []
    for _ in range(n):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*metric)
    return values


@pytest.mark.parametrize("warmup", [0, 1, 5, 19])
@pytest.mark.parametrize(
    "name, reference",
    [("linear_schedule_with_warmup", _reference_linear), ("cosine_schedule_with_warmup", _reference_cosine)],
)
def test_a_schedule_with_warm_up_equals_its_formula(name, reference, warmup, configure):
    optimizer, scheduler = scheduled(configure, "--scheduler", name, "--scheduler_kwargs", f"num_warmup_steps={warmup}")
    expected = [LR * reference(step, warmup) for step in range(N_STEPS)]
    assert rates(optimizer, scheduler, N_STEPS) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["linear_schedule_with_warmup", "cosine_schedule_with_warmup"])
def test_the_rate_stays_at_zero_after_the_last_step(name, configure):
    optimizer, scheduler = scheduled(configure, "--scheduler", name)
    assert rates(optimizer, scheduler, 2 * N_STEPS)[N_STEPS:] == pytest.approx([0] * N_STEPS, abs=1e-12)


@pytest.mark.parametrize("warmup", [N_STEPS, 10 * N_STEPS])
def test_a_run_shorter_than_its_warm_up_only_warms_up(warmup, configure):
    optimizer, scheduler = scheduled(
        configure, "--scheduler", "cosine_schedule_with_warmup", "--scheduler_kwargs", f"num_warmup_steps={warmup}"
    )
    assert rates(optimizer, scheduler, N_STEPS) == pytest.approx([LR * step / warmup for step in range(N_STEPS)])


def test_schedules_of_torch_get_their_arguments(configure):
    optimizer, scheduler = scheduled(
        configure, "--scheduler", "StepLR", "--scheduler_kwargs", "step_size=2", "gamma=0.1"
    )
    assert rates(optimizer, scheduler, 5) == pytest.approx([LR, LR, LR / 10, LR / 10, LR / 100])
    optimizer, scheduler = scheduled(configure, "--scheduler", "MultiStepLR", "--scheduler_kwargs", "milestones=[1,3]")
    assert rates(optimizer, scheduler, 5) == pytest.approx([LR, LR / 10, LR / 10, LR / 100, LR / 100])
    plateau = (
        "--scheduler ReduceLROnPlateau --scheduler_metric_name acc_avg --scheduler_kwargs mode=max patience=1 "
        "factor=0.5"
    ).split()
    optimizer, scheduler = scheduled(configure, *plateau)
    assert rates(optimizer, scheduler, 4, 0.7) == pytest.approx([LR, LR, LR, LR / 2])


def test_no_schedule_is_none(configure):
    assert scheduled(configure)[1] is None


@pytest.mark.parametrize(
    "words, kind, expected",
    [
        ("--optimizer SGD", torch.optim.SGD, {"lr": 1e-5, "weight_decay": 1.0, "momentum": 0.9, "nesterov": False}),
        (
            "--optimizer SGD --optimizer_kwargs nesterov=true momentum=0.5",
            torch.optim.SGD,
            {"momentum": 0.5, "nesterov": True},
        ),
        (
            "--optimizer Adam --lr 0.1 --weight_decay 0",
            torch.optim.Adam,
            {"lr": 0.1, "weight_decay": 0, "betas": (0.9, 0.999)},
        ),
        ("--optimizer AdamW --optimizer_kwargs betas=(0.5,0.6)", torch.optim.AdamW, {"betas": (0.5, 0.6)}),
    ],
)
def test_optimizers_get_their_arguments(words, kind, expected, configure):
    optimizer = make_optimizer(configure(*words.split()), [nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is kind
    assert {name: optimizer.defaults[name] for name in expected} == expected


@pytest.mark.parametrize(
    "words, device, fused",
    [
        ("--optimizer SGD", "cpu", False),
        ("--optimizer SGD", "cuda", True),
        ("--optimizer AdamW", "cpu", True),
        ("--optimizer AdamW --optimizer_kwargs foreach=true", "cpu", False),
    ],
)
def test_optimizers_are_fused_where_that_pays(words, device, fused, configure):
    optimizer = make_optimizer(configure(*words.split()), [nn.Parameter(torch.zeros(1))], device)
    assert bool(optimizer.defaults["fused"]) is fused


@pytest.mark.parametrize(
    "words, message",
    [
        (
            "--optimizer_kwargs momentun=0.9",
            "--optimizer SGD cannot be made with --optimizer_kwargs {'momentum': 0.9, 'momentun': 0.9}: ",
        ),
        (
            "--optimizer_kwargs momentum=-1",
            "--optimizer SGD cannot be made with --optimizer_kwargs {'momentum': -1}: Invalid momentum value: -1",
        ),
        (
            "--optimizer Adam --optimizer_kwargs momentum=0.9",
            "--optimizer Adam cannot be made with --optimizer_kwargs {'momentum': 0.9}: ",
        ),
        (
            "--optimizer_kwargs lr=1",
            "--optimizer SGD cannot be made with --optimizer_kwargs {'momentum': 0.9, 'lr': 1}: ",
        ),
        (
            "--scheduler StepLR --scheduler_kwargs stepsize=3",
            "--scheduler StepLR cannot be made with --scheduler_kwargs {'step_size': 1, 'stepsize': 3}: ",
        ),
        ("--scheduler MultiStepLR", "--scheduler MultiStepLR cannot be made with --scheduler_kwargs {'gamma': 0.1}: "),
        (
            "--scheduler linear_schedule_with_warmup --scheduler_kwargs warmup=3",
            "--scheduler_kwargs {'warmup': 3} is unknown to linear_schedule_with_warmup; it takes num_warmup_steps",
        ),
        (
            "--scheduler cosine_schedule_with_warmup --scheduler_kwargs num_warmup_steps=some",
            "--scheduler_kwargs num_warmup_steps=some is not a number of steps of at least 0",
        ),
        (
            "--scheduler cosine_schedule_with_warmup --scheduler_kwargs num_warmup_steps=-1",
            "--scheduler_kwargs num_warmup_steps=-1 is not a number of steps of at least 0",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(words, message, configure):
    with pytest.raises(InputError) as error:
        scheduled(lambda *more: configure(*more[2:], *words.split()))
    assert str(error.value).startswith(message)
