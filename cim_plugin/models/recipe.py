"""What a network is rebuilt from, but for its weights: plain values that a run saves, and that anybody may have
written.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from typing import Any, Callable, Mapping

from .. import catalog, retired
from ..errors import InputError
from ..flags import is_finite, is_whole
from ..hyperparameter import shown
from .foreign import LONGEST, MODEL, MODEL_KWARGS

LARGEST = 100_000  #: of classes, groups, and of the numbers that layers are made by
#: who makes the encoder: torchvision, timm or this package by name; DomainBed's networks; a module that a user gives
LIBRARIES = ("named", "domainbed", "own")
STANDARDISATIONS = ("none", "imagenet", "per_image")
STAGE = re.compile(r"[A-Za-z0-9_.]{1,100}")  #: of a network
#: step of a preparation -> how many whole numbers it takes
STEPS = {"square": 0, "resize": 2, "shorter_side": 1, "center_crop": 2}


@dataclass(frozen=True)
class Recipe:
    """A classifier but for its weights, and how an image is prepared for it. Values as JSON has them."""

    algorithm: str  #: a key of ``catalog.TRAINABLE``
    hyperparameters: Mapping[str, Any]  #: of the algorithm, all of them
    library: str  #: one of :data:`LIBRARIES`
    encoder: str  #: the encoder's name; "" of DomainBed's own, and of a module that a user gave
    encoder_options: Mapping[str, Any]  #: arguments that shape the encoder
    class_names: tuple[str, ...]
    image_size: tuple[int, int]  #: height and width of the images that it takes in evaluation
    mean: tuple[float, ...]  #: per channel, of the images that it takes: 0 for pixels in [0, 1]
    std: tuple[float, ...]  #: per channel; 1 for pixels in [0, 1]
    training_size: tuple[int, int] | None = None  #: of augmented images, where that is another one
    preparation: tuple[
        tuple[Any, ...], ...
    ] = ()  #: from a photograph to that size: a key of :data:`STEPS`, its numbers
    standardise: str = "none"  #: between psi and the encoder, one of :data:`STANDARDISATIONS`
    nonlinear_head: bool = False  #: DomainBed's head of three layers
    n_environments: int | None = None
    groups_in_training: tuple[bool, ...] = ()  #: of group DRO
    channels_last: bool = False  #: the memory format of the weights, which decides the last bits
    #: of a mask over the encoder's maps (``cim-plugin retrain --method split``): height of its grid, channels of the
    #: maps, whether there is m, names of the stages; () without one
    split: tuple[Any, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON, and for files of tensors and plain values."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def has_psi(self) -> bool:
        """Whether there is an m: of a transformation network, or of a mask over maps."""
        return bool(self.split) or "morphing" in catalog.TRAINABLE[self.algorithm][0]


def class_names(metadata_map: Mapping[str, Any] | None, n_classes: int) -> list[str] | None:
    """The names of the classes in a ``metadata_map`` of the wilds package; None where there is not one for each."""
    names = (metadata_map or {}).get("y")
    if names is None or len(names) != n_classes:
        return None
    return [" ".join(str(name).split()) for name in names]


def numbered(n_classes: int) -> list[str]:
    """The numbers of classes without names."""
    return [str(number) for number in range(n_classes)]


def _plain(value: Any) -> Any:
    """Tuples as lists, which files give back."""
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, Mapping) else value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (tuple, list)) else value


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(is_whole(side, 1, LONGEST) for side in value)


def _is_step(value: Any) -> bool:
    if not isinstance(value, tuple) or not value or value[0] not in STEPS:
        return False
    return len(value) - 1 == STEPS[value[0]] and all(is_whole(side, 1, LONGEST) for side in value[1:])


def _is_split(value: Any) -> bool:
    if not isinstance(value, tuple) or (value and len(value) < 4):
        return False
    numbers, masked, names = value[:2], value[2:3], value[3:]
    return (
        all(is_whole(number, 1, LARGEST) for number in numbers)
        and all(isinstance(one, bool) for one in masked)
        and all(isinstance(name, str) and STAGE.fullmatch(name) is not None for name in names)
    )


def _are(kind: Callable[[Any], bool], least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and least <= len(value) <= most and all(map(kind, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and value.isprintable()


def _are_options(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(name in OPTIONS and OPTIONS[name](option) for name, option in value.items())


#: arguments of encoders, by what they may be
OPTIONS = {
    **MODEL_KWARGS,
    **dict.fromkeys(("resnet18", "resnet50_augmix", "vit", "dinov2"), lambda value: value in (0, 1)),
}

#: field -> (whether it may have this value, what is expected); tuples stand for lists
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "algorithm": (lambda value: value in tuple(catalog.TRAINABLE), f"one of {', '.join(catalog.TRAINABLE)}"),
    "hyperparameters": (lambda value: isinstance(value, Mapping), "a table of hyperparameters"),
    "library": (lambda value: value in LIBRARIES, f"one of {', '.join(LIBRARIES)}"),
    "encoder": (lambda value: value == "" or (isinstance(value, str) and MODEL.fullmatch(value)), "a model's name"),
    "encoder_options": (_are_options, "arguments that shape a network and name no file"),
    "class_names": (_are(_is_name, 1, LARGEST), "a list of names that can be printed"),
    "image_size": (_is_size, f"height and width, at most {LONGEST}"),
    "training_size": (lambda value: value is None or _is_size(value), f"height and width, at most {LONGEST}"),
    "mean": (_are(is_finite, 1, 64), "a list of numbers"),
    "std": (_are(lambda value: is_finite(value) and value > 0, 1, 64), "a list of numbers above 0"),
    "preparation": (_are(_is_step, 0, 16), f"a list of steps: {', '.join(STEPS)}"),
    "standardise": (lambda value: value in STANDARDISATIONS, f"one of {', '.join(STANDARDISATIONS)}"),
    "nonlinear_head": (lambda value: isinstance(value, bool), "true or false"),
    "n_environments": (lambda value: value is None or is_whole(value, 0, LARGEST), "a number of environments"),
    "groups_in_training": (_are(lambda value: isinstance(value, bool), 0, 1_000_000), "a list of true and false"),
    "split": (_is_split, "side, channels, whether there is m, and names of stages"),
    "channels_last": (lambda value: isinstance(value, bool), "true or false"),
}


def from_dict(values: Any, where: str) -> Recipe:
    """A recipe out of a file of unknown origin; nothing in it makes a library read another file or execute code.

    Args:
        values: what :meth:`Recipe.as_dict` gave, if it is that.
        where: the file, for messages.

    Raises:
        InputError: a value is missing, unknown, or none that may be taken out of a file.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: its recipe is {shown(values)}, not a table of values")
    known = {field.name for field in fields(Recipe)}
    if unknown := sorted(map(str, values.keys() - known)):
        raise InputError(f"{where}: its recipe has {shown(unknown[0])}, which this version does not know")
    taken = {}
    for field in fields(Recipe):
        if field.name not in values and field.default is not MISSING:
            continue
        value = _tuples(values.get(field.name))
        fits, expected = _CHECKS[field.name]
        if not fits(value):
            raise InputError(f"{where}: {field.name} {shown(value)} of its recipe is not {expected}")
        taken[field.name] = value
    taken["hyperparameters"] = catalog.complete_old(taken["algorithm"], taken["hyperparameters"])
    _check_together(taken, where)
    return Recipe(**taken)


def _check_together(taken: dict[str, Any], where: str) -> None:
    for name, value in taken["hyperparameters"].items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"{where}: hyperparameter {name}={shown(value)} is more than {LARGEST}")
    with retired.allowed():
        catalog.check(taken["algorithm"], taken["hyperparameters"])
    if len(taken["mean"]) != len(taken["std"]):
        raise InputError(
            f"{where}: mean and std of its recipe have {len(taken['mean'])} and {len(taken['std'])} numbers"
        )
