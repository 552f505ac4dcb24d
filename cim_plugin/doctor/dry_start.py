"""``python -m cim_plugin.doctor.dry_start FOLDER KIND ARGUMENTS...``: start a training up to its first step, without
network.

Arguments, data and model go through the same code as in the real run, so that the same faults are found, in the same
words. Findings are
lines of a file in FOLDER; a fault that ends the process is on its standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import runpy
import socket
import sys
import warnings
from dataclasses import replace
from typing import Any, Callable, Iterator

from ..errors import InputError
from ..runs.configuration import Configuration
from .findings import ERROR, NOTE, WARNING, Finding
from .reporting import DOMAINBED, OUTPUT, TRAIN, Report

FIRST = 4  #: images of every environment that are looked at
OFFLINE = "cim-plugin doctor uses no network"


class _Started(BaseException):
    """The first step would come now. Not an Exception, so that a host's handlers let it pass."""


class _Download(BaseException):
    """Data would be fetched now; what comes after that cannot be looked at."""


def main(argv: list[str]) -> None:
    folder, kind, *words = argv
    _cut_network()
    report = Report(folder)
    try:
        {TRAIN: train, DOMAINBED: domainbed}[kind](words, report, os.path.join(folder, OUTPUT))
    except InputError as error:
        report.add(Finding(ERROR, str(error)))
    except _Download as download:
        report.add(
            Finding(
                WARNING,
                f"{download} is not here; the run downloads it first, and nothing after that could be looked at",
                "start it where there is network",
            )
        )
    except _Started:
        report.started()


def _cut_network() -> None:
    def refuse(*args, **more):
        raise ConnectionError(OFFLINE)

    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse


def _with_weights(make: Callable[[], Any], name: str, report: Report) -> bool:
    """Make a model; False, and a warning, where its pretrained weights are not here and would be fetched."""
    from ..hosts.train_script import is_failed_download

    try:
        make()
    except Exception as error:
        if not is_failed_download(error):
            raise
        report.add(
            Finding(
                WARNING,
                f"the pretrained weights of {name} are not here; the run downloads them first",
                "start it where there is network, or see 'weights' above for where the files go",
            )
        )
        return False
    return True


# --- cim-plugin train -------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(f"{message}; see 'cim-plugin train --help'")


def train(words: list[str], report: Report, output: str) -> None:
    from ..wilds_runner.command import check_installed
    from ..wilds_runner.config import add_arguments, make_config

    check_installed()
    from ..wilds_runner.fabric import make_fabric
    from ..wilds_runner.folder import state_to_go_on_from

    parser = _Parser(prog="cim-plugin train")
    add_arguments(parser)
    config = make_config(parser.parse_args(words))
    fresh = not (config.resume or config.eval_only)
    try:
        fresh = state_to_go_on_from(config) is None and not config.eval_only
    except InputError as error:
        report.add(Finding(ERROR, str(error)))
    report.add(*_writable(config.log_dir), *(finding for applies, finding in TRAIN_TRAPS if applies(config)))
    make_fabric(config)
    _open_and_build(replace(config, download=False), fresh, report)
    raise _Started


def _writable(folder: str) -> list[Finding]:
    from .places import writable

    refused = writable(folder, "--log_dir")
    return [refused] if refused else []


#: (whether it applies to a configuration, what to say)
TRAIN_TRAPS: list[tuple[Callable[[Configuration], bool], Finding]] = [
    (
        lambda c: c.dataset == "waterbirds" and c.lr <= 1e-5 and c.weight_decay >= 1.0 and not c.is_pretrained,
        Finding(
            WARNING,
            "WILDS' defaults for Waterbirds (lr 1e-5, weight decay 1.0) are for a pretrained network: without one, "
            "worst-group accuracy stays at 0 (WILDS issue 148)",
            "--model_kwargs pretrained=true, or for example --optimizer AdamW --lr 1e-3 --weight_decay 1e-4",
        ),
    ),
    (
        lambda c: c.download,
        Finding(
            NOTE,
            "--download: a dataset that is missing comes from a mirror, as by 'cim-plugin data get'; WILDS' own "
            "servers have been down since April 2026 (WILDS issues 173 to 175)",
            "'cim-plugin data list' says from where, how large it is, and what cannot be had",
        ),
    ),
    (
        lambda c: (c.loader_kwargs.get("num_workers") or 0) > (os.cpu_count() or 1),
        Finding(
            NOTE,
            f"more loader workers than the {os.cpu_count()} cores of this machine",
            f"--loader_kwargs num_workers={os.cpu_count()}",
        ),
    ),
]


