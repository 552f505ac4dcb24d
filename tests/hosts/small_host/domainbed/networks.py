"""One small network for one image size."""

import torch


class _Pooled(torch.nn.Sequential):
    n_outputs = 8

    def __init__(self, channels):
        super().__init__(
            torch.nn.Conv2d(channels, 8, 3, stride=2),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
        )


def Featurizer(input_shape, hparams):
    if tuple(input_shape[1:]) not in {(28, 28), (224, 224)}:
        raise NotImplementedError
    if hparams.get("offline"):
        from urllib.error import URLError

        raise URLError("no network")
    return _Pooled(input_shape[0])


def Classifier(in_features, out_features, is_nonlinear=False):
    return torch.nn.Linear(in_features, out_features)
