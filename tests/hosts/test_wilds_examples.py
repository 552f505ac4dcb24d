"""Training by ``examples/run_expt.py`` of a real, unmodified WILDS checkout with our algorithms."""

from __future__ import annotations

import csv
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hosts.wilds_run_expt import TRANSFORMERS, run_expt

from cim_plugin import catalog
from cim_plugin.algorithms.mask_statistics import NAMES

OURS = [*catalog.ALGORITHMS, "CIM+groupDRO"]
TERMS = {
    "CIM": ["L_sup", "L_con"],
    "CIM_VIB": ["L_sup", "KL", "L_con"],
    "VIB": ["L_sup", "KL"],
    "SCL_E2E": ["L_sup", "L_scl"],
    "CnC": ["L_sup", "L_scl"],
    "CIM+groupDRO": ["L_sup", "L_con"],
}

TORCH_SCATTER = """
import torch
def scatter(src, index, dim_size, reduce):
    rows = [src[index == group] for group in range(dim_size)]
    return torch.stack([row.sum() / max(len(row), 1) for row in rows])
"""


@pytest.fixture(scope="module")
def trained(checkout, shims, release, tmp_path_factory):
    """A function (algorithm) -> the folder of its run of one epoch."""
    folders: dict[str, Path] = {}

    def folder(algorithm: str) -> Path:
        if algorithm not in folders:
            folders[algorithm] = tmp_path_factory.mktemp("runs") / algorithm
            done = run_expt(
                checkout,
                shims,
                release,
                folders[algorithm],
                algorithm,
                "--n_epochs",
                "1",
                "--gradient_accumulation_steps",
                "2",
            )
            assert done.returncode == 0, done.stderr
        return folders[algorithm]

    return folder


