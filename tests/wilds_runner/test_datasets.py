"""Every other dataset of the table: tiny folders in the real layout, read by the real loaders of ``wilds``, trained for
an epoch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
import wilds
from PIL import Image
from small_runs import read_csv, results, train, write_release

from cim_plugin.errors import InputError
from cim_plugin.runs.defaults import DATASETS
from cim_plugin.wilds_runner.datasets import open_dataset

SIDE = 32
N = 40  #: images of a folder


def _write(
    folder: Path, release: str, tables: dict[str, pandas.DataFrame], images: list[str], size=(SIDE, SIDE)
) -> None:
    folder.mkdir(parents=True)
    (folder / f"RELEASE_v{release}.txt").write_text("noise\n")
    for name, table in tables.items():
        table.to_csv(folder / name)
    rng = np.random.default_rng(0)
    for name in images:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def camelyon17(root: Path) -> dict[str, int]:
    """Hospitals 0, 3 and 4 give training and ID validation, 1 validation, 2 test."""
    i = np.arange(N)
    table = pandas.DataFrame(
        {"patient": [f"{n:03}" for n in i], "node": i % 4, "x_coord": i, "y_coord": i, "tumor": i // 5 % 2}
    )
    table["slide"], table["center"], table["split"] = i % 10, i % 5, (i >= 30).astype(int)
    images = [f"patches/patient_{n:03}_node_{n % 4}/patch_patient_{n:03}_node_{n % 4}_x_{n}_y_{n}.png" for n in i]
    _write(root / "camelyon17_v1.0", "1.0", {"metadata.csv": table}, images, (96, 96))
    center = i % 5
    inside = ~np.isin(center, [1, 2])
    return {
        "train": sum(inside & (i < 30)),
        "id_val": sum(inside & (i >= 30)),
        "val": sum(center == 1),
        "test": sum(center == 2),
    }


def iwildcam(root: Path) -> dict[str, int]:
    """JPEGs of three species at four cameras; photographs are not square."""
    i = np.arange(N)
    splits = ["train", "train", "val", "test", "id_val", "id_test", "train", "train"]
    table = pandas.DataFrame(
        {
            "split": [splits[n % 8] for n in i],
            "filename": [f"{n}.jpg" for n in i],
            "y": i // 8 % 3,
            "location_remapped": i % 4,
        }
    )
    table["sequence_remapped"], table["datetime"] = i, "2013-06-05 05:44:19.000"
    _write(root / "iwildcam_v2.0", "2.0", {"metadata.csv": table}, [f"train/{n}.jpg" for n in i], (SIDE, SIDE + 8))
    return table["split"].value_counts().to_dict()


def rxrx1(root: Path) -> dict[str, int]:
    """Two sites of a well: the second one of training experiments is the ID test."""
    i = np.arange(N)
    table = pandas.DataFrame(
        {
            "experiment": [f"HUVEC-{n % 5:02}" for n in i],
            "plate": 1 + i % 4,
            "well": [f"B{n:02}" for n in i],
            "site": 1 + i // 5 % 2,
        }
    )
    table["cell_type"], table["sirna_id"] = "HUVEC", i // 10
    table["dataset"] = [("train", "train", "train", "val", "test")[n % 5] for n in i]
    images = [f"images/{row.experiment}/Plate{row.plate}/{row.well}_s{row.site}.png" for row in table.itertuples()]
    _write(root / "rxrx1_v1.0", "1.0", {"metadata.csv": table}, images, (256, 256))
    training = i % 5 < 3
    return {
        "train": sum(training & (i // 5 % 2 == 0)),
        "id_test": sum(training & (i // 5 % 2 == 1)),
        "val": sum(i % 5 == 3),
        "test": sum(i % 5 == 4),
    }


def fmow(root: Path) -> dict[str, int]:
    """Photographs before 2013 are in distribution, those of 2016 on are the test; the second is sequestered. Regions as
    countries say.
    """
    i = np.arange(N)
    years = np.array([2010, 2014, 2016, 2011])[i % 4]
    table = pandas.DataFrame(
        {
            "split": np.array(["train", "val", "test", "train"])[i % 4],
            "category": np.array(["airport", "zoo"])[i // 4 % 2],
        }
    )
    table["country_code"] = np.array(["FRA", "KEN", "FRA"])[i // 8 % 3]
    table["timestamp"] = [f"{year}-05-01T10:00:00Z" for year in years]
    table.loc[1, "split"] = "seq"
    table.loc[[7, 15], ["split", "timestamp"]] = [["val", "2011-05-01T10:00:00Z"], ["test", "2011-05-01T10:00:00Z"]]
    codes = pandas.DataFrame({"alpha-3": ["FRA", "KEN"], "region": ["Europe", "Africa"]})
    images = [f"images/rgb_img_{n}.png" for n in i if n != 1]
    _write(
        root / "fmow_v1.1", "1.1", {"rgb_metadata.csv": table, "country_code_mapping.csv": codes}, images, (224, 224)
    )
    return {"train": 18, "id_val": 1, "id_test": 1, "val": 9, "test": 10}


#: dataset -> (its maker, group fields that the runs log, a column of val_eval.csv)
FOLDERS = {
    "camelyon17": (camelyon17, "hospital", "acc_wg"),
    "iwildcam": (iwildcam, "location", "F1-macro_all"),
    "rxrx1": (rxrx1, "experiment", "acc_avg"),
    "fmow": (fmow, "year", "acc_worst_region"),
}


@pytest.fixture
def writable_tables(monkeypatch):
    """The arrays of a table can be written, as before pandas 3: the loader of RxRx1 in wilds 2.0 does that."""
    values = pandas.Series.values
    monkeypatch.setattr(pandas.Series, "values", property(lambda self: np.array(values.fget(self))))


@pytest.mark.filterwarnings("ignore:Minimum metadata value")
@pytest.mark.parametrize("dataset", FOLDERS)
@pytest.mark.slow
def test_the_real_loader_reads_the_folder_and_cim_trains_on_it(tmp_path, dataset, writable_tables):
    make, field, column = FOLDERS[dataset]
    counts = make(tmp_path)
    size = ["--target_resolution", "256" if dataset == "rxrx1" else str(SIDE)]
    transform = DATASETS[dataset]["transform"]
    assert (
        train(
            tmp_path,
            tmp_path / "run",
            "--n_epochs",
            "1",
            "--transform",
            transform,
            *size,
            dataset=dataset,
            algorithm="CIM",
        )
        == 0
    )
    result = results(tmp_path / "run")
    assert (
        result["config"]["groupby_fields"] == [field]
        and result["config"]["val_metric"] == DATASETS[dataset]["val_metric"]
    )
    splits = result["selection"]["best"]["splits"]
    assert set(splits) == set(counts)
    for split, count in counts.items():
        assert sum(group["count"] for group in splits[split]["groups"].values()) == count
        if split != "train":
            predictions = (tmp_path / "run" / f"{dataset}_split:{split}_seed:0_epoch:best_pred.csv").read_text().split()
            assert len(predictions) == count
    (row,) = read_csv(tmp_path / "run" / "val_eval.csv")
    assert 0 <= float(row[column]) <= 1


@pytest.fixture
def opened(configure, tmp_path):
    """A function (maker, dataset, flags) -> the dataset as a run sees it."""

    def open_made(make, dataset: str, *more: str):
        make(tmp_path)
        return open_dataset(configure("-d", dataset, "--root_dir", str(tmp_path), *more))

    return open_made


def test_groups_are_the_combinations_of_the_fields_that_are_named(opened):
    data = opened(write_release, "waterbirds", "--groupby_fields", "background")
    assert data.group_names() == ["background:land", "background:water"]
    for split in data.splits.values():
        assert split.groups.tolist() == split.metadata[:, 0].tolist()
        assert split.labels.tolist() == split.metadata[:, 1].tolist()


def test_frac_keeps_a_share_of_every_split(opened):
    data = opened(camelyon17, "camelyon17", "--frac", "0.5")
    whole = {"train": 18, "id_val": 6, "val": 8, "test": 8}
    assert {key: len(split.labels) for key, split in data.splits.items()} == {
        key: count // 2 for key, count in whole.items()
    }


def test_rows_of_a_split_are_those_of_the_whole_dataset(opened):
    data = opened(iwildcam, "iwildcam")
    rows = np.concatenate([split.indices for split in data.splits.values()])
    assert sorted(rows) == list(range(N))
    for split in data.splits.values():
        assert data.wilds.y_array[split.indices].tolist() == split.labels.tolist()


def test_tables_of_different_lengths_are_refused_with_their_lengths(opened, monkeypatch):
    get = wilds.get_dataset

    def without_three_images(**options):
        dataset = get(**options)
        dataset._input_array = dataset._input_array[:-3]
        return dataset

    monkeypatch.setattr(wilds, "get_dataset", without_three_images)
    with pytest.raises(InputError, match="140 labels, 140 metadata, 140 splits, 137 images"):
        opened(write_release, "waterbirds")


def test_what_a_loader_asserts_is_said(configure, tmp_path):
    iwildcam(tmp_path)
    table = pandas.read_csv(tmp_path / "iwildcam_v2.0" / "metadata.csv")
    table.assign(y=2 * table["y"]).to_csv(
        tmp_path / "iwildcam_v2.0" / "metadata.csv", index=False
    )  # a class number is missing
    with pytest.raises(
        InputError, match=r"iwildcam in .* cannot be read: AssertionError at 'assert len\(np.unique\(df\['y'\]\)\)"
    ):
        open_dataset(configure("-d", "iwildcam", "--root_dir", str(tmp_path)))


@pytest.mark.skipif(int(pandas.__version__.split(".")[0]) < 3, reason="before pandas 3 it can be read")
def test_what_wilds_cannot_read_with_this_pandas_names_the_version_that_can(opened):
    with pytest.raises(
        InputError, match=f"rxrx1 in .* cannot be read: .* pandas {pandas.__version__} .*pip install 'pandas<3'"
    ):
        opened(rxrx1, "rxrx1")


@pytest.mark.parametrize(
    "labels, said",
    [
        (torch.tensor([0.0, float("nan")]), "labels of noise are float32, and nan among them"),
        (torch.tensor([0.5, 1.0]), "0.5 among them is no whole number"),
        (torch.tensor([[1, 0], [0, 1]]), r"have the shape \(2, 2\); one class number per image"),
        (torch.tensor([0, 2]), "label 2 of row 1 of noise is out of range"),
        (torch.tensor([-1, 1], dtype=torch.int32), "label -1 of row 0"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels, said):
    from types import SimpleNamespace

    from cim_plugin.wilds_runner.datasets import _check_rows

    splits = torch.zeros(len(labels))
    dataset = SimpleNamespace(y_array=labels, metadata_array=labels, split_array=splits, n_classes=2)
    with pytest.raises(InputError, match=said):
        _check_rows(dataset, "noise")
