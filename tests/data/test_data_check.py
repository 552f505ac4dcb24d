"""``cim-plugin data check``: one line per data set, as its real loader sees it, and an exit status for scripts."""

from __future__ import annotations

import argparse
import csv
import datetime
import re
import shlex
import subprocess
import sys

import pytest
import small_archives as archives

from cim_plugin.data.celeba import ATTRIBUTES
from cim_plugin.data.check import examine
from cim_plugin.data.command import add_arguments
from cim_plugin.data.releases import RELEASES, how_to_get
from cim_plugin.data.sources import SOURCES
from cim_plugin.errors import InputError

pytest.importorskip("wilds")


@pytest.fixture
def check(data):
    """A function of the words after 'cim-plugin data check --root root': exit status, and the line of each data set."""

    def run(*words):
        status, out, _ = data("check", "--root", "root", *words)
        return status, {line.split()[0]: line for line in out.splitlines()}

    return run


def _convert(data, tmp_path, *actions):
    sources = {
        "waterbirds": lambda: archives.waterbirds(tmp_path / "w"),
        "celebA": lambda: archives.celeba(tmp_path / "c", list(ATTRIBUTES), "kaggle"),
        "vlcs": lambda: archives.vlcs(tmp_path / "VLCS"),
    }
    for action in actions:
        assert data(action, "--from", sources[action](), "--root", "root")[0] == 0


def test_nothing_is_there(check, tmp_path):
    status, lines = check()
    assert status == 1 and list(lines) == list(RELEASES)
    for name, line in lines.items():
        assert line.split()[1] == "absent" and how_to_get(name, "root") in line
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("name", RELEASES)
def test_the_command_that_gets_a_data_set_is_one_that_can_be_typed(name):
    said = how_to_get(name, "some where")
    if not SOURCES[name].mirrors:
        assert said == f"it cannot be got by a command: {SOURCES[name].without}"
        return
    program, *words = shlex.split(re.fullmatch(r"get it with: (.+?) \(.+\)", said).group(1))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(words[1:])
    assert (program, words[0], args.action, args.name, args.root) == ("cim-plugin", "data", "get", name, "some where")


def test_an_unknown_data_set(data):
    status, _, err = data("check", "--dataset", "imagenet")
    assert status == 2 and "'imagenet'" in err and "waterbirds" in err
    with pytest.raises(InputError):
        how_to_get("imagenet")


def test_converted_releases_are_present_with_their_counts(check, data, tmp_path):
    _convert(data, tmp_path, "waterbirds", "celebA", "vlcs")
    status, lines = check("--images")
    assert status == 0
    assert "train 4 (published 4,795)" in lines["waterbirds"] and "test 4 (published 19,962)" in lines["celebA"]
    assert "LabelMe 15 (published 2,656)" in lines["VLCS"]
    assert [lines[name].split()[1] for name in ("waterbirds", "celebA", "VLCS", "fmow")] == [
        "present",
        "present",
        "present",
        "absent",
    ]


@pytest.mark.parametrize("asked, expected", [(["waterbirds"], 0), (["waterbirds", "celebA"], 1), ([], 0)], ids=str)
def test_the_exit_status_is_about_what_was_asked_for(check, data, tmp_path, asked, expected):
    _convert(data, tmp_path, "waterbirds")
    status, lines = check(*(["--dataset", *asked] if asked else []))
    assert status == expected and list(lines) == (asked or list(RELEASES))


def test_the_published_counts_are_said_to_be_so(tmp_path):
    from cim_plugin.data import check as module

    archives.write(tmp_path / "waterbirds_v1.0" / "RELEASE_v1.0.txt", b"Waterbirds\n")
    counts = {"train": 4795, "val": 1199, "test": 5794}
    found = module._usable(RELEASES["waterbirds"], tmp_path / "waterbirds_v1.0", module.Loaded(counts, []))
    assert found.state == "present" and found.words.endswith("train 4,795, val 1,199, test 5,794, as published")


def test_a_synthetic_release_is_said_to_be_so(check, data, tmp_path):
    _convert(data, tmp_path, "waterbirds")
    archives.write(tmp_path / "root" / "waterbirds_v1.0" / "RELEASE_v1.0.txt", b"SYNTHETIC: digits\n")
    status, lines = check("--dataset", "waterbirds")
    assert status == 0 and lines["waterbirds"].split()[1] == "synthetic" and "published" not in lines["waterbirds"]


