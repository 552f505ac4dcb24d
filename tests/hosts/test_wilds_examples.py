"""``examples/run_expt.py`` of a real, unmodified WILDS checkout with our algorithms; the libraries that only other
datasets need are stood in for.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import textwrap
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import retired
import torch
import torchvision.transforms as T
from hosts import forked_host
from interpreters import HERE, ask
from PIL import Image

import cim_plugin
from cim_plugin import catalog
from cim_plugin.algorithms.mask_statistics import NAMES
from cim_plugin.errors import InputError
from cim_plugin.hosts.wilds_examples import adapter
from cim_plugin.models import extra_state

sys.path.append(str(HERE / "models"))
import elsewhere  # noqa: E402
from elsewhere import Asked  # noqa: E402

OURS = [*catalog.ALGORITHMS, "CIM+groupDRO"]
TERMS = {
    "CIM": ["L_sup", "L_con"],
    "CIM_VIB": ["L_sup", "KL", "L_con"],
    "VIB": ["L_sup", "KL"],
    "SCL_E2E": ["L_sup", "L_scl"],
    "CnC": ["L_sup", "L_scl"],
    "CIM+groupDRO": ["L_sup", "L_con"],
}

#: a module of the name ``transformers`` with the names that the examples import, and torch_scatter's one function in a
#: loop
TRANSFORMERS = "import torch\nAdamW = torch.optim.AdamW\nBertTokenizerFast = DistilBertTokenizerFast = None\n"
TORCH_SCATTER = """
import torch
def scatter(src, index, dim_size, reduce):
    rows = [src[index == group] for group in range(dim_size)]
    return torch.stack([row.sum() / max(len(row), 1) for row in rows])
"""

FLAGS = (
    "-d waterbirds --root_dir {root} --model resnet18 --model_kwargs pretrained=False --transform image_base "
    "--target_resolution 28 28 --batch_size 8"
)
FLAGS += (
    " --lr 1e-3 --weight_decay 0 --loader_kwargs num_workers=0 --log_every 1 --log_dir {log_dir} --algorithm "
    "{algorithm}"
)


@pytest.fixture(scope="session")
def checkout(wilds_checkout) -> Path:
    """The ``examples`` folder of a real checkout; skips with the reason where there is none."""
    return wilds_checkout / "examples"


@pytest.fixture(scope="session")
def shims(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shims")
    (folder / "transformers.py").write_text(TRANSFORMERS)
    return folder


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """A root with a Waterbirds release of 44 images of noise that the real WaterbirdsDataset reads."""
    root = tmp_path_factory.mktemp("noise")
    folder = root / "waterbirds_v1.0"
    folder.mkdir()
    (folder / "RELEASE_v1.0.txt").write_text("noise")
    rng = np.random.default_rng(0)
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for split, n_images in enumerate((20, 12, 12)):
        for number in range(n_images):
            name = f"{len(lines)}.png"
            Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(folder / name)
            lines.append(f"{len(lines)},{name},{number % 2},{split},{number // 2 % 2},none")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def run_expt(
    examples: Path,
    shims: Path,
    release: Path,
    log_dir: Path,
    algorithm: str,
    *words: str,
    then: str = "",
    **environment: str,
) -> CompletedProcess:
    """``python examples/run_expt.py`` with these words, or with ``then`` its module's main after the code of
    ``then``.
    """
    flags = FLAGS.format(root=release, log_dir=log_dir, algorithm=algorithm).split()
    code = f"""
