"""What DomainBed's train script says where its own data sets and workers meet wrong input, or data are missing."""

from __future__ import annotations

import argparse
import functools
import http.client
from pathlib import Path
from typing import Callable

import pytest
import torch
import torchvision
from hosts import forked_host
from hosts.domainbed_input import TRAIN, Case, errors_of, hparams, last_line, words_of
from PIL import Image

from cim_plugin.hosts import train_script
from cim_plugin.hosts.domainbed.adapter import faults

pytestmark = pytest.mark.slow


def pacs(folder: Path, **classes_of: list[str]) -> None:
    """A folder in PACS' layout: environment -> the images' names, below one class. A name with "broken" in it is no
    image.
    """
    for environment, names in classes_of.items():
        (folder / "PACS" / environment).mkdir(parents=True)
        for name in names:
            file = folder / "PACS" / environment / name
            file.parent.mkdir(exist_ok=True)
            if "broken" in name:
                file.write_text("this is no image")
            else:
                Image.new("RGB", (32, 32), "green").save(file)


def pictures(**classes_of: list[str]) -> Callable[[Path], None]:
    return functools.partial(pacs, **classes_of)


def folder_in_place_of_results(folder: Path) -> None:
    (folder / "out" / "results.jsonl").mkdir(parents=True)


def nothing(folder: Path) -> None:
    """The data folder stays empty."""


GOOD = [f"dog/{number}.jpg" for number in range(5)]


def broken_pictures(folder: Path) -> None:
    """A training environment without one readable image, and a ResNet-18 where torch.hub looks first."""
    pacs(folder, art=GOOD, photo=[f"dog/broken{number}.jpg" for number in range(5)])
    checkpoints = folder / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(
        torchvision.models.resnet18().state_dict(),
        checkpoints / Path(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url).name,
    )


SIXTEEN = ("--dataset", "Debug28", *hparams(batch_size=4))  # images per environment


#: these need DomainBed's own data sets, splits and workers
REAL_CASES = {
    "MNIST without data_dir": Case("CIM", ("--dataset", "ColoredMNIST"), ("--dataset ColoredMNIST needs --data_dir",)),
    "PACS without data_dir": Case("CIM", ("--dataset", "PACS"), ("--dataset PACS needs --data_dir",)),
    "MNIST that cannot be downloaded": Case(
        "VIB", ("--dataset", "ColoredMNIST"), ("ColoredMNIST is not in --data_dir", "Connection refused"), nothing
    ),
    "no PACS in data_dir": Case(
        "CIM",
        ("--dataset", "PACS"),
        ("PACS/ does not exist", "must hold PACS", "get it with: cim-plugin data get PACS --root"),
        nothing,
    ),
    "no Camelyon in data_dir": Case(
        "CIM", ("--dataset", "WILDSCamelyon"), ("must hold WILDSCamelyon", "cim-plugin data get camelyon17"), nothing
    ),
    "environment without classes": Case(
        "CIM",
        ("--dataset", "PACS"),
        ("find any class folder", "cartoon", "must hold PACS"),
        pictures(art=GOOD, cartoon=[]),
    ),
    "class without images": Case(
        "CIM",
        ("--dataset", "PACS"),
        ("no valid file for the classes cat", "must hold PACS"),
        pictures(art=["cat/notes.broken"]),
    ),
    "no unlabeled images": Case(
        "CIM", (*SIXTEEN, "--task", "domain_adaptation"), ("--uda_holdout_fraction 0", "larger")
    ),
    "no validation images": Case(
        "CIM_VIB", (*SIXTEEN, "--holdout_fraction", "0"), ("Debug28 has no images", "--holdout_fraction than 0")
    ),
    "no training images": Case(
        "CIM_VIB", (*SIXTEEN, "--holdout_fraction", "1"), ("Debug28 has no images", "--holdout_fraction than 1")
    ),
    "image that is none": Case(
        "CIM",
        ("--dataset", "PACS", *hparams(resnet18=True, resnet50_augmix=False, batch_size=2)),
        ("an image cannot be read", "photo/dog/broken", "replace or remove the file"),
        broken_pictures,
    ),
    "results that cannot be written": Case(
        "VIB",
        ("--dataset", "DebugDigitsOnPhotos", "--steps", "1"),
        ("--output_dir out", "results.jsonl", "choose another folder"),
        folder_in_place_of_results,
    ),
    "unlabeled images below the batch": Case(
        "SCL_E2E",
        (*SIXTEEN, "--task", "domain_adaptation", "--uda_holdout_fraction", "0.2"),
        ("has 2 images", "batch_size=4", '{"batch_size": 2}'),
    ),
}


ENDLESS_OR_SLOW = {"unlabeled images below the batch", "image that is none", "results that cannot be written"}


