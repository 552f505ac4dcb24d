"""A loader that never ends."""

import torch


class InfiniteDataLoader:
    def __init__(self, dataset, weights, batch_size, num_workers):
        if len(dataset) < batch_size and weights is None:
            raise RuntimeError("the real host would wait for ever here")
        self.loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, drop_last=True)

    def __iter__(self):
        while True:
            yield from self.loader
