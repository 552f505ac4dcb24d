"""L_con against arithmetic by hand and pytorch_msssim; the supervised contrastive loss against a plain loop; finite
differences.
"""

from __future__ import annotations

import math

import pytest
import pytorch_msssim
import torch
from torch import Tensor
from torch.func import functional_call

from cim_plugin.algorithms.contrastive import TripletContrast, contrastive_loss, supervised_contrastive_loss
from cim_plugin.algorithms.morphing import InputMorphing, Morphed, PixelSpace
from cim_plugin.algorithms.similarity.colours import Colours, colour_embedding
from cim_plugin.algorithms.similarity.fused import MSSSIM
from cim_plugin.catalog import SIMILARITIES
from cim_plugin.models.from_catalog import similarity_class

TARGETS = ["input", "morphed"]
SIDES = (28, 28)
LABELS, ENVIRONMENTS = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
POSITIVE, NEGATIVE = [1, 0, 3, 2], [2, 3, 0, 1]  # cross-environment pairs leave no choice in this batch


def _reference_l_con(psi: Tensor, references: Tensor) -> Tensor:
    """distance(psi(x), x+) - distance(psi(x), x-) with the distance 1 - MS-SSIM of pytorch_msssim."""

    def distance(rows):
        return 1 - pytorch_msssim.ms_ssim(psi, references[rows], data_range=1.0, size_average=False)

    return distance(POSITIVE) - distance(NEGATIVE)


def _reference_supervised_contrastive(features: Tensor, labels: list[int], temperature: float) -> Tensor:
    """Khosla et al. (2020), Eq. 2, one pair at a time."""
    z = [row / math.sqrt(sum(value.item() ** 2 for value in row)) for row in features]
    losses = []
    for i in range(len(labels)):
        others = [a for a in range(len(labels)) if a != i]
        total = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        positives = [p for p in others if labels[p] == labels[i]]
        terms = [math.log(math.exp(float(z[i] @ z[p]) / temperature) / total) for p in positives]
        losses.append(-sum(terms) / len(terms) if terms else 0.0)
    return torch.tensor(losses, dtype=torch.float64)


def _reference_correct_n_contrast(features: Tensor, labels: list[int], environments: list[int], temperature: float):
    """Zhang et al. (2022): positives of the class from other environments, negatives of other classes from the same."""
    z = [row / row.norm() for row in features]
    losses = []
    for i, (label, environment) in enumerate(zip(labels, environments)):
        others = [(j, math.exp(float(z[i] @ z[j]) / temperature)) for j in range(len(labels))]
        positives = [s for j, s in others if labels[j] == label and environments[j] != environment]
        negatives = [s for j, s in others if labels[j] != label and environments[j] == environment]
        total = sum(positives) + sum(negatives)
        losses.append(-sum(math.log(s / total) for s in positives) / len(positives) if positives else 0.0)
    return torch.tensor(losses, dtype=torch.float64)


# --- L_con -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reading, expected", [("distance", [-1.0, -0.5, 0.25, 0.0]), ("similarity", [1.0, 0.5, -0.25, 0.0])]
)
def test_the_distance_pulls_to_the_positive_and_the_similarity_pushes_from_it(reading, expected):
    s_pos, s_neg = torch.tensor([[1.0, 0.75, 0.5, 0.9], [0.0, 0.25, 0.75, 0.1]])
    valid = torch.tensor([True, True, True, False])
    assert contrastive_loss(s_pos, s_neg, valid, reading).tolist() == expected


def test_the_default_reading_is_the_distance():
    assert contrastive_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([True])).item() == -1
    assert TripletContrast(MSSSIM(SIDES)).reading == "distance"


def test_an_anchor_without_a_triplet_is_a_zero_in_the_graph():
    s_pos, s_neg = torch.rand(2, 3, requires_grad=True)
    loss = contrastive_loss(s_pos, s_neg, torch.zeros(3, dtype=torch.bool))
    assert loss.tolist() == [0, 0, 0]
    assert torch.autograd.grad(loss.sum(), s_pos)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("reading, sign", [("distance", 1), ("similarity", -1)])
