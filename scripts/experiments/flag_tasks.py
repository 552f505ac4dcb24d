"""What ``scripts.flags`` finds rare images of: training and validation images whose groups are known."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import pandas
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from cim_plugin.algorithms.reference_models import shuffle_tiles
from cim_plugin.data import demo
from cim_plugin.data.digits_on_photos import SIDE, compose
from cim_plugin.errors import InputError

from . import tasks
from .encoder import StudyEncoder
from .tasks import Folders
from .training import FromBytes

TILES = 4
N_VALIDATION = 1000  #: images at most
#: dark women, dark men, blond women, blond men of CelebA's training and validation images, a tenth of them
CELEBA_COUNTS = {"train": (7163, 6687, 2288, 139), "val": (854, 828, 287, 18)}
BIRD_SIDE = 96
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  #: of ImageNet's pixels


class FlagTask(NamedTuple):
    """Images as a reference model takes them."""

    images: dict[str, Tensor]  #: "train" and "val" -> (N, C, H, W) uint8, or features (N, F)
    labels: dict[str, Tensor]  #: (N,) int64
    environments: Tensor  #: (N,) int64, of the training images: what the label is tied to
    groups: tuple[str, ...]  #: names, by 2·label + environment; () for more than two classes
    make_model: Callable[[], nn.Module]
    tiles: int = TILES


def _of_study(name: str, folders: Folders, seed: int) -> FlagTask:
    """A task of ``scripts/study``."""
    task = tasks.make_task(name, seed, folders)
    train, val = task.splits["train"], task.splits["val"]
    groups = tuple(f"below5:{y} photo:{p}" for y in (0, 1) for p in (0, 1)) if task.n_classes == 2 else ()
    images = {"train": train.images, "val": val.images[:N_VALIDATION]}
    labels = {"train": train.labels, "val": val.labels[:N_VALIDATION]}
    return FlagTask(images, labels, train.environments, groups, functools.partial(_small_network, task.n_classes))


def _small_network(n_classes: int) -> nn.Module:
    encoder = StudyEncoder(1 / 2)
    return nn.Sequential(FromBytes(), encoder, nn.Linear(encoder.n_features, n_classes))


def _demo(folders: Folders, seed: int) -> FlagTask:
    """The Waterbirds stand-in of ``cim-plugin data demo --seed``, at 28 pixels."""
    look = demo.LOOKS["waterbirds"]
    table = demo.draw(look, seed)
    images = F.interpolate(torch.stack(list(demo.render(table, look))), (SIDE, SIDE), mode="bilinear", antialias=True)
    rows = {split: np.flatnonzero(table["split"] == number) for number, split in enumerate(("train", "val"))}
    of_split = {split: (images[of] * 255).round().byte() for split, of in rows.items()}
    labels = {split: torch.tensor(table["label"].to_numpy()[of]) for split, of in rows.items()}
    photo = torch.tensor(table["photo"].to_numpy()[rows["train"]])
    names = tuple(f"below5:{y} photo:{p}" for y in (0, 1) for p in (0, 1))
    return FlagTask(of_split, labels, photo, names, functools.partial(_small_network, 2))


def _celeba_counts(folders: Folders, seed: int) -> FlagTask:
    """Digits on many photographs with the counts of CelebA's groups, a tenth: below 5 stands for blond, the kind of
    photograph for gender.
    """
    rng = np.random.default_rng([seed, 7])
    ink, digits = tasks.mnist(folders.mnist)["train"]
    blond = (digits < 5).long().numpy()
    pools = [iter(rng.permutation(np.flatnonzero(blond == label))) for label in (0, 1)]
    pictures, classes = tasks.read_pictures(folders.pacs / "photo")
    kinds = [np.flatnonzero(classes == number) for number in tasks.GROUND_CLASSES]
    images, labels, of_train = {}, {}, None
    for split, counts in CELEBA_COUNTS.items():
        group = rng.permutation(np.repeat(np.arange(4), counts))
        label, man = np.divmod(group, 2)
        rows = np.array([next(pools[of_image]) for of_image in label])
        photos = torch.tensor([int(rng.choice(kinds[of_image])) for of_image in man])
        top, left = rng.integers(0, tasks.PACS_SIDE - SIDE + 1, (2, len(rows)))
        grounds = tasks.crops(pictures, photos, top, left, SIDE).float() / 255
        images[split] = (compose(ink[rows], grounds) * 255).round().byte()
        labels[split] = torch.from_numpy(label)
        of_train = torch.from_numpy(man) if split == "train" else of_train
    images["val"], labels["val"] = images["val"][:N_VALIDATION], labels["val"][:N_VALIDATION]
    names = ("dark women", "dark men", "blond women", "blond men")
    return FlagTask(images, labels, of_train, names, functools.partial(_small_network, 2))


def _waterbirds(folders: Folders, seed: int) -> FlagTask:
    """Features of a MobileNetV2 that stays as it is, of tiles of the rebuilt Waterbirds at 96 pixels; a head on them
    is trained.
    """
    features, table = _bird_features(folders.pacs.parent)
    rows = {split: np.flatnonzero(table["split"] == number) for number, split in enumerate(("train", "val"))}
    of_split = {split: features[of] for split, of in rows.items()}
    labels = {split: torch.tensor(table["y"].to_numpy()[of]) for split, of in rows.items()}
    place = torch.tensor(table["place"].to_numpy()[rows["train"]])
    names = tuple(f"{bird} on {ground}" for bird in ("landbird", "waterbird") for ground in ("land", "water"))
    make_model = functools.partial(nn.Linear, features.shape[1], 2)
    return FlagTask(of_split, labels, place, names, make_model, tiles=1)


@functools.lru_cache
def _bird_features(folder: Path) -> tuple[Tensor, pandas.DataFrame]:
    """(N, F), standardised, and the rows of metadata.csv, of the training and validation images."""
    import timm

    data, weights = folder / "waterbirds_rebuilt" / "waterbirds_v1.0", folder / "weights/mobilenetv2_100_same_fp16.pt"
    for path in (data / "metadata.csv", weights):
        if not path.exists():
            raise InputError(f"{path} is not there; leave the task waterbirds out")
    table = pandas.read_csv(data / "metadata.csv").query("split < 2").reset_index()
    network = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1000)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.reset_classifier(0)
    network.eval()
    torch.manual_seed(0)
    parts = []
    with torch.no_grad():
        for start in range(0, len(table), 100):
            images = torch.stack([_bird(data / name) for name in table["img_filename"][start : start + 100]])
            parts.append(network(shuffle_tiles(images, TILES)))
    features = torch.cat(parts)
    return (features - features.mean(0)) / (features.std(0) + 1e-3), table


def _bird(path: Path) -> Tensor:
    with Image.open(path) as file:
        image = np.asarray(file.convert("RGB").resize((BIRD_SIDE, BIRD_SIDE), Image.Resampling.BILINEAR))
    return ((torch.tensor(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)


#: name -> (folders, seed) -> task
FLAG_TASKS: dict[str, Callable[[Folders, int], FlagTask]] = {
    "demo": _demo,
    "photos_95": functools.partial(_of_study, "photos_95"),
    "photos_98_many": functools.partial(_of_study, "photos_98_many"),
    "waterbirds": _waterbirds,
    "celeba_counts": _celeba_counts,
}
