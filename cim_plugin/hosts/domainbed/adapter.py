"""DomainBed as host: our algorithms, their hyperparameters, one data set and one launcher in the tables that its
scripts read.

Every ``on_*`` is called by :mod:`cim_plugin.autoload` with the host's module right after that module has run, again
after
a reload. Nothing of the host is replaced but ``_hparams`` and ``get_algorithm_class``, which are wrapped, and
``InfiniteDataLoader.__init__``, which is checked for our algorithms only.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from ... import catalog
from ...algorithms.classifier import LOG_NAMES
from ...announcer import Announcer
from ...errors import InputError
from . import compositions, faults, hyperparameters, launcher, lock
from .images import (
    check_finite,
    check_predictions,
    checked,
    concatenate,
    featurizer,
    pixels,
    say_similarity,
    warn_of_a_step,
)

#: our data sets: agreement of photograph and label per environment, and how the tables call it
DIGITS_ON_PHOTOS = {"+90%": 0.9, "+80%": 0.8, "-90%": 0.1}
LARGEST_BATCH = 256  #: for random hyperparameters on our data set: an environment trains on 479 images


class _RobustAlgorithm:
    """The host's Algorithm interface on top of a ``RobustClassifier``; combined with the host's base class below."""

    host: Any  #: domainbed.algorithms
    name: str  #: a key of catalog.ALGORITHMS

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        faults.check_test_environments(num_domains)
        image_size, pixel_space = pixels(self.name, input_shape)
        hparams = hyperparameters.checked(self.name, self.name, hparams, hyperparameters.kinds(self.name))
        self._shape, self._step = tuple(input_shape), -1
        encoder = _featurizer(self.host.networks, self.name, input_shape, hparams)
        self.model = catalog.build(
            self.name,
            hparams,
            encoder=encoder,
            n_features=encoder.n_outputs,
            make_head=lambda n_inputs: self.host.networks.Classifier(
                n_inputs, num_classes, hparams["nonlinear_classifier"]
            ),
            image_size=image_size,
            pixel_space=pixel_space,
            n_environments=num_domains,
        )
        adam = torch.optim.Adam(self.model.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"])
        self.optimizer = catalog.optimizer(adam, self.model, hparams)
        self.announcer = Announcer()
        if self.model.contrast is not None:
            say_similarity(self.name, self.model.contrast, image_size, pixel_space)

    def update(self, minibatches, unlabeled=None):
        """One step on the concatenated minibatches, [(images, labels)] per environment; ``unlabeled`` is not used.

        Returns:
            The same keys at every step, Python floats: the loss, its terms, and with CIM the number of anchors
            without a triplet and the mean of m.

        Raises:
            InputError: images or labels are not what the data set declares, or, with CIM, the first batch's pixels.
            NotFinite: the loss is NaN or infinite.
        """
        self._step += 1
        minibatches = checked(self.name, minibatches, self._shape)
        images, labels, environments = concatenate(minibatches)
        try:
            losses, _, without_triplet, mask_mean = self.model.loss_terms(images, labels, environments)
        except ValueError as error:
            raise InputError(f"{self.name}: {error}") from error
        loss = self.model.total(losses)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

        logged = {"loss": loss, **{LOG_NAMES[name]: values.mean() for name, values in losses.items()}}
        if without_triplet is not None:
            logged |= {"no_triplet": without_triplet.to(loss.dtype), "mask_mean": mask_mean.mean()}
        values = torch.stack([value.detach() for value in logged.values()]).tolist()  # the step's one synchronisation
        logged = dict(zip(logged, values))
        check_finite(self.name, logged, self._step, minibatches)
        warn_of_a_step(self.announcer, self.name, logged, len(labels))
        return logged

    def predict(self, x):
        """Images (N, C, H, W) -> logits (N, K); deterministic. NotFinite where those of an evaluation are not."""
        logits = self.model(x)
        return logits if self.training else check_predictions(self.name, logits, self._step)


def _featurizer(networks, name: str, input_shape, hparams):
    """As :func:`~.images.featurizer`, of the host's networks."""
    return featurizer(networks.Featurizer, name, input_shape, hparams)


