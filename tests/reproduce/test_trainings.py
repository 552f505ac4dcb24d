"""What is left of a run where a process is killed, and that the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from interpreters import HERE
from stand_ins import reproduce, write_mnist

from cim_plugin.runs.folder_lock import FolderLock

pytestmark = pytest.mark.slow


def _trainer_of(command: int) -> int:
    """The process of the run: the fork server, a child of the command, has forked it."""
    pairs = [
        tuple(map(int, line.split()))
        for line in subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout.splitlines()
    ]
    children = {pid for pid, parent in pairs if parent == command}
    return next(pid for pid, parent in pairs if parent in children)


@pytest.mark.parametrize("killed", ["command", "run"])
def test_killed_process_leaves_none_behind_and_a_state(killed, tmp_path):
    write_mnist(tmp_path / "mnist")
    command = [
        sys.executable,
        "-m",
        "scripts.reproduce",
        "colored_mnist",
        "--algorithms",
        "ERM",
        "--seeds",
        "0",
        "--n_trials",
        "0",
        "--n_epochs",
        "2000",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MNIST_HOME": str(tmp_path / "mnist"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(HERE.parent),
    }
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    results = tmp_path / "reproduction" / "colored_mnist" / "colored_mnist" / "ERM-0" / "results.json"
    while not results.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    os.kill(process.pid if killed == "command" else _trainer_of(process.pid), signal.SIGKILL)
    _, said = process.communicate(timeout=60)  # ends when no process holds the pipes
    assert json.loads(results.read_text())["status"] == "running" and results.with_name("state.pth").exists()
    if killed == "command":
        assert process.returncode == -signal.SIGKILL
    else:
        line = "ERM, seed 0: error: ended by SIGKILL, as where memory is short; the same command goes on"
        assert (
            process.returncode == 1 and line in said.splitlines()
        )  # Python may add what a killed process could not tidy up


def test_failed_run_stops_no_other_and_one_that_another_command_trains_is_left_to_it(tmp_path):
    write_mnist(tmp_path / "mnist")
    folder = tmp_path / "reproduction" / "quick" / "colored_mnist" / "colored_mnist"
    folder.mkdir(parents=True)
    words = ["--quick", "--n_trials", "0", "--algorithms", "ERM", "VIB", "CIM"]
    (folder / "ERM-0").mkdir()
    (folder / "ERM-0" / "state.pth").write_text("damaged")
    with FolderLock(str(folder / "VIB-0")):
        done = reproduce("colored_mnist", *words, cwd=tmp_path)
    said = done.stderr.splitlines()
    assert done.returncode == 1 and "VIB, seed 0: left to the command that is training it" in said
    assert any(line.startswith("ERM, seed 0: error: --resume: ") for line in said)
    lines = done.stdout.splitlines()
    start = lines.index("selected by average") + 1
    (line,) = lines[start : lines.index("", start)]
    assert line.split()[0] == "CIM"
    (folder / "ERM-0" / "state.pth").unlink()
    done = reproduce("colored_mnist", *words, cwd=tmp_path)
    assert done.returncode == 0 and "run 2 of 2: VIB" in done.stderr
