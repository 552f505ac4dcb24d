"""What our algorithms do alike in every host that calls ``update`` and ``predict``."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..algorithms.classifier import LOG_NAMES, RobustClassifier
from ..algorithms.morphing import PixelSpace
from ..announcer import Announcer
from ..errors import InputError
from ..models import from_catalog
from .batches import Batch, check_finite, check_predictions, say_similarity, warn_of_a_step


class RobustAlgorithm:
    """A ``RobustClassifier`` and its training steps; an adapter puts it before its host's own base class."""

    name: str  #: a key of catalog.ALGORITHMS
    output = "--output_dir"  #: the host's flag that names the folder of a run
    model: RobustClassifier
    optimizer: Any

    def _make_model(
        self,
        hparams: Mapping[str, Any],
        encoder: nn.Module,
        make_head: Callable[[int], nn.Module],
        image_size: tuple[int, int],
        pixel_space: PixelSpace,
        n_environments: int,
        make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        """Make ``model`` and ``optimizer``; to be called once, in ``__init__``.

        Args:
            hparams: the host's with ours among them, checked.
            encoder: with ``n_outputs``, the length of its features.
            make_head: input length -> the module that gives logits.
            image_size: height and width in pixels.
            pixel_space: how the host's images relate to pixels in [0, 1].
            n_environments: how many kinds of training images ``update`` is told of.
            make_optimizer: all weights -> the host's optimizer.

        Raises:
            InputError: a hyperparameter does not go with this image size or these environments.
        """
        self.model = from_catalog.build(
            self.name,
            hparams,
            encoder=encoder,
            n_features=encoder.n_outputs,
            make_head=make_head,
            image_size=image_size,
            pixel_space=pixel_space,
            n_environments=n_environments,
        )
        self.optimizer = from_catalog.optimizer(make_optimizer(self.model.parameters()), self.model, hparams)
        self.announcer, self._step = Announcer(), -1
        if self.model.contrast is not None:
            say_similarity(self.name, self.model.contrast, image_size, pixel_space)

    def _train_on(self, batch: Batch, sizes: Iterable[int]) -> dict[str, float]:
        """One step.

        Args:
            sizes: of the minibatches that the batch is made of.

        Returns:
            The same keys at every step, Python floats: the loss, its terms, and with CIM those of
            ``mask_statistics.NAMES``.

        Raises:
            InputError: labels, or with CIM the first batch's pixels, are not what is assumed of them.
            NotFinite: the loss is NaN or infinite.
        """
        self._step += 1
        try:
            losses, _, statistics = self.model.loss_terms(*batch)
        except ValueError as error:
            raise InputError(f"{self.name}: {error}") from error
        loss = self.model.total(losses)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

        logged = {"loss": loss, **{LOG_NAMES[name]: values.mean() for name, values in losses.items()}}
        if statistics is not None:
            logged |= statistics.of_batch()
        values = torch.stack([value.detach() for value in logged.values()]).tolist()  # the step's one synchronisation
        logged = dict(zip(logged, values))
        check_finite(self.name, logged, self._step, sizes, self.output)
        warn_of_a_step(self.announcer, self.name, logged, len(batch.labels))
        return logged

    def predict(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, K); deterministic. NotFinite where those of an evaluation are not."""
        logits = self.model(x)
        return logits if self.training else check_predictions(self.name, logits, self._step, self.output)