def _open_and_build(config: Configuration, fresh: bool, report: Report) -> None:
    """As the run does, with one process."""
    from ..data.releases import how_to_get
    from ..wilds_runner.fabric import make_fabric
    from ..wilds_runner.loading import read_image
    from ..wilds_runner.session import open_images, with_model
    from ..wilds_runner.training import make_training

    if not os.path.isdir(config.root_dir):  # the wilds package would make the folder
        raise InputError(f"--root_dir {config.root_dir} does not exist; {how_to_get(config.dataset, config.root_dir)}")
    data, facts, transform = open_images(config)
    if data.synthetic:
        report.add(
            Finding(NOTE, f"{config.dataset} in {config.root_dir} is SYNTHETIC, made by 'cim-plugin data demo'", None)
        )
    read_image(data.wilds, int(data.splits["train"].indices[0]), transform)
    fabric = make_fabric(replace(config, device=None, devices=1, num_nodes=1))

    def start(fresh: bool) -> None:
        make_training(with_model(config, data, facts, transform, fresh), fabric)

    if not _with_weights(lambda: start(fresh), config.model, report):
        start(fresh=False)


# --- DomainBed --------------------------------------------------------------------------------------------------------


def domainbed(words: list[str], report: Report, output: str) -> None:
    """The host's own train script, with another output folder, until it has made its algorithm."""
    from .. import autoload
    from ..hosts.domainbed import faults

    autoload.install()
    faults.SCRIPT.arguments = faults.SCRIPT.any_arguments  # who asks here wants to know of any algorithm
    from domainbed import algorithms
    from domainbed.lib import fast_data_loader
    from torchvision import datasets

    environments = []  #: what is trained on

    def only_check(self, dataset, weights, batch_size, num_workers):  # the host's starts worker processes
        faults.check_batch_size(len(dataset), weights is not None, batch_size)
        environments.append(dataset)

    fast_data_loader.InfiniteDataLoader.__init__ = only_check
    if hasattr(fast_data_loader, "FastDataLoader"):
        fast_data_loader.FastDataLoader.__init__ = lambda self, *words, **more: None
    datasets.MNIST.download = _no_download
    inner = algorithms.get_algorithm_class

    def get_algorithm_class(name: str):
        make = inner(name)
        return lambda *model: _make(algorithms, name, make, model, environments, report)

    algorithms.get_algorithm_class = get_algorithm_class
    sys.argv = ["train", *words, "--output_dir", output]
    with _without_new_folder(words):
        runpy.run_module(faults.SCRIPT.name, run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def _without_new_folder(words: list[str]) -> Iterator[None]:
    """The wilds package makes a --data_dir that is not there."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--data_dir")
    folder = parser.parse_known_args(words)[0].data_dir
    new = folder is not None and not os.path.exists(folder)
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _no_download(mnist) -> None:
    """torchvision's would make folders."""
    if not mnist._check_exists():
        raise _Download(f"MNIST in {mnist.root}")


def _make(algorithms, name: str, make: Callable, model: tuple, environments: list, report: Report) -> None:
    """Ours as a whole, and the images that it would see first; of another one what it shares with ours, the check of
    its environments and its featurizer.
    """
    from .. import catalog
    from ..hosts.domainbed import adapter as adapter
    from ..hosts.domainbed import faults

    shape, n_classes, n_domains, hparams = model
    faults.check_test_environments(n_domains)
    large = tuple(shape[1:]) == (224, 224) and not hparams.get("vit")
    if large and (hparams.get("resnet50_augmix") or not hparams.get("freeze_bn")):
        wanted = '{"resnet50_augmix": false, "freeze_bn": true}'
        report.add(
            Finding(
                NOTE,
                "DomainBed's defaults of today are not those of its published tables",
                f"to compare with these pass --hparams '{wanted}'",
            )
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = (
            (lambda: make(*model))
            if catalog.is_ours(name)
            else (lambda: adapter._featurizer(algorithms.networks, name, shape, hparams))
        )
        if catalog.is_ours(name):
            _look_at_images(name, shape, n_classes, environments)
        _with_weights(start, "the featurizer", report)
    report.add(*(Finding(WARNING, str(warning.message)) for warning in caught if warning.category is RuntimeWarning))
    raise _Started


def _look_at_images(name: str, shape, n_classes: int, environments: list) -> None:
    """Compare the first images and labels that are trained on with what is assumed of them, as the first step does."""
    from torch.utils.data import default_collate

    from .. import catalog
    from ..hosts.batches import check_values
    from ..hosts.domainbed.images import checked_all, concatenate, pixels

    parts, _ = catalog.TRAINABLE[catalog.owner(name)]
    first = [default_collate([images[row] for row in range(min(FIRST, len(images)))]) for images in environments]
    batch = concatenate(checked_all(name, first, shape))
    check_values(name, batch, n_classes, pixels(name, shape)[1] if "morphing" in parts else None, first=True)


if __name__ == "__main__":
    main(sys.argv[1:])
