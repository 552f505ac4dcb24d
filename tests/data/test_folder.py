"""``cim-plugin data folder``: own images as a release that 'cim-plugin train' and DomainBed's image folders open."""

from __future__ import annotations

import csv
import json
import shlex
import shutil

import pytest
import small_archives as archives
from PIL import Image

pytest.importorskip("wilds")

from cim_plugin import cli  # noqa: E402
from cim_plugin.data.own import OwnDataset  # noqa: E402
from cim_plugin.wilds_runner import groupwise  # noqa: E402

TINY = (
    "--model small_cnn --target_resolution 16 --batch_size 4 --n_epochs 1 --loader_kwargs num_workers=0 --cache false "
    "--progress_bar false"
).split()


@pytest.fixture
def folders(tmp_path):
    """Two environments of two classes with five images each, and what is no image."""
    for e, environment in enumerate(("lab", "field")):
        for c, label in enumerate(("frog", "toad")):
            for i in range(5):
                archives.write(
                    tmp_path / "mine" / environment / label / f"{i}.jpg", archives.jpeg(100 * e + 10 * c + i)
                )
    archives.write(tmp_path / "mine" / "notes.txt", b"x")
    return tmp_path / "mine"


def write_table(tmp_path, rows, header=("path", "label", "split", "background", "camera")):
    for number, row in enumerate(rows):
        if row[0].endswith(".jpg") and ".." not in row[0]:
            archives.write(tmp_path / row[0], archives.jpeg(number))
    archives.write_csv(tmp_path / "birds.csv", header, rows)
    return tmp_path / "birds.csv"


ROWS = [
    (f"{split}/{y}{place}/{i}.jpg", ("land", "water")[y], split, ("forest", "lake")[place], str(i))
    for split, n in (("train", 3), ("val", 2), ("test", 2))
    for y in (0, 1)
    for place in (0, 1)
    for i in range(n)
]


