"""The one table of algorithms and hyperparameters that every host adapter reads.

An algorithm is a row: the parts that it adds to a plain classifier. A part brings its hyperparameters, each with a
default, a random draw for sweeps, and a check. ``python -m cim_plugin.catalog`` prints the tables of
docs/hyperparameters.md. It imports no torch: ``models/from_catalog`` makes of a row what trains.
"""

from __future__ import annotations

import difflib
from typing import Any, Mapping

from . import retired
from .errors import InputError
from .hyperparameter import Hyperparameter, choice, is_number, shown, weight

#: similarity -> (its class below ``algorithms/similarity``, what it is). The first one is the default.
SIMILARITIES: dict[str, tuple[str, str]] = {
    "ms_ssim": ("fused.MSSSIM", "MS-SSIM"),
    "colours": ("colours.Colours", "how alike the colours are that m leaves, wherever they stand"),
}

#: part -> its hyperparameters. The first of each part is the weight of the part's loss term.
PARTS: dict[str, dict[str, Hyperparameter]] = {
    "morphing": {
        "cim_lambda": weight(1.0, -2, 1, "weight λ of L_con"),
        "cim_pairs": choice(
            ("random", "cross_environment"),
            "positives and negatives: any image of the class and of another one, or the class in another environment "
            "and another class in the same one (environment: the domain of DomainBed, the group fields of WILDS "
            "without y, the pseudo-environment of --cross_fit)",
        ),
        "cim_targets": choice(("input", "morphed"), "psi(x) is compared with x+ and x-, or with psi(x+) and psi(x-)"),
        "cim_reading": choice(
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
        "cim_gradient": choice(
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
        "cim_similarity": choice(SIMILARITIES, ", or ".join(what for _, what in SIMILARITIES.values())),
    },
    "bottleneck": {
        "vib_beta": weight(1e-3, -5, 0, "weight β of the KL; the poster has 1"),
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
        "scl_weight": weight(1.0, -2, 1, "weight of the supervised contrastive loss"),
        "scl_temperature": Hyperparameter(
            0.1,
            lambda r: float(r.choice([0.05, 0.1, 0.2])),
            "0.05, 0.1 or 0.2",
            lambda value: is_number(value) and value > 0,
            "a finite number above 0",
            "its temperature",
        ),
        "scl_pairs": choice(
            ("random", "cross_environment"),
            "its positives and negatives, as those of cim_pairs: any image of the class and of another one, or the "
            "class in another environment and another class in the same one, which is CnC's default",
        ),
    },
    "group_dro": {
        "group_dro_step_size": weight(0.01, -3, -1, "step size of the group weights"),
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
    allowed = retired.is_allowed()
    if not allowed and (gone := retired.words(values)):
        raise InputError(f"{algorithm}: {gone}")
    for name in values:
        if name not in known and name not in retired.RETIRED and name.startswith(PREFIXES):
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
        retired_value = allowed and f"{name}={values[name]}" in retired.RETIRED
        checked[name] = values[name] if retired_value else entry.check(name, values[name])
    return checked


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
