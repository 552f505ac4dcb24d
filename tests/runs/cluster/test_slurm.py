"""Jobs on Slurm, whose commands are stand-ins here: what sbatch is given, who is alive, and what is said."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from cim_plugin.errors import InputError
from cim_plugin.runs import jobs
from cim_plugin.runs.cluster import layout
from cim_plugin.runs.cluster.launcher import Cluster, how_to_stop
from cim_plugin.runs.cluster.schedulers import Slurm
from cim_plugin.runs.cluster.settings import Settings
from cim_plugin.runs.jobs import Job

pytest.importorskip("submitit")

#: the array's tasks run at once, one after the other; the script stays for the test to read
SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
open("{folder}/script.sh", "w").write(text)
print("Submitted batch job 12", flush=True)
last = re.search("--array=0-([0-9]+)", text)
for task in range(int(last[1]) + 1 if last else 1):
    array = {{"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": str(task)}} if last else {{}}
    variables = {{**os.environ, "SLURM_JOB_ID": "12", **array}}
    subprocess.Popen(["bash", sys.argv[-1]], env=variables, start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do [ "$1" = --output ] && shift; shift; done
exec "$@"
"""
SQUEUE = "#!/bin/sh\ncat {folder}/queue 2>/dev/null; exit 0\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    texts = {"sbatch": SBATCH.format(python=sys.executable, folder=tmp_path), "srun": SRUN}
    texts["squeue"] = SQUEUE.format(folder=tmp_path)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def shell(name: str, text: str) -> Job:
    return Job(name, jobs.command(["/bin/sh", "-c", text]))


def test_what_is_missing_is_one_array(slurm):
    settings = Settings(partition="gpu", gpus=2, time=90, array=3, own={"account": "vision", "cpus_per_task": 4})
    (slurm / "queue").write_text("12_0\n12_1\n12_2\n12_3\n")
    statuses = Cluster(settings, slurm).run([shell(f"job {number}", f"exit {number}") for number in range(4)])
    assert statuses == {f"job {number}": number for number in range(4)}
    script = (slurm / "script.sh").read_text()
    for line in ("array=0-3%3", "partition=gpu", "gpus-per-node=2", "time=90", "account=vision", "cpus-per-task=4"):
        assert f"#SBATCH --{line}\n" in script
    assert "--signal=USR2@" in script and "--open-mode=append" in script


def test_a_job_in_the_queue_is_not_submitted_again(slurm):
    folder = layout.folder(str(slurm), "a")
    os.makedirs(folder)
    Path(layout.submitted(folder)).write_bytes(layout.said({"id": "7_3"}))
    Path(layout.status(folder)).write_bytes(layout.said({"id": "7_3", "status": 0}))
    (slurm / "queue").write_text("7_2\n7_3\n")
    assert Cluster(Settings(), slurm).run([shell("a", "exit 1")]) == {"a": 0}
    assert not (slurm / "script.sh").exists()
    assert how_to_stop(slurm, "slurm") == "the jobs go on; stop them with: scancel 7"


def test_one_that_is_no_more_is(slurm):
    folder = layout.folder(str(slurm), "a")
    os.makedirs(folder)
    Path(layout.submitted(folder)).write_bytes(layout.said({"id": "7_3"}))
    assert Cluster(Settings(), slurm).run([shell("a", "exit 1")]) == {"a": 1}
    assert how_to_stop(slurm, "slurm") == "no job is left on the cluster"


def test_a_scheduler_that_does_not_answer_ends_no_job(slurm):
    (slurm / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert Slurm().alive([{"id": "7_3"}]) == {"7_3"}


def test_what_sbatch_refuses_is_one_line(slurm):
    (slurm / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpuu' >&2\nexit 1\n")
    with pytest.raises(InputError, match="not submitted: .*invalid partition: gpuu"):
        Cluster(Settings(partition="gpuu"), slurm).run([shell("a", "true")])


def test_a_parameter_that_submitit_does_not_know_is_one_line(slurm):
    with pytest.raises(InputError, match="not submitted: .*acount"):
        Cluster(Settings(own={"acount": "vision"}), slurm).run([shell("a", "true")])
