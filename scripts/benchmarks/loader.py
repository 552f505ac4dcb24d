"""Images per second of the wilds package's default loader and of ours, decoding and cached, on the same images at
224.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from sklearn.datasets import load_sample_images

from cim_plugin.flags import whole

from . import measuring

SIDE = 224
FILE_SIDE = 320  #: of the files; scikit-learn's photographs have 427 rows
BATCH_SIZE = 64
TARGET = 8.0  #: cached against the default loader, on one core


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, 5, "96 images")
    parser.add_argument(
        "--images", type=whole(1, 1_000_000), default=1024, help="JPEG files, crops of scikit-learn's two photographs"
    )


def run(args: argparse.Namespace) -> int:
    """How many times faster than the package's own loader every loader is; whether the samples are the same."""
    torch.set_num_threads(1)
    n, pairs = (96, 5) if args.quick else (args.images, args.pairs)
    title = (
        f"a pass over {n - 2} JPEGs of {FILE_SIDE}x{FILE_SIDE} to {SIDE}x{SIDE}, batches of {BATCH_SIZE}, one "
        f"core, no workers; times faster than the wilds package's loader, median [quartiles] of {pairs} paired passes"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
        write_release(os.path.join(folder, "waterbirds_v1.0"), n)
        loaders = make_loaders(folder, show=not args.json)
        difference = largest_difference(loaders)
        report = measuring.Report(args.json, f"{title}; normalised samples agree to {difference:.1e}", "times faster")
        times = measuring.in_turn(
            {name: functools.partial(whole_pass, batches) for name, batches in loaders.items()}, pairs
        )
    default = times[next(iter(loaders))]
    for name, own in times.items():
        rate = (n - 2) / measuring.cpu_median(own)
        row = measuring.row(
            name,
            (n, 3, SIDE, SIDE),
            default,
            own,
            own,
            target=f"{TARGET:g}" if "cached" in name else "",
            note=f"{rate:.0f} images per CPU second",
        )
        report.add({**row, "images_per_second": rate, "largest_difference": difference})
    return 0


def rates(n: int, device: str) -> dict[str, float]:
    """Images per second, by the clock on the wall, of every loader and of the cached one up to the device; without
    workers.
    """
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, XDG_CACHE_HOME=f"{folder}/cache"):
        write_release(os.path.join(folder, "waterbirds_v1.0"), n)
        loaders = make_loaders(folder, show=False)
        uint8 = list(loaders.values())[-1]
        loaders[f"ours, cached, normalised on {device}"] = functools.partial(_on_device, uint8, device)
        return {name: (n - 2) / _seconds(batches) for name, batches in loaders.items()}


def _seconds(batches) -> float:
    """Of the second pass."""
    whole_pass(batches)
    start = time.perf_counter()
    whole_pass(batches)
    return time.perf_counter() - start


def _on_device(batches, device: str):
    from cim_plugin.models.transforms import StandardiseImageNet
    from cim_plugin.wilds_runner.loading import to_pixels

    standardise = StandardiseImageNet().to(device)
    for images in batches():
        yield standardise(to_pixels(images, device))
    if device == "cuda":
        torch.cuda.synchronize()


def whole_pass(batches) -> None:
    for _ in batches():
        pass


def write_release(folder: str, n: int) -> None:
    """A folder that wilds' WaterbirdsDataset reads."""
    os.makedirs(folder)
    rng = np.random.default_rng(0)
    photos, side = load_sample_images().images, FILE_SIDE
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for i in range(n):
        photo = photos[i % 2]
        top, left = rng.integers(0, photo.shape[0] - side + 1), rng.integers(0, photo.shape[1] - side + 1)
        Image.fromarray(photo[top : top + side, left : left + side]).save(os.path.join(folder, f"{i}.jpg"), quality=90)
        lines.append(f"{i},{i}.jpg,{i % 2},{min(i, 2) if i < 3 else 1},{i // 2 % 2},x")
    for name, text in (("metadata.csv", "\n".join(lines) + "\n"), ("RELEASE_v1.0.txt", "benchmark\n")):
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)


def make_loaders(root: str, show: bool) -> dict:
    """Name -> a function that gives the batches of a pass, (N, 3, 224, 224): normalised float32, the last one uint8."""
    import wilds
    from wilds.common.data_loaders import get_eval_loader

    from cim_plugin.models.transforms import StandardiseImageNet, Transform
    from cim_plugin.runs.configuration import filled
    from cim_plugin.wilds_runner.image_cache import open_cache
    from cim_plugin.wilds_runner.loading import Images, Loader, evaluation_order, to_pixels

    dataset = wilds.get_dataset("waterbirds", root_dir=root)
    resize = T.Resize((SIDE, SIDE))
    transform = Transform(resize, None, StandardiseImageNet(), (SIDE, SIDE), (SIDE, SIDE))
    pipeline = T.Compose([resize, T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    subset = dataset.get_subset("val", transform=pipeline)
    default = get_eval_loader("standard", subset, BATCH_SIZE)
    config = filled("waterbirds", "ERM", cache=True, loader_kwargs={"num_workers": 0, "pin_memory": False})
    cache = open_cache(
        config,
        SimpleNamespace(wilds=dataset),
        transform,
        SimpleNamespace(local_rank=0, global_rank=0, barrier=lambda: None, broadcast=lambda value: value),
        show=show,
    )
    ours = [Loader(Images(dataset, np.asarray(subset.indices), transform, False, kept), {}) for kept in (None, cache)]
    order = evaluation_order(len(subset), BATCH_SIZE)

    def batches(loader):
        return lambda: (transform.standardise(to_pixels(batch.images, "cpu")) for batch in loader(order))

    return {
        "wilds' get_eval_loader, decoding": lambda: (x for x, _, _ in default),
        "ours, decoding": batches(ours[0]),
        "ours, cached, normalised here": batches(ours[1]),
        "ours, cached, uint8 as for a GPU": lambda: (batch.images for batch in ours[1](order)),
    }


def largest_difference(loaders: dict) -> float:
    normalised = list(loaders.values())[:3]
    return max(
        float((a - b).abs().max())
        for batches in zip(*(batches() for batches in normalised))
        for a, b in zip(batches, batches[1:])
    )
