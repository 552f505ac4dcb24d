"""A trained run with a transformation network, opened so that its images can be looked at: whichever host trained
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple

from .. import catalog
from ..errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from ..algorithms.classifier import RobustClassifier


class OpenedRun(NamedTuple):
    """A run's model, and the images of one of its splits."""

    run: str
    algorithm: str
    dataset: str
    split: str
    chosen: str  #: which of the run's models this is, in words
    synthetic: bool
    model: RobustClassifier  #: in evaluation mode, on the CPU
    labels: Tensor  #: (N,) int64
    groups: Tensor  #: (N,) int64
    environments: Tensor  #: (N,) int64, what 'cross_environment' pairs go by
    unit: str  #: "group", or "environment" for DomainBed
    group_names: list[str]
    class_names: list[str]
    read: Callable[[list[int]], Tensor]  #: rows of the split -> images (n, C, H, W) as the model takes them
    figure: (
        Callable[[list[int]], Tensor] | None
    )  #: rows -> how much of a pixel is the digit, (n, 1, H, W) in [0, 1]; None where nobody knows
    data: str | None = None  #: the folder of the images and who named it, where that was not the user

    @property
    def title(self) -> str:
        """What is shown, in one line."""
        synthetic = "SYNTHETIC " if self.synthetic else ""
        return f"{self.algorithm} on {synthetic}{self.dataset}, split {self.split}, {self.chosen}"

    def facts(self) -> dict[str, Any]:
        """What a reader must know of it, in plain values."""
        return {
            name: getattr(self, name) for name in ("run", "algorithm", "dataset", "split", "chosen", "synthetic")
        } | {"images_in_split": len(self.labels)}


def check_algorithm(algorithm: Any, path: str) -> None:
    """Raise InputError unless this algorithm has a transformation network that can be shown."""
    if catalog.owner(algorithm) not in (None, algorithm):
        raise InputError(
            f"{path} is a run of {algorithm}; of DomainBed's compositions none but CIM+ERM, which is CIM, can be shown "
            f"yet"
        )
    with_morphing = [name for name, (parts, _) in catalog.TRAINABLE.items() if "morphing" in parts]
    if algorithm not in with_morphing:
        raise InputError(
            f"{path} is a run of {algorithm}, which has no transformation network to show; name a run of "
            f"{' or '.join(with_morphing)}"
        )


def other_version(host: str, file: str, error: Exception) -> InputError:
    """What a host raises for hyperparameters that it does not know."""
    return InputError(
        f"{file} does not fit the {host} that is found here ({type(error).__name__}: {first_line(error)}); use the one "
        f"that trained it"
    )


def not_opened(name: str, folder: str | None, error: Exception) -> InputError:
    """What a host's loader raises for a data set."""
    return InputError(
        f"{name} cannot be opened in {folder} ({first_line(error)}); name the folder that holds it with --data_dir"
    )


def stacked(images: Iterable[Tensor]) -> Tensor:
    """Images that are decoded now, (n, C, H, W).

    Raises:
        InputError: one cannot be read.
    """
    import torch
    from PIL import Image

    from ..data.images import strict_decoding

    try:
        with strict_decoding():
            return torch.stack(list(images))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"an image cannot be read ({str(error) or type(error).__name__}); replace the file") from error
