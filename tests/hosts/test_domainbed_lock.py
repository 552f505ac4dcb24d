"""Two runs of ours do not write one output folder of DomainBed; a sweep that is told to end ends its jobs."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import sys
import time

import pytest
from hosts import forked_host
from hosts.forked_host import SMALL_HOST

from cim_plugin.hosts import launcher
from cim_plugin.runs.folder_lock import FolderLock

TRAIN = ("-m", "domainbed.scripts.train", "--steps", "1", "--output_dir")


@pytest.mark.parametrize("algorithm, status", [("CIM", 2), ("CIM+ERM", 2), ("ERM", 0)])
def test_a_folder_that_is_being_written_is_refused_to_ours(tmp_path, algorithm, status):
    words = (*TRAIN, str(tmp_path), "--algorithm", algorithm)
    with FolderLock(str(tmp_path)):
        done = forked_host.run(SMALL_HOST, *words)
    assert done.returncode == status, done.stderr
    if status:
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: --output_dir {tmp_path} is being written by another command (process ")
        assert done.stdout == ""


def test_what_a_dead_run_left_is_taken_over(tmp_path):
    for _ in range(2):  # the forked host ends without tidying up, as a killed one does
        assert forked_host.run(SMALL_HOST, *TRAIN, str(tmp_path), "--algorithm", "CIM").returncode == 0


def test_a_sweep_that_gets_sigterm_ends_its_jobs(tmp_path):
    job = "import os, sys, time; open(sys.argv[1] + '.part', 'w').write(str(os.getpid()))\n"
    job += "os.replace(sys.argv[1] + '.part', sys.argv[1]); time.sleep(100)"
    command = shlex.join([sys.executable, "-c", job, str(tmp_path / "pid")])
    sweep = multiprocessing.get_context("fork").Process(target=launcher.cim_local, args=([command] * 2,))
    sweep.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(sweep.pid, signal.SIGTERM)
    sweep.join(60)
    assert sweep.exitcode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_handler_of_sigterm_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    launcher.cim_local([])
    assert signal.getsignal(signal.SIGTERM) is before