import os, runpy, sys
own, sys.stdout = sys.stdout, open(os.dup(1), "w")  # the host closes its standard output
sys.path.insert(0, {str(examples)!r})
sys.argv = ["run_expt.py", *{[*flags, *words]}]
"""
    start = (
        f"import run_expt\n{textwrap.dedent(then)}\nrun_expt.main()"
        if then
        else f"runpy.run_path({str(examples / 'run_expt.py')!r}, run_name='__main__')"
    )
    code += f"try:\n{textwrap.indent(start, '    ')}\nfinally:\n    sys.stdout = own\n"
    return forked_host.run(shims, "-c", code, cwd=log_dir.parent, **environment)


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


# --- training --------------------------------------------------------------------------------------------------------


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
        moved = {name: (value.detach() - before[name]).abs().max().item() for name, value in algorithm.model.named_parameters()}
        scheduled = {id(weight) for group in algorithm.schedulers[0].optimizer.param_groups for weight in group["params"]}
        own = {id(weight) for weight in algorithm.classifier.morphing.parameters()}
        return [max(v for k, v in moved.items() if "morphing" in k), max(v for k, v in moved.items() if "morphing" not in k), len(scheduled), len(scheduled & own)]
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
        return [float(algorithm.process_batch((x, labels, metadata))["no_triplet"]) for labels in (y, 0 * y, y.new_tensor([1] + 7 * [0]))]
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
    def look(algorithm, batch):
        algorithm.eval()
        results = algorithm.process_batch(batch)
        losses, _, _ = algorithm.loss.compute_group_wise(results["y_pred"], results["y_true"], results["g"], 4, return_dict=False)
        weights = results["group_weight"].clone()
        evaluated = [algorithm.objective(results).item(), (losses @ weights).item()]
        algorithm.train()
        results = algorithm.process_batch(batch)
        losses, _, _ = algorithm.loss.compute_group_wise(results["y_pred"], results["y_true"], results["g"], 4, return_dict=False)
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


# --- flags and wrong input -------------------------------------------------------------------------------------------

WRONG = {
    "misspelt flag": ("CIM", ["--cim_lamda", "0.5"], "unrecognized arguments: --cim_lamda 0.5"),
    "no number": ("CIM", ["--cim_lambda", "much"], "argument --cim_lambda: 'much' is not a number"),
    "negative λ": ("CIM", ["--cim_lambda", "-1"], "error: cim_lambda=-1.0 is not a finite number of at least 0"),
    "flag of another of ours": ("CIM", ["--vib_beta", "0.1"], "error: CIM has no hyperparameter 'vib_beta'"),
    "unknown pairs": (
        "CIM_VIB",
        ["--cim_pairs", "cross_fit"],
        "error: cim_pairs='cross_fit' is not 'random' or 'cross_environment'",
    ),
    "our flag with theirs": ("ERM", ["--cim_lambda", "0.5"], "unrecognized arguments: --cim_lambda 0.5"),
    "other loss": (
        "CIM",
        ["--loss_function", "multitask_bce"],
        "error: CIM is for classification of images of one label",
    ),
    "text": (
        "VIB",
        ["--transform", "bert", "--model", "bert-base-uncased", "--max_token_length", "9"],
        "error: VIB works on images; --transform bert gives none",
    ),
    "standardised per image": ("CIM", ["--transform", "rxrx1"], "error: CIM morphs pixels, and --transform rxrx1"),
    "groups as they come": (
        "CIM+groupDRO",
        ["--uniform_over_groups", "False"],
        "error: CIM+groupDRO needs --uniform_over_groups true",
    ),
    "a retired value": (
        "CIM",
        ["--cim_similarity", "pytorch_msssim"],
        f"error: CIM: {retired.said('cim_similarity')}",
    ),
    "a retired flag": ("CIM", ["--cim_mask=per_channel"], f"error: {retired.said_of_flag('cim_mask')}"),
}


@pytest.mark.parametrize("algorithm, words, said", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line(algorithm, words, said, checkout, shims, release, tmp_path):
    if "bert" in words:  # the host makes its tokenizer first
        (tmp_path / "transformers.py").write_text(
            TRANSFORMERS + "from unittest.mock import MagicMock\nBertTokenizerFast = MagicMock()\n"
        )
        shims = tmp_path
    done = run_expt(checkout, shims, release, tmp_path / "log", algorithm, "--n_epochs", "1", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert said in done.stderr.splitlines()[-1]


#: hyperparameter -> an algorithm that has it, another accepted value, and a wrong one with what is said of it
FLAG_VALUES = {
    "cim_lambda": ("CIM", 0.5, "-1", "at least 0"),
    "cim_pairs": ("CIM", "cross_environment", "cross_fit", "'random' or 'cross_environment'"),
    "cim_targets": ("CIM", "morphed", "output", "'input' or 'morphed'"),
    "cim_reading": ("CIM", "similarity", "inverse", "'distance' or 'similarity'"),
    "cim_mask_stride": ("CIM", 2, "3", "2 or 4"),
    "cim_gradient": ("CIM", "contrastive", "none", "'both' or 'contrastive'"),
    "cim_learning_rate": ("CIM", 0.01, "inf", "at least 0"),
    "cim_similarity": ("CIM", "colours", "ssim", "'ms_ssim' or 'colours'"),
    "vib_beta": ("VIB", 0.1, "much", "'much' is not a number"),
    "vib_dimension": ("CIM_VIB", 64, "2.5", "2.5 is not a whole number"),
    "scl_weight": ("SCL_E2E", 2.0, "-1", "at least 0"),
    "scl_temperature": ("SCL_E2E", 0.2, "0", "above 0"),
    "scl_pairs": ("SCL_E2E", "cross_environment", "pseudo", "'random' or 'cross_environment'"),
    "group_dro_step_size": ("CIM+groupDRO", 0.1, "inf", "at least 0"),
}


def parsed(algorithm: str, *words: str) -> argparse.Namespace:
    """What a parser with two of the host's flags makes of these words when our flags are added in the moment of
    parsing.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm")
    parser.add_argument("--group_dro_step_size", type=float)
    inner = argparse.ArgumentParser.parse_args
    adapter._add_flags_when_parsing()
    try:
        return parser.parse_args(["--algorithm", algorithm, *words])
    finally:
        assert argparse.ArgumentParser.parse_args is inner