def on_algorithms(module):
    """Add our classes to the host's namespace and to the end of its list, and let it find ``CIM+<base>`` by name."""
    for name, (_, what) in catalog.ALGORITHMS.items():
        present = getattr(module, name, None)
        if present is not None and not issubclass(present, _RobustAlgorithm):
            raise RuntimeError(f"the host already has an algorithm named {name}")
        own = {"__doc__": what, "__module__": module.__name__, "host": module, "name": name}
        setattr(module, name, type(name, (_RobustAlgorithm, module.Algorithm), own))
        if name not in module.ALGORITHMS:
            module.ALGORITHMS.append(name)
    module.get_algorithm_class = compositions.found_by(module, module.get_algorithm_class)


def on_hparams_registry(module):
    """Wrap ``_hparams``: delegate, then add ours, each drawn from a stream seeded by its name, as the host's are."""
    faults.watch()
    inner = module._hparams
    if hasattr(inner, "__wrapped__"):
        return

    @functools.wraps(inner)
    def _hparams(algorithm, dataset, random_seed):
        faults.check_algorithm(algorithm)
        lock.hold_output_dir()  # the first that is called of ours when the script knows its arguments
        ours = dataset == "DebugDigitsOnPhotos"
        algorithm, base = compositions.split(algorithm)
        composed = algorithm != base
        hparams = inner(base, "Debug28" if ours else dataset, random_seed)  # small images: their learning rate
        if ours:
            default, drawn = hparams["batch_size"]
            hparams["batch_size"] = (default, min(drawn, LARGEST_BATCH))
        if composed:
            hparams = {name: tuple(map(_native, pair)) for name, pair in hparams.items()}
        if algorithm in catalog.ALGORITHMS:
            for name, entry in catalog.hyperparameters(algorithm).items():
                random_state = np.random.RandomState(module.misc.seed_hash(random_seed, name))
                hparams[name] = (entry.default, entry.draw(random_state))
            faults.check_arguments(algorithm, hparams)
        return hparams

    module._hparams = _hparams


def _native(value):
    """The host draws NumPy's integers for some of its own, and cannot write them into its results."""
    return value.item() if isinstance(value, np.generic) else value


def on_datasets(module):
    """Add the offline data set. "Debug" in its name keeps it out of the host's default sweeps."""

    class DebugDigitsOnPhotos(module.MultipleDomainDataset):
        """Digits (label: below 5) on photographs that agree with the label by 90%, 80% and, the other way round, 90%.

        Deterministic for the host's ``--seed``; the environments share neither digits nor regions of a photograph.
        """

        N_STEPS = 501
        CHECKPOINT_FREQ = 50
        N_WORKERS = 0
        ENVIRONMENTS = list(DIGITS_ON_PHOTOS)
        INPUT_SHAPE = (3, 28, 28)

        def __init__(self, root, test_envs, hparams):
            super().__init__()
            from ...data.digits_on_photos import digits_on_photos

            self.input_shape = self.INPUT_SHAPE
            self.num_classes = 2
            seed = int(torch.randint(2**31, ()))  # the host seeded torch with --seed
            self.datasets = [
                torch.utils.data.TensorDataset(images, labels)
                for images, labels, _ in digits_on_photos(list(DIGITS_ON_PHOTOS.values()), seed)
            ]

    DebugDigitsOnPhotos.__module__ = module.__name__
    DebugDigitsOnPhotos.__qualname__ = name = "DebugDigitsOnPhotos"
    setattr(module, name, DebugDigitsOnPhotos)
    if name not in module.DATASETS:
        module.DATASETS.append(name)


def on_command_launchers(module):
    """Add ``cim_local``."""
    module.REGISTRY["cim_local"] = launcher.cim_local


def on_fast_data_loader(module):
    """Make an environment smaller than the batch an error: the host's loader would wait for a full batch for ever."""
    inner = module.InfiniteDataLoader.__init__
    if hasattr(inner, "__wrapped__"):
        return

    @functools.wraps(inner)
    def __init__(self, dataset, weights, batch_size, num_workers):
        faults.check_batch_size(len(dataset), weights is not None, batch_size)
        inner(self, dataset, weights, batch_size, num_workers)

    module.InfiniteDataLoader.__init__ = __init__
