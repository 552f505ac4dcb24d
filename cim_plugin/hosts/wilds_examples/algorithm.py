"""Our algorithms as subclasses of the SingleModelAlgorithm of WILDS' ``examples/``. Imported in a checkout of WILDS
only.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import Any, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from algorithms.single_model_algorithm import SingleModelAlgorithm  # the host's, not ours
from models.initializer import initialize_model
from torch import Tensor, nn
from utils import move_to
from wilds.common.grouper import CombinatorialGrouper

from ... import catalog
from ...algorithms.classifier import LOG_NAMES, RobustClassifier
from ...algorithms.group_dro import group_means
from ...algorithms.mask_statistics import NAMES
from ...algorithms.morphing import IMAGENET, PixelSpace
from ...errors import InputError
from ...models import extra_state, from_catalog, train_files
from ...models.recipe import class_names, numbered
from ...models.transforms import make_transform

IMAGES = (
    "image_base",
    "image_resize",
    "image_resize_and_center_crop",
)  #: transforms that end in ImageNet's normalisation
#: the host's networks that can be made without it
NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "wideresnet50", "densenet121")


def hyperparameters(config: Any) -> dict[str, Any]:
    """Those of the configured algorithm."""
    return {name: getattr(config, name) for name in catalog.hyperparameters(config.algorithm)}


class _Replicated(nn.Module):
    """The classifier in the form that DataParallel splits and gathers: tensors over the batch in, tensors over the
    batch out.
    """

    needs_y = False

    def __init__(self, classifier: RobustClassifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor, labels: Tensor | None = None, environments: Tensor | None = None):
        """Logits (N, K); with labels {"logits": (N, K), loss term or a name of ``mask_statistics.NAMES``: (N,)}. A
        replica's triplets come from its own rows.
        """
        if labels is None:
            return self.classifier(images)
        losses, logits, statistics = self.classifier.loss_terms(images, labels, environments)
        return {"logits": logits, **losses, **({} if statistics is None else statistics.per_image())}


class RobustAlgorithm(SingleModelAlgorithm):
    """``config.algorithm`` on the host's featurizer and classifier, which start as they do for ERM at the same seed.

    Args:
        config: run_expt's.
        train: the training subset, with its transform.
        grouper: of the training data.
        d_out: number of classes.
        loss, metric, n_train_steps: as the host's algorithms take them.

    Raises:
        InputError: a hyperparameter, the data set or the transform cannot be used.
    """

    def __init__(self, config, train, grouper, d_out, loss, metric, n_train_steps):
        _check(config)
        with _random_states_kept():
            image = train[0][0]
        environments = _environment_grouper(config, train)
        classifier = _build(config, train, grouper, d_out, image, environments)
        super().__init__(
            config=config,
            model=_Replicated(classifier),
            grouper=grouper,
            loss=loss,
            metric=metric,
            n_train_steps=n_train_steps,
        )
        self.optimizer = from_catalog.optimizer(self.optimizer, classifier, hyperparameters(config))
        self._recipe = _recipe(config, train.dataset, d_out, image, classifier)
        weights = ["group_weight"] if classifier.group_weights is not None else []  # groupDRO's own field
        self._environments, self._fields = environments, (*self.logged_fields, *weights)
        if classifier.contrast is not None:
            print(f"{config.algorithm}: {classifier.contrast.similarity.how} for {image.shape[1]}x{image.shape[2]}")

    @property
    def classifier(self) -> RobustClassifier:
        """Ours, without what replicates it."""
        return getattr(self.model, "module", self.model).classifier

    def get_extra_state(self):
        """What a model's file holds beside the weights: what :func:`cim_plugin.load` rebuilds it from; None where only
        the host can.
        """
        return extra_state.as_tensor({"recipe": self._recipe})

    def set_extra_state(self, state):
        """Nothing: the run has a recipe of its own."""

    def _load_from_state_dict(self, state_dict, prefix, *others):
        state_dict.setdefault(f"{prefix}{extra_state.KEY}", None)  # a file of version 0.1
        super()._load_from_state_dict(state_dict, prefix, *others)

    def train(self, mode=True):
        """Training logs every loss term, of the batch and of every group; evaluation draws no triplets and has no more
        than ERM's fields.
        """
        super().train(mode)
        terms = [LOG_NAMES[name] for name in self.classifier.weights] if mode else []
        of_groups = [f"{self.group_prefix}{term}" for term in terms] if self.grouper.n_groups > 1 else []
        counted = NAMES if mode and self.classifier.contrast is not None else ()
        self.logged_fields = [*self._fields, *terms, *counted, *of_groups]

    def process_batch(self, batch, unlabeled_batch=None):
        """As the host's; in training the results also hold "losses", loss term -> (N,), and what is logged of them."""
        images, labels, metadata = batch
        images, labels = move_to(images, self.device), move_to(labels, self.device)
        groups = move_to(self.grouper.metadata_to_group(metadata), self.device)
        results = {"g": groups, "y_true": labels, "metadata": metadata}
        if self.classifier.group_weights is not None:
            results["group_weight"] = (
                self.classifier.group_weights.weights
            )  # the buffer itself: it moves before it is logged
        if not self.training:
            return {**results, "y_pred": self.model(images)}
        environments = move_to(self._environments.metadata_to_group(metadata), self.device)
        found = self.model(images, labels, environments)
        self.classifier.inputs_checked = True  # a replica's own note is lost with it
        losses = {name: found[name] for name in self.classifier.weights}
        results |= {name: found[name].mean() for name in NAMES if name in found}
        return {**results, "y_pred": found["logits"], "losses": losses, **self._logged(losses, groups)}

    def _logged(self, losses: dict[str, Tensor], groups: Tensor) -> dict[str, Tensor]:
        logged = {}
        for name, values in losses.items():
            logged[LOG_NAMES[name]] = values.detach().mean()
            logged[f"{self.group_prefix}{LOG_NAMES[name]}"] = group_means(
                values.detach(), groups, self.grouper.n_groups
            )[0]
        return logged

    def objective(self, results):
        """The training loss; in evaluation, without triplets and noise, the supervised loss."""
        losses = results.get("losses") or {
            "supervised": F.cross_entropy(results["y_pred"], results["y_true"], reduction="none")
        }
        return self.classifier.total(losses, results["g"])


