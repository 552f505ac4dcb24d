"""DomainBed's scripts with our algorithms: train, sweep, collect_results and list_top_hparams."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from hosts import forked_host
from hosts.forked_host import SMALL_HOST

pytestmark = pytest.mark.slow

OURS = ["CIM", "CIM_VIB", "VIB", "SCL_E2E", "CnC"]
DIGITS = ["--dataset", "DebugDigitsOnPhotos"]
TEST_ENVS = [[0], [0, 1], [0, 2], [1], [1, 2], [2]]  #: what a sweep over three environments runs
METHODS = [
    "training-domain validation set",
    "leave-one-domain-out cross-validation",
    "test-domain validation set (oracle)",
]


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def wrong_python(tmp_path_factory) -> str:
    """A PATH whose first ``python`` does nothing but fail."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text("#!/bin/sh\nexit 3\n")
    (folder / "python").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


# --- train -----------------------------------------------------------------------------------------------------------


def train(host: Path, folder: Path, algorithm: str, *words: str) -> dict:
    """One step with a third of the test environment as unlabeled images; what the saved model gives beside the trained
    one.
    """
    argv = [*DIGITS, "--algorithm", algorithm, "--steps", "1", "--test_envs", "2", "--output_dir", str(folder), *words]
    code = f"""
import json, runpy, sys, torch
sys.argv = ["train", *{argv}]
script = runpy.run_module("domainbed.scripts.train", run_name="__main__", alter_sys=True)

saved = torch.load("{folder}/model.pkl", weights_only=True)
Algorithm = sys.modules["domainbed.algorithms"].get_algorithm_class(saved["args"]["algorithm"])
sizes = [saved["model_" + name] for name in ("input_shape", "num_classes", "num_domains")]
loaded = Algorithm(*sizes, saved["model_hparams"])
loaded.load_state_dict(saved["model_dict"])

images = torch.cat([environment.tensors[0][:50] for environment in script["dataset"]])
trained, loaded = (algorithm.eval().predict(images) for algorithm in (script["algorithm"], loaded))
told = {{"same": torch.equal(trained, loaded), "predictions": trained.argmax(1).tolist()}}
print(json.dumps({{**told, "hparams": saved["model_hparams"]}}))
"""
    done = forked_host.run(host, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.host
@pytest.mark.parametrize("algorithm", OURS)
def test_domain_adaptation_trains_and_the_saved_model_predicts_the_same(algorithm, domainbed, tmp_path):
    told = train(domainbed, tmp_path, algorithm, "--task", "domain_adaptation", "--uda_holdout_fraction", "0.3")
    assert told["same"] and len(told["predictions"]) == 150
    (record,) = records(tmp_path)
    assert record["hparams"] == told["hparams"] and (tmp_path / "done").exists()
    accuracies = {f"env{environment}_{split}_acc" for environment in range(3) for split in ("in", "out")} | {
        "env0_uda_acc"
    }
    assert all(0 <= record[name] <= 1 for name in accuracies)


@pytest.mark.host
def test_run_follows_from_its_seed(domainbed, tmp_path):
    runs = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        train(domainbed, tmp_path / name, "CIM_VIB", "--seed", str(seed), "--hparams", '{"batch_size": 8}')
        (record,) = records(tmp_path / name)
        runs[name] = {key: value for key, value in record.items() if key not in ("step_time", "args")}
    assert runs["first"] == runs["again"]
    assert runs["first"]["loss"] != runs["other"]["loss"]


# --- cim_local -------------------------------------------------------------------------------------------------------


def test_cim_local_runs_every_job_with_this_interpreter_and_says_how_many_failed(wrong_python, tmp_path):
    jobs = [
        f"python -m domainbed.scripts.train --algorithm CIM --steps 1 --hparams '{text}'"
        for text in ('{"cim_lambda": -1}', '{"cim_lambda": 0.5}')
    ]
    code = f"from domainbed import command_launchers\ncommand_launchers.REGISTRY['cim_local']({jobs})"
    done = forked_host.run(SMALL_HOST, "-c", code, cwd=tmp_path, PATH=wrong_python)
    assert done.returncode == 1
    assert done.stdout.count('"L_con"') == 1  # the second ran
    assert "error: cim_lambda=-1" in done.stderr
    assert "cim_local: 1 of 2 jobs failed" in done.stderr and "delete_incomplete" in done.stderr.splitlines()[-1]


def test_cim_local_keeps_every_visible_gpu_busy_with_one_job(tmp_path):
    """Two jobs that wait for each other end only where both run at once."""
    meet = (
        "import os, pathlib, time; gpu = os.environ['CUDA_VISIBLE_DEVICES']; pathlib.Path(gpu).touch()\nwhile not "
        "(pathlib.Path('3').exists() and pathlib.Path('5').exists()): time.sleep(0.05)"
    )
    jobs = [shlex.join([sys.executable, "-c", meet])] * 2 + [shlex.join([sys.executable, "-c", "raise SystemExit(3)"])]
    code = (
        f"import torch; torch.cuda.device_count = lambda: 2\nfrom domainbed import "
        f"command_launchers\ncommand_launchers.REGISTRY['cim_local']({jobs!r})"
    )
    done = forked_host.run(SMALL_HOST, "-c", code, cwd=tmp_path, CUDA_VISIBLE_DEVICES="3,5,7")
    assert done.returncode == 1 and "cim_local: 1 of 3 jobs failed" in done.stderr
    assert "cim_local: job 1 of 3 on GPU 3" in done.stdout and "cim_local: job 2 of 3 on GPU 5" in done.stdout


def test_cim_local_runs_as_many_jobs_at_once_as_it_is_told(tmp_path):
    """Two jobs that wait for each other end only where both run at once."""
    meet = (
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.05)"
    )
    jobs = [shlex.join([sys.executable, "-c", meet, *names]) for names in (("one", "other"), ("other", "one"))]
    code = f"from domainbed import command_launchers\ncommand_launchers.REGISTRY['cim_local']({jobs!r})"
    places = {"cwd": tmp_path, "CUDA_VISIBLE_DEVICES": ""}
    done = forked_host.run(SMALL_HOST, "-c", code, CIM_PLUGIN_AT_ONCE="2", **places)
    assert done.returncode == 0, done.stderr
    done = forked_host.run(SMALL_HOST, "-c", code, CIM_PLUGIN_AT_ONCE="0", **places)
    assert done.returncode == 2
    assert done.stderr == "cim_local: error: CIM_PLUGIN_AT_ONCE: 0 is not a whole number of at least 1\n"