def table(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("algorithm", OURS)
def test_logs_have_every_loss_term_of_the_batch_and_of_the_groups(algorithm, trained):
    rows = table(trained(algorithm) / "train_algo.csv")
    weights = {"L_sup": 1.0, "L_con": 1.0, "KL": 1e-3, "L_scl": 1.0}
    assert len(rows) == 2  # three batches, of which two and one make a step
    for row in rows:
        terms = {term: float(row[term]) for term in TERMS[algorithm]}
        if algorithm != "CIM+groupDRO":  # its supervised loss is weighed by group, in each batch anew
            assert float(row["objective"]) == pytest.approx(
                sum(weights[term] * value for term, value in terms.items()), rel=1e-4
            )
        assert float(row["L_sup"]) == pytest.approx(float(row["loss_avg"]), rel=1e-5)
        for term, value in terms.items():
            of_groups = [(float(row[f"{term}_group:{g}"]), float(row[f"count_group:{g}"])) for g in range(4)]
            mean = sum(mean * count for mean, count in of_groups if count) / sum(count for _, count in of_groups)
            assert mean == pytest.approx(value, rel=1e-3, abs=1e-4)
    assert {name for name in NAMES if name in rows[0]} == set(NAMES if "L_con" in TERMS[algorithm] else ())


@pytest.mark.parametrize("algorithm", OURS)
def test_evaluation_is_logged_as_erms_is(algorithm, trained):
    for name in ("val_algo.csv", "val_eval.csv", "test_algo.csv"):
        like = "groupDRO" if algorithm == "CIM+groupDRO" else "ERM"
        ours, erms = (table(trained(which) / name) for which in (algorithm, like))
        assert list(ours[0]) == list(erms[0]) and len(ours) == len(erms) == 1
    row = table(trained(algorithm) / "val_algo.csv")[0]
    if algorithm != "CIM+groupDRO":
        assert float(row["objective"]) == pytest.approx(float(row["loss_avg"]), rel=1e-5)


def test_hyperparameters_are_in_the_config_log_of_ours_only(trained):
    assert (
        "Cim lambda: 1.0" in (trained("CIM") / "log.txt").read_text()
        and "Vib beta" not in (trained("CIM") / "log.txt").read_text()
    )
    assert "Cim" not in (trained("ERM") / "log.txt").read_text()


def test_eval_only_gives_the_predictions_of_training_and_resume_goes_on(checkout, shims, release, trained, tmp_path):
    log_dir = trained("CIM_VIB")
    name = "waterbirds_split:{split}_seed:0_epoch:{epoch}_pred.csv"
    in_training = {split: (log_dir / name.format(split=split, epoch="best")).read_text() for split in ("val", "test")}
    done = run_expt(checkout, shims, release, log_dir, "CIM_VIB", "--n_epochs", "1", "--eval_only")
    assert done.returncode == 0, done.stderr
    assert {split: (log_dir / name.format(split=split, epoch=0)).read_text() for split in in_training} == in_training
    done = run_expt(checkout, shims, release, log_dir, "CIM_VIB", "--n_epochs", "2", "--resume")
    assert done.returncode == 0, done.stderr
    assert "Resuming from epoch 1" in done.stdout and "could not be found" not in done.stdout
    assert [row["epoch"] for row in table(log_dir / "val_eval.csv")][-1] == "1"


def test_logs_of_erm_and_group_dro_are_the_same_to_the_byte_with_the_plugin(checkout, shims, release, tmp_path):
    (tmp_path / "shims").mkdir()
    for name, text in (("transformers", TRANSFORMERS), ("torch_scatter", TORCH_SCATTER)):
        (tmp_path / "shims" / f"{name}.py").write_text(text)
    for algorithm in ("ERM", "groupDRO"):
        files = []
        for state in "10":
            log_dir = tmp_path / "log"
            done = run_expt(
                checkout, tmp_path / "shims", release, log_dir, algorithm, "--n_epochs", "1", CIM_PLUGIN_AUTOLOAD=state
            )
            assert done.returncode == 0, done.stderr
            files.append({file.name: file.read_bytes() for file in log_dir.iterdir() if file.suffix != ".pth"})
            log_dir.rename(tmp_path / f"{algorithm}{state}")
        assert files[0] == files[1] and len(files[0]) > 8


#: run_expt up to training; what was to be trained is then ``algorithm``, one batch of it ``batch``
PREPARED = """
import json, torch

def train(algorithm, datasets, **_):
    batch = next(iter(datasets["train"]["loader"]))
    print(json.dumps(look(algorithm, batch)), file=own)

run_expt.train = train
"""


def look_at(checkout, shims, release, log_dir, algorithm, *words, look: str):
    done = run_expt(
        checkout, shims, release, log_dir, algorithm, "--n_epochs", "1", *words, then=PREPARED + textwrap.dedent(look)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[")))


def test_encoder_and_head_start_as_erms_do_at_the_same_seed(checkout, shims, release, tmp_path):
    look = """
    def look(algorithm, batch):
        weights = {name: value for name, value in algorithm.model.named_parameters() if "morphing" not in name}
        return [float(value.double().square().sum()) for value in weights.values()]
    """
    erm, cim = (look_at(checkout, shims, release, tmp_path / name, name, look=look) for name in ("ERM", "CIM"))
    assert erm == cim


def test_beside_sgd_adam_trains_the_network_and_the_schedule_is_the_others(checkout, shims, release, tmp_path):
    look = """
    def look(algorithm, batch):
        algorithm.train()
        before = {name: value.detach().clone() for name, value in algorithm.model.named_parameters()}
        algorithm.update(batch)
        now = dict(algorithm.model.named_parameters())
        moved = {name: (now[name].detach() - start).abs().max().item() for name, start in before.items()}
        groups = algorithm.schedulers[0].optimizer.param_groups
        scheduled = {id(weight) for group in groups for weight in group["params"]}
        own = {id(weight) for weight in algorithm.classifier.morphing.parameters()}
        network = max(distance for name, distance in moved.items() if "morphing" in name)
        others = max(distance for name, distance in moved.items() if "morphing" not in name)
        return [network, others, len(scheduled), len(scheduled & own)]
    """
    words = (
        "--optimizer",
        "SGD",
        "--lr",
        "1e-5",
        "--weight_decay",
        "1",
        "--scheduler",
        "StepLR",
        "--scheduler_kwargs",
        "step_size=1",
    )
    network, others, n_scheduled, n_shared = look_at(
        checkout, shims, release, tmp_path / "log", "CIM", *words, look=look
    )
    assert network == pytest.approx(1e-3, rel=0.01) and others < 1e-3
    assert n_scheduled and not n_shared


def test_no_triplet_is_the_share_of_a_batch_as_in_cim_plugin_train(checkout, shims, release, tmp_path):
    look = """
    def look(algorithm, batch):
        algorithm.train()
        x, y, metadata = batch
        kinds = (y, 0 * y, y.new_tensor([1] + 7 * [0]))
        return [float(algorithm.process_batch((x, labels, metadata))["no_triplet"]) for labels in kinds]
    """
    assert look_at(checkout, shims, release, tmp_path / "log", "CIM", look=look) == [0, 1, 1 / 8]


def test_replicas_give_what_dataparallel_gathers(checkout, shims, release, tmp_path):
    """Two halves of a batch, joined as DataParallel joins them; then a step through DataParallel, which without GPUs
    passes on.
    """
    look = """
    def look(algorithm, batch):
        algorithm.train()
        x, y, metadata = batch
        environments = algorithm._environments.metadata_to_group(metadata)
        halves = [algorithm.model(x[rows], y[rows], environments[rows]) for rows in (slice(0, 4), slice(4, 8))]
        joined = {key: torch.cat([half[key] for half in halves]) for key in halves[0]}
        sizes = {key: len(value) for key, value in joined.items()}
        algorithm.model = torch.nn.DataParallel(algorithm.model)
        return [sizes, algorithm.update(batch)["objective"]]
    """
    sizes, objective = look_at(checkout, shims, release, tmp_path / "log", "CIM_VIB", look=look)
    assert sizes == {"logits": 8, "supervised": 8, "contrastive": 8, "kl": 8, **dict.fromkeys(NAMES, 8)}
    assert np.isfinite(objective)


def test_group_weights_weigh_and_move_as_the_hosts_group_dro_does(checkout, shims, release, tmp_path):
    look = """
    def group_losses(algorithm, results):
        outputs = (results["y_pred"], results["y_true"], results["g"], 4)
        return algorithm.loss.compute_group_wise(*outputs, return_dict=False)[0]

    def look(algorithm, batch):
        algorithm.eval()
        results = algorithm.process_batch(batch)
        losses = group_losses(algorithm, results)
        weights = results["group_weight"].clone()
        evaluated = [algorithm.objective(results).item(), (losses @ weights).item()]
        algorithm.train()
        results = algorithm.process_batch(batch)
        losses = group_losses(algorithm, results)
        algorithm.objective(results)
        moved = weights * torch.exp(0.5 * losses.detach())
        return [evaluated, results["group_weight"].tolist(), (moved / moved.sum()).tolist()]
    """
    (own, hosts), weights, expected = look_at(
        checkout, shims, release, tmp_path / "log", "CIM+groupDRO", "--group_dro_step_size", "0.5", look=look
    )
    assert own == pytest.approx(hosts, rel=1e-5)
    assert weights == pytest.approx(expected, rel=1e-5) and max(weights) > 0.2501


def test_environments_are_groups_without_the_label(checkout, shims, release, tmp_path):
    look = """
    def look(algorithm, batch):
        return [algorithm._environments.metadata_to_group(batch[2]).tolist(), batch[2][:, 0].tolist()]
    """
    environments, backgrounds = look_at(
        checkout, shims, release, tmp_path / "log", "CIM", "--cim_pairs", "cross_environment", look=look
    )
    assert environments == backgrounds and set(backgrounds) == {0, 1}


def test_use_wandb_tracks_our_terms_offline(checkout, shims, release, tmp_path):
    """By the real client, without a network; its file holds the names as they are."""
    pytest.importorskip("wandb", reason="the host's --use_wandb needs wandb")
    words = ["--n_epochs", "1", "--use_wandb", "true", "--wandb_kwargs", "project=cim", f"dir={tmp_path}"]
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = run_expt(checkout, shims, release, tmp_path / "logs", "CIM_VIB", *words, **quiet)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    tracked = run.read_bytes()
    names = [f"train_algo/{name}" for name in (*TERMS["CIM_VIB"], "no_triplet", "mask_mean", "L_con_group:0")]
    assert [name for name in names if name.encode() not in tracked] == []
