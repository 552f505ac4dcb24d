"""Small stand-ins for the mirrors of data sets, in their schemas, made of what 'cim-plugin data demo' makes."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Sequence

import pyarrow
import pyarrow.parquet
import small_archives as archives

from cim_plugin.data import demo
from cim_plugin.data.celeba import ATTRIBUTES

DOMAINS = {
    "PACS": ("art_painting", "cartoon", "photo", "sketch"),
    "OfficeHome": ("Art", "Clipart", "Product", "Real World"),
    "DomainNet": ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
}
CLASSES = {"PACS": ("dog", "house"), "OfficeHome": ("Alarm_Clock", "Bed"), "DomainNet": ("axe", "The_Eiffel_Tower")}

#: of CelebA: file -> images
CELEBA_SHARDS = {
    "train-00000-of-00002": 8,
    "train-00001-of-00002": 8,
    "valid-00000-of-00001": 8,
    "test-00000-of-00001": 8,
}


@functools.lru_cache
def digits() -> tuple[bytes, ...]:
    """JPEGs of digits on photographs."""
    files = demo.make_files("waterbirds", 0)
    return tuple(content for name, content in files.items() if name.endswith(".jpg"))[:120]


def parquet(
    path: Path,
    columns: dict[str, list],
    names: list[str | None],
    classes: dict[str, tuple[str, ...]],
    rows: int = 5,
    pictures: Sequence[bytes | None] | None = None,
) -> Path:
    """A file as the Hub's library writes it, in row groups of ``rows``; pictures are repeated."""
    shown = pictures or digits()
    images = [{"bytes": shown[i % len(shown)], "path": name} for i, name in enumerate(names)]
    features = {"image": {"_type": "Image"}} | {
        c: {"names": list(n), "_type": "ClassLabel"} for c, n in classes.items()
    }
    image = pyarrow.array(images, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    table = pyarrow.table({"image": image, **columns})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=rows)
    return path


def waterbirds(folder: Path) -> None:
    cells = [(y, place) for y in (0, 1) for place in (0, 1)] * 3
    for split in ("train", "validation", "test"):
        columns = {"label": [y for y, _ in cells], "place": [place for _, place in cells]}
        parquet(folder / f"default/{split}/0000.parquet", columns, [None] * len(cells), {})


def celeba(folder: Path) -> None:
    for name, count in CELEBA_SHARDS.items():
        values = {
            attribute: [bool((row >> k % 3) & 1) for row in range(count)] for k, attribute in enumerate(ATTRIBUTES)
        }
        values |= {
            "Blond_Hair": [bool(row & 1) for row in range(count)],
            "Male": [bool(row & 2) for row in range(count)],
        }
        parquet(
            folder / f"img_align+identity+attr/{name}.parquet", {"celeb_id": [7] * count, **values}, [None] * count, {}
        )


def camelyon17(folder: Path) -> None:
    """18 patches; the files are ordered by image_id as text, as the mirror's are."""
    centers = {"train": (0, 3, 4), "validation": (0, 1, 3), "test": (2,)}
    rows = [(split, center, label) for split in centers for center in centers[split] for label in (0, 1)] + [
        ("test", 2, label) for label in (0, 1, 0, 1)
    ]
    for split in centers:
        mine = sorted((i for i, row in enumerate(rows) if row[0] == split), key=str)
        columns = {
            "label": [rows[i][2] for i in mine],
            "center": [rows[i][1] for i in mine],
            "image_id": mine,
            "patient": [4 + i for i in mine],
            "node": [i % 5 for i in mine],
            "x_coord": [32 * i for i in mine],
            "y_coord": [64 * i for i in mine],
            "slide": [rows[i][1] * 2 for i in mine],
        }
        names = ("train-center1", "validation-center", "test-center", "train-center2", "train-center3")
        classes = {"label": ("non-tumor", "tumor"), "center": names}
        parquet(folder / f"data/{split}-00000-of-00001.parquet", columns, [f"{i}.png" for i in mine], classes)


