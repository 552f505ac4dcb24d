"""``CIM+<base>`` in DomainBed: Contrastive Input Morphing on top of any algorithm that the host lists.

The names are found by ``get_algorithm_class`` and have hyperparameters, and stand in no list: a sweep without
``--algorithms`` has none of them, and result tables put them after the listed ones. ``python -m cim_plugin.domainbed
compositions`` tries them all.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
from typing import Any

import torch

from ... import catalog
from ...announcer import Announcer
from ...catalog import COMPOSITION
from ...errors import InputError
from ...models import from_catalog
from .. import hyperparameters
from ..batches import check_finite, check_predictions, check_values, say_similarity, warn_of_a_step
from ..train_script import last_line, raised_in
from . import faults
from .featurizer_hook import AddedContrast, draw_weights, psi_in_front
from .images import REGISTRY, SMALL, checked_all, concatenate, featurizer, pixels


def split(name: str) -> tuple[str, str]:
    """(whose hyperparameters are added, the host's algorithm): ("CIM", base) of a composition, twice the name of any
    other.

    Raises:
        InputError: the base cannot be one.
    """
    if not name.startswith(COMPOSITION):
        return name, name
    base = name.removeprefix(COMPOSITION)
    if base in catalog.ALGORITHMS:
        parts = {"morphing", *catalog.ALGORITHMS[base][0]}
        whole = next(
            (f"; {own!r} is what this would be" for own, (its, _) in catalog.ALGORITHMS.items() if set(its) == parts),
            "",
        )
        raise InputError(f"{name}: {base} is of this plugin, and CIM goes on top of the host's own algorithms{whole}")
    bases = [own for own in importlib.import_module("domainbed.algorithms").ALGORITHMS if own not in catalog.ALGORITHMS]
    if base not in bases:
        near = difflib.get_close_matches(base, bases)
        hint = f"did you mean {COMPOSITION + near[0]!r}?" if near else f"it has {', '.join(bases)}"
        raise InputError(f"{name}: {base!r} is not an algorithm of DomainBed; {hint}")
    return "CIM", base


def found_by(module, inner):
    """The host's ``get_algorithm_class``, which first makes the class of a composition when it is asked for one."""
    for name in [name for name in vars(module) if name.startswith(COMPOSITION)]:
        delattr(module, name)  # the module was reloaded: its algorithms are new ones
    if hasattr(inner, "__wrapped__"):
        return inner

    @functools.wraps(inner)
    def get_algorithm_class(algorithm_name):
        if algorithm_name.startswith(COMPOSITION) and not hasattr(module, algorithm_name):
            setattr(module, algorithm_name, _compose(module, algorithm_name))
        return inner(algorithm_name)

    return get_algorithm_class


def _compose(module, name: str) -> type:
    _, base = split(name)
    if base == "ERM":  # the same losses; computed in one backward they are CIM's to the last digit
        return module.CIM
    host_class = getattr(module, base)
    try:
        inspect.signature(host_class.update).bind(None, [], None)
    except TypeError as error:
        raise InputError(
            f"{name}: update of {base} needs more than the training environments' minibatches and unlabeled images "
            f"({error}); "
            "DomainBed's scripts give no more, and labels of a test environment are not to train on"
        ) from error
    own = {
        "__doc__": f"CIM on top of {base}",
        "__module__": module.__name__,
        "host": module,
        "name": name,
        "base": base,
    }
    return type(name, (_Composition, host_class), own)


class _Composition:
    """One of the host's own algorithms, with psi as the first layer of the featurizer that it builds.

    The base keeps its ``__init__`` and ``update``; see :mod:`.psi_in_front` for what is added and how.
    """

    host: Any  #: domainbed.algorithms
    name: str
    base: str

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        faults.check_test_environments(num_domains)
        image_size, pixel_space = pixels(self.name, input_shape)
        hparams = hyperparameters.checked("CIM", self.name, hparams, hyperparameters.kinds(REGISTRY, self.name, SMALL))
        contrast = from_catalog.build_contrast(self.name, hparams, image_size, num_domains)
        with _psi_in_front_of(self, input_shape, hparams) as built, self._in_words():
            super().__init__(input_shape, num_classes, num_domains, hparams)
        if not built:
            raise InputError(
                f"{self.name}: {self.base} builds no featurizer by networks.Featurizer, so psi cannot be put before it"
            )
        draw_weights(built[0])  # after the base's own, as CIM does
        self._contrast, self._shape, self._n_classes, self._step = contrast, tuple(input_shape), num_classes, -1
        self.announcer = Announcer()
        say_similarity(self.name, contrast, image_size, pixel_space)

    def update(self, minibatches, unlabeled=None):
        """The base's step on images that pass through psi; ``unlabeled`` is the base's business.

        Returns:
            What the base logs, and where a step moved psi: L_con and those of ``mask_statistics.NAMES``.

        Raises:
            InputError: images or labels are not what the data set declares, or the first batch's pixels.
            NotFinite: a loss is NaN or infinite.
        """
        self._step += 1
        minibatches = checked_all(self.name, minibatches, self._shape)
        batch = concatenate(minibatches)
        check_values(self.name, batch, self._n_classes, pixels(self.name, self._shape)[1], first=self._step == 0)
        added = AddedContrast(self, self._contrast, self.hparams, batch)
        with _psi_in_front_of(self, self._shape, self.hparams), added, self._in_words():
            logged = {**super().update(minibatches, unlabeled), **added.logged()}
        check_finite(self.name, logged, self._step, [len(images) for images, _ in minibatches])
        warn_of_a_step(self.announcer, self.name, logged, len(batch.labels))
        return logged

    def predict(self, *inputs, **more):
        """The base's; NotFinite where a prediction of an evaluation is."""
        logits = super().predict(*inputs, **more)
        return logits if self.training else check_predictions(self.name, logits, self._step)

    @contextlib.contextmanager
    def _in_words(self):
        """What the base itself asks of the machine, such as a GPU or a package, as one line."""
        try:
            yield
        except (AssertionError, RuntimeError) as error:
            if raised_in(error, "torch.cuda") and not torch.cuda.is_available():
                raise InputError(f"{self.name}: {self.base} itself runs on a GPU only") from error
            if isinstance(error, AssertionError) and str(error):
                raise InputError(f"{self.name}: {self.base} itself says: {last_line(error)}") from error
            raise


def _psi_in_front_of(composition: _Composition, input_shape, hparams):
    """Where the base builds a featurizer inside this context, psi comes before it."""
    name, base = composition.name, composition.base
    _, pixel_space = pixels(name, input_shape)

    def make_featurizer(make, shape, hparams):
        if tuple(shape) != tuple(input_shape):
            raise InputError(
                f"{name}: the featurizer of {base} reads inputs of shape {tuple(shape)}, not the images of shape "
                f"{tuple(input_shape)}, so psi cannot be put before it"
            )
        return featurizer(make, name, shape, hparams)

    return psi_in_front(
        composition.host.networks, make_featurizer, lambda: from_catalog.build_psi(name, hparams, pixel_space)
    )
