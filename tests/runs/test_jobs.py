"""The one runner of jobs: order, slots, failures, signals, and what is left where the process that asks is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cim_plugin.runs import jobs
from cim_plugin.runs.jobs import LEFT, Job, Stopped, command, failed, run

SH = ["/bin/sh", "-c"]


def shell(name: str, text: str, **settings) -> Job:
    return Job(name, command([*SH, text], **settings))


def until(true, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_jobs_run_in_order_and_a_failed_one_stops_no_other(tmp_path):
    seen = []
    statuses = run(
        [
            shell("a", f"echo a >>{tmp_path}/log"),
            shell("b", f"echo b >>{tmp_path}/log; exit 3"),
            shell("c", "kill -9 $$"),
            shell("d", f"exit {LEFT}"),
            shell("e", f"echo e >>{tmp_path}/log"),
        ],
        started=lambda job, slot: seen.append(job.name),
        ended=lambda job, status: seen.append(status),
    )
    assert statuses == {"a": 0, "b": 3, "c": -9, "d": LEFT, "e": 0}
    assert seen == ["a", 0, "b", 3, "c", -9, "d", LEFT, "e", 0]
    assert read(tmp_path / "log") == "a\nb\ne\n"
    assert failed(statuses) == {"b": "exit status 3", "c": "signal 9"}


def test_no_jobs_are_done_at_once():
    assert run([]) == {}


def test_every_slot_has_one_job_at_a_time_with_its_variables(tmp_path):
    """Each of the first two waits for the other, so they run at the same time; the third takes what is free first."""

    def meet(me: str, other: str) -> Job:
        return shell(me, f"echo $GPU >{tmp_path}/{me}; until [ -e {tmp_path}/{other} ]; do sleep 0.01; done")

    statuses = run([meet("a", "b"), meet("b", "a"), meet("c", "a")], [{"GPU": "5"}, {"GPU": "7"}])
    assert set(statuses.values()) == {0}
    assert (read(tmp_path / "a"), read(tmp_path / "b")) == ("5\n", "7\n")
    assert read(tmp_path / "c") in ("5\n", "7\n")


def test_without_going_on_a_failure_stops_the_others(tmp_path):
    waits = shell("waits", f"touch {tmp_path}/there; sleep 60")
    fails = shell("fails", f"until [ -e {tmp_path}/there ]; do sleep 0.01; done; exit 1")
    start = time.monotonic()
    statuses = run([waits, fails, shell("never", f"touch {tmp_path}/never")], [{}, {}], go_on=False)
    assert statuses == {"fails": 1} and not (tmp_path / "never").exists() and time.monotonic() - start < 30


def test_somebody_watches_at_the_beginning_and_at_the_end(tmp_path):
    seen = []
    run([shell("a", f"echo a >{tmp_path}/a")], watch=lambda: seen.append(read(tmp_path / "a")), every=3600)
    assert len(seen) == 2 and seen[-1] == "a\n"


def test_a_watcher_that_fails_leaves_no_job_behind(tmp_path):
    def watch():
        if (tmp_path / "pid").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(
            [shell("a", f"echo $$ >{tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; sleep 60")], watch=watch, every=0
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int(read(tmp_path / "pid")), 0)


NOTES = """trap 'echo INT >>{0}; exit 1' INT; trap 'echo TERM >>{0}; exit 1' TERM
touch {1}; while :; do sleep 0.01; done"""


@pytest.mark.parametrize("number, name", [(signal.SIGINT, "INT"), (signal.SIGTERM, "TERM"), (signal.SIGHUP, "TERM")])
def test_a_signal_reaches_the_running_jobs_once_and_no_other_is_started(tmp_path, number, name):
    before = signal.signal(number, signal.SIG_DFL)  # a background job ignores SIGINT
    ended = []

    def interrupt():
        until(lambda: (tmp_path / "there").exists())
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Stopped) as stopped:
            run(
                [
                    shell("first", "true"),
                    shell("second", NOTES.format(tmp_path / "notes", tmp_path / "there")),
                    shell("third", f"touch {tmp_path}/third"),
                ],
                ended=lambda job, status: ended.append(job.name),
            )
    finally:
        thread.join()
        assert signal.signal(number, before) is signal.SIG_DFL  # as it was
    assert (stopped.value.number, stopped.value.statuses) == (number, {"first": 0, "second": 1})
    assert read(tmp_path / "notes") == f"{name}\n" and ended == ["first"]
    assert not (tmp_path / "third").exists()


def test_what_is_ignored_stays_ignored():
    """As under nohup: the job sends the signal, and both go on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run([shell("a", f"kill -HUP {os.getpid()}")]) == {"a": 0}
    finally:
        signal.signal(signal.SIGHUP, before)


# --- functions --------------------------------------------------------------------------------------------------------


def note(path: Path, status: int) -> None:
    path.write_text(f"{os.environ['GPU']} {os.getsid(0) == os.getpid()}")
    sys.exit(status)


def wait(path: Path) -> None:
    try:
        path.write_text(str(os.getpid()))
        time.sleep(60)
    except KeyboardInterrupt:
        path.write_text("stopped")
        sys.exit(7)


@pytest.mark.slow
def test_a_function_has_a_process_a_session_and_the_variables_of_its_slot(tmp_path):
    context = multiprocessing.get_context("forkserver")
    statuses = run([Job("a", jobs.function(context, note, tmp_path / "a", 4))], [{"GPU": "3"}])
    assert statuses == {"a": 4} and read(tmp_path / "a") == "3 True"


def test_a_function_is_stopped_by_a_keyboard_interrupt(tmp_path):
    def fail_when_it_runs():
        if read(tmp_path / "a").isdecimal():
            raise ZeroDivisionError

    context = multiprocessing.get_context("forkserver")
    with pytest.raises(ZeroDivisionError):
        run([Job("a", jobs.function(context, wait, tmp_path / "a"))], watch=fail_when_it_runs, every=0)
    assert read(tmp_path / "a") == "stopped"


def test_a_function_ends_with_the_process_that_asked_for_it(tmp_path):
    code = (
        "import multiprocessing, sys; from pathlib import Path; from runs import test_jobs; "
        "from cim_plugin.runs import jobs; context = multiprocessing.get_context('forkserver'); "
        "jobs.run([jobs.Job('a', jobs.function(context, test_jobs.wait, Path(sys.argv[1])))])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    until(lambda: read(tmp_path / "a").isdecimal())
    process.kill()
    process.wait()
    until(lambda: read(tmp_path / "a") == "stopped")
