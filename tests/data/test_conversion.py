"""Converters of public archives: every image arrives unchanged where the host's own loader finds it, with the label and
group that it had.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys

import pytest
import small_archives as archives
from PIL import Image

from cim_plugin.data.celeba import ATTRIBUTES


def _pixels(content):
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()


def _reference_manifest(folder):
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in archives.files(folder).items()
        if name != "MANIFEST.sha256"
    }


@pytest.mark.parametrize("mode", [None, "w:gz", "w:xz", "w"])
def test_waterbirds_is_read_by_wilds_as_the_archive_has_it(open_release, data, tmp_path, mode):
    source = archives.waterbirds(tmp_path / "unpacked")
    given = archives.pack(source, tmp_path / "waterbirds.tar", mode) if mode else source
    status, out, err = data("waterbirds", "--from", given, "--root", "root")
    assert status == 0 and "Traceback" not in err
    dataset = open_release("waterbirds", "root")
    with open(source / "metadata.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(dataset) == len(rows) == 12
    for (image, label, metadata), row, split in zip(dataset, rows, dataset.split_array):
        assert image.tobytes() == _pixels((source / row["img_filename"]).read_bytes())
        assert (int(label), int(metadata[0]), int(split)) == (int(row["y"]), int(row["place"]), int(row["split"]))


@pytest.mark.parametrize("layout", ["kaggle", "authors"])
def test_celeba_is_read_by_wilds_as_the_lists_have_it(open_release, data, tmp_path, layout):
    source = archives.celeba(tmp_path / "celeba", list(ATTRIBUTES), layout)
    assert data("celebA", "--from", source, "--root", "root")[0] == 0
    dataset = open_release("celebA", "root")
    rows, partition = archives.celeba_tables(list(ATTRIBUTES))
    blond, male = 1 + ATTRIBUTES.index("Blond_Hair"), 1 + ATTRIBUTES.index("Male")
    assert len(dataset) == len(rows)
    for number, ((image, label, metadata), row, (_, split)) in enumerate(zip(dataset, rows, partition)):
        assert image.tobytes() == _pixels(archives.jpeg(number))
        assert (int(label), int(metadata[0]), int(dataset.split_array[number])) == (
            (row[blond] + 1) // 2,
            (row[male] + 1) // 2,
            split,
        )


def test_both_layouts_of_celeba_give_the_same_tables(data, tmp_path):
    for layout in ("kaggle", "authors"):
        data(
            "celebA", "--from", archives.celeba(tmp_path / layout, list(ATTRIBUTES), layout), "--root", f"root_{layout}"
        )
    for name in ("list_attr_celeba.csv", "list_eval_partition.csv"):
        first, second = (
            (tmp_path / f"root_{layout}" / "celebA_v1.0" / name).read_bytes() for layout in ("kaggle", "authors")
        )
        assert first == second == (tmp_path / "kaggle" / name).read_bytes()


def test_vlcs_of_domainbeds_archive_keeps_its_layout(data, tmp_path):
    source = archives.vlcs(tmp_path / "VLCS")
    status, out, _ = data("vlcs", "--from", archives.pack(source, tmp_path / "VLCS.tar.gz"), "--root", "root")
    assert status == 0 and "Caltech101 10, LabelMe 15, SUN09 20, VOC2007 25" in out
    written = archives.files(tmp_path / "root" / "VLCS")
    written.pop("MANIFEST.sha256")
    assert written == archives.files(source)


@pytest.mark.parametrize(
    "full",
    [(), ("train", "crossval"), ("train", "crossval", "test")],
    ids=["no full", "full without test", "full with test"],
)
def test_vlcs_with_numbered_classes_takes_every_image_once(data, tmp_path, full):
    source = archives.numbered_vlcs(tmp_path / "numbered", full)
    assert data("vlcs", "--from", source, "--root", "root")[0] == 0
    written = archives.files(tmp_path / "root" / "VLCS")
    written.pop("MANIFEST.sha256")
    expected = {}
    for name, content in archives.files(source).items():
        environment, _, label, _ = name.split("/")
        target = (
            {short: long for long, short in archives.VLCS_ENVIRONMENTS.items()}[environment],
            archives.VLCS_CLASSES[int(label)],
        )
        expected.setdefault(target, set()).add(content)
    found = {}
    for name, content in written.items():
        environment, label, _ = name.split("/")
        found.setdefault((environment, label), []).append(content)
    assert {target: sorted(contents) for target, contents in expected.items()} == {
        target: sorted(contents) for target, contents in found.items()
    }
    assert len(written) == 4 * 5 * 5


def test_domainbed_reads_the_converted_vlcs(data, tmp_path, domainbed):
    datasets = pytest.importorskip("domainbed.datasets")
    data("vlcs", "--from", archives.vlcs(tmp_path / "VLCS"), "--root", "root")
    environments = datasets.VLCS(str(tmp_path / "root"), [0], {"data_augmentation": False})
    assert [len(environment) for environment in environments] == [10, 15, 20, 25] and environments.num_classes == 5
    assert all(environment.classes == list(archives.VLCS_CLASSES) for environment in environments)


def test_the_manifest_is_that_of_sha256sum(data, tmp_path):
    data("waterbirds", "--from", archives.waterbirds(tmp_path / "unpacked"), "--root", "root")
    folder = tmp_path / "root" / "waterbirds_v1.0"
    lines = (folder / "MANIFEST.sha256").read_text().splitlines()
    assert {name: value for value, name in (line.split("  ") for line in lines)} == _reference_manifest(folder)
    if shutil.which("sha256sum"):
        assert subprocess.run(["sha256sum", "--check", "--quiet", "MANIFEST.sha256"], cwd=folder).returncode == 0


def test_other_counts_than_the_published_ones_are_a_warning_with_numbers(data, tmp_path):
    _, _, err = data("waterbirds", "--from", archives.waterbirds(tmp_path / "unpacked"), "--root", "root")
    assert "warning" in err and "train 4 (published 4,795), val 4 (published 1,199), test 4 (published 5,794)" in err


def test_images_in_no_row_are_left_out_and_counted(data, tmp_path):
    source = archives.waterbirds(tmp_path / "unpacked")
    archives.write(source / "extra" / "unlisted.jpg", archives.jpeg(99))
    status, _, err = data("waterbirds", "--from", source, "--root", "root")
    assert status == 0 and "1, the first is 'extra/unlisted.jpg'" in err
    assert not (tmp_path / "root" / "waterbirds_v1.0" / "extra").exists()


def test_a_rerun_verifies_and_writes_nothing(data, tmp_path):
    source = archives.waterbirds(tmp_path / "unpacked")
    data("waterbirds", "--from", source, "--root", "root")
    folder = tmp_path / "root" / "waterbirds_v1.0"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    status, out, _ = data("waterbirds", "--from", source, "--root", "root")
    assert status == 0 and "complete" in out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_a_rerun_names_a_file_that_is_not_as_it_was(data, tmp_path, damage):
    source = archives.waterbirds(tmp_path / "unpacked")
    data("waterbirds", "--from", source, "--root", "root")
    path = tmp_path / "root" / "waterbirds_v1.0" / "001.Bird" / "Bird_0004.jpg"
    path.unlink() if damage == "removed" else path.write_bytes(path.read_bytes()[:-1] + b"x")
    status, _, err = data("waterbirds", "--from", source, "--root", "root")
    assert status == 2 and "Bird_0004.jpg" in err


KILL = """
import os, signal, sys
from cim_plugin import cli
from cim_plugin.data import manifest
cli.COMMANDS["data"] = ("cim_plugin.data.command", "data sets")
left = int(sys.argv[1])
replace = os.replace
def replace_or_die(old, new):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)
os.replace = replace_or_die
sys.exit(cli.main(["data", *sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    "writes, packed",
    [
        pytest.param(0, True, id="at the first file"),
        pytest.param(5, True, id="in the middle of an archive"),
        pytest.param(5, False, id="in the middle of a folder"),
        pytest.param(14, True, id="before the manifest"),
        pytest.param(15, False, id="before the renaming"),
    ],
)
def test_a_killed_conversion_has_no_release_and_goes_on_where_it_was(data, tmp_path, writes, packed):
    source = archives.waterbirds(tmp_path / "unpacked")
    source = archives.pack(source, tmp_path / "w.tar.gz") if packed else source
    words = ["waterbirds", "--from", str(source), "--root", "root"]
    killed = subprocess.run([sys.executable, "-c", KILL, str(writes), *words], cwd=tmp_path, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert os.listdir(tmp_path / "root") == [".waterbirds_v1.0.partial"]
    unfinished = tmp_path / "root" / ".waterbirds_v1.0.partial"
    done = {path.name: path.stat().st_mtime_ns for path in unfinished.rglob("Bird_*.jpg")}
    assert len(done) == min(max(writes - 2, 0), 12)
    assert data(*words)[0] == 0
    folder = tmp_path / "root" / "waterbirds_v1.0"
    assert {path.name: path.stat().st_mtime_ns for path in folder.rglob("Bird_*.jpg") if path.name in done} == done
    assert data("waterbirds", "--from", source, "--root", "uninterrupted")[0] == 0
    assert archives.files(folder) == archives.files(tmp_path / "uninterrupted" / "waterbirds_v1.0")
    assert os.listdir(tmp_path / "root") == ["waterbirds_v1.0"]


def test_going_on_from_another_source_leaves_nothing_of_the_first(data, tmp_path):
    first = archives.waterbirds(tmp_path / "first", repeats=2)
    broken = first / "002.Bird" / "Bird_0023.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    assert data("waterbirds", "--from", first, "--root", "root")[0] == 2
    assert (tmp_path / "root" / ".waterbirds_v1.0.partial" / "001.Bird" / "Bird_0022.jpg").exists()
    second = archives.waterbirds(tmp_path / "second")
    assert data("waterbirds", "--from", second, "--root", "root")[0] == 0
    assert data("waterbirds", "--from", second, "--root", "clean")[0] == 0
    assert archives.files(tmp_path / "root" / "waterbirds_v1.0") == archives.files(
        tmp_path / "clean" / "waterbirds_v1.0"
    )


def test_the_source_stays_as_it_was(data, tmp_path):
    source = archives.waterbirds(tmp_path / "unpacked")
    before = archives.files(source)
    data("waterbirds", "--from", source, "--root", source / "data")
    assert {name: content for name, content in archives.files(source).items() if not name.startswith("data/")} == before


def test_an_empty_folder_in_the_place_of_the_release_is_filled(open_release, data, tmp_path):
    (tmp_path / "root" / "waterbirds_v1.0").mkdir(parents=True)
    assert data("waterbirds", "--from", archives.waterbirds(tmp_path / "unpacked"), "--root", "root")[0] == 0
    assert len(open_release("waterbirds", "root")) == 12
