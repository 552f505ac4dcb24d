"""A checkout of WILDS as host: our algorithms, their defaults and flags in the tables that ``examples/run_expt.py``
reads.

Every ``on_*`` is called by :mod:`cim_plugin.autoload` right after the module that it is given. The names of these
modules
are common, so each first looks whether the module is really WILDS', and leaves any other one alone. Standard library
only:
what needs torch is in :mod:`.wilds_examples_algorithm`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import sys

from ... import catalog, retired
from ...errors import InputError

#: what lies in the folder of run_expt.py
LANDMARKS = ("run_expt.py", "algorithms/single_model_algorithm.py", "configs/supported.py", "models/initializer.py")
NAMES = (*catalog.ALGORITHMS, *catalog.COMPOSED)
#: their hyperparameters; those of 'cim-plugin train' that need a training before the training are not to be had here
HYPERPARAMETERS = {
    name: entry
    for name, entry in catalog.all_hyperparameters().items()
    if any(name in catalog.hyperparameters(algorithm) for algorithm in NAMES)
}
TRANSFORMERS = "<4.40"  #: versions that have what the examples import


def on_supported(module) -> None:
    """Add our names to those that ``--algorithm`` takes, and our flags where they are asked for."""
    if not _is_wilds(module, "algorithms", "algo_log_metrics", "process_outputs_functions"):
        return
    module.algorithms.extend(name for name in NAMES if name not in module.algorithms)
    ours = any(word.rpartition("=")[2] in NAMES for word in sys.argv[1:])
    if ours or {"-h", "--help"} & set(sys.argv):  # with any other command line the host's parser stays as it is
        _add_flags_when_parsing()
    if ours:
        with _in_one_line():
            _check_requirements()
    from ...wilds_runner import groupwise

    groupwise.install()


def on_algorithm_defaults(module) -> None:
    """Add our rows: those of ERM or groupDRO, and our hyperparameters."""
    if not _is_wilds(module, "algorithm_defaults"):
        return
    for name in NAMES:
        base = "groupDRO" if catalog.needs_uniform_groups(name) else "ERM"
        module.algorithm_defaults.setdefault(name, {**module.algorithm_defaults[base], **catalog.complete(name, {})})


def on_initializer(module) -> None:
    """Let ``initialize_algorithm`` make ours."""
    inner = getattr(module, "initialize_algorithm", None)
    if not _is_wilds(module, "infer_d_out", "initialize_loss", "algo_log_metrics") or hasattr(inner, "__wrapped__"):
        return

    @functools.wraps(inner)
    def initialize_algorithm(config, datasets, train_grouper, unlabeled_dataset=None):
        if config.algorithm not in NAMES:
            return inner(
                config=config, datasets=datasets, train_grouper=train_grouper, unlabeled_dataset=unlabeled_dataset
            )
        from .algorithm import RobustAlgorithm

        train = datasets["train"]
        with _in_one_line():
            if unlabeled_dataset is not None:
                raise InputError(
                    f"{config.algorithm} does not use unlabeled images; leave out --unlabeled_split "
                    f"{config.unlabeled_split}"
                )
            return RobustAlgorithm(
                config=config,
                train=train["dataset"],
                grouper=train_grouper,
                d_out=module.infer_d_out(train["dataset"], config),
                loss=module.initialize_loss(config.loss_function, config),
                metric=module.algo_log_metrics[config.algo_log_metric],
                n_train_steps=math.ceil(len(train["loader"]) / config.gradient_accumulation_steps) * config.n_epochs,
            )

    module.initialize_algorithm = initialize_algorithm


def _is_wilds(module, *attributes: str) -> bool:
    file = getattr(module, "__file__", None)
    if file is None or not all(hasattr(module, attribute) for attribute in attributes):
        return False
    folder = os.path.dirname(os.path.dirname(os.path.abspath(file)))
    return all(os.path.isfile(os.path.join(folder, *landmark.split("/"))) for landmark in LANDMARKS)


def _check_requirements() -> None:
    """What the examples import on their own account; the host would say it in a traceback."""
    try:
        from transformers import AdamW, BertTokenizerFast  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"WILDS' examples import AdamW and tokenizers from transformers, which is missing or too new here "
            f"({error}); pip install 'transformers{TRANSFORMERS}'"
        ) from error


def _add_flags_when_parsing() -> None:
    """Give run_expt's parser our flags in the moment in which it parses; the class is put back at once."""
    inner = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        if not {"--group_dro_step_size", "--algorithm"} <= set(self._option_string_actions):
            return inner(self, args, namespace)
        argparse.ArgumentParser.parse_args = inner
        group = self.add_argument_group("cim_plugin", f"hyperparameters of {', '.join(NAMES)}")
        for name, entry in HYPERPARAMETERS.items():
            if f"--{name}" not in self._option_string_actions:
                group.add_argument(f"--{name}", default=argparse.SUPPRESS, **entry.flag)
        for name, keywords in retired.FLAGS.items():
            group.add_argument(f"--{name}", **keywords)
        config = inner(self, args, namespace)
        with _in_one_line():
            _check_hyperparameters(config)
            _check_tracking(config)
        return config

    argparse.ArgumentParser.parse_args = parse_args


def _check_hyperparameters(config: argparse.Namespace) -> None:
    """Ours as a whole, before any data set is opened; the host's own flags are none of them."""
    if config.algorithm in NAMES:
        given = {name: value for name, value in vars(config).items() if name in HYPERPARAMETERS and value is not None}
        catalog.check(config.algorithm, catalog.complete(config.algorithm, given))


def _check_tracking(config: argparse.Namespace) -> None:
    """The host goes on without the package, until it logs the first line."""
    if config.algorithm in NAMES and getattr(config, "use_wandb", False):
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise InputError("--use_wandb needs the package 'wandb'; pip install wandb, or leave it out") from error


@contextlib.contextmanager
def _in_one_line():
    """What is wrong with the input, without a traceback: exit status 2, as argparse's."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.__stderr__, flush=True)
        raise SystemExit(2) from error
