"""What DomainBed's train script says of wrong input: one line and status 2 for our algorithms, its own words for all
others.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Callable

import pytest
import torch
from hosts import forked_host
from hosts.domainbed_input import STORED, TRAIN, Case, environments, errors_of, hparams, last_line, words_of
from hosts.forked_host import SMALL_HOST
from retired import GONE, said

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("module", ["domainbed.scripts.train", "cim_plugin.domainbed"])
def test_fresh_interpreter_says_what_a_fork_says(module, tmp_path):
    words = [*(["train"] if module == "cim_plugin.domainbed" else []), "--algorithm", "CIM", *hparams(cim_lambda=-1.0)]
    fresh, forked = (
        run(SMALL_HOST, "-m", module, *words, cwd=tmp_path) for run in (forked_host.run_fresh, forked_host.run)
    )
    assert (fresh.returncode, fresh.stdout, fresh.stderr) == (forked.returncode, forked.stdout, forked.stderr)
    assert fresh.returncode == 2
