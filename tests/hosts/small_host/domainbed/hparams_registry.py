"""Hyperparameters as (default, random) pairs."""

import numpy as np

from domainbed.lib import misc


def _hparams(algorithm, dataset, random_seed):
    small = dataset == "Debug28"
    batch = int(2 ** np.random.RandomState(misc.seed_hash(random_seed, "batch_size")).uniform(3, 9))
    lr = 1e-3 if small else 5e-5
    return {
        "nonlinear_classifier": (False, False),
        "lr": (lr, lr),
        "weight_decay": (0.0, 0.0),
        "batch_size": (8, batch),
    }


def default_hparams(algorithm, dataset):
    return {name: pair[0] for name, pair in _hparams(algorithm, dataset, 0).items()}


def random_hparams(algorithm, dataset, seed):
    return {name: pair[1] for name, pair in _hparams(algorithm, dataset, seed).items()}
