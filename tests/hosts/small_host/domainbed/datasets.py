"""Random images in three environments."""

import torch
from torch.utils.data import TensorDataset

DATASETS = ["Debug28"]


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
