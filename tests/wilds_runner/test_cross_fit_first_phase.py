"""The reference models of runs with --cross_fit: out of fold, what is refused, several processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import SIZES, prepared, read_metadata, read_model, train, words
from test_cross_fit_runs import FLAGS, PAIRS, STEPS
from test_distributed import RUN as SGD
from test_distributed import assert_same_weights, two_processes
from torch.nn.modules.module import register_module_forward_pre_hook

from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.algorithms.pseudo_environments import Found
from cim_plugin.errors import InputError
from cim_plugin.wilds_runner import cross_fit

pytestmark = pytest.mark.slow

# --- the reference models ---------------------------------------------------------------------------------------------


def test_no_model_predicts_an_image_that_it_was_trained_on(release, tmp_path):
    """Every image that a model sees is recognised by its bytes, with augmentation on: without tiles the models see
    plain images.
    """
    folder, places = release / "waterbirds_v1.0", {}
    for row in read_metadata(folder):
        split = list(SIZES)[int(row["split"])]
        places[np.asarray(Image.open(folder / row["img_filename"])).tobytes()] = (
            split,
            sum(place[0] == split for place in places.values()),
        )
    flags = ["--cross_fit_tiles", "1", "--n_epochs", "1", "--additional_train_transform", "weak"]
    loop = prepared(release, tmp_path, *FLAGS, *flags)
    models = {}  # reference model -> whether it was trained on a batch -> the images of every batch

    def record(model, arguments):
        if isinstance(model, RobustClassifier) and model is not loop.training.classifier:
            images = (arguments[0] * 255).round().byte().permute(0, 2, 3, 1).contiguous()
            seen = models.setdefault(model, {True: [], False: []})
            seen[model.training].append([places[image.numpy().tobytes()] for image in images])

    with register_module_forward_pre_hook(record):
        loop.run()
    assert len(models) == 8
    predicted = []
    for seen in models.values():
        assert [len(batch) for batch in seen[True]] == [20] * STEPS
        fitted, asked = sum(seen[True], []), sum(seen[False], [])
        assert {split for split, _ in fitted} == {"train"} and not set(fitted) & set(asked)
        assert [row for split, row in asked if split == "val"] == list(range(SIZES["val"]))
        predicted.append([row for split, row in asked if split == "train"])
    assert all(rows == predicted[0] for rows in predicted[:4]) and all(rows == predicted[4] for rows in predicted[4:])
    assert len(predicted[0]) == 30 and sorted(predicted[0] + predicted[4]) == list(range(60))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--algorithm groupDRO", "groupDRO needs them balanced by groups; add --groups pseudo, or "),
        ("--algorithm CIM+groupDRO", "CIM+groupDRO needs them balanced by groups; add --groups pseudo, or "),
        ("--uniform_over_groups", "--uniform_over_groups true by groups; "),
        ("--train_loader group", "--train_loader group by groups; "),
    ],
)
def test_two_samplers_are_refused_in_one_line(configure, flags, message):
    with pytest.raises(InputError) as error:
        configure("--cross_fit", "5", *flags.split())
    assert str(error.value) == f"--cross_fit 5 balances batches by pseudo-environments, {message}leave one out"


def test_no_steps_are_refused_and_the_default_is_off(configure, capsys):
    with pytest.raises(SystemExit):
        configure("--cross_fit", "0")
    assert "0 is not a whole number of at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        configure("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "or a number of steps (default: off)" in shown and "1: whole images (default: 4 with cross_fit)" in shown
    off, on, whole = (
        configure(),
        configure("--uniform_over_groups", "false", "--cross_fit", "3"),
        configure("--cross_fit", "3", "--cross_fit_tiles", "1"),
    )
    assert [(config.cross_fit, config.cross_fit_tiles) for config in (off, on, whole)] == [
        (None, None),
        (3, 4),
        (3, 1),
    ]


def test_more_tiles_than_pixels_are_refused(release, tmp_path, capsys):
    assert train(release, tmp_path, "--cross_fit", "2", "--cross_fit_tiles", "1000", "--n_epochs", "1") == 2
    assert (
        "--cross_fit_tiles 1000 is more than a side of 28 pixels can be cut into; give a smaller number"
        in capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def huge_weights(trained, tmp_path_factory):
    """The flag of weights that are finite, and give logits that are not."""
    path = tmp_path_factory.mktemp("weights") / "huge.pth"
    weights = read_model(trained("ERM"))
    torch.save({"algorithm": {name: value * 1e30 for name, value in weights.items()}}, path)
    return "--pretrained_model_path", str(path)


def test_a_reference_model_that_diverges_ends_the_run_in_one_line(release, tmp_path, capsys, huge_weights):
    assert train(release, tmp_path, "--cross_fit", "20", *huge_weights) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(
        "cim-plugin train: error: the logits of a reference model are not finite; try another --precision"
    )


@pytest.mark.parametrize("more", [False, True])
def test_a_class_of_which_more_than_half_are_flagged_is_told(release, tmp_path, more):
    training = prepared(release, tmp_path, "--cross_fit", "2").training
    labels = training.data.splits["train"].labels.clone()
    of_class = torch.nonzero(labels == 1).flatten()
    assert len(of_class) == 34
    labels[of_class[: 17 + more]] = 0
    text = cross_fit.in_words(training, Found(labels, training.data.splits["val"].labels, 2, []))
    assert f": {'52.9' if more else '50.0'}% of waterbird, 0.0% of landbird\n" in text
    assert ("warning: 52.9% of waterbird are flagged: the reference models do not know this class" in text) == more
    assert "of landbird are flagged" not in text


# --- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_give_the_pseudo_environments_and_the_weights_of_one(release, tmp_path):
    flags = [
        *SGD,
        "--cim_learning_rate",
        "1e-5",
        "--cross_fit",
        "4",
        *PAIRS,
    ]  # Adam takes a rounding error of a gradient near 0 for a gradient
    assert train(release, tmp_path / "one", *flags, algorithm="CIM") == 0
    statuses = two_processes(words(release, tmp_path / "two", *flags, algorithm="CIM"), tmp_path / "output")
    assert statuses == [0, 0], (tmp_path / "output.0").read_text()[-2000:]
    assert (tmp_path / "two" / "cross_fit.csv").read_bytes() == (tmp_path / "one" / "cross_fit.csv").read_bytes()
    assert_same_weights(read_model(tmp_path / "one"), read_model(tmp_path / "two"))
    assert (tmp_path / "two" / "log.txt").read_text().count("Cross-fit:") == 1


def test_two_processes_fail_together(release, tmp_path, huge_weights):
    argv = words(release, tmp_path / "run", "--cross_fit", "20", *huge_weights)
    assert two_processes(argv, tmp_path / "output") == [1, 1]
    for rank in (0, 1):
        text = (tmp_path / f"output.{rank}").read_text()
        assert "the logits of a reference model" in text and "Traceback" not in text