def environments(folder: Path, name: str) -> None:
    """Of every environment and class three images; DomainNet's have names, and lie in two splits."""
    domains, classes = DOMAINS[name], CLASSES[name]
    cells = [(domain, label) for domain in domains for label in range(len(classes))] * 3
    halves = (
        {"train": cells[: len(cells) // 2], "test": cells[len(cells) // 2 :]}
        if name == "DomainNet"
        else {"train": cells}
    )
    number = 0
    for split, mine in halves.items():
        names = [f"{domain}_{number + i:03}.jpg" if name == "DomainNet" else None for i, (domain, _) in enumerate(mine)]
        number += len(mine)
        columns = {"label": [label for _, label in mine], "domain": [domain for domain, _ in mine]}
        known = {"label": classes}
        if name == "DomainNet":
            columns["domain"], known = (
                [domains.index(domain) for domain in columns["domain"]],
                {**known, "domain": domains},
            )
        parquet(folder / f"data/{split}-00000-of-00001.parquet", columns, names, known)


def terra_incognita(folder: Path) -> None:
    """Two images per location and class, one of which shows two animals, and one of a location that is left out."""
    locations, classes = (38, 43, 46, 100), ("bird", "cat", "car")
    images, notes = [], []
    for location in (*locations, 7):
        for label in range(len(classes)):
            for copy in range(2):
                identifier = f"{location}-{label}-{copy}"
                images.append({"id": identifier, "location": location, "file_name": f"{identifier}.jpg"})
                notes.append({"image_id": identifier, "category_id": label})
    notes.append({"image_id": "38-0-0", "category_id": 1})
    tables = {"categories": [{"id": i, "name": name} for i, name in enumerate(classes)]}
    files = {}
    for number, part in enumerate(("cis_test", "cis_val", "train", "trans_test", "trans_val")):
        mine = {"images": images[number::5], "annotations": notes[number::5], **tables}
        files[f"eccv_18_annotation_files/{part}_annotations.json"] = json.dumps(mine).encode()
    tar(folder / "eccv_18_annotations.tar.gz", files)
    pixels = {f"eccv_18_all_images_sm/{row['file_name']}": digits()[i] for i, row in enumerate(images)}
    more = {"eccv_18_all_images_sm/no_image": random.Random(0).randbytes(3 << 20)}  # it comes in several pieces
    tar(folder / "eccv_18_all_images_sm.tar.gz", pixels | more)


def imagenet9(folder: Path) -> None:
    kinds = ("original", "mixed_same", "mixed_rand", "only_fg")
    test = {
        f"bg_challenge/{kind}/val/0{c}_{c}/{kind}_{i}.JPEG".replace("JPEG", "jpg"): digits()[10 * c + i]
        for kind in kinds
        for c in range(2)
        for i in range(2)
    }
    test["bg_challenge/fg_mask/val/00_0/a.npy"] = b"x"
    tar(folder / "backgrounds_challenge_data.tar.gz", test)
    train = {
        f"original/{part}/0{c}_{c}/{part}_{i}.jpg": digits()[20 * c + i]
        for part in ("train", "val")
        for c in range(2)
        for i in range(3)
    }
    tar(folder / "original.tar.gz", train)


def tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def vlcs(folder: Path) -> None:
    zipped(folder / "vlcs.zip", archives.files(archives.vlcs(folder / "VLCS")), "VLCS/")


def zipped(path: Path, files: dict[str, bytes], under: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(under + name, content)
    return path


HUB = {
    "waterbirds": ("grodino/waterbirds", waterbirds),
    "celebA": ("flwrlabs/celeba", celeba),
    "camelyon17": ("wltjr1007/Camelyon17-WILDS", camelyon17),
    "PACS": ("flwrlabs/pacs", lambda folder: environments(folder, "PACS")),
    "OfficeHome": ("flwrlabs/office-home", lambda folder: environments(folder, "OfficeHome")),
    "DomainNet": ("wltjr1007/DomainNet", lambda folder: environments(folder, "DomainNet")),
}
ADDRESSES = {"TerraIncognita": terra_incognita, "imagenet9": imagenet9}
KAGGLE = {"VLCS": ("iamjanvijay/vlcsdataset", vlcs)}
#: images per split or environment
COUNTS = {
    "waterbirds": {"train": 12, "val": 12, "test": 12},
    "celebA": {"train": 16, "val": 8, "test": 8},
    "camelyon17": {"train": 6, "id_val": 4, "test": 6, "val": 2},
    "PACS": dict.fromkeys(DOMAINS["PACS"], 6),
    "OfficeHome": dict.fromkeys(DOMAINS["OfficeHome"], 6),
    "DomainNet": dict.fromkeys(DOMAINS["DomainNet"], 6),
    "TerraIncognita": {"location_100": 4, "location_38": 5, "location_43": 4, "location_46": 4},
    "imagenet9": {"original/train": 6, "original/val": 4, "mixed_same/val": 4, "mixed_rand/val": 4},
    "VLCS": {"Caltech101": 10, "LabelMe": 15, "SUN09": 20, "VOC2007": 25},
}


def write(folder: Path) -> Path:
    """All of them: hf/<repository>/..., files/... and kaggle/..., as `local_place.Place` serves them."""
    for repository, make in HUB.values():
        make(folder / "hf" / repository)
    for make in ADDRESSES.values():
        make(folder / "files")
    archives.pack(archives.waterbirds(folder / "archive", 3), folder / "files" / f"{archives.WATERBIRDS}.tar.gz")
    for _, make in KAGGLE.values():
        make(folder / "kaggle")
    return folder


def point_to(address: str, monkeypatch) -> None:
    """Send all clients to ``address``, and say of the mirrors what these small ones have."""
    from cim_plugin.data import releases, sources

    for name, entry in sources.SOURCES.items():
        smaller = tuple(_small(mirror, address) for mirror in entry.mirrors)
        monkeypatch.setitem(sources.SOURCES, name, dataclasses.replace(entry, mirrors=smaller))
    for name, counts in COUNTS.items():
        release = dataclasses.replace(releases.RELEASES[name], counts=counts)
        monkeypatch.setitem(releases.RELEASES, name, release)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", _TEMPLATE.format(address))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


_TEMPLATE = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"


def _small(mirror, address: str):
    """A mirror of the table with the files, sizes and addresses of the small one."""
    from cim_plugin.data.sources import File

    names = [file.name for file in mirror.files]
    if mirror.place == "url":
        names = [f"{address}/files/{name.split('?')[0].rsplit('/', 1)[-1]}" for name in names]
    elif mirror.repository == "flwrlabs/celeba":
        names = [f"img_align+identity+attr/{name}.parquet" for name in CELEBA_SHARDS]
    elif names and "-of-" in names[0]:
        splits = dict.fromkeys(name.split("/")[-1].split("-")[0] for name in names)
        names = [f"data/{split}-00000-of-00001.parquet" for split in splits]
    return dataclasses.replace(mirror, files=tuple(File(name) for name in names), size=1_000_000)
