"""The one table of algorithms and hyperparameters that every host adapter reads.

An algorithm is a row: the parts that it adds to a plain classifier. A part brings its hyperparameters, each with a
default, a random draw for sweeps, and a check. ``python -m cim_plugin.catalog`` prints the tables of
docs/hyperparameters.md. Torch is imported only by :func:`build`.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
from contextvars import ContextVar
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping

from .errors import InputError
from .flags import COUNT, any_number, whole

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from .algorithms.classifier import RobustClassifier
    from .algorithms.contrastive import TripletContrast
    from .algorithms.mask_optimizer import WithOwnAdam
    from .algorithms.morphing import InputMorphing, PixelSpace
    from .algorithms.similarity.base import Similarity


LARGEST = 65536  #: of whole numbers, which are sizes of layers: much larger ones fit no memory


@dataclass(frozen=True)
class Hyperparameter:
    """One value that a user may set."""

    default: Any
    draw: Callable[[np.random.RandomState], Any]  #: native Python values only: hosts write them as JSON
    domain: str  #: what the docs say of the draw
    accepts: Callable[[Any], bool]
    values: str  #: the accepted values, in words
    help: str
    before: Any = None  #: what it was in runs made before there was this one; None: the default

    def check(self, name: str, value: Any) -> Any:
        """The value as one of Python's own, a float where the default is one; InputError unless it can be used."""
        given, value = value, plain(value)
        if not self.accepts(value):
            raise InputError(f"{name}={shown(given)} is not {self.values} (default {self.default!r})")
        if isinstance(value, int) and value > LARGEST and not isinstance(self.default, float):
            raise InputError(f"{name}={shown(given)} is too large; give at most {LARGEST} (default {self.default!r})")
        return float(value) if isinstance(self.default, float) else value

    def with_default(self, value: Any) -> Hyperparameter:
        """The same, with another default; for what sweeps leave at it."""
        return replace(self, default=value, draw=lambda r: value)

    @property
    def flag(self) -> dict[str, Any]:
        """argparse's keywords of a flag for it, but for the default: what an unset flag means is the parser's
        business.
        """
        types = {int: whole(-COUNT, LARGEST_WHOLE), float: any_number}
        keywords = BOOL_FLAG if isinstance(self.default, bool) else {"type": types.get(type(self.default), str)}
        return {**keywords, "help": f"{self.help}: {self.values} (default: {self.default})".replace("%", "%%")}


def parse_bool(text: str) -> bool:
    """true or false, in any case."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


LARGEST_WHOLE = 1 << 16  #: of a command line: a code of the bottleneck that fits any memory
BOOL_FLAG = {"type": parse_bool, "const": True, "nargs": "?"}  #: argparse's own type=bool makes true of every word


def plain(value: Any) -> Any:
    """Scalars of numpy and torch, decimals and fractions as Python's own numbers; anything else as it is."""
    if isinstance(value, (Decimal, Fraction)):
        return float(value)
    if not isinstance(value, (int, float, str)) or type(value).__module__ == "numpy":
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
            return value.item()
    return value


