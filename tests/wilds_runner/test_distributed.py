"""Several processes compute what one would: gloo on the CPU, started as torchrun does it, by torchrun itself, and by
``--devices``.

Tolerance: after one step gradients agree within 1e-6, weights of SGD within 1e-5 after six steps at a learning rate of
0.05. What remains is the order of summation in float32: two sums of ten images, averaged by all-reduce, instead of one
sum of twenty.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_runs import SIZES, finish, free_port, read_csv, read_model, relative_files, results, start, train, words

from cim_plugin import catalog
from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.errors import InputError
from cim_plugin.wilds_runner import datasets, loop
from cim_plugin.wilds_runner.fabric import make_fabric
from cim_plugin.wilds_runner.processes import on_rank_zero

pytestmark = pytest.mark.slow

RUN = (
    "--optimizer",
    "SGD",
    "--optimizer_kwargs",
    "momentum=0.9",
    "--lr",
    "0.05",
)  # small_cnn normalises groups of channels, not batches


SHORT = {"JTT": ("--jtt_steps", "10")}  #: what keeps a first phase short

#: what rounding becomes after several steps of Adam, which divides gradients that are next to nothing by their size
ADAMS_STEP = 1e-3


def two_processes(argv, output, before=None):
    """Run ``argv`` in two children that find what torchrun puts into the environment."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
    }
    shared |= {"TORCHELASTIC_RUN_ID": "test", "ROLE_RANK": "0", "ROLE_WORLD_SIZE": "2"}
    children = [
        start(argv, before, output.with_suffix(f".{rank}"), **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]
    return [finish(child, timeout=600) for child in children]


def assert_same_weights(first: dict, second: dict, tolerance: float = 1e-5) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def gradients_of_one_step(log_dir) -> dict:
    """What a run of one step has: the weights that SGD moved, and Adam's averages of the network's gradients."""
    weights = {name: value for name, value in read_model(log_dir).items() if not name.startswith("morphing.")}
    optimizer = torch.load(log_dir / "state.pth", weights_only=True)["optimizer"]
    states = optimizer["network"]["state"] if "network" in optimizer else {}
    return {**weights, **{f"gradient {number}": state["exp_avg"] for number, state in states.items()}}


@pytest.fixture(scope="module", params=catalog.TRAINABLE)
def pair(request, release, tmp_path_factory):
    """The folders of the same run by one process and by two."""
    root = tmp_path_factory.mktemp(request.param)
    flags = (*RUN, *SHORT.get(request.param, ()))
    assert train(release, root / "one", *flags, algorithm=request.param) == 0
    statuses = two_processes(words(release, root / "two", *flags, algorithm=request.param), root / "output")
    assert statuses == [0, 0], (root / "output.0").read_text()[-2000:]
    return root / "one", root / "two"


def test_two_processes_give_the_weights_of_one(pair):
    one, two = pair
    assert results(one)["n_processes"] == 1 and results(two)["n_processes"] == 2
    has_adam = "morphing" in catalog.TRAINABLE[results(one)["algorithm"]][0]
    assert_same_weights(read_model(one), read_model(two), ADAMS_STEP if has_adam else 1e-5)


def variants() -> dict[str, tuple[str, ...]]:
    """Every value of every hyperparameter that names one, but for its default: the first algorithm that has it, and its
    flag.
    """
    found = {}
    for name, entry in catalog.all_hyperparameters().items():
        owner = next(own for own in catalog.TRAINABLE if name in catalog.hyperparameters(own))
        default = catalog.hyperparameters(owner)[name].default
        values = re.findall("'([^']+)'", entry.values) if isinstance(default, str) else ()
        for value in values:
            if value != default:
                found[f"{name}={value}"] = ("--algorithm", owner, f"--{name}", value)
    return found


FILE = "FILE"  #: stands for one of environments
#: what else decides which rows a process has, and how they are counted
OPTIONS = {
    **{algorithm: ("--algorithm", algorithm, *SHORT.get(algorithm, ())) for algorithm in catalog.TRAINABLE},
    **variants(),
    "groups sampled equally": ("--algorithm", "CIM", "--uniform_over_groups", "true"),
    "--cross_fit": ("--algorithm", "CIM_VIB", "--cross_fit", "10"),
    "--groups pseudo": ("--algorithm", "CIM+groupDRO", "--groups", "pseudo", "--cross_fit", "10"),
    "--pseudo_environments": ("--algorithm", "CIM", "--cim_pairs", "cross_environment", "--pseudo_environments", FILE),
    "an Adam of the network's own": ("--algorithm", "CIM", "--cim_learning_rate", "0.001"),
    "--cim_mask_stride": ("--algorithm", "CIM", "--cim_mask_stride", "2"),
}


@pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)
def test_every_algorithm_and_option_has_the_gradients_of_one_process(flags, release, tmp_path):
    file = tmp_path / "environments.csv"
    lines = [f"{split},{row},{row % 3}" for split in ("train", "val") for row in range(SIZES[split])]
    file.write_text("\n".join(["split,row,environment", *lines]))
    flags = [str(file) if word == FILE else word for word in flags]
    step = (*RUN, "--n_epochs", "1", "--batch_size", str(SIZES["train"]), *flags)
    assert train(release, tmp_path / "one", *step) == 0
    argv = words(release, tmp_path / "two", *step)
    assert two_processes(argv, tmp_path / "output") == [0, 0], (tmp_path / "output.0").read_text()[-2000:]
    one, two = (gradients_of_one_step(tmp_path / name) for name in ("one", "two"))
    assert_same_weights(one, two, 1e-6)