def _check(config: Any) -> None:
    if config.loss_function != "cross_entropy":
        raise InputError(
            f"{config.algorithm} is for classification of images of one label, --loss_function {config.loss_function} "
            f"is not; see 'cim-plugin train --help'"
        )
    if catalog.needs_uniform_groups(config.algorithm) and not config.uniform_over_groups:
        raise InputError(
            f"{config.algorithm} needs --uniform_over_groups true: its weights assume that the groups are sampled "
            f"equally often"
        )
    if config.transform in IMAGES:
        return
    if config.transform != "rxrx1":
        raise InputError(
            f"{config.algorithm} works on images; --transform {config.transform} gives none. It takes "
            f"{', '.join(IMAGES)}"
        )
    if "morphing" in catalog.TRAINABLE[config.algorithm][0]:
        raise InputError(
            f"{config.algorithm} morphs pixels, and --transform rxrx1 standardises every image by its own mean before "
            f"the algorithm sees it; "
            "'cim-plugin train -d rxrx1' standardises after morphing"
        )


def _build(
    config: Any, train, grouper: CombinatorialGrouper, d_out: int, image: Tensor, environments: CombinatorialGrouper
) -> RobustClassifier:
    featurizer, classifier = initialize_model(config, d_out, is_featurizer=True)
    in_training = environments.metadata_to_group(train.metadata_array).unique()
    return from_catalog.build(
        config.algorithm,
        hyperparameters(config),
        encoder=featurizer,
        n_features=featurizer.d_out,
        make_head=lambda n_inputs: classifier if n_inputs == featurizer.d_out else nn.Linear(n_inputs, d_out),
        image_size=tuple(image.shape[1:]),
        pixel_space=PixelSpace.imagenet(),
        n_environments=len(in_training),
        groups_in_training=torch.bincount(grouper.metadata_to_group(train.metadata_array), minlength=grouper.n_groups)
        > 0,
    )


def _recipe(config: Any, dataset, n_classes: int, image: Tensor, classifier: RobustClassifier) -> dict[str, Any] | None:
    if config.transform not in IMAGES or config.model not in NETWORKS:
        return None
    transform = make_transform(config, dataset.original_resolution)
    groups = classifier.group_weights.weights > 0 if classifier.group_weights is not None else torch.ones(0)
    recipe = train_files.recipe_of(
        config,
        hyperparameters(config),
        transform._replace(training_size=tuple(image.shape[1:])),
        class_names(dataset.metadata_map, n_classes) or numbered(n_classes),
        n_environments=2,  # for 'cross_environment' pairs, of which the run has made sure
        groups_in_training=[bool(group) for group in groups],
    )
    mean, std = IMAGENET  # the host's images are normalised, and its networks are not channels_last
    return replace(recipe, mean=mean, std=std, standardise="none", channels_last=False).as_dict()


def _environment_grouper(config: Any, train) -> CombinatorialGrouper:
    """What is an environment here: the combination of the group fields other than the label."""
    fields = [field for field in config.groupby_fields or [] if field != "y"]
    return CombinatorialGrouper(train.dataset, fields or None)


@contextlib.contextmanager
def _random_states_kept() -> Iterator[None]:
    """A look at an image, augmented maybe, that leaves the run's random numbers as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