@pytest.mark.host
@pytest.mark.parametrize(
    "algorithm, values, said",
    [("CIM", {"lr": 1e30}, "a smaller lr"), ("CIM+CORAL", {"batch_size": 1}, "a larger batch_size")],
)
def test_domainbed_writes_no_record_of_what_is_not_finite_and_no_done(algorithm, values, said, domainbed, tmp_path):
    words = ("--algorithm", algorithm, "--dataset", "DebugDigitsOnPhotos", "--steps", "3", "--output_dir", "out")
    done = forked_host.run(domainbed, *TRAIN, *words, *hparams(**values), cwd=tmp_path)
    assert done.returncode == 1 and len(errors_of(done)) == 1 and "Traceback" not in done.stdout + done.stderr
    assert "not finite" in errors_of(done)[0] and said in errors_of(done)[0]
    assert not {"done", "model.pkl", "results.jsonl"} & {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.host
@pytest.mark.parametrize("case", REAL_CASES.values(), ids=REAL_CASES.keys())
def test_wrong_input_to_domainbed_is_one_line_on_the_standard_error(case, domainbed, tmp_path):
    words = (*words_of(case, case.algorithm, tmp_path), "--output_dir", "out")
    done = forked_host.run(domainbed, *words, cwd=tmp_path, TORCH_HOME=str(tmp_path))
    assert done.returncode == 2, done.stdout
    assert len(errors_of(done)) == 1 and "Traceback" not in done.stdout + done.stderr
    for words in case.said:
        assert words in errors_of(done)[0]
    assert "download=True" not in errors_of(done)[0]  # a library's advice for its own users
    assert errors_of(done)[0] in (tmp_path / "out" / "err.txt").read_text().splitlines()


@pytest.mark.host
@pytest.mark.parametrize("name", sorted(REAL_CASES.keys() - ENDLESS_OR_SLOW))
def test_erm_with_wrong_input_to_domainbed_behaves_as_in_the_host_alone(name, domainbed, tmp_path):
    words = words_of(REAL_CASES[name], "ERM", tmp_path)
    on, off = (forked_host.run(domainbed, *words, cwd=tmp_path, CIM_PLUGIN_AUTOLOAD=state) for state in "10")
    assert on.returncode == off.returncode == 1
    assert last_line(on) == last_line(off) and not errors_of(on)


def said_of(error: Exception, data_dir: str | None, dataset: str = "PACS") -> str:
    args = argparse.Namespace(algorithm="CIM", dataset=dataset, data_dir=data_dir, output_dir="out", hparams=None)
    return next(say(error, args) for known, say in faults._FAULTS if known(error, args))


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "Connection reset by peer")]
)
def test_a_broken_connection_is_a_failed_download_only_in_a_library_that_fetches(error):
    """A reader that has ended, as in "train | head", and a data loader's worker break connections, too."""
    try:
        raise error
    except OSError as caught:
        assert said_of(caught, "data") == error.strerror and not train_script.is_failed_download(caught)
    try:
        http.client.HTTPConnection("127.0.0.1", 9).connect()
    except OSError as caught:
        assert train_script.is_failed_download(
            caught
        ) and "PACS is not in --data_dir data and cannot be downloaded" in said_of(caught, "data")
        wrapped = RuntimeError("while fetching")
        wrapped.__cause__ = caught
        assert train_script.is_failed_download(wrapped)


@pytest.mark.parametrize(
    "dataset, said",
    [
        (
            "OfficeHome",
            "; get it with: cim-plugin data get OfficeHome --root 'my data' (1.2 GB from flwrlabs/office-home",
        ),
        ("WILDSCamelyon", "; get it with: cim-plugin data get camelyon17 --root 'my data'"),
        ("WILDSFMoW", "; it cannot be got by a command: the one mirror with WILDS' files"),
        ("SVIRO", "must hold SVIRO in DomainBed's layout"),
    ],
)
def test_a_data_set_that_is_not_there_is_said_how_to_get(dataset, said):
    line = said_of(FileNotFoundError("the data set could not be found."), "my data", dataset)
    assert said in line and "\n" not in line and line.endswith(said) == (dataset == "SVIRO")


def test_a_missing_file_is_of_the_data_only_where_it_can_be(tmp_path):
    of_data = f"--data_dir {tmp_path} must hold PACS"
    elsewhere = FileNotFoundError(2, "No such file or directory", str(tmp_path.parent / "weights.pth"))
    assert said_of(elsewhere, str(tmp_path)) == f"{tmp_path.parent / 'weights.pth'}: No such file or directory"
    assert said_of(elsewhere, None) == said_of(elsewhere, str(tmp_path))
    assert of_data in said_of(
        FileNotFoundError(2, "No such file or directory", str(tmp_path / "PACS" / "art")), str(tmp_path)
    )
    assert of_data in said_of(FileNotFoundError("Couldn't find any class folder"), str(tmp_path))
    try:
        exec("open('/no/such/file')", {"__name__": "domainbed.datasets"})
    except FileNotFoundError as error:
        assert of_data in said_of(error, str(tmp_path))
