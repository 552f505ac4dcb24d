"""SubpopBench as host: our algorithms, their hyperparameters and two launchers in the tables that its scripts read.

Every ``on_*`` is called by :mod:`cim_plugin.autoload` with the host's module right after that module has run. Its own
algorithms stay what they are; those that ask for a GPU where there is none are mended in :mod:`.without_gpu`.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch

from ... import catalog
from ...algorithms.morphing import PixelSpace
from ...models.domainbed_files import NUMBERS
from ...models.subpopbench_files import CMNIST, ONLY_CMNIST
from .. import host_tables, hyperparameters
from ..batches import Batch, checked
from ..robust_algorithm import RobustAlgorithm
from . import faults, without_gpu
from .encoders import featurizer_by

REGISTRY = "subpopbench.hparams_registry"
IMAGES = "Waterbirds"  #: a data set of images, for what all of them share
NO_GPU = (
    "error: no GPU is visible, and SubpopBench's multi_gpu, its default, waits for one for ever; 'sweep "
    "delete_incomplete', then 'launch' with --command_launcher cim_local"
)


class _RobustAlgorithm(RobustAlgorithm):
    """Ours behind the host's Algorithm interface; combined with the host's base class below.

    An image's environment is its attribute: 'cross_environment' pairs need ``--train_attr yes``.
    """

    host: Any  #: subpopbench.learning.algorithms
    output = "--output_folder_name"

    def __init__(self, data_type, input_shape, num_classes, num_attributes, num_examples, hparams, grp_sizes=None):
        super().__init__(data_type, input_shape, num_classes, num_attributes, num_examples, hparams, grp_sizes)
        faults.check_images(self.name, data_type)
        kinds = hyperparameters.kinds(REGISTRY, self.name, IMAGES)
        hparams = hyperparameters.checked(self.name, self.name, hparams, kinds)
        networks, self._shape = self.host.networks, tuple(input_shape)
        encoder = networks.Featurizer(data_type, input_shape, hparams)
        self._make_model(
            hparams,
            encoder,
            lambda n_inputs: networks.Classifier(n_inputs, num_classes, hparams["nonlinear_classifier"]),
            self._shape[1:],
            PixelSpace(*CMNIST) if ONLY_CMNIST in hparams else PixelSpace.imagenet(),
            num_attributes,
            lambda weights: torch.optim.SGD(
                weights, lr=hparams["lr"], weight_decay=hparams["weight_decay"], momentum=0.9
            ),
        )
        self.featurizer, self.classifier = encoder, self.model.head  # the host's names, by which it loads --pretrained

    def update(self, minibatch, step):
        """One step on (rows, images, labels, attributes); as :meth:`~.RobustAlgorithm._train_on`.

        Raises:
            InputError: images or labels are not what the data set declares, or, with CIM, the first batch's pixels.
            NotFinite: the loss is NaN or infinite.
        """
        _, images, labels, attributes = minibatch
        self._step = step - 1  # a resumed run does not begin at 0
        images, labels = checked(self.name, images, labels, self._shape)
        return self._train_on(Batch(images, labels, attributes), [len(images)])

    def return_feats(self, x):
        """Images (N, C, H, W) -> what the classifier reads, (N, F)."""
        return self.model.features(x)


def on_algorithms(module):
    """Add our classes to the host's namespace and to the end of its list."""
    host_tables.add_algorithms(module, _RobustAlgorithm)
    without_gpu.mend(module)


def on_hparams_registry(module):
    """Wrap ``_hparams``: delegate, then add ours, each drawn from a stream seeded by its name, as the host's are."""
    faults.SCRIPT.watch()
    inner = module._hparams
    if hasattr(inner, "__wrapped__"):
        return

    @functools.wraps(inner)
    def _hparams(algorithm, dataset, random_seed):
        faults.check_stage1(algorithm)
        hparams = inner(algorithm, dataset, random_seed)
        if algorithm in catalog.ALGORITHMS:
            faults.check_dataset(algorithm, dataset, hparams)
            faults.hold_output_dir()
            hparams.update(host_tables.drawn(module, algorithm, random_seed))
            faults.check_arguments(algorithm, hparams)
        return hparams

    module._hparams = _hparams


def on_networks(module):
    """Let ``--hparams`` name a network that the host has not, for every algorithm."""
    if not hasattr(module.Featurizer, "__wrapped__"):
        module.Featurizer = featurizer_by(module, module.Featurizer)


def on_early_stopping(module):
    """Let torch.load read the host's checkpoints, which hold one object of this class: since 2.6 it reads plain weights
    only, unless told what else is harmless.
    """
    torch.serialization.add_safe_globals([module.EarlyStopping, *NUMBERS])


def on_fast_dataloader(module):
    """Make a training split smaller than the batch an error: the host's loader would wait for a full batch for ever."""
    host_tables.check_batch_sizes(module, faults.check_batch_size)


def on_command_launchers(module):
    """Add ``cim_local`` and ``cim_submitit``; the host's default launcher waits for ever where there is no GPU."""
    host_tables.add_launchers(module)
    inner = module.REGISTRY["multi_gpu"]
    if hasattr(inner, "__wrapped__"):
        return

    @functools.wraps(inner)
    def multi_gpu(commands):
        if not torch.cuda.device_count():
            print(NO_GPU, file=sys.__stderr__, flush=True)
            raise SystemExit(2)
        inner(commands)

    module.REGISTRY["multi_gpu"] = multi_gpu
