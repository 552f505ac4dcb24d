"""The lock of a run: who has it, and until when."""

from __future__ import annotations

import subprocess

import pytest

from cim_plugin.runs.locks import Taken, held


def test_one_process_at_a_time_and_the_file_stays(tmp_path):
    path = tmp_path / "folder" / "run.lock"
    with held(path):
        with pytest.raises(Taken, match="run.lock"):
            with held(path):
                pass
    with held(path):
        assert path.exists()


def test_what_fails_inside_is_passed_on_and_leaves_no_lock(tmp_path):
    with pytest.raises(BlockingIOError):
        with held(tmp_path / "lock"):
            raise BlockingIOError
    with held(tmp_path / "lock"):
        pass


def test_a_process_that_inherits_the_lock_holds_it_as_well(tmp_path):
    with held(tmp_path / "lock") as descriptor:
        process = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
    try:
        with pytest.raises(Taken):
            with held(tmp_path / "lock"):
                pass
    finally:
        process.kill()
        process.wait()
    with held(tmp_path / "lock"):
        pass