# --- cim_submitit ----------------------------------------------------------------------------------------------------


@pytest.fixture
def local_cluster(tmp_path) -> dict[str, str]:
    """The variable that names a file of submitit's local executor."""
    pytest.importorskip("submitit")
    (tmp_path / "cluster.json").write_text('{"cluster": "local", "array": 2}')
    return {"CIM_PLUGIN_CLUSTER": str(tmp_path / "cluster.json")}


def submitted(folder: Path, numbers: list[int]) -> str:
    """Code that launches jobs by name; one whose folder has no file "good" in it fails."""
    script = "import pathlib, sys; f = pathlib.Path(sys.argv[2]); assert (f / 'good').exists(); (f / 'done').touch()"
    lines = [
        shlex.join([sys.executable, "-c", script, "--output_dir", str(folder / f"job{number}")]) for number in numbers
    ]
    return f"from domainbed import command_launchers\ncommand_launchers.REGISTRY['cim_submitit']({lines!r})"


def test_cim_submitit_says_which_jobs_failed_and_submits_what_is_missing(local_cluster, tmp_path):
    for number in range(3):
        (tmp_path / f"job{number}").mkdir()
        (tmp_path / f"job{number}" / "results.jsonl").write_text("of a job that was killed")
    (tmp_path / "job0" / "good").touch()
    done = forked_host.run(SMALL_HOST, "-c", submitted(tmp_path, [0, 1]), cwd=tmp_path, **local_cluster)
    assert done.returncode == 1 and "cim_submitit: 1 jobs failed; 'launch' runs them again" in done.stderr
    assert done.stderr.splitlines()[-1] == f"  {tmp_path}/cluster/job1/log.txt: exit status 1"
    (tmp_path / "job1" / "good").touch()
    done = forked_host.run(SMALL_HOST, "-c", submitted(tmp_path, [0, 1]), cwd=tmp_path, **local_cluster)
    assert done.returncode == 0 and done.stderr.startswith("1 jobs on local")
    assert [(tmp_path / f"job{number}" / "results.jsonl").exists() for number in range(3)] == [False, False, True]
    done = forked_host.run(SMALL_HOST, "-c", submitted(tmp_path, [0, 1]), cwd=tmp_path, **local_cluster)
    assert (done.returncode, done.stdout) == (0, "cim_submitit: no job is missing\n")