def _remove(name):
    return lambda root: (root / name).unlink()


def _edit(name, old, new):
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new, 1))


def _truncate(name):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-200])


FAULTS = {
    "no RELEASE file": ("waterbirds", _remove("waterbirds_v1.0/RELEASE_v1.0.txt"), [], ["lacks RELEASE_v1.0.txt"]),
    "no metadata": ("waterbirds", _remove("waterbirds_v1.0/metadata.csv"), [], ["lacks metadata.csv"]),
    "no partition": ("celebA", _remove("celebA_v1.0/list_eval_partition.csv"), [], ["lacks list_eval_partition.csv"]),
    "no column": (
        "waterbirds",
        _edit("waterbirds_v1.0/metadata.csv", "split", "part"),
        [],
        ["loader says", "KeyError", "split"],
    ),
    "image missing": (
        "waterbirds",
        _remove("waterbirds_v1.0/001.Bird/Bird_0004.jpg"),
        [],
        ["1 of 12 images", "row 4", "Bird_0004.jpg", "missing"],
    ),
    "CelebA's image missing": (
        "celebA",
        _remove("celebA_v1.0/img_align_celeba/000003.jpg"),
        [],
        ["1 of 12 images", "row 2", "000003.jpg", "missing"],
    ),
    "image truncated": (
        "waterbirds",
        _truncate("waterbirds_v1.0/001.Bird/Bird_0004.jpg"),
        ["--images"],
        ["1 of 12", "row 4", "Bird_0004.jpg", "truncated"],
    ),
    "class missing": (
        "VLCS",
        lambda root: (root / "VLCS/SUN09/dog").rename(root / "dog"),
        [],
        ["SUN09 has the classes", "Caltech101"],
    ),
    "class empty": (
        "VLCS",
        lambda root: [path.unlink() for path in (root / "VLCS/SUN09/dog").iterdir()],
        [],
        ["loader says", "dog"],
    ),
    "environment missing": ("VLCS", lambda root: (root / "VLCS/SUN09").rename(root / "SUN09"), [], ["lacks SUN09"]),
    "environment too many": (
        "VLCS",
        lambda root: archives.write(root / "VLCS/tmp/bird/a.jpg", archives.jpeg(0)),
        [],
        ["'tmp'", "one more environment than VLCS has"],
    ),
    "VLCS image truncated": (
        "VLCS",
        _truncate("VLCS/LabelMe/car/pic_0.jpg"),
        ["--images"],
        ["1 of 70", "LabelMe/car/pic_0.jpg", "truncated"],
    ),
}


