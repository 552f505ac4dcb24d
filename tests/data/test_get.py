"""``cim-plugin data get``: small mirrors in the schemas of the real ones, by the real clients, opened by the hosts' own
loaders.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import shlex
import signal
import sys
from pathlib import Path

import pytest
import small_archives as archives

pytest.importorskip("wilds")
pytest.importorskip("pyarrow", reason="data sets of the Hub are parquet files")
pytest.importorskip("pooch", reason="data sets at plain addresses come by it")

import small_mirrors as mirrors_of  # noqa: E402

from cim_plugin import cli  # noqa: E402
from cim_plugin.data import conversion, manifest  # noqa: E402
from cim_plugin.data.check import examine  # noqa: E402
from cim_plugin.data.get import get  # noqa: E402
from cim_plugin.data.releases import RELEASES  # noqa: E402
from cim_plugin.data.sources import SOURCES  # noqa: E402
from cim_plugin.errors import InputError  # noqa: E402

NAMES = [*mirrors_of.HUB, *mirrors_of.ADDRESSES]
ROOT = Path("root")


def total(name: str) -> int:
    return sum(mirrors_of.COUNTS[name].values())


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_there_complete_and_the_loader_opens_it(data, place, name):
    status, out, err = data("get", name, "--root", "root")
    assert status == 0, err
    assert RELEASES[name].train.format(root="root") in out.splitlines()
    finding = examine(RELEASES[name], "root", decode=True)
    assert finding.state == "present" and "as published" in finding.words
    assert all(f"{part} {count}" in finding.words for part, count in mirrors_of.COUNTS[name].items())
    assert [path.name for path in ROOT.iterdir()] == [RELEASES[name].folder]  # no download, nothing unfinished
    images = [path for path in archives.files(ROOT) if path.endswith((".jpg", ".png"))]
    assert len(images) == total(name) + 4 * (name == "imagenet9")  # a variant more than is needed


@pytest.mark.parametrize("name", [n for n in NAMES if n in ("PACS", "OfficeHome", "DomainNet", "TerraIncognita")])
def test_domainbeds_own_class_opens_it(data, place, domainbed, monkeypatch, name):
    monkeypatch.syspath_prepend(str(domainbed))
    from domainbed import datasets

    assert data("get", name, "--root", "root")[0] == 0
    opened = getattr(datasets, name)("root", [0], {"data_augmentation": True})
    assert [len(environment) for environment in opened] == [mirrors_of.COUNTS[name][n] for n in RELEASES[name].needs]
    assert opened[1][0][0].shape == (3, 224, 224) and opened.num_classes == 2


def test_getting_again_verifies_and_asks_nobody(data, place):
    data("get", "PACS", "--root", "root")
    place.asked.clear()
    assert data("get", "PACS", "--root", "root")[0] == 0 and not place.asked
    image = next(ROOT.rglob("*.jpg"))
    image.write_bytes(b"x")
    status, _, err = data("get", "PACS", "--root", "root")
    assert status == 2 and str(image) in err and not place.asked


def test_waterbirds_rows_are_the_mirrors_and_have_names_of_their_own(data, place, open_release):
    data("get", "waterbirds", "--root", "root")
    dataset = open_release("waterbirds", "root")
    assert dataset._input_array[:2].tolist() == ["train/train_000000.jpg", "train/train_000001.jpg"]
    assert dataset.y_array.tolist() == [0, 0, 1, 1] * 9 and dataset.metadata_array[:, 0].tolist() == [0, 1] * 18
    assert dataset.split_array.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    written = (RELEASES["waterbirds"].path("root") / "validation" / "validation_000005.jpg").read_bytes()
    assert written == mirrors_of.digits()[5]  # not encoded again


def test_celebas_attributes_become_signs_and_images_are_numbered_over_all_splits(data, place, open_release):
    data("get", "celebA", "--root", "root")
    folder = RELEASES["celebA"].path("root")
    with open(folder / "list_attr_celeba.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == [f"{number:06}.jpg" for number in range(1, 33)]
    assert [row["Blond_Hair"] for row in rows[:4]] == ["-1", "1", "-1", "1"]
    assert [row["Male"] for row in rows[:4]] == ["-1", "-1", "1", "1"]
    dataset = open_release("celebA", "root")
    assert dataset.split_array.tolist() == [0] * 16 + [1] * 8 + [2] * 8 and dataset.y_array[:4].tolist() == [0, 1, 0, 1]


def test_camelyon17_has_wilds_order_and_splits(data, place, open_release):
    """The mirror sorts image_id as text, and has one validation split for two of WILDS'."""
    data("get", "camelyon17", "--root", "root")
    dataset = open_release("camelyon17", "root")
    assert [path.split("_y_")[1] for path in dataset._input_array] == [f"{64 * i}.png" for i in range(18)]
    assert dataset._input_array[2].startswith("patches/patient_006_node_2/patch_patient_006_node_2_x_64")
    assert dataset.metadata_array[:, 0].tolist() == [0, 0, 3, 3, 4, 4, 0, 0, 1, 1, 3, 3, 2, 2, 2, 2, 2, 2]
    assert dataset.split_array.tolist() == [0] * 6 + [1, 1, 3, 3, 1, 1] + [2] * 6
    assert dataset.y_array.tolist() == [0, 1] * 9


