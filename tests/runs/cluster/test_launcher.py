"""Jobs by submitit's local executor: what is submitted, what outlives the command, and what a preempted job does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cim_plugin.errors import InputError
from cim_plugin.runs import jobs
from cim_plugin.runs.cluster import layout
from cim_plugin.runs.cluster.launcher import VANISHED, Cluster
from cim_plugin.runs.cluster.settings import Settings
from cim_plugin.runs.cluster.work import TIME_IS_OVER
from cim_plugin.runs.jobs import Job

pytest.importorskip("submitit")
HERE = Settings(cluster="local", gpus=0, time=600, array=2)

#: appends its name, says that it is there, and goes on until somebody makes the file "go"; SIGTERM is noted
WAITS = """trap 'echo stopped >>{folder}/{name}; exit 143' TERM
echo started >>{folder}/{name}; until [ -e {folder}/go ]; do sleep 0.02; done; echo done >>{folder}/{name}"""


def shell(name: str, text: str) -> Job:
    return Job(name, jobs.command(["/bin/sh", "-c", text], preexec_fn=jobs.end_with_parent))


def waits(name: str, folder: Path) -> Job:
    return shell(name, WAITS.format(name=name, folder=folder))


def until(true, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def submitted(root: Path, name: str) -> dict:
    return json.loads(Path(layout.submitted(layout.folder(str(root), name))).read_text())


def worker(root: Path, name: str) -> int:
    """The process that holds the job's folder: submitit's, of which the job is a child."""
    return json.loads(Path(layout.folder(str(root), name), ".cim_plugin.lock").read_text())["pid"]


@pytest.fixture
def command(tmp_path):
    """A function that starts a command with jobs "a" and "b" that wait, as a process of its own in a session of its
    own, and gives it when both run.
    """
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; from pathlib import Path; import test_launcher "
        f"as t; folder = Path(sys.argv[1]); print(t.Cluster(t.HERE, folder).run([t.waits(n, folder) for n in 'ab']))"
    )

    def start() -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        until(lambda: process.poll() is not None or all("started" in read(tmp_path / name) for name in "ab"))
        return process

    yield start
    (tmp_path / "go").touch()


@pytest.mark.slow
def test_every_job_has_its_status_and_one_log(tmp_path, capfd):
    wanted = [shell("good", "echo said; echo told >&2"), shell("bad one", "exit 3"), shell("killed", "kill -9 $$")]
    assert Cluster(HERE, tmp_path).run(wanted) == {"good": 0, "bad one": 3, "killed": -9}
    assert read(tmp_path / "cluster" / "good" / "log.txt").startswith("said\ntold\n")
    assert (tmp_path / "cluster" / "bad_one" / "log.txt").exists()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("3 jobs on local, 2 at a time; logs: ") and "Ctrl-C leaves them running" in line


@pytest.mark.slow
def test_slots_of_gpus_are_told_to_the_jobs(tmp_path):
    wanted = [shell(name, "echo gpus $CUDA_VISIBLE_DEVICES; sleep 1") for name in "ab"]
    settings = Settings(cluster="local", gpus=2, array=2)
    assert set(Cluster(settings, tmp_path).run(wanted).values()) == {0}
    said = {read(tmp_path / "cluster" / name / "log.txt").splitlines()[0] for name in "ab"}
    assert said == {"gpus 0,1", "gpus 2,3"}


def test_ctrl_c_leaves_the_jobs_says_how_to_stop_them_and_the_same_command_finds_them(command, tmp_path):
    first = command()
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    _, errors = first.communicate(timeout=60)
    ids = [submitted(tmp_path, name)["id"] for name in "ab"]
    assert f"the jobs go on; stop them with: kill {' '.join(ids)}" in errors.splitlines()
    second = command()
    until(lambda: "2 of them there already" in (second.stderr.readline() or "2 of them there already"))
    (tmp_path / "go").touch()
    output, _ = second.communicate(timeout=60)
    assert output == "{'a': 0, 'b': 0}\n"
    assert [read(tmp_path / name) for name in "ab"] == ["started\ndone\n"] * 2


@pytest.mark.slow
def test_jobs_outlive_a_command_that_was_killed_and_what_is_missing_is_submitted_again(command, tmp_path):
    """Of "b" submitit's process is killed as well: its job ends with it."""
    first = command()
    first.kill()
    first.communicate()
    os.kill(worker(tmp_path, "b"), signal.SIGKILL)
    until(lambda: read(tmp_path / "b").endswith("stopped\n"))
    process = submitted(tmp_path, "b")["pid"]
    until(lambda: not os.path.exists(f"/proc/{process}") or "\nState:\tZ" in read(Path(f"/proc/{process}/status")))
    second = command()
    until(lambda: read(tmp_path / "b").count("started") == 2)
    (tmp_path / "go").touch()
    output, errors = second.communicate(timeout=60)
    assert output == "{'a': 0, 'b': 0}\n" and "1 of them there already" in errors
    assert read(tmp_path / "a") == "started\ndone\n"
    assert read(tmp_path / "b") == "started\nstopped\nstarted\ndone\n"