def test_cim_submitit_without_a_cluster_is_one_line(tmp_path):
    done = forked_host.run(SMALL_HOST, "-c", submitted(tmp_path, [0]), cwd=tmp_path, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cim_submitit: error: Slurm's sbatch is not on the path")


@pytest.mark.host
def test_a_killed_sweep_on_a_cluster_is_finished_by_the_same_command(domainbed, local_cluster, tmp_path):
    """Its jobs go on without it; the same command finds them, and starts those that were killed or never started."""
    folder = tmp_path / "sweep"
    words = ["cim_submitit" if word == "cim_local" else word for word in sweep_words("launch", folder)]
    words.append("--single_test_envs")
    variables = {**os.environ, **forked_host.variables(domainbed), **local_cluster}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sweep = subprocess.Popen([sys.executable, *words], env=variables, start_new_session=True, **quiet)
    while not (locks := list(folder.glob("cluster/*/.cim_plugin.lock"))) and sweep.poll() is None:
        time.sleep(0.1)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    os.kill(json.loads(locks[0].read_text())["pid"], signal.SIGKILL)
    done = forked_host.run(domainbed, *words, timeout=600, **local_cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(records(job)[0]["args"]["test_envs"] for job in finished(folder)) == [[0], [1], [2]]
    assert all(len(records(job)) == 1 for job in finished(folder))


# --- sweep, collect_results, list_top_hparams ------------------------------------------------------------------------


def sweep_words(command: str, folder: Path) -> list[str]:
    words = [
        "sweep",
        command,
        "--algorithms",
        "CIM",
        "--datasets",
        "DebugDigitsOnPhotos",
        "--data_dir",
        "unused",
        "--output_dir",
        str(folder),
    ]
    words += [
        "--command_launcher",
        "cim_local",
        "--n_hparams",
        "1",
        "--n_trials",
        "1",
        "--steps",
        "1",
        "--hparams",
        '{"batch_size": 8}',
    ]
    return ["-m", "cim_plugin.domainbed", *words, "--skip_confirmation"]


def finished(folder: Path) -> list[Path]:
    return [file.parent for file in sorted(folder.glob("*/done"))]


def launch_and_kill(host: Path, folder: Path, **environment: str) -> None:
    """Start the sweep and end it, job and all, when its first job is done."""
    variables = {**os.environ, **forked_host.variables(host), **environment}
    words = [sys.executable, *sweep_words("launch", folder)]
    sweep = subprocess.Popen(
        words, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not finished(folder) and sweep.poll() is None:
        time.sleep(0.1)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()


class Swept(NamedTuple):
    folder: Path
    before: dict[Path, int]  #: job that was done when the sweep was killed -> when its model was written
    said: dict[str, str]  #: command -> what the host printed


@pytest.fixture(scope="module")
def swept(domainbed, wrong_python, tmp_path_factory) -> Swept:
    """A sweep of CIM, without autoload, that was killed, tidied up and launched again."""
    folder = tmp_path_factory.mktemp("sweep")
    environment = {"CIM_PLUGIN_AUTOLOAD": "0", "PATH": wrong_python}
    launch_and_kill(domainbed, folder, **environment)
    before = {job: (job / "model.pkl").stat().st_mtime_ns for job in finished(folder)}
    said = {}
    for command in ("delete_incomplete", "launch"):
        done = forked_host.run(domainbed, *sweep_words(command, folder), timeout=300, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        said[command] = done.stdout
    return Swept(folder, before, said)


@pytest.mark.host
def test_killed_sweep_goes_on_where_it_was(swept):
    n_before = len(swept.before)
    assert 1 <= n_before < 6
    assert f"6 jobs: {n_before} done, {6 - n_before} incomplete, 0 not launched." in swept.said["delete_incomplete"]
    assert f"Deleted {6 - n_before} jobs!" in swept.said["delete_incomplete"]
    assert f"6 jobs: {n_before} done, 0 incomplete, {6 - n_before} not launched." in swept.said["launch"]
    assert f"Launched {6 - n_before} jobs!" in swept.said["launch"]
    assert {job: (job / "model.pkl").stat().st_mtime_ns for job in swept.before} == swept.before
    assert sorted(records(job)[0]["args"]["test_envs"] for job in finished(swept.folder)) == TEST_ENVS


@pytest.mark.host
def test_sweep_with_autoload_finds_the_jobs_that_the_fallback_did(swept, domainbed):
    words = sweep_words("delete_incomplete", swept.folder)
    done = forked_host.run(domainbed, "-m", "domainbed.scripts.sweep", *words[words.index("delete_incomplete") :])
    assert done.returncode == 0, done.stderr
    assert "6 jobs: 6 done, 0 incomplete, 0 not launched." in done.stdout


def _reference_cells(folder: Path) -> list[float]:
    """Accuracy on each test environment and their average, in percent; with one run of one step all three methods
    select it.
    """
    accuracies = {}
    for job in finished(folder):
        (record,) = records(job)
        if len(record["args"]["test_envs"]) == 1:
            (environment,) = record["args"]["test_envs"]
            accuracies[environment] = 100 * record[f"env{environment}_in_acc"]
    return [*(accuracies[environment] for environment in range(3)), statistics.mean(accuracies.values())]


@pytest.mark.host
@pytest.mark.parametrize(
    "module",
    [["domainbed.scripts.collect_results"], ["cim_plugin.domainbed", "collect_results"]],
    ids=["autoload", "fallback"],
)
@pytest.mark.parametrize("latex", [False, True], ids=["plain", "LaTeX"])
def test_tables_name_cim_under_all_three_selection_methods(module, latex, swept, domainbed):
    words = ["-m", *module, "--input_dir", str(swept.folder), *(["--latex"] if latex else [])]
    done = forked_host.run(domainbed, *words, CIM_PLUGIN_AUTOLOAD=str(int(len(module) == 1)))
    assert done.returncode == 0, done.stderr
    *cells, average = [f"{value:.1f}" for value in _reference_cells(swept.folder)]
    plus_minus = " $\\pm$ 0.0" if latex else " +/- 0.0"
    row = ["CIM", *(cell + plus_minus for cell in cells), average]
    separator = r"\s*&\s*" if latex else r"\s+"
    assert len(re.findall("^" + separator.join(map(re.escape, row)), done.stdout, re.MULTILINE)) == 3
    environments = [r"+90\%", r"+80\%", r"-90\%"] if latex else ["+90%", "+80%", "-90%"]
    assert all(done.stdout.count(name) == 3 for name in environments)
    heading = (
        "\\subsection{{Model selection: {}}}" if latex else "Dataset: DebugDigitsOnPhotos, model selection method: {}"
    )
    assert all(heading.format(method) in done.stdout for method in METHODS)


@pytest.mark.host
@pytest.mark.parametrize(
    "module",
    [["domainbed.scripts.list_top_hparams"], ["cim_plugin.domainbed", "list_top_hparams"]],
    ids=["autoload", "fallback"],
)
def test_top_hparams_lists_ours_and_their_run(module, swept, domainbed):
    words = ["-m", *module, "--input_dir", str(swept.folder), *DIGITS, "--algorithm", "CIM", "--test_env", "2"]
    done = forked_host.run(domainbed, *words, CIM_PLUGIN_AUTOLOAD=str(int(len(module) == 1)))
    assert done.returncode == 0, done.stderr
    (run,) = [job for job in finished(swept.folder) if records(job)[0]["args"]["test_envs"] == [2]]
    for method, part in zip(METHODS, done.stdout.split("Model selection: ")[1:], strict=True):
        lines = [line.strip() for line in part.splitlines()]
        assert lines[0] == method
        assert {"cim_lambda: 1.0", "cim_targets: input", "batch_size: 8", str(run)} <= set(lines)
