"""A configuration out of a results.json, which anybody may have written: what may be made of it, and nothing else.

The command line may say what the libraries take; a file may say only what is listed here. Arguments of a model that
name files, addresses or configurations of weights are not: timm's ``checkpoint_path`` has executed what it loads.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Callable

from .. import catalog
from ..data.releases import OWN_NAME
from ..errors import InputError
from ..runs import defaults
from ..runs.configuration import AUGMENTATIONS, TRANSFORMS, Configuration, filled

LARGEST = 10_000  #: of numbers that layers are made by
LONGEST = 2048  #: side of an image
WORD = re.compile(r"[A-Za-z0-9_.-]{0,40}")
MODEL = re.compile(r"[A-Za-z0-9_./-]{1,100}")  #: no "hf-hub:" and no "local-dir:"

Check = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) <= LARGEST


def _numbers(value: Any) -> bool:
    return _number(value) or (isinstance(value, (list, tuple)) and len(value) <= 64 and all(map(_numbers, value)))


def _word(value: Any) -> bool:
    return value is None or (isinstance(value, str) and WORD.fullmatch(value) is not None)


def _size(value: Any) -> bool:
    return value is None or (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(side, int) and 0 < side <= LONGEST for side in value)
    )


def _dataset(value: Any) -> bool:
    if not isinstance(value, str) or value in defaults.OTHER_DATASETS:
        return False
    return value in defaults.DATASETS or OWN_NAME.fullmatch(value) is not None


#: arguments of models that shape the network, by what they may be
MODEL_KWARGS: dict[str, Check] = {
    **dict.fromkeys(
        "pretrained progress channels in_chans drop_rate drop_path_rate attn_drop_rate proj_drop_rate drop_block_rate "
        "pos_drop_rate patch_drop_rate dropout attention_dropout stochastic_depth_prob width_mult width_per_group "
        "groups growth_rate num_init_features bn_size depth embed_dim num_heads mlp_ratio patch_size img_size "
        "image_size window_size dynamic_img_size dynamic_img_pad class_token reg_tokens init_values qkv_bias "
        "layer_scale norm_eps output_stride zero_init_residual zero_init_last replace_stride_with_dilation aux_logits "
        "transform_input memory_efficient base_width cardinality stem_width stem_type_depth avg_down".split(),
        _numbers,
    ),
    **dict.fromkeys("global_pool pos_embed act_layer stem_type pad_type".split(), _word),
}

#: arguments of data sets of the wilds package
DATASET_KWARGS: dict[str, Check] = {"seed": _numbers, "use_ood_val": _number, "oracle_training_set": _number}

#: what a model and its images are made by; the rest of a record is not used
VALUES: dict[str, tuple[Check, str]] = {
    "dataset": (_dataset, f"one of {', '.join(defaults.DATASETS)}, or the name of a folder of own data"),
    "algorithm": (lambda value: value in list(catalog.TRAINABLE), f"one of {', '.join(catalog.TRAINABLE)}"),
    "root_dir": (lambda value: isinstance(value, str) and "\0" not in value, "a folder"),
    "version": (_word, "the version of a release"),
    "split_scheme": (_word, "a word"),
    "seed": (lambda value: isinstance(value, int) and value >= 0, "a whole number"),
    "frac": (lambda value: isinstance(value, (int, float)) and 0 < value <= 1, "a fraction"),
    "model": (lambda value: isinstance(value, str) and MODEL.fullmatch(value) is not None, "the name of a model"),
    "transform": (lambda value: value in TRANSFORMS, f"one of {', '.join(TRANSFORMS)}"),
    "target_resolution": (_size, f"height and width, at most {LONGEST}"),
    "resize_scale": (lambda value: value is None or (_number(value) and 0 < value <= 10), "a number up to 10"),
    "additional_train_transform": (
        lambda value: value in (None, *AUGMENTATIONS),
        "an augmentation",
    ),
    "randaugment_n": (lambda value: value is None or _number(value), "a number"),
    "cross_fit": (
        lambda value: value in (None, "auto") or (isinstance(value, int) and value >= 1),
        "a number of steps or 'auto'",
    ),
    # the run's own copy is read, never what this names
    "pseudo_environments": (lambda value: value is None or isinstance(value, str), "a file"),
    "groups": (lambda value: value in (None, "true", "pseudo"), "true or pseudo"),
    "groupby_fields": (
        lambda value: isinstance(value, list) and all(isinstance(field, str) for field in value),
        "a list of metadata fields",
    ),
}


def taken_from(before: dict[str, Any], file: str) -> Configuration:
    """Of the configuration in ``file`` what a model and its images are made by; all else, hyperparameters that the run
    is older than among it, is as today's defaults are. Paths of weights, of logs and of everything else are left out.

    Raises:
        InputError: a value is none that may be taken out of a file.
    """
    taken = {name: before.get(name) for name in VALUES}
    for name, (fits, wanted) in VALUES.items():
        if name not in before and not fits(None):
            raise InputError(f"{file}: its configuration has no {name!r}")
        if not fits(taken[name]):
            raise InputError(f"{file}: {name} {_short(taken[name])} is not taken out of a file; it can be {wanted}")
    taken["groups"] = taken["groups"] or "true"  # as in every run that is older than the flag
    for name, known in (("model_kwargs", MODEL_KWARGS), ("dataset_kwargs", DATASET_KWARGS)):
        taken[name] = _arguments(before.get(name, {}), known, name, file)
    taken["hyperparameters"] = _hyperparameters(taken["algorithm"], before.get("hyperparameters"), file)
    try:
        return replace(filled(taken["dataset"], taken["algorithm"], groupby_fields=taken["groupby_fields"]), **taken)
    except TypeError as error:
        raise InputError(f"{file}: {_short(str(error))}") from error


def _hyperparameters(algorithm: str, given: Any, file: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{file}: hyperparameters {_short(given)} is not a table of them")
    for name, value in given.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"{file}: hyperparameter {name}={_short(value)} is more than {LARGEST}")
    complete = catalog.complete_old(algorithm, given)
    catalog.check(algorithm, complete)
    return complete


def _arguments(given: Any, known: dict[str, Check], name: str, file: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{file}: {name} {_short(given)} is not a table of arguments")
    for key, value in given.items():
        if key not in known or not known[key](value):
            raise InputError(
                f"{file}: {name} {key}={_short(value)} is not taken out of a file, as it may make a library read or "
                f"execute another one; remove it there if the network does not need it"
            )
    return dict(given)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
