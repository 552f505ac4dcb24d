"""What a similarity is: the one place that says what L_con asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Sequence

from torch import Tensor

if TYPE_CHECKING:
    from ..morphing import Morphed


class Similarity(ABC):
    """How alike psi(x) is to its positive and to its negative: each, at most 1, from embeddings of whole batches.

    A new one is a file in this folder and a row of ``catalog.SIMILARITIES``; no other file asks which one it is.

    Args:
        image_size: height and width in pixels.

    Raises:
        ValueError: images of this size cannot be compared.
    """

    measure: str  #: what its numbers are called
    smallest_side: int = 1  #: of an image, in pixels

    def __init__(self, image_size: tuple[int, int]):
        if min(image_size) < self.smallest_side:
            raise ValueError(
                f"{self.measure} compares images of at least {self.smallest_side} pixels a side, "
                f"{image_size[0]}x{image_size[1]} were given"
            )

    @property
    def how(self) -> str:
        """How images are compared, in words, with all that was chosen for this size."""
        return self.measure

    @abstractmethod
    def embed(self, morphed: Morphed) -> Tensor:
        """Of every image what is compared of psi(x), (N, ...), with gradient to m."""

    @abstractmethod
    def compare(self, own: Tensor, reference: Tensor, positive: Tensor, negative: Tensor) -> Sequence[Tensor]:
        """Similarity of every anchor to its positive and to its negative, (N,) each.

        Args:
            own: the anchors' embeddings, (N, ...).
            reference: the embeddings that positives and negatives are rows of, (M, ...); ``own`` itself (the same
                object) where the gradient is to go through both sides, else without gradient.
            positive, negative: (N,) int64, rows of ``reference``.
        """
