"""The classifiers that rows of the catalog become."""

from __future__ import annotations

import pytest
import torch
from small_classifier import build, encoder
from torch import nn

from cim_plugin import catalog
from cim_plugin.algorithms.similarity.colours import Colours
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.errors import InputError

CROSS = {"cim_pairs": "cross_environment"}
VARIANTS = [
    *((algorithm, {}) for algorithm in catalog.ALGORITHMS),
    *(("CIM", changes) for changes in (CROSS, {"cim_targets": "morphed"}, {"cim_reading": "similarity"})),
    *(("CIM", changes) for changes in ({"cim_similarity": "colours"}, {"cim_lambda": 0})),
    *((algorithm, {"cim_mask_stride": 2}) for algorithm in ("CIM", "CIM_VIB")),
]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("algorithm, changes", VARIANTS)
def test_every_row_trains_a_step(algorithm, changes, channels):
    model = build(algorithm, channels, **changes)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    images, labels, environments = torch.rand(8, channels, 28, 28), torch.arange(8) % 2, torch.arange(8) // 4
    loss = model.total(model.loss_terms(images, labels, environments).losses)
    loss.backward()
    torch.optim.Adam(model.parameters(), 1e-3).step()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name]), f"{name} did not learn"
    assert model(images).shape == (8, 2)


def test_every_value_reaches_its_part():
    choices = {"cim_pairs": "cross_environment", "cim_targets": "morphed", "cim_reading": "similarity"}
    model = build("CIM_VIB", cim_lambda=0.3, vib_beta=0.02, vib_dimension=5, **choices)
    assert model.weights == {"supervised": 1.0, "contrastive": 0.3, "kl": 0.02}
    contrast = model.contrast
    assert (contrast.pairs, contrast.targets, contrast.reading) == ("cross_environment", "morphed", "similarity")
    assert isinstance(contrast.similarity, MSSSIM)
    assert (contrast.similarity.scales, contrast.similarity.floor) == (2, "smooth")
    assert model.morphing(torch.rand(1, 3, 28, 28)).mask.shape[1] == 1
    assert model.morphing.network.features(torch.rand(1, 3, 28, 28)).shape[-1] == 7
    assert (model.bottleneck.mean.in_features, model.bottleneck.mean.out_features, model.head.in_features) == (32, 5, 5)


def test_the_values_of_other_rows_reach_their_parts():
    other = build("CIM", side=176, cim_similarity="colours", cim_mask_stride=2)
    assert isinstance(other.contrast.similarity, Colours)
    assert other.morphing.network.features(torch.rand(1, 3, 28, 28)).shape[-1] == 14
    assert build("CIM", side=176).contrast.similarity.scales == 5
    scl = build("SCL_E2E", scl_weight=0.4, scl_temperature=0.2)
    assert (scl.weights, scl.temperature) == ({"supervised": 1.0, "supervised_contrastive": 0.4}, 0.2)
    assert [build(name).pairs for name in ("SCL_E2E", "CnC")] == ["random", "cross_environment"]


def test_colours_ask_for_no_window_of_ms_ssim(recwarn):
    losses = (
        build("CIM", side=8, cim_similarity="colours").loss_terms(torch.rand(8, 3, 8, 8), torch.arange(8) % 2).losses
    )
    assert losses["contrastive"].abs().max() > 0 and not recwarn.list


@pytest.mark.parametrize("targets", ["input", "morphed"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_l_con_by_colours_reaches_the_transformation_network(channels, targets):
    model = build("CIM", channels=channels, cim_similarity="colours", cim_targets=targets)
    losses = model.loss_terms(torch.rand(8, channels, 28, 28), torch.arange(8) % 2).losses
    losses["contrastive"].mean().backward()
    assert losses["contrastive"].abs().min() > 0
    assert all(parameter.grad.any() for parameter in model.morphing.parameters()) and all(
        parameter.grad is None for parameter in model.encoder.parameters()
    )


@pytest.mark.parametrize("algorithm", ["CIM", "SCL_E2E"])
def test_encoder_and_head_start_as_a_plain_classifiers_do(algorithm):
    model = build(algorithm)
    torch.manual_seed(0)
    plain_encoder, plain_head = encoder(3), nn.Linear(32, 2)
    for part, plain in ((model.encoder, plain_encoder), (model.head, plain_head)):
        assert all(torch.equal(a, b) for a, b in zip(part.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize(
    "arguments, changes, message",
    [
        (
            {"side": 10},
            {},
            "CIM: height 10 is smaller than MS-SSIM's 11-pixel window; use images of at least 11 pixels a side",
        ),
        ({"channels": 4}, {}, "CIM: images have 1 to 3 channels, 4 were given"),
        (
            {"n_environments": 1},
            CROSS,
            "cim_pairs='cross_environment' needs at least 2 training environments, 1 here; use 'random'",
        ),
        (
            {"n_environments": None},
            CROSS,
            "cim_pairs='cross_environment' needs at least 2 training environments, none here; use 'random'",
        ),
        ({}, {"cim_lambda": -1}, "cim_lambda=-1 is not a finite number of at least 0 (default 1.0)"),
    ],
)
def test_what_does_not_go_with_the_images_or_the_host_is_refused(arguments, changes, message):
    with pytest.raises(InputError) as error:
        build("CIM", **arguments, **changes)
    assert str(error.value) == message


@pytest.mark.parametrize("n_environments, said", [(1, "1"), (None, "none")])
def test_pairs_of_cnc_need_two_environments(n_environments, said):
    with pytest.raises(InputError) as error:
        build("CnC", n_environments=n_environments)
    assert str(error.value) == (
        f"scl_pairs='cross_environment' needs at least 2 training environments, {said} here; use 'random'"
    )
    build("CnC", n_environments=n_environments, scl_pairs="random")


@pytest.mark.parametrize("algorithm", ["VIB", "SCL_E2E"])
def test_algorithms_without_morphing_take_any_image(algorithm):
    assert build(algorithm, channels=5, side=9)(torch.rand(2, 5, 9, 9)).shape == (2, 2)