def test_every_flag_takes_the_values_of_its_hyperparameter(capfd):
    assert FLAG_VALUES.keys() == catalog.all_hyperparameters().keys() - catalog.hyperparameters("JTT").keys()
    for name, (algorithm, value, wrong, said) in FLAG_VALUES.items():
        assert name == "group_dro_step_size" or not hasattr(
            parsed(algorithm), name
        )  # the default comes from the host's table of defaults
        assert getattr(parsed(algorithm, f"--{name}", str(value)), name) == value
        with pytest.raises(SystemExit) as ended:
            parsed(algorithm, f"--{name}", wrong)
        assert ended.value.code == 2 and said in capfd.readouterr().err.splitlines()[-1], name


@pytest.mark.parametrize("name", retired.FLAGS_GONE)
def test_a_retired_flag_is_one_line(name, capfd):
    with pytest.raises(SystemExit) as ended:
        parsed("CIM", f"--{name}={retired.GONE[name][0]}")
    last = capfd.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and last.endswith(f"error: {retired.said_of_flag(name)}")


def test_help_shows_our_flags_with_their_defaults(checkout, shims, release, tmp_path):
    done = run_expt(checkout, shims, release, tmp_path / "log", "ERM", "--help")
    assert done.returncode == 0
    for name in catalog.all_hyperparameters():
        assert (f"--{name}" in done.stdout) == (name not in catalog.hyperparameters("JTT"))
    assert "weight λ of L_con: a finite number of at least 0 (default: 1.0)" in " ".join(done.stdout.split())


def test_missing_transformers_is_one_line_for_ours_and_the_hosts_own_words_for_others(checkout, release, tmp_path):
    ours, others = (
        run_expt(checkout, tmp_path, release, tmp_path / "log", name, "--n_epochs", "1") for name in ("CIM", "ERM")
    )
    assert ours.returncode == 2 and len(ours.stderr.splitlines()) == 1
    assert "transformers" in ours.stderr and "pip install 'transformers<4.40'" in ours.stderr
    assert (
        others.returncode == 1
        and others.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'transformers'"
    )


# --- other projects --------------------------------------------------------------------------------------------------

NAMESAKES = {
    "configs/supported.py": "algorithms = ['mine']\nalgo_log_metrics = process_outputs_functions = {}\n",
    "configs/algorithm.py": "algorithm_defaults = {'ERM': {'lr': 1}}\n",
    "algorithms/initializer.py": "infer_d_out = initialize_loss = algo_log_metrics = None\ndef initialize_algorithm(): "
    "return 'mine'\n",
}