def shown(value: Any) -> str:
    """A value in a message of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float, small enough for a float, and no truth value."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an int with hundreds of digits
        return False


def _weight(default: float, low: float, high: float, help: str) -> Hyperparameter:
    return Hyperparameter(
        default,
        lambda r: float(10 ** r.uniform(low, high)),
        f"10^U({low:g}, {high:g})",
        lambda value: is_number(value) and value >= 0,
        "a finite number of at least 0",
        help,
    )


def _choice(options: Iterable[str], help: str) -> Hyperparameter:
    """A choice that sweeps leave at the first option: it names a variant, and a sweep tunes one variant."""
    options = tuple(options)
    default, words = options[0], " or ".join(repr(option) for option in options)
    return Hyperparameter(
        default, lambda r: default, "fixed", lambda value: isinstance(value, str) and value in options, words, help
    )


#: similarity -> (its class below ``algorithms/similarity``, what it is). The first one is the default.
SIMILARITIES: dict[str, tuple[str, str]] = {
    "ms_ssim": ("fused.MSSSIM", "MS-SSIM"),
    "colours": ("colours.Colours", "how alike the colours are that m leaves, wherever they stand"),
}

#: part -> its hyperparameters. The first of each part is the weight of the part's loss term.
PARTS: dict[str, dict[str, Hyperparameter]] = {
    "morphing": {
        "cim_lambda": _weight(1.0, -2, 1, "weight λ of L_con"),
        "cim_pairs": _choice(
            ("random", "cross_environment"),
            "positives and negatives: any image of the class and of another one, or the class in another environment "
            "and another class in the same one (environment: the domain of DomainBed, the group fields of WILDS "
            "without y, the pseudo-environment of --cross_fit)",
        ),
        "cim_targets": _choice(("input", "morphed"), "psi(x) is compared with x+ and x-, or with psi(x+) and psi(x-)"),
        "cim_reading": _choice(
            ("distance", "similarity"), "how the poster's MS(·,·) is read; 'similarity' reverses the sign of L_con"
        ),
        "cim_mask_stride": Hyperparameter(
            4,
            lambda r: 4,
            "fixed",
            lambda value: isinstance(value, int) and value in (2, 4),
            "2 or 4",
            "pixels per value of m, before it is interpolated; 2 for small images and fine masks",
        ),
        "cim_gradient": _choice(
            ("both", "contrastive"),
            "which losses train the transformation network: L_con and L_sup, or L_con alone, which is the poster's "
            "formula to the letter and saves the gradient to the encoder's input",
        ),
        "cim_learning_rate": Hyperparameter(
            1e-3,
            lambda r: 1e-3,
            "fixed",
            lambda value: is_number(value) and value >= 0,
            "a finite number of at least 0",
            "learning rate of an Adam of the transformation network's own; 0: the host's optimizer trains it, but for "
            "SGD, beside which it is 0.001",
            before=0.0,
        ),
        "cim_similarity": _choice(SIMILARITIES, ", or ".join(what for _, what in SIMILARITIES.values())),
    },
    "bottleneck": {
        "vib_beta": _weight(1e-3, -5, 0, "weight β of the KL; the poster has 1"),
        "vib_dimension": Hyperparameter(
            256,
            lambda r: int(r.choice([64, 128, 256])),
            "64, 128 or 256",
            lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
            "a whole number of at least 1",
            "length of the code z",
        ),
    },
    "supervised_contrastive": {
        "scl_weight": _weight(1.0, -2, 1, "weight of the supervised contrastive loss"),
        "scl_temperature": Hyperparameter(
            0.1,
            lambda r: float(r.choice([0.05, 0.1, 0.2])),
            "0.05, 0.1 or 0.2",
            lambda value: is_number(value) and value > 0,
            "a finite number above 0",
            "its temperature",
        ),
        "scl_pairs": _choice(
            ("random", "cross_environment"),
            "its positives and negatives, as those of cim_pairs: any image of the class and of another one, or the "
            "class in another environment and another class in the same one, which is CnC's default",
        ),
    },
    "group_dro": {
        "group_dro_step_size": _weight(0.01, -3, -1, "step size of the group weights"),
    },
    "just_train_twice": {
        "jtt_upweight": Hyperparameter(
            20.0,
            lambda r: float(10 ** r.uniform(0, 2)),
            "10^U(0, 2)",
            lambda value: is_number(value) and value >= 1,
            "a finite number of at least 1",
            "how many times as often a training image is drawn that the first model gets wrong",
        ),
        "jtt_steps": Hyperparameter(
            100,
            lambda r: int(r.choice([50, 100, 200, 400])),
            "50, 100, 200 or 400",
            lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
            "a whole number of at least 1",
            "steps of the first model, by AdamW on batches of the run's size; the fewer, the more it gets wrong",
        ),
    },
}

#: algorithm -> its own defaults where they are not those of the parts
DEFAULTS: dict[str, dict[str, Any]] = {"CnC": {"scl_pairs": "cross_environment"}}

PREFIXES = ("cim_", "vib_", "scl_", "group_dro_")  #: of their names; a host has others, such as group_balanced

#: what version 0.1 had -> (the value at which it did nothing, what to do instead). Runs of then are compared and shown.
RETIRED: dict[str, tuple[Any, str]] = {
    "cim_composites": (False, "our study found little or no gain in it; leave it out"),
    "cim_sparsity": (0.0, "our study found little or no gain in it; leave it out"),
    "cim_mask": ("shared", "leave it out, or give InputMorphing a network of your own"),
    "cim_floor": ("smooth", "leave it out, or give MSSSIM a floor"),
    "cim_similarity=pytorch_msssim": (None, "take ms_ssim, which gives the library's numbers at any size"),
}

_retired_allowed: ContextVar[bool] = ContextVar("retired_allowed", default=False)


@contextlib.contextmanager
def retired_allowed() -> Iterator[None]:
    """For what builds the model of an old run: :data:`RETIRED` hyperparameters mean in here what they meant then."""
    token = _retired_allowed.set(True)
    try:
        yield
    finally:
        _retired_allowed.reset(token)


def retired(values: Mapping[str, Any]) -> str | None:
    """The first of these hyperparameters that is :data:`RETIRED` and did something, in words; None without one."""
    for name, value in values.items():
        for key in (name, f"{name}={value}"):
            if key in RETIRED and value != RETIRED[key][0]:
                return f"{name}={value!r} is no more, since version 0.2: {RETIRED[key][1]}"
    return None


class RetiredFlag(argparse.Action):
    """A flag that is answered by one line."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.error(f"{option_string} is no more, since version 0.2: {RETIRED[self.dest][1]}")


