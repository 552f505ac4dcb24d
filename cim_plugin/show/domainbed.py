"""DomainBed's ``model.pkl``, opened for ``cim-plugin show``."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
import warnings
from typing import Any, Iterator

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import DatasetFolder

from .. import autoload, catalog
from ..algorithms.classifier import RobustClassifier
from ..algorithms.inputs import check_labels, class_numbers
from ..errors import InputError
from ..models import domainbed_files
from ..models.assembly import assemble, load_weights
from .figures import environment_digits
from .opened_run import OpenedRun, check_algorithm, not_opened, other_version, stacked

SPLITS = ("train", "val", "test")
CALLED_SYNTHETIC = ("Debug",)  #: how the names of DomainBed's made-up sets, and ours, begin


def open_domainbed(file: str, split: str, data_folder: str | None) -> OpenedRun:
    """The saved model and the images of "train" or "val" (the two parts of the training environments) or "test" (the
    test environments'). Nothing of the file is executed, and nothing fetched.

    Raises:
        InputError: the file is no model of DomainBed, DomainBed is not importable, or the data are not to be had.
    """
    if split not in SPLITS:
        raise InputError(f"--split {split!r}: for DomainBed it is one of {', '.join(SPLITS)}")
    saved = _read(file)
    args, hparams = saved["args"], saved["model_hparams"]
    if args.get("algorithm") != f"{catalog.COMPOSITION}ERM":  # which is CIM
        check_algorithm(args.get("algorithm"), file)
    host = _import_host(file)
    model = _build(host, saved, file)
    environments = _open_data(host, args, {**hparams, "data_augmentation": False}, data_folder)
    parts = _parts(host, environments, args, split)
    if not sum(len(rows) for _, rows in parts):
        raise InputError(
            f"--split {split!r} of {args['dataset']} has no images with --test_envs {args['test_envs']} and "
            f"--holdout_fraction {args['holdout_fraction']:g}"
        )
    where = [(environment, row) for environment, rows in parts for row in rows]
    try:
        labels = [_labels(host, environments[number]) for number, _ in parts]
        for of_environment in labels:
            check_labels(of_environment, saved["model_num_classes"], wait=True)
    except ValueError as error:
        raise InputError(f"{args['dataset']}: {error}") from error
    figures = _figures(host, environments, args)
    names = getattr(type(environments), "ENVIRONMENTS", None) or range(len(environments))
    groups = torch.tensor([position for position, (_, rows) in enumerate(parts) for _ in rows])
    return OpenedRun(
        run=file,
        algorithm=args["algorithm"],
        dataset=args["dataset"],
        split=split,
        chosen="after its last step" if os.path.basename(file) == "model.pkl" else f"saved as {os.path.basename(file)}",
        synthetic=args["dataset"].startswith(CALLED_SYNTHETIC),
        model=model,
        labels=torch.cat([of_environment[rows] for of_environment, (_, rows) in zip(labels, parts)]),
        groups=groups,
        environments=groups,
        unit="environment",
        group_names=[f"environment {names[number]}" for number, _ in parts],
        class_names=list(
            getattr(environments[0], "classes", None)
            or [f"class {number}" for number in range(saved["model_num_classes"])]
        ),
        read=lambda rows: stacked(environments[number][row][0] for number, row in (where[at] for at in rows)),
        figure=None
        if figures is None
        else lambda rows: torch.stack([figures[where[row][0]][where[row][1]] for row in rows]),
        data=None
        if data_folder is not None or args["dataset"].startswith(CALLED_SYNTHETIC)
        else f"{args['data_dir']}, as the model's file says",
    )


def _read(file: str) -> dict[str, Any]:
    saved = domainbed_files.read_checkpoint_with_numbers(file)
    domainbed_files.check(saved, file)
    return saved


class _Host:
    """The modules of DomainBed that are needed."""

    def __init__(self):
        for name in ("datasets", "algorithms", "networks", "lib.misc"):
            setattr(self, name.rpartition(".")[2], importlib.import_module(f"domainbed.{name}"))


def _import_host(file: str) -> Any:
    autoload.install()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Host()
    except ImportError as error:
        raise InputError(
            f"{file} needs DomainBed for its images ({error}); 'cim-plugin get-domainbed' fetches it, or set "
            f"DOMAINBED_HOME to a checkout"
        ) from error


def _build(host, saved: dict[str, Any], file: str) -> RobustClassifier:
    """The model with the network of the host that is found here, which may be somebody's own version of it; or with one
    that the plugin has put there by its name.
    """
    recipe, weights = domainbed_files.recipe_and_weights(saved, file)
    if recipe.encoder:
        classifier = assemble(recipe)
        load_weights(classifier, weights, file)
        return classifier.eval()
    try:
        with random_weights(host.networks), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            encoder = host.networks.Featurizer(tuple(saved["model_input_shape"]), saved["model_hparams"])
    except InputError:
        raise
    except Exception as error:  # whatever the host raises for hyperparameters that it does not know
        raise other_version("DomainBed", file, error) from error
    classifier = assemble(recipe, encoder, encoder.n_outputs)
    load_weights(classifier, weights, file)
    return classifier.eval()


@contextlib.contextmanager
def random_weights(networks) -> Iterator[None]:
    """The host's networks without fetching the pretrained weights, which those of the file replace."""
    places = [
        (getattr(getattr(networks, "torchvision", None), "models", None), name) for name in ("resnet18", "resnet50")
    ]
    places = [
        (module, name)
        for module, name in [*places, (getattr(networks, "timm", None), "create_model")]
        if module is not None
    ]
    inner = [getattr(module, name) for module, name in places]
    hub = torch.hub.load
    try:
        for (module, name), make in zip(places, inner):
            setattr(module, name, lambda *words, make=make, **options: make(*words, **{**options, "pretrained": False}))
        torch.hub.load = _no_hub
        yield
    finally:
        torch.hub.load = hub
        for (module, name), make in zip(places, inner):
            setattr(module, name, make)


def _no_hub(*words: Any, **more: Any) -> None:
    raise InputError(
        f"the network of this model is one of torch.hub ({', '.join(map(str, words))}), which would fetch and execute "
        f"code; such a model cannot be shown"
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The generators as DomainBed's train script seeds them; put back afterwards."""
    from ..wilds_runner.loading import seeded

    state = random.getstate()
    with seeded(seed):
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


@contextlib.contextmanager
def _nothing_fetched() -> Iterator[None]:
    """torchvision's MNIST, which the host asks to download, only reads what is there."""
    from torchvision.datasets import MNIST

    inner = MNIST.download

    def refuse(mnist) -> None:
        if not mnist._check_exists():
            raise InputError(f"MNIST is not in {mnist.root}; name the folder that holds it with --data_dir")

    MNIST.download = refuse
    try:
        yield
    finally:
        MNIST.download = inner


def _open_data(host, args: dict[str, Any], hparams: dict[str, Any], data_folder: str | None):
    """The environments as the training had them, without augmentation."""
    name, folder = args["dataset"], data_folder if data_folder is not None else args["data_dir"]
    make = vars(host.datasets).get(name) if name in host.datasets.DATASETS else None
    if make is None:
        raise InputError(
            f"the DomainBed that is found here has no data set {name!r}; use the one that trained the model"
        )
    if not name.startswith(CALLED_SYNTHETIC):
        if folder is None or not os.path.isdir(folder):  # the wilds package would make it
            raise InputError(f"{folder} with {name} does not exist; name the folder that holds it with --data_dir")
    try:
        with _seeded(args["seed"]), _nothing_fetched():
            return make(folder, args["test_envs"], hparams)
    except InputError:
        raise
    except Exception as error:  # of the host's loaders
        raise not_opened(name, folder, error) from error


def _parts(host, environments, args: dict[str, Any], split: str) -> list[tuple[int, list[int]]]:
    """Environment and its rows, split as DomainBed's train script does."""
    parts = []
    for number, environment in enumerate(environments):
        is_test = number in args["test_envs"]
        if is_test != (split == "test"):
            continue
        n_out, seed = int(len(environment) * args["holdout_fraction"]), host.misc.seed_hash(args["trial_seed"], number)
        out, inside = host.misc.split_dataset(environment, n_out, seed)
        parts.append(
            (number, list(range(len(environment))) if is_test else list((out if split == "val" else inside).keys))
        )
    return parts


def _labels(host, environment) -> Tensor:
    """(N,) int64, as ``environment[row][1]`` gives them; without decoding an image where it is known how that reads
    labels: a subclass may do it in its own way.
    """
    read = type(environment).__getitem__
    if read is TensorDataset.__getitem__:
        labels = environment.tensors[1]
    elif read is DatasetFolder.__getitem__:
        transform = environment.target_transform or (lambda label: label)
        labels = [transform(label) for _, label in environment.samples]
    elif read is getattr(getattr(host.datasets, "WILDSEnvironment", None), "__getitem__", None):
        labels = environment.dataset.y_array[environment.indices]
    else:
        from ..progress import progress

        rows = progress(range(len(environment)), desc="reading labels", unit="image", leave=False)
        labels = [environment[row][1] for row in rows]
    return class_numbers(labels if isinstance(labels, Tensor) else torch.as_tensor(labels))


def _figures(host, environments, args: dict[str, Any]) -> list[Tensor] | None:
    if args["dataset"] != "DebugDigitsOnPhotos":
        return None
    with _seeded(args["seed"]):
        seed = int(torch.randint(2**31, ()))  # the first draw, as the data set makes it
    return environment_digits(seed, [_labels(host, environment) for environment in environments])
