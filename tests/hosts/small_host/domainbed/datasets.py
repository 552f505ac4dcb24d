"""Random images in three environments, and environments that a test has stored."""

import os

import torch
from torch.utils.data import TensorDataset

DATASETS = ["Debug28", "Stored"]


class MultipleDomainDataset:
    N_WORKERS = 8

    def __getitem__(self, index):
        return self.datasets[index]

    def __len__(self):
        return len(self.datasets)


class Debug28(MultipleDomainDataset):
    ENVIRONMENTS = ["0", "1", "2"]

    def __init__(self, root, test_envs, hparams):
        self.input_shape = (3, 28, 28)
        self.num_classes = 2
        self.datasets = [TensorDataset(torch.randn(16, 3, 28, 28), torch.randint(0, 2, (16,))) for _ in range(3)]


class Stored(MultipleDomainDataset):
    """``environments.pt`` in the data folder: a list of (images, labels)."""

    def __init__(self, root, test_envs, hparams):
        environments = torch.load(os.path.join(root, "environments.pt"))
        self.input_shape = tuple(environments[0][0].shape[1:])
        self.num_classes = 2
        self.datasets = [TensorDataset(*environment) for environment in environments]