def test_domainnet_keeps_the_names_of_its_files(data, place):
    """DomainBed removes duplicates by them."""
    data("get", "DomainNet", "--root", "root")
    names = sorted(path.name for path in (ROOT / "domain_net" / "clipart").rglob("*.jpg"))
    assert len(names) == 6 and all(name.startswith("clipart_0") for name in names)


def test_terra_incognita_is_what_domainbeds_script_makes(data, place):
    data("get", "TerraIncognita", "--root", "root")
    found = archives.files(ROOT / "terra_incognita")
    assert found["location_38/bird/38-0-0.jpg"] == found["location_38/cat/38-0-0.jpg"]  # shows both
    assert {path.split("/")[0] for path in found} == {*RELEASES["TerraIncognita"].needs, "ORIGIN.txt", manifest.NAME}
    assert {path.split("/")[1] for path in found if "/" in path} == {"bird", "cat"}


def test_imagenet9_has_the_released_tests_and_of_the_training_set_no_test(data, place):
    data("get", "imagenet9", "--root", "root")
    found = archives.files(ROOT / "imagenet9")
    assert {"/".join(path.split("/")[:2]) for path in found if "/" in path} == {
        "original/train",
        *(f"{kind}/val" for kind in ("original", "mixed_same", "mixed_rand", "only_fg")),
    }
    assert not any(path.startswith("original/val") and "/val_" in path for path in found)


def test_a_second_source(data, place):
    counts = {"train": 12, "val": 12, "test": 12}
    status, out, err = data("get", "waterbirds", "--source", "url", "--root", "root")
    assert status == 0 and "nlp.stanford.edu" in out, err
    assert examine(RELEASES["waterbirds"], "root").state == "present" and counts == RELEASES["waterbirds"].counts
    assert (ROOT / "waterbirds_v1.0" / "001.Bird" / "Bird_0001.jpg").is_file()


def test_kaggles_client_brings_vlcs(data, place, monkeypatch, tmp_path):
    kaggle_env = pytest.importorskip("kagglesdk.kaggle_env", reason="VLCS comes from Kaggle")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, place.address)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    status, _, err = data("get", "VLCS", "--root", "root")
    assert status == 0, err
    assert examine(RELEASES["VLCS"], "root", decode=True).state == "present"
    assert [path.name for path in ROOT.iterdir()] == ["VLCS"]


@pytest.mark.parametrize("name, most", [("waterbirds", 14), ("celebA", 14), ("camelyon17", 15), ("PACS", 9)])
def test_a_subset_has_every_group_and_says_that_it_is_one(data, place, name, most):
    status, out, err = data("get", name, "--root", "root", "--subset", most)
    assert status == 0 and "a SUBSET" in out, err
    finding = examine(RELEASES[name], "root", decode=True)
    assert finding.state == "subset"
    counts = [int(word) for word in finding.words.replace(",", "").split() if word.isdigit()]
    assert sum(counts) == most and min(counts) > 0
    status, _, err = data("get", name, "--root", "root")
    assert status == 2 and "--subset has taken" in err


def test_a_subset_smaller_than_the_number_of_groups_is_refused(data, place):
    status, _, err = data("get", "PACS", "--root", "root", "--subset", "7")
    assert status == 2 and "--subset 7 is fewer than one image for each of the 8 groups; give 8 or more" in err


@pytest.mark.parametrize("name", ["fmow", "rxrx1", "iwildcam"])
def test_what_cannot_be_had_says_why_and_what_to_do(data, name):
    status, _, err = data("get", name, "--root", "root")
    assert status == 2 and SOURCES[name].without in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "words, said",
    [
        (["get", "cifar"], "unknown data set 'cifar'; known: waterbirds, celebA"),
        (["get", "PACS", "--source", "kaggle"], "--source kaggle has no PACS; there is hf"),
    ],
)
def test_wrong_words(data, words, said):
    status, _, err = data(*words)
    assert status == 2 and said in err