def _refuse_rounded_pixels() -> None:
    loss_terms = RobustClassifier.loss_terms

    def checked(self, images, *words):
        assert images.dtype == torch.float32 and torch.is_autocast_enabled("cpu")
        return loss_terms(self, images, *words)

    RobustClassifier.loss_terms = checked


def test_two_processes_in_mixed_precision_do_not_round_pixels(release, tmp_path):
    """What Fabric gives to a wrapped model it would round before; a child in which that is so fails."""
    statuses = two_processes(
        words(release, tmp_path / "two", *RUN, "--precision", "bf16-mixed", algorithm="CIM"),
        tmp_path / "output",
        _refuse_rounded_pixels,
    )
    assert statuses == [0, 0], (tmp_path / "output.0").read_text()[-2000:]


def _note_when_data_is_opened(file: str) -> None:
    opened = datasets.open_dataset

    def noted(config):
        with open(file, "a") as notes:
            notes.write(f"{os.environ['RANK']} opens\n")
        time.sleep(0.5)
        data = opened(replace(config, download=False))
        with open(file, "a") as notes:
            notes.write(f"{os.environ['RANK']} has it\n")
        return data

    datasets.open_dataset = noted


def test_one_process_downloads_before_the_others_look(release, tmp_path):
    argv = words(release, tmp_path / "two", "--download", "true", "--n_epochs", "1")
    notes = tmp_path / "notes"
    assert two_processes(argv, tmp_path / "output", functools.partial(_note_when_data_is_opened, str(notes))) == [0, 0]
    lines = notes.read_text().splitlines()
    assert lines[:2] == ["0 opens", "0 has it"] and sorted(lines[2:]) == ["0 has it", "0 opens", "1 has it", "1 opens"]


def test_what_fails_in_the_first_process_ends_the_others(monkeypatch):
    said = []
    fabric = SimpleNamespace(global_rank=0, broadcast=said.append)
    with pytest.raises(ZeroDivisionError):
        on_rank_zero(fabric, lambda: 1 / 0)
    (error,) = said
    assert str(error) == "the first process failed: ZeroDivisionError('division by zero')"
    with pytest.raises(RuntimeError, match="the first process failed"):
        on_rank_zero(SimpleNamespace(global_rank=1, broadcast=lambda _: error), lambda: 1 / 0)


@pytest.mark.parametrize(
    "words, said",
    [
        ("--num_nodes 2", "--num_nodes 2 needs torchrun on each machine"),
        ("--device 0 1", "--device 0 1: torch sees no GPU here; leave it out"),
    ],
)
def test_what_would_wait_for_ever_or_do_nothing_is_refused(configure, monkeypatch, words, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=said):
        make_fabric(configure(*words.split()))