def look_at_namesakes():
    import argparse
    import sys
    import warnings

    sys.argv = ["train.py", "--algorithm", "CIM"]
    before = argparse.ArgumentParser.parse_args
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import algorithms.initializer
        import configs.algorithm
        import configs.supported
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm")
    return [
        configs.supported.algorithms,
        configs.algorithm.algorithm_defaults,
        algorithms.initializer.initialize_algorithm(),
        vars(parser.parse_args()),
        argparse.ArgumentParser.parse_args is before,
        "torch" in sys.modules,
        len(caught),
    ]


def test_modules_of_the_same_names_in_another_project_are_left_alone(tmp_path):
    for name, text in NAMESAKES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    told, stderr = ask(look_at_namesakes, path=tmp_path, cwd=tmp_path)
    assert told == [["mine"], {"ERM": {"lr": 1}}, "mine", {"algorithm": "CIM"}, True, False, 0] and not stderr


# --- Weights & Biases ---------------------------------------------------------------------------------------------------


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


def test_use_wandb_without_the_package_is_one_line(checkout, shims, release, tmp_path):
    words = ["CIM", "--use_wandb", "true"]
    done = run_expt(checkout, shims, release, tmp_path / "logs", *words, then="sys.modules['wandb'] = None")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: --use_wandb needs the package 'wandb'")


# --- a model taken home -----------------------------------------------------------------------------------------------

#: beside every model, images and what the training process says of them
LOGITS = """
import torch, train
inner = train.save_model
def save_model(algorithm, epoch, best_val_metric, path):
    inner(algorithm, epoch, best_val_metric, path)
    images = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        algorithm.eval()
        torch.save((images, algorithm.model(images)), f"{path}.logits")
train.save_model = save_model
"""


@pytest.fixture(scope="module")
def taken_home(checkout, shims, release, tmp_path_factory):
    """The folders of runs of CIM and CIM+groupDRO of one epoch, with the training process's logits."""
    folder = tmp_path_factory.mktemp("home")
    for algorithm in ("CIM", "CIM+groupDRO"):
        done = run_expt(checkout, shims, release, folder / algorithm, algorithm, "--n_epochs", "1", then=LOGITS)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_model_is_loaded_without_host_and_data_and_gives_the_same_bits(taken_home, release, tmp_path):
    photographs = [str(release / "waterbirds_v1.0" / f"{number}.png") for number in range(1, 4)]
    asked, expected = [], []
    for folder in sorted(taken_home.iterdir()):
        (file,) = folder.glob("*epoch:last_model.pth")
        images, logits = torch.load(f"{file}.logits", weights_only=True)
        asked.append(Asked(str(folder), "last", images, photographs))
        expected.append(logits)
    reference = T.Compose([T.Resize((28, 28)), T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    prepared = [reference(Image.open(file)) for file in photographs]
    for answer, logits in zip(elsewhere.ask(tmp_path, *asked), expected):
        assert torch.equal(answer["logits"], logits)
        assert torch.equal(torch.stack(answer["prepared"]), torch.stack(prepared))
        assert answer["class_names"] == ["landbird", "waterbird"] and answer["m"].shape == (5, 1, 28, 28)


def test_an_epoch_that_is_not_there_is_refused(taken_home):
    with pytest.raises(InputError, match="holds no model of epoch '7'; name a file: waterbirds_seed:0_epoch:best"):
        cim_plugin.load(taken_home / "CIM", rule="7")


def test_a_model_that_only_the_host_can_build_is_refused(taken_home, tmp_path):
    (file,) = (taken_home / "CIM").glob("*epoch:last_model.pth")
    saved = torch.load(file, weights_only=True)
    saved["algorithm"][extra_state.KEY] = extra_state.as_tensor({"recipe": None})
    torch.save(saved, tmp_path / "model.pth")
    with pytest.raises(InputError, match="its recipe is None, not a table of values"):
        cim_plugin.load(tmp_path / "model.pth")
