"""What DomainBed's train script says of wrong input: one line and status 2 for our algorithms, its own words for all
others.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import subprocess
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
import torch
import torchvision
from hosts import forked_host
from hosts.forked_host import SMALL_HOST
from PIL import Image
from retired import GONE, said

from cim_plugin.hosts import train_script
from cim_plugin.hosts.domainbed.adapter import faults

pytestmark = pytest.mark.slow

TRAIN = ("-m", "domainbed.scripts.train")


class Case(NamedTuple):
    algorithm: str
    words: tuple[str, ...]  #: of the command line
    said: tuple[str, ...]  #: what the line must name: the value, and the fix
    data: Callable[[Path], None] | None = None  #: fills the data folder, which is then given


def hparams(**values) -> tuple[str, ...]:
    return ("--hparams", json.dumps(values))


def environments(folder: Path, sizes=(16, 16, 16), shape=(3, 28, 28), labels=(0, 1)) -> None:
    """Store environments of these sizes for the small host; the labels alternate."""
    stored = [(torch.rand(size, *shape), torch.tensor(labels).repeat(size)[:size]) for size in sizes]
    torch.save(stored, folder / "environments.pt")


def images(**properties) -> Callable[[Path], None]:
    return functools.partial(environments, **properties)


def stored(x: Callable = lambda x: x, y: Callable = lambda y: y, shape=(3, 28, 28)) -> Callable[[Path], None]:
    """Environments of smooth images in [0, 1] and labels 0 and 1, changed by ``x`` and ``y``."""

    def write(folder: Path) -> None:
        images = torch.linspace(0, 1, shape[-1]).expand(16, *shape).contiguous()
        torch.save([(x(images), y(torch.tensor([0, 1]).repeat(8)))] * 3, folder / "environments.pt")

    return write


def smaller_than_declared(folder: Path) -> None:
    """The small host declares the shape of the first environment, which is the test environment."""
    environments(folder)
    first, *others = torch.load(folder / "environments.pt")
    torch.save([first, *((images[:, :, :14, :14], labels) for images, labels in others)], folder / "environments.pt")


def file_in_the_way(folder: Path) -> None:
    environments(folder)
    (folder / "file").write_text("not a folder")


STORED = ("--dataset", "Stored")

CHOICES = {
    "cim_pairs": ("cross_fit", "'random' or 'cross_environment'"),
    "cim_targets": ("output", "'input' or 'morphed'"),
    "cim_reading": ("inverse", "'distance' or 'similarity'"),
    "cim_mask_stride": (3, "2 or 4"),
    "cim_learning_rate": (-1e-3, "a finite number of at least 0"),
    "cim_similarity": (["ms_ssim"], "'ms_ssim' or 'colours'"),
}

WRONG_HPARAMS = {
    "unknown key near one": Case("CIM", hparams(cim_lamda=2.5), ("'cim_lamda'", "2.5", "did you mean 'cim_lambda'?")),
    "unknown key like none": Case(
        "SCL_E2E", hparams(scl_x=7), ("'scl_x'", "7", "known: scl_weight, scl_temperature, scl_pairs")
    ),
    "key of another algorithm": Case(
        "VIB", hparams(cim_lambda=1.0), ("VIB has no", "'cim_lambda'", "known: vib_beta, vib_dimension")
    ),
    "negative λ": Case("CIM", hparams(cim_lambda=-1.0), ("cim_lambda=-1.0", "at least 0")),
    "NaN λ": Case("CIM", hparams(cim_lambda=float("nan")), ("cim_lambda=nan", "finite number")),
    "infinite λ": Case("CIM_VIB", hparams(cim_lambda=float("inf")), ("cim_lambda=inf", "finite number")),
    "text as λ": Case("CIM", hparams(cim_lambda="1.0"), ("cim_lambda='1.0'", "finite number", "default 1.0")),
    "truth value as λ": Case("CIM", hparams(cim_lambda=True), ("cim_lambda=True", "finite number")),
    "null as λ": Case("CIM", hparams(cim_lambda=None), ("cim_lambda=None", "finite number")),
    **{
        f"wrong {key}": Case("CIM", hparams(**{key: value}), (f"{key}={value!r}", options))
        for key, (value, options) in CHOICES.items()
    },
    "negative β": Case("CIM_VIB", hparams(vib_beta=-0.1), ("vib_beta=-0.1", "at least 0")),
    "code of length 0": Case("VIB", hparams(vib_dimension=0), ("vib_dimension=0", "whole number of at least 1")),
    "code of length 2.5": Case("CIM_VIB", hparams(vib_dimension=2.5), ("vib_dimension=2.5", "whole number")),
    "temperature 0": Case("SCL_E2E", hparams(scl_temperature=0), ("scl_temperature=0", "above 0")),
    "NaN weight": Case("SCL_E2E", hparams(scl_weight=float("nan")), ("scl_weight=nan", "finite number")),
    **{
        f"{key} of {value!r:.20}": Case("VIB", hparams(**{key: value}), (f"{key}={value!r:.20}", expected))
        for key, value, expected in (
            ("lr", "0.001", "a finite number of at least 0"),
            ("lr", -1, "a finite number of at least 0"),
            ("lr", float("nan"), "a finite number of at least 0"),
            ("lr", None, "a finite number of at least 0"),
            ("lr", {"value": 0.1}, "a finite number of at least 0"),
            ("lr", True, "a finite number of at least 0"),
            ("weight_decay", -0.1, "a finite number of at least 0"),
            ("nonlinear_classifier", "no", "true or false"),
            ("batch_size", -1, "a whole number of at least 1"),
            ("batch_size", 1.5, "a whole number of at least 1"),
            ("batch_size", None, "a whole number of at least 1"),
            ("batch_size", True, "a whole number of at least 1"),
            ("vib_beta", "0.5", "a finite number of at least 0"),
            ("vib_beta", 10**400, "a finite number of at least 0"),
            ("vib_dimension", 10**20, "is too large; give at most 65536"),
        )
    },
    "host's key near one": Case(
        "CIM", hparams(batchsize=8), ("CIM has no", "'batchsize'", "did you mean 'batch_size'?")
    ),
    "hparams nested without end": Case("CIM", ("--hparams", "[" * 100_000), ("--hparams '[[[", "cannot be read")),
    "no steps": Case("CIM", ("--steps", "0"), ("--steps 0 is not", "at least 1")),
    "negative steps": Case("SCL_E2E", ("--steps", "-1"), ("--steps -1 is not", "at least 1")),
    "holdout above 1": Case("CIM", ("--holdout_fraction", "1.5"), ("--holdout_fraction 1.5 is not", "from 0 to 1")),
    "negative holdout": Case("CIM", ("--holdout_fraction", "-0.2"), ("--holdout_fraction -0.2", "from 0 to 1")),
    "batch of 0": Case("CIM", hparams(batch_size=0), ("batch_size=0", "at least 1")),
    "text as batch size": Case("VIB", hparams(batch_size="8"), ("batch_size='8'", "whole number")),
    "hparams that are not JSON": Case(
        "CIM", ("--hparams", "cim_lambda=1"), ("'cim_lambda=1' is not JSON", '{"cim_lambda": 0.5}')
    ),
    "hparams that are a list": Case("CIM", ("--hparams", "[1]"), ("'[1]' is not a JSON object", '{"cim_lambda": 0.5}')),
    "hparams that are a number": Case("VIB", ("--hparams", "3"), ("'3' is not a JSON object", '{"cim_lambda": 0.5}')),
    "hparams that are a word": Case("VIB", ("--hparams", '"word"'), ("is not a JSON object", '{"cim_lambda": 0.5}')),
    "cross_environment with one environment": Case(
        "CIM",
        ("--test_envs", "0", "1", *hparams(cim_pairs="cross_environment")),
        ("cross_environment", "at least 2 training environments, 1 here", "use 'random'"),
    ),
    **{f"retired {name}": Case("CIM", hparams(**{name: GONE[name][0]}), (said(name),)) for name in GONE},
    "no pretrained weights": Case(
        "CIM", hparams(offline=True), ("CIM: the pretrained weights", "no network", "put the file into")
    ),
}

WRONG_DATA = {
    "environment smaller than the batch": Case(
        "CIM",
        (*STORED, *hparams(batch_size=8)),
        ("5 images", "batch_size=8", '{"batch_size": 5}'),
        images(sizes=(16, 16, 5)),
    ),
    "empty environment": Case(
        "SCL_E2E", STORED, ("environment of Stored has no images", "add images"), images(sizes=(16, 16, 0))
    ),
    "label above the classes": Case("CIM", STORED, ("label 2", "2 classes", "from 0 to 1"), images(labels=(0, 2))),
    "negative label": Case("VIB", STORED, ("label -1", "from 0 to 1"), images(labels=(-1, 1))),
    "unsupported size": Case("CIM", STORED, ("33x47", "28x28, 32x32 and 224x224"), images(shape=(3, 33, 47))),
    "image below the window": Case("VIB", STORED, ("10x10", "28x28, 32x32 and 224x224"), images(shape=(3, 10, 10))),
    "four channels": Case("CIM", STORED, ("1 to 3 channels", "4 were given"), images(shape=(4, 28, 28))),
    "images smaller than declared": Case(
        "CIM", STORED, ("CIM: the images have the shape (3, 14, 14)", "input_shape (3, 28, 28)"), smaller_than_declared
    ),
    "pixels from 0 to 255": Case(
        "CIM", STORED, ("from 0 to 255", "taken as pixels in [0, 1]", "divide them by 255"), stored(lambda x: x * 255)
    ),
    "pixels from -1 to 1": Case(
        "CIM_VIB", STORED, ("from -1 to 1", "pixels in [0, 1]", "(x + 1) / 2"), stored(lambda x: 2 * x - 1)
    ),
    "pixels that nobody normalised": Case(
        "CIM", STORED, ("from 0 to 1", "ImageNet-normalised", "normalise them by mean"), stored(shape=(3, 224, 224))
    ),
    "pixels that are NaN": Case("CIM", STORED, ("not a finite number", "remove"), stored(lambda x: x * torch.nan)),
    "images of uint8": Case(
        "VIB", STORED, ("images are uint8", "images.float() / 255"), stored(lambda x: (x * 255).byte())
    ),
    "labels in a column": Case("CIM", STORED, ("shape (8, 1)", "reshape(-1)"), stored(y=lambda y: y[:, None])),
    "one-hot labels": Case("VIB", STORED, ("argmax(1)",), stored(y=torch.nn.functional.one_hot)),
    "label that is NaN": Case("CIM", STORED, ("float32", "nan", "whole number"), stored(y=lambda y: y * torch.nan)),
    "label that is a half": Case("SCL_E2E", STORED, ("float64", "0.5"), stored(y=lambda y: y.double() / 2)),
    "vectors": Case("CIM_VIB", STORED, ("shape (10,)", "choose one of images"), images(shape=(10,))),
}

WRONG_WORDS = {
    "no data_dir": Case("CIM", STORED, ("--dataset Stored needs --data_dir",)),
    "data_dir that does not exist": Case(
        "CIM",
        (*STORED, "--data_dir", "/no/such/folder"),
        ("/no/such/folder/environments.pt does not exist", "must hold Stored"),
    ),
    "data_dir without the data set": Case(
        "VIB", STORED, ("environments.pt does not exist", "must hold Stored"), lambda folder: None
    ),
    "unknown dataset": Case("CIM", ("--dataset", "Debug29"), ("'Debug29'", "Debug28, Stored, DebugDigitsOnPhotos")),
    "test environment that does not exist": Case(
        "CIM", ("--test_envs", "7"), ("--test_envs 7", "Debug28 has environments 0 to 2")
    ),
    "negative test environment": Case(
        "CIM", ("--test_envs", "0", "-1"), ("--test_envs 0 -1: -1", "environments 0 to 2")
    ),
    "test environment named twice": Case("SCL_E2E", ("--test_envs", "1", "1"), ("--test_envs 1 1", "at most once")),
    "no training environment": Case(
        "CIM", ("--test_envs", "0", "1", "2"), ("--test_envs 0 1 2 leaves no environment", "fewer than 3")
    ),
    "output_dir that is a file": Case(
        "CIM", (*STORED, "--output_dir", "file"), ("--output_dir file", "choose another folder"), file_in_the_way
    ),
    "output_dir below a file": Case(
        "CIM",
        (*STORED, "--output_dir", "file/sub/out"),
        ("--output_dir file/sub/out", "choose another folder"),
        file_in_the_way,
    ),
}

CASES = {**WRONG_HPARAMS, **WRONG_DATA, **WRONG_WORDS}


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

#: input that runs, and what the one warning says
WARNINGS = {
    "one class only": Case(
        "CIM", (*STORED, "--steps", "3"), ("none of the 16 images", "L_con is 0"), images(labels=(1,))
    ),
    "batch of one": Case(
        "CIM_VIB",
        ("--test_envs", "0", "1", "--steps", "3", *hparams(batch_size=1)),
        ("none of the 1 images", "L_con is 0"),
    ),
    "resnet18 overridden": Case(
        "SCL_E2E",
        (*STORED, "--steps", "1", *hparams(resnet18=True, resnet50_augmix=True)),
        ("resnet18=true has no effect", '"resnet50_augmix": false'),
        images(shape=(3, 224, 224), sizes=(8, 8)),
    ),
}


def words_of(case: Case, algorithm: str, folder: Path) -> tuple[str, ...]:
    if case.data is None:
        return (*TRAIN, "--algorithm", algorithm, *case.words)
    case.data(folder)
    return (*TRAIN, "--algorithm", algorithm, "--data_dir", str(folder), *case.words)


def errors_of(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error:")]


def last_line(done: subprocess.CompletedProcess) -> str:
    """Where the host's Tee is at work, its errors are on the standard output."""
    return (done.stderr or done.stdout).splitlines()[-1]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_wrong_input_is_one_line_that_names_value_and_fix(case, tmp_path):
    done = forked_host.run(SMALL_HOST, *words_of(case, case.algorithm, tmp_path), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == errors_of(done) and len(errors_of(done)) == 1
    for words in case.said:
        assert words in done.stderr


@pytest.mark.parametrize("case", WARNINGS.values(), ids=WARNINGS.keys())
def test_odd_input_runs_with_one_warning(case, tmp_path):
    done = forked_host.run(SMALL_HOST, *words_of(case, case.algorithm, tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning:") == 1
    for words in case.said:
        assert words in done.stderr
    losses = [json.loads(line)["loss"] for line in done.stdout.splitlines() if line.startswith("{")]
    assert losses and all(abs(loss) < 1e6 for loss in losses)


@pytest.mark.parametrize("kind", ["int32", "uint8", "bool", "float32", "float64"])
def test_labels_of_any_type_train_as_int64(kind, tmp_path):
    lines = []
    for dtype in ("int64", kind):
        stored(y=lambda y, dtype=dtype: y.to(getattr(torch, dtype)))(tmp_path)
        done = forked_host.run(SMALL_HOST, *TRAIN, "--algorithm", "CIM", *STORED, "--data_dir", str(tmp_path))
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout)
    assert lines[0] == lines[1]


@pytest.mark.parametrize("algorithm", ["CIM", "CIM_VIB", "VIB", "SCL_E2E"])
def test_a_loss_that_is_nan_ends_the_run_with_status_1_and_one_line(algorithm, tmp_path):
    environments(tmp_path)
    words = (*STORED, "--data_dir", str(tmp_path), "--steps", "9", *hparams(lr=1e30))
    done = forked_host.run(SMALL_HOST, *TRAIN, "--algorithm", algorithm, *words, cwd=tmp_path)
    assert done.returncode == 1 and len(errors_of(done)) == 1 and "Traceback" not in done.stderr
    n_good = sum(line.startswith("{") for line in done.stdout.splitlines())
    assert f"error: {algorithm}: the loss is not finite at step {n_good} (" in done.stderr and n_good < 9
    assert "NaN" not in done.stdout and "Try a smaller lr, with another --output_dir" in done.stderr


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


def test_the_script_started_by_its_path_has_the_guards(host, tmp_path):
    words = ["train", "--algorithm", "CIM", "--dataset", "DebugDigitsOnPhotos", *hparams(batch_size=5000)]
    script = str(host / "domainbed" / "scripts" / "train.py")
    code = f"import runpy, sys; sys.argv = {words}; runpy.run_path({script!r}, run_name='__main__')"
    done = forked_host.run(host, "-c", code, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and len(errors_of(done)) == 1 and "fewer than batch_size=5000" in done.stderr


@pytest.mark.parametrize("case", {**CASES, **WARNINGS}.values(), ids={**CASES, **WARNINGS}.keys())
def test_erm_with_the_same_input_behaves_as_in_the_host_alone(case, tmp_path):
    words = words_of(case, "ERM", tmp_path)
    on, off = (forked_host.run(SMALL_HOST, *words, cwd=tmp_path, CIM_PLUGIN_AUTOLOAD=state) for state in "10")
    assert (on.returncode, on.stdout) == (off.returncode, off.stdout)
    assert on.stderr.splitlines()[-1:] == off.stderr.splitlines()[-1:]  # the lines before it are a traceback's
    assert not errors_of(on) and "cim_plugin" not in off.stderr


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


MISSPELT = {"CIM_NOPE": "CIM", "cim": "CIM", "Cim_vib": "CIM_VIB", "CIM-VIB": "CIM_VIB", "SCL": "SCL_E2E", "vib": "VIB"}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_algorithm_is_one_line_before_any_data_is_loaded(name, host, tmp_path):
    """With a batch larger than an environment the host would wait for ever."""
    words = ("--algorithm", name, "--dataset", "Debug28", "--data_dir", "/no/such/folder", *hparams(batch_size=1000))
    done = forked_host.run(host, *TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 2 and len(errors_of(done)) == 1
    assert f"--algorithm {name!r} is not" in done.stderr and f"did you mean {MISSPELT[name]!r}?" in done.stderr


def test_an_unknown_algorithm_gets_the_hosts_words(host, tmp_path):
    done = forked_host.run(host, *TRAIN, "--algorithm", "Nobody", "--dataset", "DebugDigitsOnPhotos", cwd=tmp_path)
    assert done.returncode == 1 and not errors_of(done)
    assert last_line(done) == "NotImplementedError: Algorithm not found: Nobody"


def test_unknown_fault_keeps_its_traceback(tmp_path):
    (tmp_path / "environments.pt").write_bytes(b"no file of torch")
    words = ("--algorithm", "CIM", *STORED, "--data_dir", str(tmp_path))
    done = forked_host.run(SMALL_HOST, *TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 1 and not errors_of(done)
    assert "Traceback" in done.stderr and "UnpicklingError" in done.stderr


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


@pytest.mark.parametrize("module", ["domainbed.scripts.train", "cim_plugin.domainbed"])
def test_fresh_interpreter_says_what_a_fork_says(module, tmp_path):
    words = [*(["train"] if module == "cim_plugin.domainbed" else []), "--algorithm", "CIM", *hparams(cim_lambda=-1.0)]
    fresh, forked = (
        run(SMALL_HOST, "-m", module, *words, cwd=tmp_path) for run in (forked_host.run_fresh, forked_host.run)
    )
    assert (fresh.returncode, fresh.stdout, fresh.stderr) == (forked.returncode, forked.stdout, forked.stderr)
    assert fresh.returncode == 2
