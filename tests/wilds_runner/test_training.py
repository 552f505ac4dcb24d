"""Runs of all algorithms from the command to its files, and their losses against loops in plain torch."""

from __future__ import annotations

import math
import re

import pytest
import torch
from small_runs import (
    ALGORITHMS,
    RULES,
    SIZES,
    after_steps,
    model_path,
    prediction_path,
    read_csv,
    read_metadata,
    relative_files,
    results,
    train,
)
from torch.nn.modules.module import register_module_forward_hook

from cim_plugin.algorithms.mask_statistics import NAMES
from cim_plugin.algorithms.morphing import TransformationNetwork
from cim_plugin.wilds_runner.optimization import make_scheduler

GROUPS = [f"y:{y}_background:{place}" for y in ("landbird", "waterbird") for place in ("land", "water")]
EVAL_HEADER = ["epoch", *(f"{what}_{group}" for group in GROUPS for what in ("acc", "count")), "acc_wg", "adj_acc_avg"]
ALGO_HEADER = [
    *(
        "epoch",
        "batch",
        *(f"loss_group:{g}" for g in range(4)),
        "loss_avg",
        *(f"acc_group:{g}" for g in range(4)),
        "acc_avg",
        "objective",
    ),
    *(*(f"count_group:{g}" for g in range(4)), "count"),
]
TERMS = {
    "ERM": [],
    "groupDRO": [],
    "VIB": ["KL"],
    "SCL_E2E": ["L_scl"],
    "CnC": ["L_scl"],
    "CIM": ["L_con", *NAMES],
    "CIM_VIB": ["L_con", "KL", *NAMES],
}


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_leaves_the_files_that_run_expt_names_and_those_of_every_rule(trained, algorithm):
    folder = trained(algorithm)
    logs = {
        "log.txt",
        "results.json",
        "state.pth",
        *(f"{split}_{kind}.csv" for split in ("train", "val", "test") for kind in ("algo", "eval")),
    }
    of_rules = {
        path
        for rule in RULES
        for path in (model_path(folder, rule), *(prediction_path(folder, rule, split) for split in ("val", "test")))
    }
    assert relative_files(folder) == logs | {str(path.relative_to(folder)) for path in of_rules}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_csv_files_have_the_columns_of_wilds_and_a_row_per_epoch_or_step(trained, algorithm):
    folder = trained(algorithm)
    for split in ("train", "val", "test"):
        rows = read_csv(folder / f"{split}_eval.csv")
        assert list(rows[0]) == EVAL_HEADER
        assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    rows = read_csv(folder / "train_algo.csv")
    header = ALGO_HEADER[:13] + [f"weight_group:{g}" for g in range(4)] * (algorithm == "groupDRO") + ALGO_HEADER[13:]
    assert set(rows[0]) == {*header, *TERMS[algorithm]} and list(rows[0])[: len(header)] == header
    assert [(row["epoch"], row["batch"]) for row in rows] == [
        (str(epoch), str(batch)) for epoch in range(3) for batch in (1, 2, 3)
    ]
    for split in ("val", "test"):
        rows = read_csv(folder / f"{split}_algo.csv")
        assert list(rows[0]) == header
        assert [(row["epoch"], row["batch"], row["count"]) for row in rows] == [
            (str(epoch), str(math.ceil(SIZES[split] / 20)), str(SIZES[split])) for epoch in range(3)
        ]


def test_a_model_every_save_step_and_none_that_was_not_wanted(release, tmp_path):
    assert (
        train(release, tmp_path, "--save_step", "2", "--save_best", "false", "--save_pred", "false", "--n_epochs", "3")
        == 0
    )
    models = {path for path in relative_files(tmp_path) if path.endswith(("model.pth", "pred.csv"))}
    assert models == {"waterbirds_seed:0_epoch:1_model.pth", "waterbirds_seed:0_epoch:last_model.pth"}


def test_the_log_begins_with_the_configuration_and_the_groups_of_every_split(trained, release):
    text = (trained("ERM") / "log.txt").read_text()
    assert text.startswith("Dataset: waterbirds\n") and "Lr: 0.001\n" in text and "SYNTHETIC" in text
    rows = [row for row in read_metadata(release / "waterbirds_v1.0") if row["split"] == "1"]
    waterbirds_on_land = sum(row["y"] == "1" and row["place"] == "0" for row in rows)
    assert (
        f"y = waterbird, background =  land: n = {waterbirds_on_land}\n"
        in text.split("Validation data...\n")[1].split("data...")[0]
    )


def test_the_same_seed_gives_the_same_run_and_another_one_another(release, tmp_path, trained):
    assert train(release, tmp_path / "again", "--n_epochs", "3", algorithm="CIM_VIB") == 0
    assert train(release, tmp_path / "other", "--n_epochs", "3", "--seed", "1", algorithm="CIM_VIB") == 0
    first, again, other = (
        (folder / "train_algo.csv").read_bytes()
        for folder in (trained("CIM_VIB"), tmp_path / "again", tmp_path / "other")
    )
    assert first == again != other