@pytest.mark.parametrize("targets", TARGETS)
def test_l_con_of_a_batch_equals_pytorch_msssim(crops, targets, reading, sign):
    """Where every term of MS-SSIM is positive. The library's window is float32, hence the tolerance."""
    x = crops(4, 2, 161, 161)
    x = 0.7 * x[:1] + 0.3 * x
    mask = torch.linspace(0.3, 0.9, 161, dtype=torch.float64).expand(4, 1, 161, 161)
    psi = (mask * x).requires_grad_()
    contrast = TripletContrast(MSSSIM((161, 161), floor="exact"), "cross_environment", targets, reading)
    loss, valid = contrast(Morphed(x, mask, psi, psi), LABELS, ENVIRONMENTS)
    expected = sign * _reference_l_con(psi, psi if targets == "morphed" else x)
    assert valid.all() and expected.abs().min() > 1e-3
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    gradient, expected_gradient = (torch.autograd.grad(values[0], psi)[0] for values in (loss, expected))
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-4 * expected_gradient.abs().max().item())


@pytest.mark.parametrize("reading, sign", [("distance", 1), ("similarity", -1)])
@pytest.mark.parametrize("targets", TARGETS)
def test_l_con_of_colours_is_the_difference_of_their_cosines(crops, targets, reading, sign):
    morphed = InputMorphing(PixelSpace.raw(3)).double()(crops(4, 3, 28, 28))
    contrast = TripletContrast(Colours(SIDES), "cross_environment", targets, reading)
    loss, valid = contrast(morphed, LABELS, ENVIRONMENTS)
    own = colour_embedding(morphed.pixels, morphed.mask)
    others = (
        own if targets == "morphed" else colour_embedding(morphed.pixels, torch.ones(4, 1, 28, 28, dtype=torch.float64))
    )
    expected = sign * torch.stack([own[i] @ others[NEGATIVE[i]] - own[i] @ others[POSITIVE[i]] for i in range(4)])
    assert valid.all() and expected.abs().min() > 1e-3
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_batch_without_triplets_gives_zeros_in_the_graph(crops, similarity):
    morphing = InputMorphing(PixelSpace.raw(3)).double()
    contrast = TripletContrast(similarity_class(similarity)(SIDES))
    loss, valid = contrast(morphing(crops(3, 3, 28, 28)), torch.tensor([1, 1, 1]), None)
    loss.mean().backward()
    assert not valid.any()
    assert loss.tolist() == [0, 0, 0]
    assert all((weight.grad == 0).all() for weight in morphing.parameters())


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(
    "similarity",
    [MSSSIM((23, 21)), MSSSIM((23, 21), floor="exact"), Colours((23, 21))],
    ids=["ms_ssim", "exact floor", "colours"],
)
def test_gradcheck_of_l_con_through_the_network(crops, similarity, targets):
    """With respect to the transformation network; the pairs are the same at every call."""
    images = crops(4, 2, 23, 21)
    morphing = InputMorphing(PixelSpace.raw(2)).double()
    contrast = TripletContrast(similarity, targets=targets)
    names, parameters = zip(*morphing.named_parameters())

    def l_con(*parameters):
        morphed = functional_call(morphing, dict(zip(names, parameters)), (images,))
        torch.manual_seed(1)
        return contrast(morphed, LABELS, None)[0]

    assert torch.autograd.gradcheck(l_con, parameters, fast_mode=True)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_minimising_l_con_brings_psi_nearer_to_its_positive(crops, similarity):
    images = crops(4, 3, 28, 28)
    morphing = InputMorphing(PixelSpace.raw(3)).double()
    contrast = TripletContrast(similarity_class(similarity)(SIDES), "cross_environment")
    optimizer = torch.optim.SGD(morphing.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = contrast(morphing(images), LABELS, ENVIRONMENTS)[0].mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("pairs", ["random", "cross_environment"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_l_con_never_synchronises(pairs, targets, similarity, meta):
    mask = torch.rand(4, 1, 28, 28, device=meta, requires_grad=True)
    x = torch.rand(4, 3, 28, 28, device=meta)
    contrast = TripletContrast(similarity_class(similarity)(SIDES), pairs, targets)
    loss, valid = contrast(Morphed(x, mask, mask * x, mask * x), LABELS.to(meta), ENVIRONMENTS.to(meta))
    loss.mean().backward()
    assert (loss.shape, valid.shape, mask.grad.shape) == ((4,), (4,), (4, 1, 28, 28))


# --- supervised contrastive loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize(
    "labels", [[0, 0], [0, 1, 0, 1, 1], [2, 0, 1, 2, 2, 0, 1, 3], [0, 0, 0, 0], [4] * 20 + [1] * 3]
)
def test_supervised_contrastive_loss_equals_a_loop(labels, temperature):
    features = torch.randn(len(labels), 6, dtype=torch.float64)
    actual = supervised_contrastive_loss(features, torch.tensor(labels), temperature)
    expected = _reference_supervised_contrastive(features, labels, temperature)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert (actual >= 0).all()


@pytest.mark.parametrize(
    "labels, environments",
    [
        ([0, 0, 1, 1], [0, 1, 0, 1]),
        ([0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 1, 1, 1, 0, 2, 0]),
        ([0, 0, 1, 1], [0, 0, 1, 1]),  # neither positives nor negatives
        ([0, 0, 0], [0, 1, 2]),  # no negatives
        ([0, 1, 2], [5, 5, 5]),  # no positives
        ([3] * 9 + [1] * 3, [3] * 8 + [1] * 3 + [3]),
    ],
)
def test_across_environments_it_is_the_loss_of_correct_n_contrast(labels, environments):
    features = torch.randn(len(labels), 6, dtype=torch.float64, requires_grad=True)
    actual = supervised_contrastive_loss(
        features, torch.tensor(labels), 0.2, torch.tensor(environments), "cross_environment"
    )
    expected = _reference_correct_n_contrast(features.detach(), labels, environments, 0.2)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.grad(actual.sum(), features)[0].isfinite().all()


def test_pairs_across_environments_need_environments():
    with pytest.raises(ValueError, match="'cross_environment' pairs need the environment of every image"):
        supervised_contrastive_loss(torch.randn(4, 3), LABELS, 0.1, None, "cross_environment")


def test_the_length_of_features_does_not_matter():
    features, labels = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 2, 2])
    lengths = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    expected = supervised_contrastive_loss(features, labels, 0.1)
    torch.testing.assert_close(
        supervised_contrastive_loss(lengths * features, labels, 0.1), expected, rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("labels", [[0], [0, 1], [3, 1, 2, 0]])
def test_anchors_without_a_positive_are_zeros_in_the_graph(labels):
    """A batch of one among them."""
    features = torch.randn(len(labels), 5, requires_grad=True)
    loss = supervised_contrastive_loss(features, torch.tensor(labels), 0.1)
    loss.mean().backward()
    assert loss.tolist() == [0] * len(labels)
    assert (features.grad == 0).all()


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(4, 5),
        torch.ones(4, 5),
        1e30 * torch.eye(4, 5),
        1e-30 * torch.eye(4, 5),
        torch.tensor([[1.0], [-1.0], [-1.0], [1.0]]).expand(4, 5),
    ],
    ids=["zero", "equal", "long", "short", "opposite"],
)
def test_extreme_features_stay_finite(features):
    features = features.clone().requires_grad_()
    loss = supervised_contrastive_loss(features, torch.tensor([0, 0, 1, 1]), 0.01)
    loss.sum().backward()
    assert loss.isfinite().all() and features.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2], [0, 0, 0, 0, 0]])
def test_gradcheck_of_the_supervised_contrastive_loss(labels):
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda features: supervised_contrastive_loss(features, torch.tensor(labels), 0.5), (features,)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32_and_autocast_changes_nothing(dtype):
    features, labels = torch.randn(6, 5).to(dtype), torch.tensor([0, 1, 0, 1, 2, 2])
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    expected = supervised_contrastive_loss(features.to(computed), labels, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = supervised_contrastive_loss(features, labels, 0.1)
    assert actual.dtype == computed
    assert torch.equal(actual, expected)