@pytest.mark.parametrize("package, extra", [("huggingface_hub", "data"), ("pyarrow", "data")])
def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(data, place, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    status, _, err = data("get", "PACS", "--root", "root")
    assert status == 2 and f"package '{package}' is not installed; pip install 'cim_plugin[{extra}]'" in err


def _child(name: str, writes: int | None) -> None:
    """Get a data set in a process of its own, which kills itself when it has written so many files of the release."""
    if writes is not None:
        inner, left = conversion.write_whole, iter(range(writes))

        def last(path, content):
            if next(left, None) is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".writing-{os.getpid()}").write_bytes(content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            inner(path, content)

        conversion.write_whole = manifest.write_whole = last
    sys.exit(cli.main(["data", "get", name, "--root", "root"]))


def _in_process(name: str, writes: int | None = None) -> int:
    child = multiprocessing.get_context("fork").Process(target=_child, args=(name, writes))
    child.start()
    child.join(60)
    return child.exitcode


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", ["waterbirds", "DomainNet", "TerraIncognita"])
def test_killed_at_any_moment_it_goes_on_and_ends_as_if_it_had_not_been(place, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = RELEASES[name].path("root")
    draw = random.Random(name)
    moments = [draw.randrange(1, total(name) // 4) for _ in range(3)]  #: files written between two kills
    for count in (0, *moments):
        assert _in_process(name, count) == -signal.SIGKILL
        assert not folder.exists() and examine(RELEASES[name], "root").state == "absent"
    left = archives.files(conversion.partial(folder))
    assert len([path for path in left if "/.writing-" not in f"/{path}"]) == sum(moments)
    assert "was stopped" in examine(RELEASES[name], "root").words
    place.asked.clear()
    assert _in_process(name) == 0
    assert not any(method == "GET" and "/datasets/" in path for method, path, _ in place.asked)  # downloaded once
    resumed = archives.files(folder)
    assert examine(RELEASES[name], "root", decode=True).state == "present"
    get(name, Path("again"))
    assert archives.files(RELEASES[name].path("again")) == resumed


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_in_a_download_nothing_of_it_counts(place, tmp_path, monkeypatch):
    """The server sends half of a file, then the process that asked for it dies."""
    monkeypatch.chdir(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=_child, args=("PACS", None))

    def half(handler):
        if handler.command != "GET":
            return False
        content = handler._file(handler.path).read_bytes()
        handler.say(200, content[: len(content) // 2], {"X-Repo-Commit": "1" * 40}, length=len(content))
        handler.wfile.flush()
        child.kill()
        return True

    place.faults["train-00000-of-00001.parquet"] = half
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL and not (tmp_path / "root" / "PACS").exists()
    assert not list((tmp_path / "root").rglob("*.parquet"))
    place.faults.clear()
    get("PACS", Path("root"))
    assert examine(RELEASES["PACS"], "root", decode=True).state == "present"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["PACS"]


def test_what_a_kill_at_the_very_end_leaves_is_cleared_away(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    get("PACS", Path("root"))
    archives.write(tmp_path / "root" / ".PACS.download" / "data" / "a.parquet", b"x")
    assert get("PACS", Path("root")) == ROOT / "PACS" and [path.name for path in ROOT.iterdir()] == ["PACS"]


def test_two_processes_at_once_do_not_disturb_each_other(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with conversion.building(RELEASES["PACS"].path("root")):
        with pytest.raises(InputError, match="another process is making root/PACS; wait for it"):
            get("PACS", Path("root"))
    assert get("PACS", Path("root")) == ROOT / "PACS"


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usage = __import__("shutil").disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="root has 0.0 GB free, flwrlabs/pacs needs 1.1 GB"):
        get("PACS", Path("root"))
    assert all(method == "HEAD" or "/datasets/" not in path for method, path, _ in place.asked)


def test_the_line_that_it_ends_with_trains_on_it(data, place, monkeypatch, tmp_path):
    pytest.importorskip("lightning_fabric")
    _, out, _ = data("get", "waterbirds", "--root", "root")
    words = shlex.split(out.splitlines()[-1])
    tiny = "--model small_cnn --target_resolution 32 --batch_size 4 --n_epochs 1 --loader_kwargs num_workers=0"
    assert words[:2] == ["cim-plugin", "train"]
    assert cli.main([*words[1:], *tiny.split(), "--cache", "false", "--progress_bar", "false"]) == 0
    results = json.loads((tmp_path / "logs" / "waterbirds" / "results.json").read_text())
    assert results["config"]["dataset"] == "waterbirds" and results["synthetic"] is False


TINY = (
    "--algorithm CIM --model small_cnn --target_resolution 32 --batch_size 4 --n_epochs 1 --cache false "
    "--loader_kwargs num_workers=0 --progress_bar false"
).split()


def test_train_gets_a_missing_data_set_first_where_it_is_told_to(place, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning_fabric")
    monkeypatch.chdir(tmp_path)
    words = ["train", "-d", "waterbirds", "--root_dir", "root", "--log_dir", "logs", *TINY]
    assert cli.main(words) == 2
    assert "get it with: cim-plugin data get waterbirds --root root" in capsys.readouterr().err
    assert cli.main([*words, "--download"]) == 0
    assert examine(RELEASES["waterbirds"], "root", decode=True).state == "present"
    assert cli.main(["train", "-d", "fmow", "--root_dir", "root", "--log_dir", "b", *TINY, "--download"]) == 2
    assert SOURCES["fmow"].without in capsys.readouterr().err


def test_a_training_on_a_subset_says_so(data, place, tmp_path):
    pytest.importorskip("lightning_fabric")
    data("get", "waterbirds", "--root", "root", "--subset", "16")
    assert cli.main(["train", "-d", "waterbirds", "--root_dir", "root", "--log_dir", "logs", "--download", *TINY]) == 0
    assert "This is a SUBSET taken by 'cim-plugin data get --subset'" in (tmp_path / "logs" / "log.txt").read_text()