def test_worker_processes_and_the_image_cache_change_nothing(release, tmp_path, trained, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert (
        train(
            release,
            tmp_path / "run",
            "--n_epochs",
            "3",
            "--loader_kwargs",
            "num_workers=2",
            "--cache",
            "true",
            algorithm="CIM",
        )
        == 0
    )
    assert list((tmp_path / "cache").rglob("*.npy"))
    assert (tmp_path / "run" / "train_algo.csv").read_bytes() == (trained("CIM") / "train_algo.csv").read_bytes()


# --- options ----------------------------------------------------------------------------------------------------------


OPTIONS = {
    "bf16": ["--precision", "bf16-mixed"],
    "a schedule per epoch": ["--scheduler", "StepLR"],
    "a schedule per step": ["--scheduler", "cosine_schedule_with_warmup", "--scheduler_kwargs", "num_warmup_steps=2"],
    "a schedule by a metric": ["--scheduler", "ReduceLROnPlateau", "--scheduler_metric_name", "acc_wg"],
    "a clipped gradient": ["--max_grad_norm", "0.1"],
    "augmentation": ["--additional_train_transform", "randaugment"],
    "batches of groups": ["--train_loader", "group", "--n_groups_per_batch", "2"],
    "a fraction of the data": ["--frac", "0.5"],
    "pairs across environments": ["--cim_pairs", "cross_environment"],
    "morphed targets": ["--cim_targets", "morphed"],
    "a decreasing metric": ["--val_metric", "adj_acc_avg", "--val_metric_decreasing"],
    "no group labels": ["--no_group_logging"],
}


@pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.slow
def test_every_option_changes_the_configuration_and_the_run_ends_well(release, tmp_path, flags):
    assert train(release, tmp_path, *flags, algorithm="CIM") == 0
    result = results(tmp_path)
    assert result["status"] == "finished"
    assert {**result["config"], **result["config"]["hyperparameters"]}[flags[0].removeprefix("--")] not in (None, False)


def test_a_full_gpu_is_said_in_one_line(release, tmp_path, capsys):
    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmore")

    with after_steps(full):
        assert train(release, tmp_path) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "cim-plugin train: error: the GPU's memory is full (CUDA out of memory. Tried to allocate 1 GiB.); give a "
        "smaller --batch_size, with another folder"
    )


def test_a_schedule_by_a_metric_waits_for_it_to_rise(configure):
    scheduler = make_scheduler(
        configure("--scheduler", "ReduceLROnPlateau", "--scheduler_metric_name", "acc_wg"),
        torch.optim.SGD([torch.zeros(1)], 1.0),
        1,
    )
    for epoch in range(30):
        scheduler.step(0.5 + 0.01 * epoch)
    assert scheduler.get_last_lr() == [1.0]


def test_images_without_a_triplet_are_logged(release, tmp_path):
    assert train(release, tmp_path / "pairs", algorithm="CIM") == 0
    assert all(float(row["no_triplet"]) < 1 for row in read_csv(tmp_path / "pairs" / "train_algo.csv"))
    assert "warning: no image has" not in (tmp_path / "pairs" / "log.txt").read_text()
    assert train(release, tmp_path / "none", "--batch_size", "2", algorithm="CIM") == 0
    assert all(
        float(row["no_triplet"]) == 1 and float(row["L_con"]) == 0
        for row in read_csv(tmp_path / "none" / "train_algo.csv")
    )
    assert "warning: no image has a positive and a negative, L_con is 0" in (tmp_path / "none" / "log.txt").read_text()


def masked_by(change):
    """A context in which every transformation network gives ``change(m)`` for its m."""

    def changed(module, _, mask):
        return change(mask) if isinstance(module, TransformationNetwork) else None

    return register_module_forward_hook(changed)


def test_a_mask_that_lets_everything_through_is_said(release, tmp_path):
    with masked_by(lambda mask: 1 - 1e-6 * mask):
        assert train(release, tmp_path, algorithm="CIM") == 0
    assert (
        "warning: m is 1 everywhere, so the encoder sees the images as they are" in (tmp_path / "log.txt").read_text()
    )


def test_a_mask_that_is_a_constant_in_between_is_said(release, tmp_path):
    with masked_by(lambda mask: 0.7 + 1e-3 * mask):
        assert train(release, tmp_path, algorithm="CIM") == 0
    assert (
        "warning: m is a constant (its standard deviation inside images is below" in (tmp_path / "log.txt").read_text()
    )


def test_a_mask_that_lets_nothing_through_is_said(release, tmp_path):
    with masked_by(lambda mask: 1e-6 * mask):
        assert train(release, tmp_path, algorithm="CIM") == 0
    assert all(0 < float(row["mask_mean"]) < 1e-6 for row in read_csv(tmp_path / "train_algo.csv"))
    assert re.search(
        r"warning: m has a mean below 0.0001, so the encoder sees next to nothing of the images; .* "
        r"\(epoch 0, batch 0\)",
        (tmp_path / "log.txt").read_text(),
    )


def test_the_metric_that_is_named_names_the_best_epoch(release, tmp_path):
    assert (
        train(
            release,
            tmp_path,
            "--val_metric",
            "adj_acc_avg",
            "--val_metric_decreasing",
            "--n_epochs",
            "4",
            "--lr",
            "1e-2",
        )
        == 0
    )
    values = [float(row["adj_acc_avg"]) for row in read_csv(tmp_path / "val_eval.csv")]
    best = results(tmp_path)["selection"]["best"]
    assert len(set(values)) > 1 and best["epoch"] == values.index(min(values))