#: argparse's keywords of the flags of :data:`RETIRED`, by name
RETIRED_FLAGS: dict[str, dict[str, Any]] = {
    name: {"action": RetiredFlag, "nargs": "?", "help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    for name in RETIRED
    if name.isidentifier()
}

#: name -> (parts, what it is). The order is that of result tables. These are added to every host.
ALGORITHMS: dict[str, tuple[tuple[str, ...], str]] = {
    "CIM": (("morphing",), "Contrastive Input Morphing (Taghanaki et al., 2021)"),
    "CIM_VIB": (("morphing", "bottleneck"), "CIM with the variational information bottleneck"),
    "VIB": (("bottleneck",), "variational information bottleneck (Alemi et al., 2017)"),
    "SCL_E2E": (
        ("supervised_contrastive",),
        "supervised contrastive loss beside the cross-entropy, end to end (Khosla et al., 2020)",
    ),
    "CnC": (
        ("supervised_contrastive",),
        "Correct-n-Contrast's loss (Zhang et al., 2022): SCL_E2E with pairs across environments, such as the "
        "pseudo-environments of --cross_fit",
    ),
}

#: What ours are compared with, in the same form, for hosts that bring no algorithms of their own.
BASELINES: dict[str, tuple[tuple[str, ...], str]] = {
    "ERM": ((), "empirical risk minimisation"),
    "groupDRO": (("group_dro",), "group DRO (Sagawa et al., 2020); sees the group of every training image"),
    "JTT": (
        ("just_train_twice",),
        "just train twice (Liu et al., 2021): training images that a first model gets wrong are drawn more often",
    ),
}

#: CIM on top of a baseline, for the same hosts. DomainBed has its own ``CIM+<base>``, on top of its own algorithms.
COMPOSED: dict[str, tuple[tuple[str, ...], str]] = {
    "CIM+groupDRO": (("morphing", "group_dro"), "CIM on top of group DRO"),
}

TRAINABLE = {**BASELINES, **ALGORITHMS, **COMPOSED}

COMPOSITION = "CIM+"  #: how the names of DomainBed's compositions begin


def owner(name: Any) -> str | None:
    """The algorithm of this table whose hyperparameters a name takes: itself, or CIM for DomainBed's ``CIM+<base>``;
    None for a host's own one.
    """
    if not isinstance(name, str):
        return None
    return name if name in TRAINABLE else "CIM" if name.startswith(COMPOSITION) else None


def is_ours(name: Any) -> bool:
    """Whether a host knows it by this plugin only."""
    return owner(name) not in (None, *BASELINES)


def needs_uniform_groups(algorithm: str) -> bool:
    """Whether its group weights assume that the groups are sampled equally often."""
    return "group_dro" in TRAINABLE[algorithm][0]


def trains_twice(algorithm: str) -> bool:
    """Whether it needs what a first model takes the training images for."""
    return "just_train_twice" in TRAINABLE.get(algorithm, ((), ""))[0]


def hyperparameters(algorithm: str) -> dict[str, Hyperparameter]:
    """The hyperparameters that an algorithm adds to its host's."""
    parts, _ = TRAINABLE[algorithm]
    entries = {name: entry for part in parts for name, entry in PARTS[part].items()}
    return entries | {name: entries[name].with_default(value) for name, value in DEFAULTS.get(algorithm, {}).items()}


def all_hyperparameters() -> dict[str, Hyperparameter]:
    """Those of all algorithms."""
    return {name: entry for entries in PARTS.values() for name, entry in entries.items()}


def complete(algorithm: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and the defaults of those hyperparameters of the algorithm that are not among them."""
    own = owner(algorithm)
    return {**({name: entry.default for name, entry in hyperparameters(own).items()} if own else {}), **values}


def complete_old(algorithm: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a finished or interrupted run, and of those hyperparameters that are newer than it what they were
    then.
    """
    own = owner(algorithm)
    known = hyperparameters(own) if own else {}
    return {
        **{name: entry.default if entry.before is None else entry.before for name, entry in known.items()},
        **values,
    }


def check(algorithm: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, ours as Python's own numbers; InputError for one that cannot be used or for a key that looks like
    ours and is unknown.

    Args:
        values: a host's hyperparameters; keys without one of our prefixes are the host's own business.
    """
    known = hyperparameters(algorithm)
    allowed = _retired_allowed.get()
    if not allowed and (gone := retired(values)):
        raise InputError(f"{algorithm}: {gone}")
    for name in values:
        if name not in known and name not in RETIRED and name.startswith(PREFIXES):
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"known: {', '.join(known)}"
                if known
                else "it has none of its own"
            )
            raise InputError(f"{algorithm} has no hyperparameter {name!r} (given {shown(values[name])}); {hint}")
    checked = dict(values)
    for name, entry in known.items():
        if name not in values:
            raise InputError(f"{algorithm} needs the hyperparameter {name!r} (default {entry.default!r})")
        retired_value = allowed and f"{name}={values[name]}" in RETIRED
        checked[name] = values[name] if retired_value else entry.check(name, values[name])
    return checked


def build(
    algorithm: str,
    values: Mapping[str, Any],
    *,
    encoder: nn.Module,
    n_features: int,
    make_head: Callable[[int], nn.Module],
    image_size: tuple[int, int],
    pixel_space: PixelSpace,
    n_environments: int | None,
    groups_in_training: Tensor | None = None,
) -> RobustClassifier:
    """The classifier that a row of the table describes.

    The head is made right after the encoder and before any part, so that at the same seed encoder and head start as
    a plain classifier's do.

    Args:
        algorithm: a key of ``TRAINABLE``.
        values: the host's hyperparameters with ours among them.
        encoder: images (N, C, H, W) -> features (N, n_features).
        make_head: input length -> the module that gives logits.
        image_size: height and width in pixels.
        pixel_space: how the host's images relate to pixels in [0, 1].
        n_environments: training environments, ``None`` where the host has none.
        groups_in_training: (n_groups,) bool, which groups the training set holds; needed by group DRO only.

    Raises:
        InputError: a hyperparameter is unknown or out of range, or does not go with this image size or host.
    """
    from .algorithms.bottleneck import GaussianBottleneck
    from .algorithms.classifier import RobustClassifier
    from .algorithms.group_dro import GroupWeights

    values = check(algorithm, values)
    parts, _ = TRAINABLE[algorithm]
    weights = {"supervised": 1.0}
    modules: dict[str, Any] = {}
    head = make_head(values["vib_dimension"] if "bottleneck" in parts else n_features)
    if "bottleneck" in parts:
        weights["kl"] = values["vib_beta"]
        modules["bottleneck"] = GaussianBottleneck(n_features, values["vib_dimension"])
    if "supervised_contrastive" in parts:
        weights["supervised_contrastive"] = values["scl_weight"]
        modules |= {"temperature": values["scl_temperature"], "pairs": values["scl_pairs"]}
        _check_pairs("scl_pairs", values, n_environments)
    if "group_dro" in parts:
        modules["group_weights"] = GroupWeights(groups_in_training, values["group_dro_step_size"])
    if "morphing" in parts:
        weights["contrastive"] = values["cim_lambda"]
        modules["morphing"] = build_psi(algorithm, values, pixel_space)
        modules["contrast"] = build_contrast(algorithm, values, image_size, n_environments)
        modules["gradient"] = values["cim_gradient"]
    return RobustClassifier(encoder, head, weights, **modules)


def optimizer(host: Optimizer, classifier: RobustClassifier, values: Mapping[str, Any]) -> Optimizer | WithOwnAdam:
    """What to step for a classifier of :func:`build`: the host's optimizer of all its weights, or that and the
    transformation network's own Adam.
    """
    from .algorithms.mask_optimizer import with_own_adam

    return with_own_adam(host, classifier.morphing, values.get("cim_learning_rate", 0.0))


def build_psi(algorithm: str, values: Mapping[str, Any], pixel_space: PixelSpace) -> InputMorphing:
    """psi alone; the arguments are those of :func:`build`, ``values`` are checked already.

    Raises:
        InputError: images with this number of channels cannot be morphed.
    """
    from .algorithms.morphing import InputMorphing, TransformationNetwork

    channels = pixel_space.channels
    mask_channels = channels if values.get("cim_mask") == "per_channel" else 1  # of an old run
    try:
        return InputMorphing(pixel_space, TransformationNetwork(channels, mask_channels, values["cim_mask_stride"]))
    except ValueError as error:  # algorithms/ says what is wrong with numbers; here it is the user's choice
        raise InputError(f"{algorithm}: {error}") from error


def build_contrast(
    algorithm: str, values: Mapping[str, Any], image_size: tuple[int, int], n_environments: int | None
) -> TripletContrast:
    """L_con alone; the arguments are those of :func:`build`, ``values`` are checked already.

    Raises:
        InputError: a hyperparameter does not go with this image size or host.
    """
    from .algorithms.contrastive import TripletContrast

    _check_pairs("cim_pairs", values, n_environments)
    name, options = values["cim_similarity"], {}
    if name == "pytorch_msssim" or values.get("cim_floor") == "exact":  # of an old run
        name, options = "ms_ssim", {"floor": "exact"}
    try:
        similarity = similarity_class(name)(image_size, **options)
        return TripletContrast(similarity, values["cim_pairs"], values["cim_targets"], values["cim_reading"])
    except ValueError as error:
        raise InputError(f"{algorithm}: {error}") from error


def similarity_class(name: str) -> type[Similarity]:
    """The class of a row of ``SIMILARITIES``."""
    module, _, kind = SIMILARITIES[name][0].rpartition(".")
    return getattr(import_module(f".algorithms.similarity.{module}", __package__), kind)


def _check_pairs(name: str, values: Mapping[str, Any], n_environments: int | None) -> None:
    if values[name] == "cross_environment" and (n_environments or 0) < 2:
        raise InputError(
            f"{name}='cross_environment' needs at least 2 training environments, {n_environments or 'none'} here; "
            f"use 'random'"
        )


def markdown() -> str:
    """The table of algorithms and hyperparameters, as docs/hyperparameters.md shows it."""
    lines = ["| algorithm | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, (_, what) in TRAINABLE.items()]
    lines += ["", "| hyperparameter | of | default | in sweeps | accepted | meaning |", "|---|---|---|---|---|---|"]
    for part, entries in PARTS.items():
        users = ", ".join(f"`{name}`" for name, (parts, _) in TRAINABLE.items() if part in parts)
        for name, entry in entries.items():
            lines.append(
                f"| `{name}` | {users} | `{entry.default!r}` | {entry.domain} | {entry.values} | {entry.help} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