def test_what_is_said_stops_the_jobs(command, tmp_path):
    process = command()
    subprocess.run(["kill", *(submitted(tmp_path, name)["id"] for name in "ab")], check=True)
    output, _ = process.communicate(timeout=60)
    assert output == "{'a': 143, 'b': 143}\n"
    assert [read(tmp_path / name) for name in "ab"] == ["started\nstopped\n"] * 2


def test_a_preempted_job_is_stopped_and_queued_again(command, tmp_path):
    process = command()
    before = worker(tmp_path, "a")
    os.kill(before, signal.SIGUSR2)  # what Slurm sends
    until(lambda: read(tmp_path / "a") == "started\nstopped\nstarted\n")
    assert worker(tmp_path, "a") != before
    (tmp_path / "go").touch()
    output, _ = process.communicate(timeout=60)
    assert output == "{'a': 0, 'b': 0}\n" and read(tmp_path / "a") == "started\nstopped\nstarted\ndone\n"


def test_a_job_that_cannot_be_resumed_ends_when_its_time_is_over(tmp_path):
    """With one minute of time every signal says that it is over."""
    settings = Settings(cluster="local", gpus=0, time=1, array=1)
    text = "kill -USR2 $PPID; sleep 60"
    cluster = Cluster(settings, tmp_path, resumes=False)
    assert cluster.run([shell("long", text)]) == {"long": TIME_IS_OVER}
    assert "timed-out" in read(tmp_path / "cluster" / "long" / "log.txt")


def test_leftovers_are_removed_before_every_start(tmp_path):
    (tmp_path / "results").write_text("of a run that was killed\n")
    cluster = Cluster(HERE, tmp_path, leftovers=lambda name: [str(tmp_path / "results"), str(tmp_path / "none")])
    assert cluster.run([shell("a", f"echo new >>{tmp_path}/results")]) == {"a": 0}
    assert read(tmp_path / "results") == "new\n"


@pytest.mark.slow
def test_a_job_whose_processes_were_all_killed_is_said_to_have_vanished(tmp_path, capfd):
    text = f"echo $PPID >{tmp_path}/worker; sleep 60"
    killing = f"until [ -s {tmp_path}/worker ]; do sleep 0.02; done; w=$(cat {tmp_path}/worker); "
    killing += "c=$(ps -o ppid= -p $w); kill -9 $c $w"
    statuses = Cluster(HERE, tmp_path).run([shell("gone", text), shell("kills", killing)])
    assert statuses == {"kills": 0, "gone": VANISHED}
    assert "gone: ended without a word" in capfd.readouterr().err


def test_without_submitit_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"needs the package 'submitit'; pip install 'cim_plugin\[cluster\]'"):
        Cluster(HERE, tmp_path)


def test_what_submitit_refuses_is_one_line(tmp_path):
    with pytest.raises(InputError, match="^not submitted: submitit: error: .*only one node"):
        Cluster(Settings(cluster="local", gpus=0, own={"nodes": 2}), tmp_path).run([shell("a", "true")])
