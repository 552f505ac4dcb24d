"""What is missing or wrong is said in one line with status 2, before anything is trained."""

from __future__ import annotations

import pytest
from stand_ins import SMALL_SWEEP, reproduce, write_imagenet9, write_vlcs


def refusal(experiment: str, *words: str, cwd, **more) -> str:
    """The one line."""
    done = reproduce(experiment, *words, cwd=cwd, **more)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and not (cwd / "reproduction").exists()
    assert line.startswith(f"scripts/reproduce/{experiment}: error: ")
    return line


@pytest.mark.parametrize("name", ["waterbirds", "celebA"])
def test_absent_release_names_the_command_that_gets_it(name, tmp_path):
    line = refusal(name, "--data", "my data", cwd=tmp_path)
    assert f"{name} is absent: get it with: cim-plugin data get {name} --root" in line and "--root 'my data'" in line


def test_vlcs_needs_domainbed(tmp_path):
    assert "'cim-plugin get-domainbed' fetches it" in refusal("vlcs", cwd=tmp_path)


def test_vlcs_needs_its_images(tmp_path):
    assert "VLCS is absent: get it with: cim-plugin data get VLCS --root data" in refusal(
        "vlcs", cwd=tmp_path, host=SMALL_SWEEP
    )
    write_vlcs(tmp_path / "data", n_images=1)
    (tmp_path / "data" / "VLCS" / "SUN09" / "dog").rename(tmp_path / "data" / "VLCS" / "SUN09" / "puppy")
    line = refusal("vlcs", cwd=tmp_path, host=SMALL_SWEEP)
    assert "VLCS is incomplete" in line and "'puppy'" in line


def test_vlcs_needs_pretrained_weights(tmp_path):
    write_vlcs(tmp_path / "data", n_images=1)
    line = refusal("vlcs", "--quick", cwd=tmp_path, host=SMALL_SWEEP)
    assert (
        "the pretrained weights of resnet18, which could not be downloaded" in line
        and f"{tmp_path}/torch/hub/checkpoints" in line
    )
    assert "the pretrained weights of resnet50," in refusal("vlcs", "--published-setup", cwd=tmp_path, host=SMALL_SWEEP)


def test_background_challenge_needs_its_variants(tmp_path):
    line = refusal("background_challenge", cwd=tmp_path)
    assert f"{tmp_path}/data/imagenet9/mixed_rand/val: not there; 'cim-plugin data get imagenet9" in line
    write_imagenet9(tmp_path / "in9", n_training=1, n_test=1)
    line = refusal("background_challenge", "--data", "in9", "--training_set", "in9l", cwd=tmp_path)
    assert f"{tmp_path}/in9/in9l/train: not there" in line
    (tmp_path / "in9" / "mixed_same" / "val" / "01_bird" / "fg_0.JPEG").unlink()
    assert "mixed_same/val/01_bird holds no images" in refusal("background_challenge", "--data", "in9", cwd=tmp_path)
    (tmp_path / "in9" / "mixed_same" / "val" / "01_bird").rename(tmp_path / "in9" / "only_fg" / "val" / "03_cat")
    write_imagenet9(tmp_path / "in9", n_training=1, n_test=1)
    assert "only_fg/val/03_cat is a class that the training set does not have" in refusal(
        "background_challenge", "--data", "in9", cwd=tmp_path
    )


def test_colored_mnist_needs_all_four_files(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").touch()
    assert "train-images-idx3-ubyte.gz is not there" in refusal("colored_mnist", cwd=tmp_path)
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_text("<html>not found</html>")
    assert "train-images-idx3-ubyte.gz cannot be read (Not a gzipped file" in refusal("colored_mnist", cwd=tmp_path)


def test_a_folder_that_is_named_has_to_hold_mnist(tmp_path):
    assert "--data nowhere has no file of MNIST" in refusal("colored_mnist", "--data", "nowhere", cwd=tmp_path)


@pytest.mark.parametrize(
    "experiment, words, said",
    [
        ("vlcs", ["--epochs", "3"], "unrecognized arguments: --epochs 3"),
        ("waterbirds", ["--algorithms", "DANN"], "invalid choice: 'DANN'"),
        ("waterbirds", ["--seed", "3"], "--seed cannot be given"),
        ("colored_mnist", ["--cim_lambda=-1"], "cim_lambda=-1.0 is not a finite number of at least 0"),
    ],
)
def test_wrong_flag(experiment, words, said, tmp_path):
    write_vlcs(tmp_path / "data", n_images=1)
    assert said in refusal(experiment, *words, cwd=tmp_path, host=SMALL_SWEEP)


def test_unknown_flag_of_a_training_is_said_in_one_line(tmp_path):
    done = reproduce("celebA", "--lerning_rate", "1", cwd=tmp_path)
    assert (
        done.returncode == 2
        and done.stderr
        == "cim-plugin train: error: unrecognized arguments: --lerning_rate 1; see 'cim-plugin train --help'\n"
    )