def table_of(folder):
    with open(folder / "metadata.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_folders_become_environments_classes_and_splits(data, folders, tmp_path):
    status, out, err = data("folder", "--from", folders, "--root", "root")
    assert status == 0 and "train 12, val 4, test 4" in out, err
    rows = table_of(tmp_path / "root" / "mine")
    assert list(rows[0]) == ["path", "label", "split", "environment"]
    assert [(r["path"], r["split"]) for r in rows if r["environment"] == "lab" and r["label"] == "toad"] == [
        (f"lab/toad/{i}.jpg", split) for i, split in enumerate(("train", "train", "train", "val", "test"))
    ]
    assert (tmp_path / "root/mine/lab/toad/2.jpg").read_bytes() == (folders / "lab/toad/2.jpg").read_bytes()
    assert data("folder", "--from", folders, "--root", "root")[1].endswith("as its manifest says\n")


def test_a_table_keeps_its_splits_and_groups(data, tmp_path):
    status, _, err = data("folder", "--from", write_table(tmp_path, ROWS), "--root", "root", "--name", "wet")
    assert status == 0, err
    dataset = OwnDataset(tmp_path / "root" / "wet")
    assert dataset.metadata_fields[:3] == ["background", "camera", "y"] and dataset.n_classes == 2
    assert dataset.metadata_map["background"] == ["forest", "lake"] and dataset.original_resolution == (24, 16)
    assert [(dataset.split_array == number).sum() for number in range(3)] == [12, 8, 8]
    assert dataset._input_array[5] == "lake/land/train_01_2.jpg" and dataset.metadata_array[5, :3].tolist() == [1, 2, 0]
    first = dataset.get_input(0)
    assert first.size == (24, 16) and first.mode == "RGB"


def test_accuracy_is_measured_in_every_group(data, tmp_path):
    """Right for every image but the water birds before forests."""
    groupwise.install()
    data("folder", "--from", write_table(tmp_path, [row[:4] for row in ROWS], ROWS_HEADER[:4]), "--root", "root")
    dataset = OwnDataset(tmp_path / "root" / "birds")
    predicted = dataset.y_array.clone()
    predicted[(dataset.y_array == 1) & (dataset.metadata_array[:, 0] == 0)] = 0
    results, text = dataset.eval(predicted, dataset.y_array, dataset.metadata_array)
    assert results["acc_avg"] == 0.75 and results["acc_wg"] == 0 and "Worst-group acc: 0.000" in text
    assert results["acc_y:water_background:lake"] == 1


ROWS_HEADER = ("path", "label", "split", "background", "camera")


def test_the_line_that_it_ends_with_trains(data, folders, tmp_path):
    pytest.importorskip("lightning_fabric")
    _, out, _ = data("folder", "--from", folders, "--root", "root")
    words = shlex.split(out.splitlines()[-1])
    assert words[:3] == ["cim-plugin", "train", "-d"]
    assert cli.main([*words[1:], *TINY]) == 0
    results = json.loads((tmp_path / "logs" / "mine" / "results.json").read_text())
    assert results["config"]["dataset"] == "mine" and results["config"]["groupby_fields"] == ["environment", "y"]
    assert results["config"]["optimizer"] == "AdamW" and results["config"]["val_metric"] == "acc_wg"
    assert cli.main(["train", "-d", "mine", "--root_dir", "root", "--algorithm", "ERM", "--log_dir", "b", *TINY]) == 0
    assert cli.main([*words[1:], "--version", "1.0"]) == 2  # of what would be the version?


def test_a_run_on_it_is_shown_and_retrained(data, folders, tmp_path, capsys):
    pytest.importorskip("lightning_fabric")
    for image in list(folders.rglob("*.jpg")):  # retrain wants two validation images of every group
        shutil.copy(image, image.with_name(f"again_{image.name}"))
    data("folder", "--from", folders, "--root", "root")
    assert cli.main(["train", "-d", "root/mine", "--algorithm", "CIM", "--log_dir", "run", *TINY]) == 0
    assert cli.main(["show", "run", "-o", "m.png"]) == 0
    assert cli.main(["retrain", "run", "--method", "dfr"]) == 0
    record = json.loads((tmp_path / "run-dfr" / "results.json").read_text())
    assert (record["config"]["dataset"], record["config"]["retrain"]) == ("mine", "dfr")
    assert cli.main(["show", "run-dfr", "-o", "n.png"]) == 0
    (tmp_path / "root").rename(tmp_path / "moved")
    capsys.readouterr()
    assert cli.main(["show", "run", "-o", "o.png"]) == 2 and "name the folder by --root_dir" in capsys.readouterr().err
    assert cli.main(["show", "run", "-o", "o.png", "--root_dir", "moved"]) == 0


def test_a_run_does_not_make_what_is_no_own_data_one(data, folders, tmp_path, capsys):
    """A results.json may name any folder."""
    pytest.importorskip("lightning_fabric")
    data("folder", "--from", folders, "--root", "root")
    assert cli.main(["train", "-d", "root/mine", "--algorithm", "CIM", "--log_dir", "run", *TINY]) == 0
    (tmp_path / "elsewhere" / "mine").mkdir(parents=True)
    capsys.readouterr()
    assert cli.main(["show", "run", "-o", "m.png", "--root_dir", "elsewhere"]) == 2
    assert "mine in elsewhere is not what 'cim-plugin data folder' has made" in capsys.readouterr().err


def test_domainbeds_image_folders_open_it(data, folders, domainbed, monkeypatch):
    monkeypatch.syspath_prepend(str(domainbed))
    from domainbed.datasets import MultipleEnvironmentImageFolder

    data("folder", "--from", folders, "--root", "root")
    opened = MultipleEnvironmentImageFolder("root/mine/", [0], True, {})
    assert [len(environment) for environment in opened] == [10, 10] and opened.num_classes == 2


def _rows(change=lambda row: row):
    return [change(row) for row in ROWS]


FAULTS = {
    "no such folder": (lambda t: t / "gone", "does not exist"),
    "no image": (lambda t: archives.write(t / "e" / "a.txt", b"x") or t / "e", "has no file that ends in"),
    "image too high": (lambda t: archives.write(t / "e" / "a" / "x.jpg", b"x") or t / "e", "it has 'a/x.jpg'"),
    "no table": (lambda t: t / "gone.csv", "gone.csv cannot be read"),
    "no label": (lambda t: write_table(t, [r[:1] for r in ROWS], ("path",)), "no column 'label'"),
    "column twice": (lambda t: write_table(t, ROWS, ("path", "label", "split", "a", "a")), "a column twice"),
    "column y": (lambda t: write_table(t, ROWS, ("path", "label", "split", "y", "a")), "a column 'y'"),
    "wrong split": (lambda t: write_table(t, _rows(lambda r: (*r[:2], "dev", *r[3:]))), "row 0: split is 'dev'"),
    "no validation": (lambda t: write_table(t, [r for r in ROWS if r[2] != "val"]), "no image is in the split 'val'"),
    "one class": (lambda t: write_table(t, _rows(lambda r: (r[0], "land", *r[2:]))), "the one class 'land'"),
    "path leads out": (lambda t: write_table(t, [("../a.jpg", *ROWS[0][1:]), *ROWS]), "not a plain path"),
    "label leads out": (lambda t: write_table(t, _rows(lambda r: (r[0], "../x", *r[2:]))), "no name of a folder"),
    "group empty": (lambda t: write_table(t, _rows(lambda r: (*r[:3], "", r[4]))), "background '' is no name"),
    "image listed twice": (lambda t: write_table(t, [*ROWS, ROWS[0]]), "is there twice"),
}


@pytest.mark.parametrize("make, said", FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_named(data, tmp_path, make, said):
    status, _, err = data("folder", "--from", make(tmp_path), "--root", "root")
    assert status == 2 and said in err and err.count("\n") == 1, err
    assert not (tmp_path / "root").exists()


def test_an_image_that_is_missing_or_does_not_decode(data, tmp_path):
    table = write_table(tmp_path, ROWS)
    (tmp_path / ROWS[3][0]).write_bytes(b"no image")
    status, _, err = data("folder", "--from", table, "--root", "root")
    assert status == 2 and "cannot be decoded (not an image)" in err and not (tmp_path / "root" / "birds").exists()
    (tmp_path / ROWS[3][0]).unlink()
    status, _, err = data("folder", "--from", table, "--root", "root")
    assert status == 2 and f"row 3: {ROWS[3][0]!r}" in err


@pytest.mark.parametrize("name, said", [("a/b", "not made of letters"), ("waterbirds", "a published data set")])
def test_names(data, folders, name, said):
    status, _, err = data("folder", "--from", folders, "--root", "root", "--name", name)
    assert status == 2 and said in err


def test_images_of_several_sizes_have_no_size_of_their_own(data, folders, capsys):
    pytest.importorskip("lightning_fabric")
    image = Image.new("RGB", (40, 30))
    image.save(folders / "lab" / "toad" / "4.jpg")
    data("folder", "--from", folders, "--root", "root")
    words = "train -d root/mine --algorithm ERM --log_dir logs --transform image_resize --resize_scale 1".split()
    assert cli.main([*words, "--model", "small_cnn", "--loader_kwargs", "num_workers=0"]) == 2
    assert (
        "--transform image_resize needs images of one size, mine has several; use image_base" in capsys.readouterr().err
    )


def test_unlike_environments_are_mentioned(data, folders):
    for path in (folders / "field" / "toad").iterdir():
        path.unlink()
    status, out, _ = data("folder", "--from", folders, "--root", "root")
    assert status == 0 and "note: field has no toad" in out


def test_own_data_that_is_gone(data, folders, tmp_path, capsys):
    pytest.importorskip("lightning_fabric")
    words = ["--algorithm", "CIM", "--log_dir", "logs", *TINY]
    assert cli.main(["train", "-d", "root/mine", *words]) == 2
    assert "dataset 'root/mine' is unknown" in capsys.readouterr().err
    data("folder", "--from", folders, "--root", "root")
    (tmp_path / "root" / "mine" / "metadata.csv").unlink()
    assert cli.main(["train", "-d", "root/mine", *words]) == 2
    assert "metadata.csv cannot be read" in capsys.readouterr().err
