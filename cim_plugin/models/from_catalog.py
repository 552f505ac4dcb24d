"""From a row of the catalog to what trains: the classifier, its parts and its optimizer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Mapping

from .. import catalog
from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from ..algorithms.classifier import RobustClassifier
    from ..algorithms.contrastive import TripletContrast
    from ..algorithms.mask_optimizer import WithOwnAdam
    from ..algorithms.morphing import InputMorphing, PixelSpace
    from ..algorithms.similarity.base import Similarity


def build(
    algorithm: str,
    values: Mapping[str, Any],
    *,
    encoder: nn.Module,
    n_features: int,
    make_head: Callable[[int], nn.Module],
    image_size: tuple[int, int],
    pixel_space: PixelSpace,
    n_environments: int | None,
    groups_in_training: Tensor | None = None,
) -> RobustClassifier:
    """The classifier that a row of the table describes.

    The head is made right after the encoder and before any part, so that at the same seed encoder and head start as
    a plain classifier's do.

    Args:
        algorithm: a key of ``catalog.TRAINABLE``.
        values: the host's hyperparameters with ours among them.
        encoder: images (N, C, H, W) -> features (N, n_features).
        make_head: input length -> the module that gives logits.
        image_size: height and width in pixels.
        pixel_space: how the host's images relate to pixels in [0, 1].
        n_environments: training environments, ``None`` where the host has none.
        groups_in_training: (n_groups,) bool, which groups the training set holds; needed by group DRO only.

    Raises:
        InputError: a hyperparameter is unknown or out of range, or does not go with this image size or host.
    """
    from ..algorithms.bottleneck import GaussianBottleneck
    from ..algorithms.classifier import RobustClassifier
    from ..algorithms.group_dro import GroupWeights

    values = catalog.check(algorithm, values)
    parts, _ = catalog.TRAINABLE[algorithm]
    weights = {"supervised": 1.0}
    modules: dict[str, Any] = {}
    head = make_head(values["vib_dimension"] if "bottleneck" in parts else n_features)
    if "bottleneck" in parts:
        weights["kl"] = values["vib_beta"]
        modules["bottleneck"] = GaussianBottleneck(n_features, values["vib_dimension"])
    if "supervised_contrastive" in parts:
        weights["supervised_contrastive"] = values["scl_weight"]
        modules |= {"temperature": values["scl_temperature"], "pairs": values["scl_pairs"]}
        _check_pairs("scl_pairs", values, n_environments)
    if "group_dro" in parts:
        modules["group_weights"] = GroupWeights(groups_in_training, values["group_dro_step_size"])
    if "morphing" in parts:
        weights["contrastive"] = values["cim_lambda"]
        modules["morphing"] = build_psi(algorithm, values, pixel_space)
        modules["contrast"] = build_contrast(algorithm, values, image_size, n_environments)
        modules["gradient"] = values["cim_gradient"]
    return RobustClassifier(encoder, head, weights, **modules)


def optimizer(host: Optimizer, classifier: RobustClassifier, values: Mapping[str, Any]) -> Optimizer | WithOwnAdam:
    """What to step for a classifier of :func:`build`: the host's optimizer of all its weights, or that and the
    transformation network's own Adam.
    """
    from ..algorithms.mask_optimizer import with_own_adam

    return with_own_adam(host, classifier.morphing, values.get("cim_learning_rate", 0.0))


def build_psi(algorithm: str, values: Mapping[str, Any], pixel_space: PixelSpace) -> InputMorphing:
    """psi alone; the arguments are those of :func:`build`, ``values`` are checked already.

    Raises:
        InputError: images with this number of channels cannot be morphed.
    """
    from ..algorithms.morphing import InputMorphing, TransformationNetwork

    channels = pixel_space.channels
    mask_channels = channels if values.get("cim_mask") == "per_channel" else 1  # of an old run
    try:
        return InputMorphing(pixel_space, TransformationNetwork(channels, mask_channels, values["cim_mask_stride"]))
    except ValueError as error:  # algorithms/ says what is wrong with numbers; here it is the user's choice
        raise InputError(f"{algorithm}: {error}") from error


def build_contrast(
    algorithm: str, values: Mapping[str, Any], image_size: tuple[int, int], n_environments: int | None
) -> TripletContrast:
    """L_con alone; the arguments are those of :func:`build`, ``values`` are checked already.

    Raises:
        InputError: a hyperparameter does not go with this image size or host.
    """
    from ..algorithms.contrastive import TripletContrast

    _check_pairs("cim_pairs", values, n_environments)
    name, options = values["cim_similarity"], {}
    if name == "pytorch_msssim" or values.get("cim_floor") == "exact":  # of an old run
        name, options = "ms_ssim", {"floor": "exact"}
    try:
        similarity = similarity_class(name)(image_size, **options)
        return TripletContrast(similarity, values["cim_pairs"], values["cim_targets"], values["cim_reading"])
    except ValueError as error:
        raise InputError(f"{algorithm}: {error}") from error


def similarity_class(name: str) -> type[Similarity]:
    """The class of a row of ``catalog.SIMILARITIES``."""
    module, _, kind = catalog.SIMILARITIES[name][0].rpartition(".")
    return getattr(import_module(f"..algorithms.similarity.{module}", __package__), kind)


def _check_pairs(name: str, values: Mapping[str, Any], n_environments: int | None) -> None:
    if values[name] == "cross_environment" and (n_environments or 0) < 2:
        raise InputError(
            f"{name}='cross_environment' needs at least 2 training environments, {n_environments or 'none'} here; "
            f"use 'random'"
        )