@pytest.mark.parametrize("name, harm, words, said", FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_named(check, data, tmp_path, name, harm, words, said):
    _convert(data, tmp_path, name if name in ("waterbirds", "celebA") else "vlcs")
    harm(tmp_path / "root")
    status, lines = check("--dataset", name, *words)
    assert status == 1 and lines[name].split()[1] == "incomplete" and all(word in lines[name] for word in said), lines[
        name
    ]
    assert check(*words)[0] == 1


def test_a_truncated_image_is_not_looked_for_unless_asked(check, data, tmp_path):
    _convert(data, tmp_path, "waterbirds")
    _truncate("waterbirds_v1.0/001.Bird/Bird_0004.jpg")(tmp_path / "root")
    assert check()[0] == 0


def test_a_stopped_conversion_is_mentioned(check, data, tmp_path):
    source = archives.waterbirds(tmp_path / "w")
    (source / "002.Bird" / "Bird_0011.jpg").write_bytes(b"x")
    data("waterbirds", "--from", source, "--root", "root")
    status, lines = check("--dataset", "waterbirds")
    assert status == 1 and lines["waterbirds"].split()[1] == "absent" and "was stopped" in lines["waterbirds"]


def _iwildcam(folder):
    time = datetime.datetime(2020, 1, 2, 3, 4, 5, 6).strftime("%Y-%m-%d %H:%M:%S.%f")
    splits = ("train", "val", "test", "id_val", "id_test", "train")
    rows = [[split, f"{i}.jpg", i % 2, i % 2, i % 2, time] for i, split in enumerate(splits)]
    archives.write_csv(
        folder / "metadata.csv", ["split", "filename", "y", "location_remapped", "sequence_remapped", "datetime"], rows
    )
    return [f"train/{row[1]}" for row in rows]


def _camelyon17(folder):
    rows = [[i, f"{i:03}", 0, i % 2, center, center, i % 2, 32 * i, 64 * i] for i, center in enumerate((0, 0, 1, 2))]
    archives.write_csv(
        folder / "metadata.csv",
        ["", "patient", "node", "tumor", "center", "slide", "split", "x_coord", "y_coord"],
        rows,
    )
    return [f"patches/patient_{row[1]}_node_0/patch_patient_{row[1]}_node_0_x_{row[7]}_y_{row[8]}.png" for row in rows]


def _rxrx1(folder):
    rows = [
        ["HUVEC", f"HUVEC-0{i}", split, 1, "B02", 1 + i % 2, i % 2]
        for i, split in enumerate(("train", "train", "val", "test"))
    ]
    archives.write_csv(
        folder / "metadata.csv", ["cell_type", "experiment", "dataset", "plate", "well", "site", "sirna_id"], rows
    )
    return [f"images/{row[1]}/Plate1/B02_s{row[5]}.png" for row in rows]


def _fmow(folder):
    years = {"train": 2010, "val": 2014, "test": 2017}
    rows = [[split, "airport", f"{year}-05-06T07:08:09Z", "USA"] for split, year in years.items()] * 40 + [
        ["seq", "airport", "2012-01-01T00:00:00Z", "USA"]
    ]
    archives.write_csv(folder / "rgb_metadata.csv", ["split", "category", "timestamp", "country_code"], rows)
    archives.write_csv(folder / "country_code_mapping.csv", ["alpha-3", "region"], [["USA", "Americas"]])
    return [f"images/rgb_img_{i}.png" for i in range(120)]


@pytest.mark.filterwarnings("ignore:Minimum metadata value")
@pytest.mark.parametrize(
    "name, make", [("iwildcam", _iwildcam), ("camelyon17", _camelyon17), ("rxrx1", _rxrx1), ("fmow", _fmow)]
)
def test_the_images_of_the_other_sets_of_wilds_are_looked_for_where_the_loader_reads_them(tmp_path, name, make):
    release = RELEASES[name]
    folder = tmp_path / release.folder
    archives.write(folder / release.release_file, b"x")
    images = make(folder)
    for number, image in enumerate(images):
        archives.write(folder / image, archives.jpeg(number))
    finding = examine(release, tmp_path, decode=True)
    assert finding.state == "present", finding
    (folder / images[2]).unlink()
    finding = examine(release, tmp_path)
    assert finding.state == "incomplete" and f"row 2: {folder / images[2]} (missing)" in finding.words


def test_without_wilds_it_says_what_to_install(tmp_path, monkeypatch):
    archives.write(tmp_path / "waterbirds_v1.0" / "RELEASE_v1.0.txt", b"x")
    archives.write(tmp_path / "waterbirds_v1.0" / "metadata.csv", b"x")
    monkeypatch.setitem(sys.modules, "wilds", None)
    finding = examine(RELEASES["waterbirds"], tmp_path)
    assert finding.state == "incomplete" and "pip install wilds" in finding.words


def test_the_published_counts_add_up_to_the_published_totals():
    totals = {
        "waterbirds": 11788,
        "celebA": 202599,
        "iwildcam": 203029,
        "camelyon17": 455954,
        "rxrx1": 125510,
        "fmow": 141696,
        "VLCS": 10729,
        "PACS": 9991,
        "OfficeHome": 15588,
        "DomainNet": 586575,
        "TerraIncognita": 24330,
        "imagenet9": 57555,
    }
    assert {name: sum(release.counts.values()) for name, release in RELEASES.items()} == totals


def test_the_counts_of_vlcs_are_those_of_domainbeds_list_of_files(domainbed):
    with open(domainbed / "domainbed" / "misc" / "vlcs_files.txt") as file:
        environments = [line.split()[-1].split("/")[1] for line in csv.reader(file, delimiter="\n") for line in line]
    assert {name: environments.count(name) for name in set(environments)} == RELEASES["VLCS"].counts


@pytest.mark.parametrize(
    "package, words", [("pandas", ["demo"]), ("PIL", ["vlcs", "--from", "."])], ids=["pandas", "PIL"]
)
def test_a_package_that_is_not_installed_is_named(tmp_path, package, words):
    code = (
        "import sys; sys.modules[sys.argv[1]] = None; from cim_plugin.data import command; from cim_plugin import cli; "
        "sys.exit(cli.main(sys.argv[2:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, package, "data", *words, "--root", "root"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and f"'{package}'" in done.stderr
        and "pip install" in done.stderr
    )
