"""DomainBed as host: our algorithms, their hyperparameters, one data set and one launcher in the tables that its
scripts read.

Every ``on_*`` is called by :mod:`cim_plugin.autoload` with the host's module right after that module has run, again
after
a reload. Nothing of the host is replaced but ``_hparams`` and ``get_algorithm_class``, which are wrapped,
``InfiniteDataLoader.__init__``, which is checked for our algorithms only, and what knows two hyperparameters more:
``Featurizer`` and ``MultipleEnvironmentImageFolder.__init__``.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from ... import catalog
from ...models import extra_state
from .. import host_tables, hyperparameters
from ..robust_algorithm import RobustAlgorithm
from . import compositions, faults, image_size
from .encoders import featurizer_by
from .images import REGISTRY, SMALL, checked_all, concatenate, featurizer, pixels

#: our data sets: agreement of photograph and label per environment, and how the tables call it
DIGITS_ON_PHOTOS = {"+90%": 0.9, "+80%": 0.8, "-90%": 0.1}
LARGEST_BATCH = 256  #: for random hyperparameters on our data set: an environment trains on 479 images


class _RobustAlgorithm(RobustAlgorithm):
    """Ours behind the host's Algorithm interface; combined with the host's base class below."""

    host: Any  #: domainbed.algorithms

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        faults.check_test_environments(num_domains)
        image_size, pixel_space = pixels(self.name, input_shape)
        kinds = hyperparameters.kinds(REGISTRY, self.name, SMALL)
        hparams = hyperparameters.checked(self.name, self.name, hparams, kinds)
        networks, self._shape = self.host.networks, tuple(input_shape)
        self._class_names = faults.class_names(num_classes)
        self._make_model(
            hparams,
            _featurizer(networks, self.name, input_shape, hparams),
            lambda n_inputs: networks.Classifier(n_inputs, num_classes, hparams["nonlinear_classifier"]),
            image_size,
            pixel_space,
            num_domains,
            lambda weights: torch.optim.Adam(weights, lr=hparams["lr"], weight_decay=hparams["weight_decay"]),
        )

    def get_extra_state(self):
        """What model.pkl holds beside the weights: the names of the classes, where the data set has them."""
        return extra_state.as_tensor({"class_names": self._class_names})

    def set_extra_state(self, state):
        """Nothing: they are those of the data set at hand."""

    def _load_from_state_dict(self, state_dict, prefix, *others):
        state_dict.setdefault(f"{prefix}{extra_state.KEY}", None)  # a file of version 0.1
        super()._load_from_state_dict(state_dict, prefix, *others)

    def update(self, minibatches, unlabeled=None):
        """One step on the concatenated minibatches, [(images, labels)] per environment; ``unlabeled`` is not used.

        Returns:
            As :meth:`~.RobustAlgorithm._train_on`.

        Raises:
            InputError: images or labels are not what the data set declares, or, with CIM, the first batch's pixels.
            NotFinite: the loss is NaN or infinite.
        """
        minibatches = checked_all(self.name, minibatches, self._shape)
        return self._train_on(concatenate(minibatches), [len(images) for images, _ in minibatches])


def _featurizer(networks, name: str, input_shape, hparams):
    """As :func:`~.images.featurizer`, of the host's networks."""
    return featurizer(networks.Featurizer, name, input_shape, hparams)


def on_algorithms(module):
    """Add our classes to the host's namespace and to the end of its list, and let it find ``CIM+<base>`` by name."""
    host_tables.add_algorithms(module, _RobustAlgorithm)
    module.get_algorithm_class = compositions.found_by(module, module.get_algorithm_class)


def on_hparams_registry(module):
    """Wrap ``_hparams``: delegate, then add ours, each drawn from a stream seeded by its name, as the host's are."""
    faults.SCRIPT.watch()
    inner = module._hparams
    if hasattr(inner, "__wrapped__"):
        return

    @functools.wraps(inner)
    def _hparams(algorithm, dataset, random_seed):
        faults.check_algorithm(algorithm)
        faults.hold_output_dir()  # the first that is called of ours when the script knows its arguments
        ours = dataset == "DebugDigitsOnPhotos"
        algorithm, base = compositions.split(algorithm)
        composed = algorithm != base
        hparams = inner(base, SMALL if ours else dataset, random_seed)  # small images: their learning rate
        if ours:
            default, drawn = hparams["batch_size"]
            hparams["batch_size"] = (default, min(drawn, LARGEST_BATCH))
        if composed:
            hparams = {name: tuple(map(_native, pair)) for name, pair in hparams.items()}
        if algorithm in catalog.ALGORITHMS:
            hparams.update(host_tables.drawn(module, algorithm, random_seed))
            faults.check_arguments(algorithm, hparams)
        return hparams

    module._hparams = _hparams


def _native(value):
    """The host draws NumPy's integers for some of its own, and cannot write them into its results."""
    return value.item() if isinstance(value, np.generic) else value


def on_networks(module):
    """Let ``--hparams`` name a network that the host has not, for every algorithm."""
    if not hasattr(module.Featurizer, "__wrapped__"):
        module.Featurizer = featurizer_by(module.Featurizer)


def on_datasets(module):
    """Let ``--hparams`` choose the size of photographs, and add the offline data set. "Debug" in its name keeps it out
    of the host's default sweeps.
    """
    photographs = getattr(module, "MultipleEnvironmentImageFolder", None)
    if photographs is not None and not hasattr(photographs.__init__, "__wrapped__"):
        photographs.__init__ = image_size.sized(photographs.__init__)

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
    """Add ``cim_local`` and ``cim_submitit``."""
    host_tables.add_launchers(module)


def on_fast_data_loader(module):
    """Make an environment smaller than the batch an error: the host's loader would wait for a full batch for ever."""
    host_tables.check_batch_sizes(module, faults.check_batch_size)