def test_gpus_named_by_number_under_torchrun_are_refused(configure, monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(InputError, match="--device 2 3 has no effect under torchrun; say by CUDA_VISIBLE_DEVICES"):
        make_fabric(configure("--device", "2", "3"))


def test_two_processes_evaluate_every_image_once(pair):
    one, two = pair
    for split, count in (("val", 41), ("test", 39), ("train", 60)):
        for ours, theirs in zip(read_csv(one / f"{split}_eval.csv"), read_csv(two / f"{split}_eval.csv"), strict=True):
            counts = {name: value for name, value in ours.items() if name.startswith("count_")}
            assert counts == {name: theirs[name] for name in counts}
            assert sum(map(float, counts.values())) == count
    for name in (name for name in relative_files(one) if name.endswith("pred.csv")):
        assert len((two / name).read_text().split()) == len((one / name).read_text().split())


@pytest.mark.parametrize("split, n_lines", [("train", 6), ("val", 2), ("test", 2)])
def test_two_processes_log_the_losses_of_the_whole_batch_and_split(pair, split, n_lines):
    one, two = (read_csv(folder / f"{split}_algo.csv") for folder in pair)
    assert len(one) == len(two) == n_lines
    for ours, theirs in zip(one, two):
        assert ours.keys() == theirs.keys()
        assert [float(value) for value in theirs.values()] == pytest.approx(
            [float(value) for value in ours.values()], abs=1e-4, nan_ok=True
        )


def test_two_processes_write_the_predictions_of_their_model(release, pair, tmp_path):
    """One process reads the model that two have trained: rows are in the order of the dataset."""
    _, two = pair
    model = next(two.glob("*best_model.pth"))
    (tmp_path / model.name).write_bytes(model.read_bytes())
    algorithm = results(two)["algorithm"]
    assert train(release, tmp_path, *RUN, *SHORT.get(algorithm, ()), "--eval_only", algorithm=algorithm) == 0
    for split in ("val", "test"):
        name = f"waterbirds_split:{split}_seed:0_epoch:best_pred.csv"
        assert (tmp_path / name).read_bytes() == (two / name).read_bytes()


def test_files_are_whole_and_written_once(pair):
    one, two = pair
    assert relative_files(one) == relative_files(two)
    assert (two / "log.txt").read_text().count("Epoch [1]:") == 1


@pytest.mark.parametrize(
    "launch",
    [
        ["-m", "cim_plugin.wilds_runner"],
        [
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            "--master_port",
            "PORT",
            "-m",
            "cim_plugin.wilds_runner",
        ],
    ],
    ids=["--devices", "torchrun"],
)
def test_both_ways_to_start_two_processes_give_the_weights_of_one(release, tmp_path, launch):
    assert train(release, tmp_path / "one", *RUN, algorithm="CIM") == 0
    devices = [] if "torch.distributed.run" in launch else ["--devices", "2"]
    argv = [free_port() if word == "PORT" else word for word in launch] + words(
        release, tmp_path / "two", *RUN, *devices, algorithm="CIM"
    )[1:]
    done = subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(tmp_path / "two")["n_processes"] == 2
    assert_same_weights(read_model(tmp_path / "one"), read_model(tmp_path / "two"), ADAMS_STEP)


def test_machines_that_torchrun_has_and_the_command_does_not_name_are_refused(release, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert train(release, tmp_path / "run", "--num_nodes", "2") == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("--num_nodes 2 does not go with torchrun's 6 processes, 2 on this machine; give --num_nodes 3")
    )


def test_a_run_of_two_processes_is_resumed_by_two(release, tmp_path):
    argv = words(release, tmp_path / "two", *RUN, algorithm="CIM_VIB")
    assert two_processes(argv, tmp_path / "output") == [0, 0]
    model = read_model(tmp_path / "two")
    lines = (tmp_path / "two" / "train_algo.csv").read_bytes()
    assert two_processes([*argv, "--resume"], tmp_path / "output") == [0, 0]
    assert (tmp_path / "two" / "train_algo.csv").read_bytes() == lines
    assert_same_weights(model, read_model(tmp_path / "two"))


def poison_the_second_process() -> None:
    """The first image of the second process's fourth batch is NaN; the first process sees only good ones."""
    original, seen = loop.to_pixels, []

    def to_pixels(*arguments):
        pixels = original(*arguments)
        seen.append(len(pixels))
        if os.environ["RANK"] == "1" and len(seen) == 4:
            pixels[0] = float("nan")
        return pixels

    loop.to_pixels = to_pixels


def test_a_loss_that_is_not_finite_in_one_process_ends_both(release, tmp_path):
    argv = words(release, tmp_path / "run", *RUN, "--batch_size", "12")
    assert two_processes(argv, tmp_path / "output", poison_the_second_process) == [1, 1]
    for rank in range(2):
        text = (tmp_path / f"output.{rank}").read_text()
        assert "the loss is not finite at epoch 0, batch 3" in text and "Traceback" not in text


def die_in_the_second_process() -> None:
    """As where memory is short: SIGKILL at the fourth batch."""
    original, seen = loop.to_pixels, []

    def to_pixels(*arguments):
        seen.append(None)
        if os.environ["RANK"] == "1" and len(seen) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    loop.to_pixels = to_pixels


def test_a_process_that_is_killed_ends_the_others_with_one_line(release, tmp_path):
    argv = words(release, tmp_path / "run", *RUN, algorithm="CIM")
    first, second = two_processes(argv, tmp_path / "output", die_in_the_second_process)
    assert second == -signal.SIGKILL and first == 1
    text = (tmp_path / "output.0").read_text()
    assert "Traceback" not in text
    assert (
        "\ncim-plugin train: error: another process of this run has ended, as where memory is short; go on with: "
        in text
    )
