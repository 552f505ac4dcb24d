"""The files of docs/clusters.md: what Slurm is given, SkyPilot's task's commands, and Ray's tasks by a stand-in."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest
from interpreters import HERE

from cim_plugin import cli
from cim_plugin.runs.cluster import settings

EXAMPLES = HERE.parent / "examples" / "clusters"

#: a Ray whose tasks run when they are asked for
RAY = """
def remote(**resources):
    assert resources == {"num_gpus": 1, "max_retries": 10}
    return lambda function: type("Task", (), {"remote": staticmethod(lambda *words: lambda: function(*words))})
def get(tasks):
    return [task() for task in tasks]
"""


def test_the_file_for_slurm_has_settings_that_it_takes(monkeypatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("CIM_PLUGIN_CLUSTER", str(EXAMPLES / "slurm.json"))
    monkeypatch.setattr(settings.shutil, "which", lambda name: name)
    asked = settings.of_environment()
    assert (asked.cluster, asked.partition, asked.array) == ("slurm", "gpu", 8)
    assert set(asked.own) <= set(submitit.SlurmExecutor._valid_parameters())


def test_the_commands_of_the_skypilot_task_are_ones_that_we_take():
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    lines = [line for part in ("setup", "run") for line in task[part].splitlines() if line.startswith("cim-plugin ")]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.replace("$SEED", "0"))[1:]
        assert cli.build_parser(words[:1])[0].parse_known_args(words)[1] == []


def test_rays_tasks_train_every_seed_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "ray.py").write_text(RAY)
    (tmp_path / "cim_plugin").mkdir()
    (tmp_path / "cim_plugin" / "__init__.py").touch()
    told = "import json, sys; print(json.dumps(sys.argv[1:]), flush=True); sys.exit('1' in sys.argv)"
    (tmp_path / "cim_plugin" / "cli.py").write_text(told)
    words = ["0", "1", "--", "-d", "waterbirds", "--log_dir", "shared", "--algorithm", "CIM"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "ray_seeds.py"), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "CIM_PLUGIN_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr  # seed 1 failed
    expected = ["train", "-d", "waterbirds", "--algorithm", "CIM", "--seed"]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        [*expected, seed, "--log_dir", f"shared/seed_{seed}", "--resume"] for seed in "01"
    ]
