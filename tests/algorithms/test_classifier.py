"""The composed classifier against its parts put together by hand, on degenerate batches and in other precisions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from cim_plugin.algorithms.bottleneck import GaussianBottleneck
from cim_plugin.algorithms.classifier import GRADIENTS, RobustClassifier
from cim_plugin.algorithms.contrastive import TripletContrast
from cim_plugin.algorithms.morphing import InputMorphing, PixelSpace
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.algorithms.similarity.ms_ssim import ms_ssim

WEIGHTS = {"supervised": 1.0, "contrastive": 0.7, "kl": 0.01, "supervised_contrastive": 0.3}
TERMS = {
    "plain": ["supervised"],
    "CIM": ["supervised", "contrastive"],
    "VIB": ["supervised", "kl"],
    "SCL": ["supervised", "supervised_contrastive"],
    "everything": list(WEIGHTS),
}
LABELS, ENVIRONMENTS = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])  # cross-environment pairs leave no choice


def _classifier(terms: list[str], channels: int = 3, n_classes: int = 2) -> RobustClassifier:
    """A linear encoder of 6 features on 4x4 averages, a code of 5; the bottleneck is as noisy as the prior."""
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(channels * 16, 6))
    parts = {}
    if "contrastive" in terms:
        parts["morphing"] = InputMorphing(PixelSpace([0.5] * channels, [0.25] * channels))
        parts["contrast"] = TripletContrast(MSSSIM((28, 28)), pairs="cross_environment")
    if "kl" in terms:
        parts["bottleneck"] = GaussianBottleneck(6, 5)
        nn.init.zeros_(parts["bottleneck"].log_variance.bias)
    if "supervised_contrastive" in terms:
        parts["temperature"] = 0.1
    head = nn.Linear(5 if "kl" in terms else 6, n_classes)
    return RobustClassifier(encoder, head, {name: WEIGHTS[name] for name in terms}, **parts)


def _images(n: int, channels: int = 3) -> Tensor:
    return 2 * torch.rand(n, channels, 28, 28) - 1


@pytest.fixture(params=TERMS.values(), ids=TERMS)
def terms(request) -> list[str]:
    return request.param


# --- terms and their sum ---------------------------------------------------------------------------------------------


def test_every_term_of_the_weights_has_one_value_per_image(terms):
    losses, _, statistics = _classifier(terms).loss_terms(_images(4), LABELS, ENVIRONMENTS)
    assert {name: values.shape for name, values in losses.items()} == {name: (4,) for name in terms}
    assert (statistics is not None) == ("contrastive" in terms)


def test_the_total_weighs_the_means():
    losses = {
        "supervised": torch.tensor([1.0, 3.0]),
        "contrastive": torch.tensor([-1.0, 0.0]),
        "kl": torch.tensor([100.0, 300.0]),
    }
    total = _classifier(["supervised", "contrastive", "kl"]).total(losses)
    assert total.shape == ()
    assert total.item() == pytest.approx(1.0 * 2 + 0.7 * -0.5 + 0.01 * 200)


def test_terms_and_total_equal_the_parts_put_together_by_hand():
    """psi, L_con of the pairs, encoder, code, log-probabilities and the weighted sum of the CIM+VIB objective."""
    model = _classifier(["supervised", "contrastive", "kl"]).double()
    images = _images(4).double()
    torch.manual_seed(1)
    losses, *_ = model.loss_terms(images, LABELS, ENVIRONMENTS)

    x = 0.25 * images + 0.5
    psi = model.morphing.network(x) * x
    s_pos, s_neg = ms_ssim(psi, x[[1, 0, 3, 2]], 2, "smooth"), ms_ssim(psi, x[[2, 3, 0, 1]], 2, "smooth")
    features = model.encoder((psi - 0.5) / 0.25)
    mean, sigma = model.bottleneck.mean(features), (model.bottleneck.log_variance(features) / 2).exp()
    torch.manual_seed(1)
    torch.rand(2, 4, 4)  # the draw of positives and negatives
    logits = model.head(mean + sigma * torch.randn(4, 5, dtype=torch.float64))
    supervised = [-math.log(row[label].exp() / row.exp().sum()) for row, label in zip(logits.detach(), LABELS)]
    expected = {
        "supervised": torch.tensor(supervised, dtype=torch.float64),
        "contrastive": s_neg - s_pos,
        "kl": kl_divergence(Normal(mean, sigma), Normal(torch.zeros_like(mean), torch.ones_like(sigma))).sum(1),
    }
    for name, values in losses.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-10, atol=1e-12)
    by_hand = sum(supervised) / 4 + 0.7 * (s_neg - s_pos).mean() + 0.01 * expected["kl"].mean()
    torch.testing.assert_close(model.total(losses), by_hand, rtol=1e-10, atol=0)


def test_statistics_are_those_of_the_batchs_m_and_losses():
    model = _classifier(["supervised", "contrastive"])
    images = _images(4)
    losses, _, found = model.loss_terms(images, LABELS, ENVIRONMENTS)
    masks = model.morphing(images).mask.detach()
    torch.testing.assert_close(found.mask_mean, torch.stack([mask.mean() for mask in masks]))
    torch.testing.assert_close(found.gap_mean, -losses["contrastive"].mean().detach())


# --- what trains psi --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_supervised_loss_reaches_psi_unless_l_con_alone_is_to(gradient):
    model = _classifier(["supervised", "contrastive"])
    model.gradient = gradient
    losses = model.loss_terms(_images(4), LABELS, ENVIRONMENTS).losses
    weights = list(model.morphing.parameters())
    for term, reaches in (("supervised", gradient == "both"), ("contrastive", True)):
        found = torch.autograd.grad(losses[term].sum(), weights, retain_graph=True, allow_unused=True)
        assert all((weight is not None and weight.abs().sum() > 0) == reaches for weight in found), term


def test_with_l_con_alone_no_gradient_of_the_encoders_input_is_computed():
    seen = []
    model = _classifier(["supervised", "contrastive"])
    model.gradient = "contrastive"
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    model.loss_terms(_images(4), LABELS, ENVIRONMENTS)
    assert seen == [False]


def test_which_losses_train_psi_does_not_change_the_losses_themselves():
    losses = []
    for gradient in GRADIENTS:
        torch.manual_seed(0)
        model = _classifier(["supervised", "contrastive"])
        model.gradient = gradient
        losses.append(model.loss_terms(_images(4), LABELS, ENVIRONMENTS).losses)
    assert all(torch.equal(losses[0][term], losses[1][term]) for term in losses[0])


def test_another_gradient_is_refused():
    with pytest.raises(ValueError, match="gradient is one of both, contrastive, 'none' was given"):
        RobustClassifier(nn.Flatten(), nn.Linear(3, 2), {"supervised": 1.0}, gradient="none")


def test_the_supervised_contrastive_loss_goes_by_the_pairs_that_are_asked_for():
    """The class and the environment decide; here every anchor has one positive and one negative of the other kind."""
    images = _images(4).double()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 6)).double()
    features = encoder(images).detach()
    found = {}
    for pairs in ("random", "cross_environment"):
        weights = {"supervised": 1.0, "supervised_contrastive": 1.0}
        model = RobustClassifier(encoder, nn.Linear(6, 2).double(), weights, temperature=0.5, pairs=pairs)
        found[pairs] = model.loss_terms(images, LABELS, ENVIRONMENTS).losses["supervised_contrastive"]
    unit = features / features.norm(dim=1, keepdim=True)
    s = (unit @ unit.T / 0.5).exp()
    expected = [-math.log(s[i, p] / (s[i, p] + s[i, n])) for i, p, n in zip(range(4), [1, 0, 3, 2], [2, 3, 0, 1])]
    assert found["cross_environment"].tolist() == pytest.approx(expected)
    assert found["random"].tolist() != pytest.approx(expected)


def test_the_supervised_contrastive_loss_is_that_of_the_features():
    """Two images per class and features that are equal within a class: the loss is known."""
    model = _classifier(["supervised", "supervised_contrastive"])
    model.encoder = nn.Flatten()
    model.head = nn.Linear(12, 2)
    images = torch.zeros(4, 3, 2, 2)
    images[:2, 0, 0, 0], images[2:, 1, 0, 0] = 2.0, 5.0
    losses, *_ = model.loss_terms(images, LABELS)
    assert losses["supervised_contrastive"].tolist() == pytest.approx([math.log(1 + 2 * math.exp(-10))] * 4, abs=1e-6)


def test_anchors_without_a_triplet_are_counted():
    model = _classifier(["supervised", "contrastive"])
    for labels, environments, n in (
        ([0, 0, 1, 1], [0, 1, 0, 1], 0),
        ([0, 0, 1, 1], [0, 1, 0, 0], 3),
        ([0, 0, 0, 0], [0, 1, 0, 1], 4),
    ):
        assert (
            model.loss_terms(_images(4), torch.tensor(labels), torch.tensor(environments)).statistics.without_triplet
            == n
        )


# --- gradients -------------------------------------------------------------------------------------------------------


def test_every_parameter_learns_from_the_total(terms):
    model = _classifier(terms)
    losses, *_ = model.loss_terms(_images(4), LABELS, ENVIRONMENTS)
    model.total(losses).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("term", ["contrastive", "supervised"])
def test_the_transformation_network_learns_from_l_con_and_from_l_sup(term):
    model = _classifier(["supervised", "contrastive"])
    model.loss_terms(_images(4), LABELS, ENVIRONMENTS).losses[term].mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.morphing.parameters())
    assert all((parameter.grad is not None) == (term == "supervised") for parameter in model.encoder.parameters())


def test_a_weight_of_zero_takes_a_term_out_of_the_gradient():
    """The control λ = 0: the network without its loss."""
    model, images = _classifier(["supervised", "contrastive"]), _images(4)
    gradients = []
    for weights in ({"supervised": 1.0, "contrastive": 0.0}, {"supervised": 1.0}):
        model.weights = weights
        losses = model.loss_terms(images, LABELS, ENVIRONMENTS).losses
        total = model.total({name: losses[name] for name in weights})
        gradients.append(torch.autograd.grad(total, list(model.morphing.parameters())))
    torch.testing.assert_close(*gradients)


# --- prediction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_prediction_is_deterministic_and_uses_the_mean_of_the_code(terms, training):
    model, images = _classifier(terms).train(training), _images(5)
    logits = model(images)
    assert logits.shape == (5, 2)
    torch.manual_seed(1)
    assert torch.equal(model(images), logits)
    x = 0.25 * images + 0.5
    features = model.encoder((model.morphing.network(x) * x - 0.5) / 0.25 if "contrastive" in terms else images)
    code = features @ model.bottleneck.mean.weight.T + model.bottleneck.mean.bias if "kl" in terms else features
    torch.testing.assert_close(logits, model.head(code), rtol=0, atol=1e-6)


def test_prediction_is_per_image(terms):
    model, images = _classifier(terms), _images(5)
    torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), model(images), rtol=0, atol=1e-6)


# --- degenerate batches and wrong labels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels, environments", [([1], [0]), ([1, 1, 1], [0, 1, 1]), ([0, 1], [0, 0]), ([0, 1, 1], None)]
)
def test_degenerate_batches_give_finite_losses_in_the_graph(terms, labels, environments):
    """A batch of one, one class, no positives, a host without environments."""
    model = _classifier(terms)
    if environments is None and model.contrast is not None:
        model.contrast = TripletContrast(MSSSIM((28, 28)))
    environments = environments and torch.tensor(environments)
    losses, *_ = model.loss_terms(_images(len(labels)), torch.tensor(labels), environments)
    assert all(values.isfinite().all() and values.requires_grad for values in losses.values())
    model.total(losses).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "labels, wrong", [([0, 2, 1, 0], 2), ([0, 1, -1, 0], -1), ([-100, 0, 0, 0], -100), ([0, 5, 1, -1], 5)]
)
def test_a_label_out_of_range_is_refused_with_its_value(terms, labels, wrong):
    with pytest.raises(ValueError) as error:
        _classifier(terms).loss_terms(_images(4), torch.tensor(labels), ENVIRONMENTS)
    assert str(error.value) == f"label {wrong} is out of range: this classifier has 2 classes, labels go from 0 to 1"


# --- devices and precision -------------------------------------------------------------------------------------------


def test_a_training_step_never_synchronises(terms, meta):
    """But for the first batch, whose values are looked at."""
    model = _classifier(terms).to(meta)
    with pytest.raises((NotImplementedError, RuntimeError), match="(?i)meta"):
        model.loss_terms(_images(4).to(meta), LABELS.to(meta), ENVIRONMENTS.to(meta))
    losses, *_ = model.loss_terms(_images(4).to(meta), LABELS.to(meta), ENVIRONMENTS.to(meta))
    model.total(losses).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_bfloat16_autocast_stays_finite(terms, channels):
    model = _classifier(terms, channels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses, *_ = model.loss_terms(_images(4, channels), LABELS, ENVIRONMENTS)
            total = model.total(losses)
            assert model(_images(2, channels)).isfinite().all()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert all(values.dtype == torch.float32 and values.isfinite().all() for values in losses.values())
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_float64_model_computes_in_float64(terms):
    model, images = _classifier(terms).double(), _images(4).double()
    losses, *_ = model.loss_terms(images, LABELS, ENVIRONMENTS)
    model.total(losses).backward()
    assert {values.dtype for values in losses.values()} == {torch.float64}
    assert model(images).dtype == torch.float64


def test_a_copy_by_state_dict_predicts_the_same(terms):
    model, copy, images = _classifier(terms), _classifier(terms), _images(3)
    assert not torch.equal(copy(images), model(images))
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(images), model(images))


def test_a_counter_of_a_retired_loss_term_in_an_old_state_is_left_out():
    """As version 0.1 wrote it, also below a host's own prefix; other unknown names stay errors."""
    model, images = _classifier(TERMS["CIM"]), _images(3)
    old = {**model.state_dict(), "sparsity_step": torch.tensor(7)}
    copy = _classifier(TERMS["CIM"])
    copy.load_state_dict(old)
    assert torch.equal(copy(images), model(images)) and "sparsity_step" in old
    host = nn.ModuleDict({"classifier": _classifier(TERMS["CIM"])})
    host.load_state_dict({f"classifier.{name}": value for name, value in old.items()})
    assert torch.equal(host["classifier"](images), model(images))
    with pytest.raises(RuntimeError, match="Unexpected key.*another_step"):
        copy.load_state_dict({**old, "another_step": torch.tensor(7)})
